"""Trials of earlier sessions, as a search takes them up again: little of those that have ended, all of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlpspace.architecture import Architecture
from mlpspace.domain import SearchDomain
from mlpspace.measurement import Measurement
from mlpspace.recipe import Recipe
from mlpspace.results import Running, is_disturbed
from mlpspace.sampling.base import Observation
from mlpspace.space.dims import Value
from mlpspace.space.space import Candidate
from mlpspace.trial import Trial, architecture_of


class Written(Candidate):
    """A candidate as the ledger has it, whose architecture is read where it is asked for: that takes longer than all
    else that a search wants to know of a trial which has ended.
    """

    __slots__ = ()

    def __new__(cls, trial: Trial, point: Mapping[str, Value], recipe: Recipe) -> Written:
        """
        Args:
            point: {} for what lies outside the space.
        """
        return tuple.__new__(cls, (dict(point), _Text(trial.architecture_json, trial.number, trial.source), recipe))

    @property
    def architecture(self) -> Architecture:
        """
        Raises:
            StudyError: what the ledger holds is none.
        """
        text: Any = self[1]  # a _Text
        found: Architecture = text.architecture()
        return found


class _Text:
    """An architecture, once it was asked for; its JSON until then."""

    __slots__ = ("_number", "_read", "_source")

    def __init__(self, json: str, number: int, source: str) -> None:
        self._read: str | Architecture = json
        self._number, self._source = number, source

    def architecture(self) -> Architecture:
        if isinstance(self._read, str):
            self._read = architecture_of(self._read, self._number, self._source)
        return self._read


class Finished(NamedTuple):
    """What it takes to work on a complete trial again."""

    attempt: int
    seed: int
    origin: str
    label: str | None
    network: Candidate

    def again(self, domain: SearchDomain, seen: Observation, **changes: Any) -> Running:
        """
        Args:
            changes: of the assignment that it was.
        """
        architecture, recipe = self.network.architecture, self.network.recipe
        before = domain.assignment(seen.number, self.attempt, architecture, recipe, seed=self.seed)
        assignment = dataclasses.replace(before, **changes)
        return Running(assignment, self.origin, self.label, domain.counts(architecture), seen)


class Recalled(NamedTuple):
    """A trial of an earlier session, as far as the ledger knows it."""

    trial: Trial
    network: Candidate
    seen: Observation
    values: dict[str, Measurement]

    @property
    def finished(self) -> Finished:
        trial = self.trial
        return Finished(trial.attempt, trial.seed, trial.origin, trial.label, self.network)

    def running(self, domain: SearchDomain) -> Running:
        """The trial as one that goes on, or will."""
        trial, architecture = self.trial, self.network.architecture
        return Running(
            domain.assignment(trial.number, trial.attempt, architecture, self.network.recipe, seed=trial.seed),
            trial.origin,
            trial.label,
            domain.counts(architecture),
            self.seen,
            trial.why,
            fresh=False,
            deaths=trial.deaths,
            seconds=trial.seconds,
            values=self.values,
            curve=[accuracy for _, _, accuracy in trial.curve if accuracy is not None],
        )


def recalled(domain: SearchDomain, trial: Trial, recipes: dict[str, Recipe]) -> Recalled:
    """
    Args:
        recipes: those that were read already; few of them differ.
    """
    if trial.recipe_json not in recipes:
        recipes[trial.recipe_json] = trial.recipe
    network = Written(trial, trial.point or {}, recipes[trial.recipe_json])
    seen = Observation(
        number=trial.number,
        key=(trial.architecture_id, trial.recipe_json),
        candidate=None if trial.point is None else network,
        state=trial.state,
        known={"params": float(trial.params), "macs": float(trial.macs)},
        reason=trial.reason,
        gain=trial.gain,
    )
    values: dict[str, Measurement] = {}
    for record in trial.records:
        if record.repeat:
            continue
        values[record.metric] = record
        if record.metric != "accuracy":
            seen.known[record.metric] = record.value
        elif record.rung is not None:
            seen.accuracy[record.rung] = record.value
    seen.disturbed = is_disturbed(values, domain.objectives)
    return Recalled(trial, network, seen, values)
