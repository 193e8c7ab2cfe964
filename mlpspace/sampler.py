"""Which candidate next: Optuna's multi-objective TPE by ask and tell.

The sampler's own study lives in memory; the ledger is the truth and refills it when a search goes on. Each draw has a
seed of its own, made of the study's seed, the trial's number and the draw's: a search that was cut off goes on with
the draws that come next instead of repeating its first ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

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


class Sampler:
    """TPE over a space. Costs are what it is told: smaller is better in each objective."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._distributions = {dim.name: distribution(dim) for dim, _ in space.dimensions()}
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate and group are "experimental", since 2020 and 2021
            self._study.sampler = optuna.samplers.TPESampler(
                multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS, seed=seed
            )
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
    return trial.suggest_float(dim.name, dim.low, dim.high, log=dim.log, step=dim.step)
