"""Other people's samplers on a table, as their own users would run them: the peers of `search_quality.py`.

Optuna's by ask and tell, with the cost as the second objective, in settings chosen on up to five tables (2026-11-21,
Optuna 5.0, 3 to 5 seeds), with mixed results: TPE multivariate and in groups rather than univariate (0.93 to 0.86 on
NAS-Bench-Macro at 100 trained networks, 0.71 to 0.68 on Accel-NASBench); every dimension categorical, ordered ones too
(TPE 0.71 to 0.66 on Accel-NASBench, GP 0.91 to 0.89 on NAS-Bench-Macro). A network that was trained already is
answered from memory and told once more: told FAIL instead, TPE comes to 0.88 instead of 0.95 at 200 on a table with
conditions, and to 0.03 or 0.04 more on two others. A combination that is not in the table is told FAIL, which Optuna
leaves out. A sampler that comes to nothing new for `STUCK` proposals in a row gets a random network that is new.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState, create_trial

from mlpspace.replay.table import TableDomain
from mlpspace.space.dims import Choice, Span, Value
from mlpspace.space.space import Candidate

STUCK = 10
POPULATION = 20  # of NSGA-II

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

Make = Callable[[int], optuna.samplers.BaseSampler]

OPTUNA: dict[str, Make] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A network that was trained to the end."""

    costs: tuple[float, ...]
    epochs: int  # trained until then, all networks together
    cpu_seconds: float  # that it took to come to it


def random(domain: TableDomain, seed: int) -> Iterator[Found]:
    """Random networks, none twice."""
    rng = np.random.default_rng(seed)
    known: set[str] = set()
    while len(known) < domain.table.size:
        begun = time.process_time()
        candidate = _new(domain, known, rng)
        known.add(candidate.architecture.id)
        yield Found(_costs(domain, candidate), len(known) * domain.epochs[-1], time.process_time() - begun)


def with_optuna(name: str, domain: TableDomain, seed: int) -> Iterator[Found]:
    """What one of Optuna's samplers comes to; networks that are new, none twice."""
    study = optuna.create_study(directions=["minimize"] * len(domain.objectives), sampler=OPTUNA[name](seed))
    rng = np.random.default_rng([seed, 1])
    known: dict[str, tuple[float, ...]] = {}
    vain, begun = 0, time.process_time()
    while len(known) < domain.table.size:
        if vain == STUCK:
            candidate = _new(domain, known.keys(), rng)
            known[candidate.architecture.id] = costs = _costs(domain, candidate)
            study.add_trial(_frozen(domain, candidate, costs))
        else:
            trial = study.ask()
            candidate = domain.candidate(partial(_suggest, trial))
            if domain.refusal(candidate) is not None:
                study.tell(trial, state=TrialState.FAIL)
                vain += 1
                continue
            if candidate.architecture.id in known:
                study.tell(trial, known[candidate.architecture.id])
                vain += 1
                continue
            known[candidate.architecture.id] = costs = _costs(domain, candidate)
            study.tell(trial, costs)
        vain = 0
        yield Found(costs, len(known) * domain.epochs[-1], time.process_time() - begun)
        begun = time.process_time()


def moasha(domain: TableDomain, seed: int) -> Iterator[Found]:
    """Syne Tune's multi-objective ASHA: random networks, stopped at a rung unless among the best share there.

    With a priority of its own making: that of Syne Tune 0.16 gives the order where the scheduler takes ranks (row
    numbers, the best row's first), so that who goes on is next to chance.
    """
    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import randint
    from syne_tune.optimizer.scheduler import SchedulerDecision
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    names = [objective.metric for objective in domain.objectives]
    last = domain.epochs[-1]
    scheduler = MOASHA(
        {"any": randint(0, 1)},  # the network is drawn from the table instead
        names,
        time_attr="epoch",
        multiobjective_priority=ranked(),
        max_t=last,
        grace_period=domain.epochs[0],
        reduction_factor=1 / domain.keep,
        random_seed=seed,
    )
    rng = np.random.default_rng(seed)
    known: set[str] = set()
    epochs, begun = 0, time.process_time()
    while len(known) < domain.table.size:
        candidate = _new(domain, known, rng)
        trial = Trial(len(known), scheduler.suggest().config, datetime.now())
        known.add(candidate.architecture.id)
        scheduler.on_trial_add(trial)
        values = dict(domain.known(candidate))
        curve = zip(domain.table.trained_epochs, domain.table.accuracy(candidate.point), strict=True)
        for epoch, accuracy in curve:
            values["accuracy"] = accuracy
            epochs += 1
            costs = tuple(each.cost(values[each.metric]) for each in domain.objectives)
            told = {"epoch": epoch, **dict(zip(names, costs, strict=True))}
            if epoch == last:
                scheduler.on_trial_complete(trial, told)
                yield Found(costs, epochs, time.process_time() - begun)
                begun = time.process_time()
            elif scheduler.on_trial_result(trial, told) == SchedulerDecision.STOP:
                scheduler.on_trial_remove(trial)
                break


def ranked() -> Any:
    """What MOASHA describes: fronts peeled off one by one, each in the order of an epsilon net."""
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import MOPriority
    from syne_tune.optimizer.schedulers.multiobjective.non_dominated_priority import (
        compute_epsilon_net,
        nondominated_sort,
    )

    class Ranked(MOPriority):
        def priority_unsafe(self, objectives: NDArray[np.float64]) -> NDArray[np.int64]:
            ranks = np.zeros(len(objectives), dtype=np.int64)
            before = 0
            for front in nondominated_sort(objectives, dim=0, flatten=False):
                front = sorted(front)
                ranks[front] = before + compute_epsilon_net(objectives[front], dim=0)
                before += len(front)
            return ranks

    return Ranked()


def _costs(domain: TableDomain, candidate: Candidate) -> tuple[float, ...]:
    """At the end of its training."""
    values = {**domain.known(candidate), "accuracy": domain.table.accuracy(candidate.point)[-1]}
    return tuple(each.cost(values[each.metric]) for each in domain.objectives)


def _new(domain: TableDomain, known: Collection[str], rng: np.random.Generator) -> Candidate:
    while True:
        candidate = domain.draw(rng)
        if candidate.architecture.id not in known:
            return candidate


def _suggest(trial: optuna.trial.Trial, dim: Choice | Span) -> Value:
    assert isinstance(dim, Choice)
    value: Value = trial.suggest_categorical(dim.name, dim.values)
    return value


def _frozen(domain: TableDomain, candidate: Candidate, costs: tuple[float, ...]) -> optuna.trial.FrozenTrial:
    distributions: dict[str, BaseDistribution] = {
        dim.name: CategoricalDistribution(dim.values)
        for dim, _ in domain.dimensions
        if isinstance(dim, Choice) and dim.name in candidate.point
    }
    return create_trial(params=dict(candidate.point), distributions=distributions, values=costs)
