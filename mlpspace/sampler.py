"""Which candidate next: Optuna's multi-objective TPE by ask and tell.

The sampler's own study lives in memory; the ledger is the truth and refills it when a search goes on. Each draw has a
seed of its own, made of the study's seed, the trial's number and the draw's: a search that was cut off goes on with
the draws that come next instead of repeating its first ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mlpspace.space.dims import Choice, Span, Value
from mlpspace.space.space import Candidate, Space

STARTUP_TRIALS = 10  # drawn at random before the model has anything to go by
MODEL_DRAWS = 32  # draws of the model for one trial; when all of them are refused, random ones go on


def distribution(dim: Choice | Span) -> BaseDistribution:
    """A dimension as Optuna has it."""
    if isinstance(dim, Choice):
        return CategoricalDistribution(dim.values)
    if dim.whole:
        return IntDistribution(int(dim.low), int(dim.high), log=dim.log, step=1 if dim.log else int(dim.step or 1))
    return FloatDistribution(dim.low, dim.high, log=dim.log, step=dim.step)


class _Tpe(optuna.samplers.BaseSampler):
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
            self._tpe = optuna.samplers.TPESampler(
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


class Sampler:
    """TPE over a space. Costs are what it is told: smaller is better in each objective."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        groups: dict[str | None, dict[str, BaseDistribution]] = {}  # by the condition they exist under
        for dim, condition in space.dimensions():
            groups.setdefault(condition, {})[dim.name] = distribution(dim)
        self._groups = list(groups.values())
        self._distributions = {name: group[name] for group in self._groups for name in group}
        told = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces its study on stderr
        self._study = optuna.create_study(directions=["minimize"] * len(space.objectives))
        optuna.logging.set_verbosity(told)
        self._open: dict[int, optuna.trial.Trial] = {}  # by our number: asked for, not yet told

    def distributions(self, point: Mapping[str, Value]) -> dict[str, BaseDistribution]:
        """Those of the dimensions that exist in a point."""
        return {name: self._distributions[name] for name in point}

    def draw(self, number: int, draw: int) -> Candidate:
        """The candidate for trial `number`; `draw` counts those that were refused before it."""
        seed = int(np.random.SeedSequence([self._seed, number, draw]).generate_state(1)[0])
        if draw >= MODEL_DRAWS:
            return self._space.draw(np.random.default_rng(seed))
        self._study.sampler = _Tpe(self._groups, seed=seed)
        trial = self._study.ask()
        candidate = self._space.candidate(lambda dim: _suggest(trial, dim))
        self._open[number] = trial
        return candidate

    def refuse(self, number: int) -> None:
        """The last draw for trial `number` is not taken."""
        trial = self._open.pop(number, None)
        if trial is not None:
            self._study.tell(trial, state=TrialState.FAIL)  # invisible to the sampler: requirements are not its matter

    def tell(self, number: int, point: Mapping[str, Value], costs: Sequence[float] | None) -> None:
        """How trial `number` ended: with its costs, or with None: infeasible, which the model learns to avoid."""
        state = TrialState.COMPLETE if costs is not None else TrialState.PRUNED
        trial = self._open.pop(number, None)
        if trial is not None:
            self._study.tell(trial, values=costs, state=state)
            return
        params: dict[str, Any] = dict(point)
        frozen = optuna.trial.create_trial(
            state=state, values=costs, params=params, distributions=self.distributions(point)
        )
        self._study.add_trial(frozen)


def _suggest(trial: optuna.trial.Trial, dim: Choice | Span) -> Value:
    if isinstance(dim, Choice):
        value: Value = trial.suggest_categorical(dim.name, dim.values)
        return value
    if dim.whole:
        return trial.suggest_int(
            dim.name, int(dim.low), int(dim.high), log=dim.log, step=1 if dim.log else int(dim.step or 1)
        )
    value = trial.suggest_float(dim.name, dim.low, dim.high, log=dim.log, step=dim.step)
    return value if dim.step is None else dim.value_at(round((value - dim.low) / dim.step))
