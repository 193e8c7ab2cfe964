"""The networks that a front compares: as columns, however many they are, and one by one where they are shown.

Shapes: n trials, p trials that take part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from mlpspace.trial import Record, Trial
from mlpspace.trial_columns import Flags, Floats, Ints, TrialColumns

ReadTrials = Callable[[Sequence[int]], Sequence[Trial]]
"""The trials at some places among the columns, rising, in this order."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of one network at one rung, over all its trainings there."""

    mean: float  # %
    error: float  # standard error of the mean, percentage points
    spread: float | None  # standard deviation between the seeds, percentage points; None for one training
    trainings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A trial that takes part, with the measurements it takes part with."""

    trial: Trial
    records: Mapping[str, Record]  # metric -> measurement; what is no objective is there if it was measured alike
    values: Mapping[str, float]  # metric -> number: of `records` (the mean, of `accuracy`), params and macs
    accuracy: Accuracy | None  # None: it was not trained, or not alike
    on_front: bool
    probability: float  # of being on the front, by the errors of all that take part

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy between seeds, percentage points; None where there is one training."""
        return self.accuracy.spread if self.accuracy else None


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Those that take part, as columns."""

    columns: TrialColumns
    trials: Ints  # (p,) places among the columns
    records: Mapping[str, Ints]  # metric -> (p,) places among the measurements; -1: none
    repeated: Mapping[int, Accuracy]  # place among the p -> its accuracy, where it was trained several times

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def labelled(self) -> Flags:
        """Which are published networks: (p,)."""
        labels = self.columns.facts["label"]
        return np.array([bool(labels[trial]) for trial in self.trials.tolist()], dtype=bool)

    def values(self, metric: str) -> Floats:
        """(p,); NaN: none. Of an accuracy the mean."""
        if metric in ("params", "macs"):
            return np.array(self.columns.facts[metric], dtype=np.float64)[self.trials]
        values = self._own(metric, "value")
        if metric == "accuracy":
            values[list(self.repeated)] = [each.mean for each in self.repeated.values()]
        return values

    def errors(self) -> Floats:
        """Standard errors of the accuracies, percentage points: (p,); NaN: none."""
        error = standard_error(self._own("accuracy", "low"), self._own("accuracy", "high"))
        error[list(self.repeated)] = [each.error for each in self.repeated.values()]
        return error

    def bounds(self, metric: str) -> tuple[Floats, Floats]:
        """What it lies between: (p,) each; NaN where it is exact, or there is none."""
        if metric == "accuracy":
            return self.values(metric) - self.errors(), self.values(metric) + self.errors()
        if metric not in self.records:
            return np.full(len(self), np.nan), np.full(len(self), np.nan)
        return self._own(metric, "low"), self._own(metric, "high")

    def _own(self, metric: str, name: str) -> Floats:
        places = self.records[metric]
        told = np.full(len(self), np.nan)
        told[places >= 0] = self.columns.records.own[name][places[places >= 0]]
        return told

    def accuracy(self, at: int) -> Accuracy | None:
        """Of one of them."""
        if at in self.repeated:
            return self.repeated[at]
        place = int(self.records["accuracy"][at])
        if place < 0:
            return None
        value, low, high = (self.columns.records.own[name][place] for name in ("value", "low", "high"))
        return Accuracy(float(value), float(standard_error(low, high)), None, 1)

    def in_order(self, order: Ints) -> Compared:
        """The same, the `order[0]`-th first."""
        now = {int(was): place for place, was in enumerate(order)} if self.repeated else {}
        return replace(
            self,
            trials=self.trials[order],
            records={metric: places[order] for metric, places in self.records.items()},
            repeated={now[was]: each for was, each in self.repeated.items()},
        )


def standard_error(low: Floats | float, high: Floats | float) -> Floats:
    """Of accuracies, in percentage points: their bounds stand one to either side."""
    return np.maximum((high - low) / 2, 0.0)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Entries(Sequence[Entry]):
    """All that take part. Each is made when it is asked for, as there may be a hundred thousand."""

    compared: Compared
    on_front: Flags  # (p,)
    probability: Floats  # (p,)
    read: ReadTrials = field(repr=False)  # later than the rest, where it is of a study that is still searched
    known: dict[int, Trial] = field(default_factory=dict, repr=False)  # place among the columns -> what was read

    def __len__(self) -> int:
        return len(self.compared)

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, at: int | slice) -> Entry | tuple[Entry, ...]:
        found = range(len(self))[at]
        return self.at(found) if isinstance(found, range) else self.at([found])[0]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.at(range(len(self))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def at(self, places: Sequence[int]) -> tuple[Entry, ...]:
        """Some of them."""
        self.keep(self.read, places)
        return tuple(self._entry(place) for place in places)

    def keep(self, read: ReadTrials, places: Sequence[int]) -> None:
        """Read the trials of some of them, if they are not known."""
        asked = sorted(set(self.compared.trials[list(places)].tolist()) - self.known.keys())
        self.known.update(zip(asked, read(asked), strict=True) if asked else ())

    def _entry(self, at: int) -> Entry:
        compared = self.compared
        trial = self.known[int(compared.trials[at])]
        measured = {metric: int(places[at]) for metric, places in compared.records.items() if places[at] >= 0}
        records = {metric: compared.columns.records[place] for metric, place in measured.items()}
        accuracy = compared.accuracy(at)
        values = {"params": float(trial.params), "macs": float(trial.macs)}
        values |= {metric: record.value for metric, record in records.items()}
        return Entry(
            trial=trial,
            records=records,
            values=values | ({"accuracy": accuracy.mean} if accuracy else {}),
            accuracy=accuracy,
            on_front=bool(self.on_front[at]),
            probability=float(self.probability[at]),
        )
