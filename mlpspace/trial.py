"""A trial as the ledger knows it, with its measurements: values that never change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlpspace.architecture import Architecture
from mlpspace.damaged_file import hint
from mlpspace.errors import ArchitectureError, StudyError
from mlpspace.measurement import Measurement
from mlpspace.recipe import Recipe

Epoch = tuple[int, float | None, float | None]  # (epoch, loss, accuracy %)


SET_ASIDE = "set aside before training"  # the reason of a network whose measured cost left too little to gain


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Measurement):
    """A measurement as the ledger holds it: with what else two of them must share to be compared."""

    attempt: int
    dataset: str
    resolution: int  # pixels
    seed: int
    repeat: int = 0  # k: of the k-th training anew, with another seed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One architecture being measured, as the ledger knows it."""

    number: int
    architecture_id: str
    architecture_json: str = field(repr=False)
    params: int  # the counts are at the resolution of the study's task
    macs: int
    tokens: int
    activations: int
    origin: str  # "fixed point" or "sampler"
    label: str | None  # of a fixed point: its name and what was changed
    state: str  # "running", "complete", "paused" (at a rung: it may go on), "stopped" (it will not), "infeasible"
    reason: str | None
    detail: str | None
    attempt: int
    point: Mapping[str, Any] | None  # None for a fixed point outside the space
    recipe_json: str = field(repr=False)
    seed: int
    started: float  # seconds since 1970: of the latest attempt, or of the first leg where it was paused
    ended: float | None  # or paused
    seconds: float = 0.0  # worked on: the time that it was paused, or that was lost with a session, does not count
    why: str | None = None  # the sampler chose it
    deaths: int = 0  # of workers that had it
    gain: float | None = None  # of hypervolume, expected when it was chosen; None: the sampler did not say
    repeat_failed: str | None = None  # why it could not be trained anew
    source: str = field(default="a study", repr=False, compare=False)  # what it was read from, for messages
    records: tuple[Record, ...] = field(repr=False)  # all of them, the highest rung and the latest attempt last
    curve: tuple[Epoch, ...] = field(repr=False)

    @cached_property
    def architecture(self) -> Architecture:
        """
        Raises:
            StudyError: what the ledger holds is none; it is read only where it is asked for, as it takes a while.
        """
        return architecture_of(self.architecture_json, self.number, self.source)

    @cached_property
    def recipe(self) -> Recipe:
        """
        Raises:
            StudyError: what the ledger holds is none.
        """
        try:
            return Recipe.from_json(self.recipe_json)
        except ValueError as error:
            raise _unreadable("recipe", self.number, self.source, error) from None

    @cached_property
    def measurements(self) -> dict[str, Record]:
        """Metric -> its measurement at the highest rung; none of a training anew."""
        return {record.metric: record for record in self.records if record.repeat == 0}

    @property
    def rung(self) -> int | None:
        """The highest that it has reached; None: it was not trained so far."""
        accuracy = self.measurements.get("accuracy")
        return None if accuracy is None else accuracy.rung

    @property
    def repeats(self) -> tuple[Record, ...]:
        """The accuracies of its trainings anew, at its highest rung."""
        return self.repeats_at(self.rung)

    def repeats_at(self, rung: int | None) -> tuple[Record, ...]:
        """The accuracies of its trainings anew at a rung."""
        found = (record for record in self.records if record.repeat and record.metric == "accuracy")
        latest = {record.repeat: record for record in found if record.rung == rung}
        return tuple(latest[repeat] for repeat in sorted(latest))

    @property
    def standing(self) -> str:
        """Its state as a person says it; see `standing`."""
        accuracy = self.measurements.get("accuracy")
        rung, epochs = (accuracy.rung, accuracy.epochs) if accuracy else (None, None)
        return standing(self.state, rung, epochs, self.reason)

    def value(self, metric: str) -> float | None:
        """The trial's number for a name of METRICS, at the highest rung; None if it was never measured."""
        if metric in ("params", "macs"):
            return float(getattr(self, metric))
        record = self.measurements.get(metric)
        return None if record is None else record.value


def standing(state: str, rung: int | None, epochs: int | None, reason: str | None) -> str:
    """Where a trial stands, as a person says it.

    Example:
        >>> standing("paused", 1, 6, None)
        'paused at rung 1, 6 epochs'
        >>> standing("stopped", None, None, "set aside before training")
        'set aside before training'
    """
    if state == "stopped" and rung is None:
        return reason or "stopped before training"
    text = state
    if state in ("paused", "stopped"):
        text += f" at rung {rung}, {epochs} epoch{'' if epochs == 1 else 's'}"
    return text if reason is None else f"{text}: {reason}"


def architecture_of(json: str, number: int, source: str) -> Architecture:
    """The architecture of trial `number`, from what the ledger holds.

    Raises:
        StudyError: that is none.
    """
    try:
        return Architecture.from_json(json)
    except ArchitectureError as error:
        raise _unreadable("architecture", number, source, error) from None


def _unreadable(what: str, number: int, source: str, error: Exception) -> StudyError:
    return StudyError(f"{source}: the {what} of trial {number} cannot be read ({error}).{hint(source)}")
