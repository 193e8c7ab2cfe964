"""Optuna's samplers behind our interface: multi-objective TPE, NSGA-II, and random draws beside them.

What they are told is made of the observations alone: trials that came to the last rung are COMPLETE with their costs.
Each suggestion has a seed of its own, made of the search's seed, the trial's number and the draw's, so that a search
which was cut off goes on with the draws that come next instead of repeating its first ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlpspace.domain import Domain
from mlpspace.sampling.base import Observation, Sampler, Suggestion
from mlpspace.space.dims import Choice, Span, Value
from mlpspace.space.space import Candidate

STARTUP_TRIALS = 10  # TPE draws at random before the model has anything to go by
POPULATION = 20  # of a generation of NSGA-II
MODEL_DRAWS = 32  # draws of a model for one trial; when all of them are refused, random ones go on


def distribution(dim: Choice | Span) -> BaseDistribution:
    """A dimension as Optuna has it."""
    if isinstance(dim, Choice):
        return CategoricalDistribution(dim.values)
    if dim.whole:
        return IntDistribution(int(dim.low), int(dim.high), log=dim.log, step=1 if dim.log else int(dim.step or 1))
    return FloatDistribution(dim.low, dim.high, log=dim.log, step=dim.step)


class Random(Sampler):
    """Each dimension that exists is drawn on its own."""

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        return Suggestion(_random(self.domain, self.seed, number, draw), "random")


class Tpe(Sampler):
    """Multi-objective TPE (Ozaki et al. 2022, doi:10.1613/jair.1.13188), joint over dimensions that exist together.

    Trials that ended without costs are PRUNED, which the model learns to avoid; those that run are counted among the
    worse (the constant liar), so that workers do not all get the same.
    """

    def __init__(self, domain: Domain, *, seed: int) -> None:
        super().__init__(domain, seed=seed)
        groups: dict[str | None, dict[str, BaseDistribution]] = {}  # by the condition they exist under
        for dim, condition in domain.dimensions:
            groups.setdefault(condition, {})[dim.name] = distribution(dim)
        self._groups = list(groups.values())
        self._distributions = {name: group[name] for group in self._groups for name in group}
        self._begin()

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        if draw >= MODEL_DRAWS:
            return _last(self.domain, self.seed, number, draw)
        self._catch_up(seen)
        finished = sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for _, state, _ in self._told.values())
        sampler = _JointTpe(self._groups, seed=_seed(self.seed, number, draw))
        # a study remembers the trials that it has seen until it is asked; a fresh one looks for itself
        study = optuna.load_study(study_name=self._study.study_name, storage=self._storage)
        candidate = self.domain.candidate(_choose(sampler, study, self._asking, {}, self._distributions))
        return Suggestion(candidate, "random start" if finished < STARTUP_TRIALS else "tpe")

    def _begin(self) -> None:
        self._storage = InMemoryStorage()
        self._study = _study(len(self.domain.objectives), self._storage)
        self._study.add_trial(create_trial(state=TrialState.RUNNING))
        self._asking = self._study.get_trials(deepcopy=False)[0]  # asks for every suggestion, so that none piles up
        self._told: dict[int, tuple[int, TrialState, tuple[float, ...] | None]] = {}  # ours -> theirs, as it is there

    def _catch_up(self, seen: Sequence[Observation]) -> None:
        """Make Optuna's study say what `seen` says. What it holds as finished stays so: when one goes on, anew."""
        wanted = _states(self.domain, seen)
        for number, (_, state, costs) in self._told.items():
            if state.is_finished() and wanted.get(number, (TrialState.FAIL, None)) != (state, costs):
                self._begin()
                break
        points = {trial.number: trial.candidate.point for trial in seen if trial.candidate is not None}
        for number, (state, costs) in wanted.items():
            if number not in self._told:
                self._study.add_trial(_frozen(points[number], self._distributions, state, costs))
                self._told[number] = len(self._told) + 1, state, costs  # 0 is the asking one
            elif self._told[number][1] != state:
                theirs = self._told[number][0]
                self._study.tell(theirs, values=costs, state=state)
                self._told[number] = theirs, state, costs
        for number, (theirs, state, _) in self._told.items():
            if number not in wanted and state == TrialState.RUNNING:
                self._study.tell(theirs, state=TrialState.FAIL)  # which no sampler sees
                self._told[number] = theirs, TrialState.FAIL, None


