"""Rows by non-dominated rank, kept as they come: what a new row costs hangs on the ranks it changes, not on all rows.

Shapes: n rows, m objectives, f rows of one rank. Everything is a cost, smaller is better.

A new row finds its rank by bisection, as what one rank dominates every rank above it dominates too. Those of its rank
that it dominates sink by one, push down those that they dominate, and so on (Li et al. 2017, doi:10.1109/TCYB.2016.
2621008). With two objectives a rank is a staircase, and what sinks from it is a piece of the staircase.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from mlpspace.leaving import Leaving, Shares
from mlpspace.pareto import Floats, rank

MANY = 200  # rows that are ranked together rather than one by one

Key: TypeAlias = tuple[float, ...]
"""The costs of a row, and then its number; one objective has a second one that is always 0."""


class Rank:
    """The rows of one rank, those that are neither promoted nor dropped counted."""

    __slots__ = ("_costs", "_leaving", "_shares", "keys", "waiting")

    def __init__(self, keys: list[Key], waiting: int) -> None:
        self.keys = keys  # with two costs: in their order, a staircase
        self.waiting = waiting
        self._leaving: Leaving | None = None  # while the rows are the same
        self._shares: Shares | None = None
        self._costs: Floats | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def beats(self, key: Key) -> bool:
        """Whether one of its rows dominates a row."""
        if len(key) == 3:
            at = bisect.bisect_right(self.keys, (key[0], math.inf))
            # the last that is as good in the first cost is the best of them in the second
            return at > 0 and self.keys[at - 1][1] <= key[1] and self.keys[at - 1][:2] != key[:2]
        costs, row = self._table(), np.array(key[:-1])
        return bool((np.all(costs <= row, axis=1) & np.any(costs < row, axis=1)).any())

    def put(self, coming: list[Key]) -> list[Key]:
        """Take rows of no other rank in, in order; returns those that they dominate, which are of it no longer."""
        self._leaving = None
        if len(coming[0]) == 3:
            first, last = coming[0], coming[-1]
            begin = bisect.bisect_right(self.keys, (*first[:2], math.inf))  # beyond its copies
            end = bisect.bisect_right(self.keys, -last[1], lo=begin, key=_second)
            leaving = self.keys[begin:end]
            self.keys[begin:end] = coming
            return leaving
        costs, others = self._table(), np.array([key[:-1] for key in coming])
        as_good = np.all(others[:, None] <= costs, axis=2) & np.any(others[:, None] < costs, axis=2)
        sunk = as_good.any(axis=0)
        leaving = [key for key, out in zip(self.keys, sunk.tolist(), strict=True) if out]
        self.keys = [key for key, out in zip(self.keys, sunk.tolist(), strict=True) if not out] + coming
        self._costs = np.concatenate([costs[~sunk], others])
        return leaving

    def has(self, row: int, count: int, worst: Floats) -> bool:
        """Whether one of its rows is among its best `count`; see `rungs.order`."""
        return count >= len(self) or (count > 0 and self._ordered(worst).has(row, count))

    def first(self, count: int, waits: Callable[[int], object], worst: Floats) -> int | None:
        """Of its best `count` rows the best one that waits."""
        if len(self) <= count and self.waiting == 1:  # no order is needed
            return next(row for row in self._rows() if waits(row))
        return self._ordered(worst).first(min(count, len(self)), waits)

    def _rows(self) -> list[int]:
        """In no order that says anything."""
        return [int(key[-1]) for key in self.keys]

    def _ordered(self, worst: Floats) -> Leaving:
        if self._leaving is None:
            if self._shares is None or len(self._shares) > MANY + 2 * len(self):  # of rows that are here no longer
                self._shares = Shares(worst)
            rows = np.array(self._rows())
            by_age = np.argsort(rows)
            front = self._table()[by_age][:, : len(worst)]
            self._leaving = Leaving(rows[by_age].tolist(), front, self._shares, worst)
        return self._leaving

    def _table(self) -> Floats:
        """(f, m)."""
        if len(self.keys[0]) == 3:
            return np.array(self.keys)[:, :2]
        if self._costs is None:
            self._costs = np.array([key[:-1] for key in self.keys])
        return self._costs


def _second(key: Key) -> float:
    return -key[1]


class Ranks:
    """All rows that came, by rank.

    Args:
        worst: (m,) costs, the hypervolume's reference corner.
    """

    def __init__(self, worst: Floats) -> None:
        self._worst = worst
        self._ranks: list[Rank] = []
        self._placed = 0  # rows that are in them: a study that goes on brings many at once
        self._keys: list[Key] = []  # by row
        self._waiting = bytearray()  # by row

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, costs: Sequence[float], *, waiting: bool) -> int:
        """A new row; returns its number."""
        row = len(self._keys)
        key: Key = (*map(float, costs), *([0.0] if len(costs) == 1 else []), row)
        assert len(costs) == len(self._worst)
        assert not any(map(math.isnan, key))
        self._keys.append(key)
        self._waiting.append(waiting)
        return row

    def gone(self, row: int) -> None:
        """It waits no longer."""
        if self._waiting[row]:
            self._waiting[row] = False
            if row < self._placed:
                self._ranks[self._rank_of(self._keys[row])].waiting -= 1

    def _all(self) -> list[Rank]:
        """All ranks, with all rows in their places."""
        new = self._keys[self._placed :]
        if len(new) > max(MANY, self._placed):
            ranks = rank(np.array([key[: len(self._worst)] for key in self._keys])).tolist()
            keys: list[list[Key]] = [[] for _ in range(max(ranks) + 1)]
            for key, level in zip(self._keys, ranks, strict=True):
                keys[level].append(key)
            self._ranks = [Rank(sorted(each), self._count(each)) for each in keys]
        else:
            for key in new:
                self._put(key)
        self._placed = len(self._keys)
        return self._ranks

    def _put(self, key: Key) -> None:
        moving, at = [key], self._rank_of(key)
        while moving and at < len(self._ranks):
            here = self._ranks[at]
            coming, moving = moving, here.put(moving)
            here.waiting += self._count(coming) - self._count(moving)
            at += 1
            if len(here) == len(coming):  # all that it held: a rank of its own, and those below follow it
                break
        if moving:
            self._ranks.insert(at, Rank(moving, self._count(moving)))

    def _rank_of(self, key: Key) -> int:
        return bisect.bisect_left(self._ranks, True, key=lambda each: not each.beats(key))

    def _count(self, keys: list[Key]) -> int:
        return sum(self._waiting[int(key[-1])] for key in keys)

    def has(self, row: int, count: int) -> bool:
        """Whether a row waits and is one of the first `count` in order."""
        if not self._waiting[row]:
            return False
        ranks = self._all()
        at = self._rank_of(self._keys[row])
        return ranks[at].has(row, count - sum(map(len, ranks[:at])), self._worst)

    def first(self, count: int) -> int | None:
        """Of the first `count` rows in order the first that waits: by rank, within a rank as `Leaving` has it."""
        for each in self._all():
            if count <= 0:
                break
            if each.waiting:
                row = each.first(count, self._waiting.__getitem__, self._worst)
                if row is not None:
                    return row
            count -= len(each)
        return None
