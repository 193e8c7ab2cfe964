"""In which order the rows of one rank leave it: the one by which its hypervolume loses least first, and so on.

Shapes: f rows of one rank, m objectives. Everything is a cost, smaller is better.

With two objectives a row's share of the hypervolume is a rectangle between its neighbours, and the whole order is
quickly told (`leaving_two`). With more a share takes long to work out, so that shares are remembered (`Shares`), and
the order is told only as far as somebody asks (`Leaving`).
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpspace.pareto import Floats, hypervolume

FEW = 8  # rows that are new to a remembered share: more, and it is worked out anew
REMEMBERED = 8  # shares of one row, each among other rows

Point: TypeAlias = tuple[float, ...]  # m costs


@dataclass(slots=True)
class _Share:
    """What a row's hypervolume share is among some others."""

    value: float
    neighbours: list[Point]  # that bound it: the others, cut to the row's own box, and of these the front
    held_by: int  # rows that these are of, one each; as bits
    known: int  # rows that change nothing of it, those that it is held by among them; as bits


class Shares:
    """What the hypervolume of a rank would lose without each row, remembered: a new row changes few of them.

    Args:
        worst: (m,), the hypervolume's reference corner.
    """

    def __init__(self, worst: Floats) -> None:
        self._worst: Point = tuple(worst.tolist())
        self._place: dict[int, int] = {}  # row -> where it stands below, and its bit
        self._points: list[Point] = []
        self._own: list[float] = []  # volume of the box between a row and the corner
        self._shares: list[list[_Share]] = []  # of each row, the latest that was asked for first
        self._table: Floats = np.empty((0, len(worst)))

    def __len__(self) -> int:
        return len(self._place)

    def place(self, row: int, costs: Point) -> int:
        """Where a row stands that is better than the corner; it may be known already."""
        if row not in self._place:
            self._place[row] = len(self._points)
            self._points.append(costs)
            self._own.append(_volume([costs], self._worst))
            self._shares.append([])
        return self._place[row]

    def of(self, place: int, present: int, there: NDArray[np.bool_]) -> float:
        """Of one row among some others.

        Args:
            present: those that are there, as bits; it may be one of them.
            there: (places,), the same.
        """
        others = present & ~(1 << place)
        shares = self._shares[place]
        for at, share in enumerate(shares):
            if share.held_by & ~others:
                continue
            new = others & ~share.known
            if new:
                if new.bit_count() > FEW or not self._all_covered(self._points[place], new, share.neighbours):
                    continue
                share.known |= new
            if at:
                shares.insert(0, shares.pop(at))
            return share.value
        shares.insert(0, self._worked_out(place, others, there))
        del shares[REMEMBERED:]
        return shares[0].value

    def _all_covered(self, own: Point, rows: int, neighbours: list[Point]) -> bool:
        """Whether rows, given as bits, reach no further into a row's box than its neighbours do."""
        while rows:
            lowest = rows & -rows
            rows ^= lowest
            costs = tuple(map(max, self._points[lowest.bit_length() - 1], own))
            if not any(all(map(float.__le__, each, costs)) for each in neighbours):
                return False
        return True

    def _worked_out(self, place: int, others: int, there: NDArray[np.bool_]) -> _Share:
        if len(self._table) < len(self._points):
            self._table = np.array(self._points)
        places = np.flatnonzero(there)
        places = places[places != place]
        cut = np.maximum(self._table[places], self._table[place])
        order = np.lexsort(cut.T[::-1])
        cut, places = cut[order], places[order]
        neighbours: list[Point] = []
        held_by = 0
        while len(cut):  # in lexicographic order nothing is dominated by what comes after it
            neighbours.append(tuple(cut[0].tolist()))
            held_by |= 1 << int(places[0])
            beyond = np.any(cut < cut[0], axis=1)
            cut, places = cut[beyond], places[beyond]
        shared = _volume(neighbours, self._worst)
        return _Share(max(0.0, self._own[place] - shared), neighbours, held_by, others)


def _volume(front: Sequence[Point], worst: Point) -> float:
    """`pareto.hypervolume` of rows that are one front, in lexicographic order and better than the corner.

    To the bit: the same slabs are added up in the same order, as the order of rows of equal worth hangs on it.
    """
    if len(worst) < 3 or not all(math.isfinite(cost) for row in front for cost in row):
        return hypervolume(np.array(front).reshape(len(front), len(worst)), worst)
    volume = 0.0
    reached: list[Point] = []  # the front of all rows so far, without their last cost
    rows = sorted(front, key=itemgetter(-1))
    for place, row in enumerate(rows):
        _put(row[:-1], reached)
        thickness = (rows[place + 1][-1] if place + 1 < len(rows) else worst[-1]) - row[-1]
        if thickness > 0:
            volume += thickness * (_area(reached, worst) if len(worst) == 3 else _volume(reached, worst[:-1]))
    return volume