class Nsga2(Sampler):
    """NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017) with a population of 20.

    A generation is twenty trials that came to the last rung, in the order of their numbers. Dimensions that exist only
    under a condition are drawn at random, as Optuna's NSGA-II does.
    """

    def __init__(self, domain: Domain, *, seed: int) -> None:
        super().__init__(domain, seed=seed)
        self._distributions = {dim.name: distribution(dim) for dim, _ in domain.dimensions}
        always = [dim.name for dim, condition in domain.dimensions if condition is None]
        self._space = {name: self._distributions[name] for name in always if not self._distributions[name].single()}
        self._study = _study(len(domain.objectives), InMemoryStorage())
        self._members: list[FrozenTrial] = []  # of all generations, in order
        self._parents: list[list[FrozenTrial]] = [[]]  # of each generation

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        if draw >= MODEL_DRAWS:
            return _last(self.domain, self.seed, number, draw)
        self._catch_up(seen)
        sampler = _Generations(self._members, self._parents, seed=_seed(self.seed, number, draw))
        generation = sampler.generation
        trial = create_trial(state=TrialState.RUNNING)
        drawn = sampler.sample_relative(self._study, trial, self._space)
        candidate = self.domain.candidate(_choose(sampler, self._study, trial, drawn, self._distributions))
        return Suggestion(candidate, f"nsga2, generation {generation}" if generation else "random start")

    def _catch_up(self, seen: Sequence[Observation]) -> None:
        """The parents of every generation so far."""
        points = {trial.number: trial.candidate.point for trial in seen if trial.candidate is not None}
        wanted = {n: costs for n, (_, costs) in _states(self.domain, seen).items() if costs is not None}
        numbers = sorted(wanted)
        same = 0
        for member, number in zip(self._members, numbers, strict=False):
            if member.number != number or tuple(member.values) != wanted[number]:
                break
            same += 1
        del self._members[same:], self._parents[same // POPULATION + 1 :]
        for number in numbers[same:]:
            self._members.append(_frozen(points[number], self._distributions, TrialState.COMPLETE, wanted[number]))
            self._members[-1].number = number
        selection = _Generations(self._members, self._parents, seed=0)
        while len(self._parents) <= selection.generation:
            self._parents.append(selection.select_parent(self._study, len(self._parents)))


class _Generations(NSGAIISampler):
    """Optuna's NSGA-II with generations that follow from the trials.

    Optuna stores them with the trials of a study of its own, and starts over at random without them.
    """

    def __init__(self, members: list[FrozenTrial], parents: list[list[FrozenTrial]], *, seed: int) -> None:
        super().__init__(population_size=POPULATION, seed=seed)
        self.generation = len(members) // POPULATION
        self._members = members
        self._parents = parents

    def get_trial_generation(self, study: Any, trial: FrozenTrial) -> int:
        return self.generation

    def get_population(self, study: Any, generation: int) -> list[FrozenTrial]:
        return self._members[generation * POPULATION : (generation + 1) * POPULATION]

    def get_parent_population(self, study: Any, generation: int) -> list[FrozenTrial]:
        return self._parents[generation]


class _JointTpe(BaseSampler):
    """TPE that models dimensions which exist together jointly, and only those that the point at hand has.

    Optuna's own `group=True` finds the same groups from the trials so far, and samples all of them for every trial:
    of a space with many conditions most is thrown away, and it was most of the time that the driver took for a trial
    of spaces/hybrid.yaml. A space file says beforehand what exists together.
    """

    def __init__(self, groups: Iterable[Mapping[str, BaseDistribution]], *, seed: int) -> None:
        self._groups = {name: group for group in groups for name in group}
        self._drawn: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate is "experimental", since 2020
            self._tpe = TPESampler(
                multivariate=True,
                constant_liar=True,
                n_startup_trials=STARTUP_TRIALS,
                seed=seed,
                warn_independent_sampling=False,
            )

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}  # what exists is known only as the point is drawn

    def sample_relative(
        self, study: Any, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name not in self._drawn:
            self._drawn |= self._tpe.sample_relative(study, trial, dict(self._groups[param_name]))
        if param_name in self._drawn:
            return self._drawn[param_name]
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)  # too few trials: random


def _states(domain: Domain, seen: Sequence[Observation]) -> dict[int, tuple[TrialState, tuple[float, ...] | None]]:
    """What Optuna is told of each trial that has a point: its state, with costs where it came to the last rung.

    A disturbed one teaches that a network is slow which is not: it is left out, unless all are disturbed.
    """
    last = len(domain.epochs) - 1
    found: dict[int, tuple[TrialState, tuple[float, ...] | None]] = {}
    disturbed = set()
    for trial in seen:
        if trial.candidate is None:
            continue
        if trial.state == "complete":
            costs = trial.costs(domain.objectives, last)
            if costs is None:
                continue
            found[trial.number] = TrialState.COMPLETE, costs
            if trial.disturbed:
                disturbed.add(trial.number)
        else:
            found[trial.number] = TrialState.RUNNING if trial.state == "running" else TrialState.PRUNED, None
    complete = {number for number, (_, costs) in found.items() if costs is not None}
    if disturbed != complete:
        for number in disturbed:
            del found[number]
    return found


def _choose(
    sampler: BaseSampler,
    study: optuna.Study,
    trial: FrozenTrial,
    drawn: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
) -> Callable[[Choice | Span], Value]:
    """Decides a dimension as the sampler does: what it drew beforehand, else by itself."""

    def choose(dim: Choice | Span) -> Value:
        told = drawn.get(dim.name, _NOTHING)
        if told is _NOTHING:
            told = sampler.sample_independent(study, trial, dim.name, distributions[dim.name])
        value: Value = told
        if isinstance(dim, Span) and not dim.whole and dim.step is not None:
            value = dim.value_at(round((float(told) - dim.low) / dim.step))
        return value

    return choose


_NOTHING = object()


def _frozen(
    point: Mapping[str, Value],
    distributions: Mapping[str, BaseDistribution],
    state: TrialState,
    costs: Sequence[float] | None,
) -> FrozenTrial:
    return create_trial(
        state=state,
        values=costs,
        params=dict(point),
        distributions={name: distributions[name] for name in point},
    )


def _study(objectives: int, storage: InMemoryStorage) -> optuna.Study:
    told = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces its study on stderr
    study = optuna.create_study(storage=storage, directions=["minimize"] * objectives)
    optuna.logging.set_verbosity(told)
    return study


def _seed(seed: int, number: int, draw: int) -> int:
    return int(np.random.SeedSequence([seed, number, draw]).generate_state(1)[0])


def _random(domain: Domain, seed: int, number: int, draw: int) -> Candidate:
    return domain.draw(np.random.default_rng(_seed(seed, number, draw)))


def _last(domain: Domain, seed: int, number: int, draw: int) -> Suggestion:
    return Suggestion(_random(domain, seed, number, draw), f"random: {MODEL_DRAWS} draws of the model were refused")
