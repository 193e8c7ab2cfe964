"""Trials side by side, one column a fact: how a hundred thousand of them are compared at once.

Shapes: n trials, R measurements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpspace.trial import Record, Trial

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

OWN = ("value", "low", "high", "seconds", "seed", "reference")
"""The fields of a measurement that are its own; many share the others."""

SHARED = tuple(name for name in Record.__dataclass_fields__ if name not in OWN)

FACTS = ("number", "architecture_id", "recipe_json", "label", "state", "reason", "params", "macs")
"""What a front asks of a trial, but for its measurements."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordColumns:
    """Measurements: those of a trial together, in the trial's order."""

    of: Ints  # (R,) whose; rising
    kind: Ints  # (R,) which of `kinds`
    kinds: tuple[Record, ...]  # each set of shared fields that occurs; what is OWN in them is of no account
    own: Mapping[str, Floats | Ints]  # name of OWN -> (R,); NaN: none

    def __getitem__(self, at: int) -> Record:
        """One of them."""
        own = {name: _plain(values[at : at + 1])[0] for name, values in self.own.items()}
        return dataclasses.replace(self.kinds[self.kind[at]], **own)

    def all(self) -> list[Record]:
        """Each of them."""
        put = {name: getattr(Record, name).__set__ for name in (*SHARED, *OWN)}
        shared = [[(put[name], getattr(kind, name)) for name in SHARED] for kind in self.kinds]
        put_own = [put[name] for name in OWN]
        columns = (_plain(self.own[name]) for name in OWN)
        made = []
        for kind, *own in zip(self.kind.tolist(), *columns, strict=True):
            record = Record.__new__(Record)  # as Record(...) would, in half of the time
            for set_to, value in shared[kind]:
                set_to(record, value)
            for set_to, value in zip(put_own, own, strict=True):
                set_to(record, value)
            made.append(record)
        return made


def _plain(values: Floats | Ints) -> list[Any]:
    """NaN is none."""
    return (
        [None if value != value else value for value in values.tolist()] if np.isnan(values).any() else values.tolist()
    )


@dataclass(frozen=True, slots=True, eq=False)
class TrialColumns:
    """Trials, in the order of their numbers."""

    facts: Mapping[str, Sequence[Any]]  # field of a Trial -> (n,); all of FACTS are there
    records: RecordColumns  # `of`: the place of its trial among these

    def __len__(self) -> int:
        return len(self.facts["number"])


def columns_of(trials: Sequence[Trial]) -> TrialColumns:
    """Trials that are there already, as columns, in the order in which they are given."""
    codes: dict[tuple[Any, ...], int] = {}
    firsts: list[Record] = []
    kind = []
    records = [record for trial in trials for record in trial.records]
    for record in records:
        code = codes.setdefault(tuple(getattr(record, name) for name in SHARED), len(codes))
        if code == len(firsts):
            firsts.append(record)
        kind.append(code)
    of = [place for place, trial in enumerate(trials) for _ in trial.records]
    return TrialColumns(
        {name: [getattr(trial, name) for trial in trials] for name in FACTS},
        RecordColumns(
            np.array(of, dtype=np.int64),
            np.array(kind, dtype=np.int64),
            tuple(firsts),
            {name: own_array(name, [getattr(record, name) for record in records]) for name in OWN},
        ),
    )


def own_array(name: str, values: Sequence[Any]) -> Floats | Ints:
    """A column of OWN, or one of whole numbers."""
    if name in OWN and name != "seed":
        return np.array(values, dtype=np.float64)
    return np.array(values, dtype=np.int64)


def last_of_each(of: Ints) -> Ints:
    """Where each run of equal ones ends, in what rises: (k,) -> (at most k,)."""
    return np.flatnonzero(np.append(of[1:] != of[:-1], True)) if len(of) else np.zeros(0, dtype=np.int64)


def first_of_each(codes: Ints) -> Ints:
    """Where each code occurs first: (k,) -> (codes,)."""
    first = np.full(1 + codes.max(initial=-1), len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    return first


def codes(values: Iterable[Any]) -> tuple[Ints, list[Any]]:
    """Which of the different values each is, and these in the order of their first coming."""
    known: dict[Any, int] = {}
    told = np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)
    return told, list(known)