def _put(row: Point, front: list[Point]) -> None:
    """A row joins a front in lexicographic order, unless one of it is as good; those that it dominates leave."""
    at = bisect.bisect_left(front, row)
    if not any(all(map(float.__le__, each, row)) for each in front[:at]):
        front[at:] = [row, *(each for each in front[at:] if not all(map(float.__le__, row, each)))]


def _area(front: Sequence[Point], worst: Point) -> float:
    """As `_volume`, of two costs: the second falls as the first rises."""
    above, areas = worst[1], []
    for first, second in front:
        areas.append((worst[0] - first) * (above - second))
        above = second
    return float(np.array(areas).sum())


class Leaving:
    """The order of the rows of one rank, told as far as it was asked.

    Args:
        rows: (f,) their numbers, rising.
        front: (f, m)
        shares: of this rank; rows that it does not know are made known.
    """

    def __init__(self, rows: list[int], front: Floats, shares: Shares, worst: Floats) -> None:
        inside = np.all(front < worst, axis=1)
        self._outside = [row for row, is_in in zip(rows, inside.tolist(), strict=True) if not is_in]
        self._left: list[int] = []  # in the order in which they left
        self._rest: dict[int, int] = {}  # the others, with their places
        kept = np.array(rows, dtype=np.int64)[inside].tolist()
        if front.shape[1] == 2:
            self._left = [kept[at] for at in leaving_two(front[inside], worst)]
            return
        self._shares = shares
        self._rest = {
            row: shares.place(row, tuple(costs)) for row, costs in zip(kept, front[inside].tolist(), strict=True)
        }
        self._there = np.zeros(len(shares), dtype=bool)
        self._there[list(self._rest.values())] = True
        self._present = sum(1 << place for place in self._rest.values())
        # without some of the others a row's own share only grows, so what is known of it bounds it from below
        self._bounds = [(self._share(row), -row) for row in self._rest]
        heapq.heapify(self._bounds)

    def has(self, row: int, count: int) -> bool:
        """Whether a row is one of the best `count`."""
        while row in self._rest and len(self._rest) > count:
            self._next_leaves()
        if row in self._rest:
            return True
        if row in self._left:
            return len(self._rest) + len(self._left) - 1 - self._left.index(row) < count
        return len(self._rest) + len(self._left) + self._outside.index(row) < count

    def first(self, count: int, waits: Callable[[int], object]) -> int | None:
        """Of the best `count` rows the best one that waits."""
        while len(self._rest) > count:
            self._next_leaves()
        waiting = {row for row in self._rest if waits(row)}
        while len(waiting) > 1:
            waiting.discard(self._next_leaves())
        if waiting:
            return waiting.pop()
        beyond = [*reversed(self._left), *self._outside]
        return next((row for row in islice(beyond, count - len(self._rest)) if waits(row)), None)

    def all(self) -> list[int]:
        """All rows from the best."""
        while self._rest:
            self._next_leaves()
        return [*reversed(self._left), *self._outside]

    def _share(self, row: int) -> float:
        return self._shares.of(self._rest[row], self._present, self._there)

    def _next_leaves(self) -> int:
        bounds = self._bounds
        while True:
            row = -bounds[0][1]
            entry = (self._share(row), -row)
            if len(bounds) == 1 or entry <= min(bounds[1:3]):
                break
            heapq.heapreplace(bounds, entry)
        heapq.heappop(bounds)
        place = self._rest.pop(row)
        self._there[place] = False
        self._present ^= 1 << place
        self._left.append(row)
        return row


def leaving_two(front: Floats, worst: Floats) -> list[int]:
    """The rows of a front of two objectives, the one the hypervolume loses least by first; of equals the latest.

    Args:
        front: (f, 2), better than the corner.
        worst: (2,)
    """
    rows = np.lexsort((np.arange(len(front)), front[:, 0])).tolist()
    # the second falls as the first rises; at both ends stands the corner
    first = [math.nan, *front[rows, 0].tolist(), float(worst[0])]
    second = [float(worst[1]), *front[rows, 1].tolist(), math.nan]
    before, after = list(range(-1, len(rows) + 1)), list(range(1, len(rows) + 3))  # of those that are left
    known = [math.nan] * len(first)

    def entry(i: int) -> tuple[float, int, int]:
        known[i] = (first[after[i]] - first[i]) * (second[before[i]] - second[i])
        return known[i], -rows[i - 1], i

    heap = [entry(i) for i in range(1, len(rows) + 1)]
    heapq.heapify(heap)
    left = []
    while heap:
        lost, row, i = heapq.heappop(heap)
        if lost != known[i]:
            continue  # its neighbour has left since
        known[i] = math.nan
        left.append(-row)
        after[before[i]], before[after[i]] = after[i], before[i]
        for neighbour in (before[i], after[i]):
            if 0 < neighbour <= len(rows):
                heapq.heappush(heap, entry(neighbour))
    return left
