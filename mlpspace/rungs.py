"""Who goes on after a rung: successive halving for several objectives, asynchronous, with true promotion.

Shapes: n trials at a rung, m objectives. Everything is a cost, smaller is better.

A trial that reached a rung is paused there until it is among the best share `keep` of all that ever came there, and
goes on from where it stopped; nobody waits for a rung to fill (Li et al. 2020, arXiv:1810.05934, Algorithm 2). Best
is by non-dominated rank, and within a rank by what the hypervolume would lose (as Schmucker et al. 2021,
arXiv:2106.12639, with another order inside the rank).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlpspace.pareto import Floats, hypervolume, rank

Indices = NDArray[np.int64]


def order(costs: ArrayLike, worst: ArrayLike) -> Indices:
    """The rows from best to worst: (n, m), (m,) -> (n,) indices.

    By non-dominated rank. Within a rank the row by which the rank's hypervolume loses least is set last, then the one
    by which the rest loses least, and so on (Beume et al. 2007, doi:10.1016/j.ejor.2006.08.008): of two copies, or near
    copies, one stays in front. Rows that are not better than `worst` in every objective add nothing and come last in
    their rank. Of equals the earlier comes first.

    Example:
        >>> order([[3.0, 3.0], [1.0, 2.0], [2.0, 0.5], [1.0, 2.0]], [4.0, 4.0])
        array([2, 1, 3, 0])
    """
    table, corner = np.asarray(costs, dtype=np.float64), np.asarray(worst, dtype=np.float64)
    if not len(table):
        return np.zeros(0, dtype=np.int64)
    ranks = rank(table)
    fronts = (np.flatnonzero(ranks == level) for level in range(int(ranks.max()) + 1))
    return np.concatenate([front[_within(table[front], corner)] for front in fronts])


class Rungs:
    """All rungs of a search, and who was where.

    Args:
        count: of rungs. At the last one nothing is left to be promoted to.
        keep: the share of those that came to a rung that goes on.
        worst: (m,) costs, the hypervolume's reference corner.
    """

    def __init__(self, count: int, keep: float, worst: ArrayLike) -> None:
        assert count >= 1
        assert 0 < keep <= 1
        self._worst = np.asarray(worst, dtype=np.float64)
        self._keep = keep
        self._rungs = [_Rung(self._worst) for _ in range(count)]
        self._dropped: set[int] = set()
        self._gone_on: set[tuple[int, int]] = set()  # trial, the rung it was promoted from

    def add(self, trial: int, rung: int, costs: Sequence[float]) -> None:
        """`trial` has reached `rung` with these costs. Of a trial that comes there again, the first costs count."""
        self._rungs[rung].add(trial, costs, waiting=trial not in self._dropped)

    def promotable(self) -> tuple[int, int] | None:
        """(trial, the rung it stands at) of the one that shall go on next; from the highest rung down."""
        for rung in reversed(range(len(self._rungs) - 1)):
            trial = next(self._may_go_on(rung), None)
            if trial is not None:
                return trial, rung
        return None

    def is_promotable(self, trial: int, rung: int) -> bool:
        """Whether `trial` may go on from `rung` now."""
        return rung < len(self._rungs) - 1 and trial in self._may_go_on(rung)

    def promote(self, trial: int, rung: int) -> None:
        """`trial` goes on from `rung`: whoever asks next gets another."""
        assert trial in self._rungs[rung].rows
        self._rungs[rung].gone(trial)
        self._gone_on.add((trial, rung))

    def has_gone_on(self, trial: int, rung: int) -> bool:
        """Whether `trial` was promoted from `rung`; it may come there again if its worker dies."""
        return (trial, rung) in self._gone_on

    def drop(self, trial: int) -> None:
        """`trial` was stopped or is infeasible: it is never promoted, but counts where it has been."""
        self._dropped.add(trial)
        for rung in self._rungs:
            rung.gone(trial)

    def last_resort(self) -> tuple[int, int] | None:
        """What to promote at the end of a small study, in which no share of a rung came to one trial.

        The best trial at the highest rung that holds any which can go on; None where a trial has reached the last
        rung, or is on its way to a higher one.
        """
        if self._rungs[-1].trials:
            return None
        if any(trial not in self._rungs[rung + 1].rows for trial, rung in self._gone_on if trial not in self._dropped):
            return None
        for number in reversed(range(len(self._rungs) - 1)):
            trial = next(self._rungs[number].first(len(self._rungs[number].trials)), None)
            if trial is not None:
                return trial, number
        return None

    def _may_go_on(self, number: int) -> Iterator[int]:
        rung = self._rungs[number]
        return rung.first(math.floor(len(rung.trials) * self._keep + 1e-9))


class _Rung:
    """One rung. Keeps the ranks as trials come, so that nothing is compared with everything again and again."""

    def __init__(self, worst: Floats) -> None:
        self.rows: dict[int, int] = {}  # trial -> row of the tables
        self.trials: list[int] = []  # by row
        self._worst = worst
        self._costs = np.zeros((0, len(worst)))
        self._ranks = np.zeros(0, dtype=np.int64)
        self._waiting = np.zeros(0, dtype=np.bool_)  # neither promoted nor dropped
        self._ordered: dict[int, Indices] = {}  # rank -> its rows from the best, while they are the same

    def add(self, trial: int, costs: Sequence[float], *, waiting: bool) -> None:
        if trial in self.rows:
            return
        row = np.asarray(costs, dtype=np.float64)
        assert row.shape == self._worst.shape
        assert not np.isnan(row).any()
        better = np.all(self._costs <= row, axis=1) & np.any(self._costs < row, axis=1)
        level = int(self._ranks[better].max()) + 1 if better.any() else 0
        self.rows[trial] = len(self.trials)
        self.trials.append(trial)
        self._costs = np.vstack([self._costs, row])
        self._ranks = np.append(self._ranks, level)
        self._waiting = np.append(self._waiting, waiting)
        self._ordered.pop(level, None)
        # what the new one dominates of its rank sinks by one, and so on below (Li et al. 2017, IEEE Trans. Cybernetics
        # 47:9)
        sinking = np.array([len(self._ranks) - 1])
        while len(sinking):
            peers = np.setdiff1d(np.flatnonzero(self._ranks == level), sinking, assume_unique=True)
            above, below = self._costs[sinking][:, None], self._costs[peers]
            sunk = (np.all(above <= below, axis=2) & np.any(above < below, axis=2)).any(axis=0)
            sinking = peers[sunk]
            if len(sinking):
                self._ordered.pop(level, None)
                level += 1
                self._ordered.pop(level, None)
                self._ranks[sinking] = level

    def gone(self, trial: int) -> None:
        """It is promoted or dropped."""
        if trial in self.rows:
            self._waiting[self.rows[trial]] = False

    def first(self, count: int) -> Iterator[int]:
        """Those of the first `count` in order that wait, in order."""
        if count <= 0 or not self._waiting.any():
            return
        sizes = np.bincount(self._ranks)
        before = np.cumsum(sizes) - sizes
        for level in np.unique(self._ranks[self._waiting]).tolist():
            room = count - int(before[level])
            if room <= 0:
                return
            rows = np.flatnonzero(self._waiting & (self._ranks == level))
            if room < sizes[level] or len(rows) > 1:  # else no order inside the rank is needed
                rows = self._order(level)[:room]
                rows = rows[self._waiting[rows]]
            yield from (self.trials[row] for row in rows)

    def _order(self, level: int) -> Indices:
        if level not in self._ordered:
            rows = np.flatnonzero(self._ranks == level)
            self._ordered[level] = rows[_within(self._costs[rows], self._worst)]
        return self._ordered[level]


def _within(front: Floats, worst: Floats) -> Indices:
    """The order of rows of one rank: (n, m), (m,) -> (n,)."""
    inside = np.all(front < worst, axis=1)
    rows = np.flatnonzero(inside)
    leaving = _leaving_two(front[rows], worst) if front.shape[1] == 2 else _leaving(front[rows], worst)
    return np.concatenate([rows[leaving[::-1]], np.flatnonzero(~inside)])


def _leaving_two(front: Floats, worst: Floats) -> Indices:
    """The rows of a front of two objectives, the one the hypervolume loses least by first."""
    rows = np.lexsort((np.arange(len(front)), front[:, 0]))
    left = np.zeros(len(front), dtype=np.int64)
    for i in range(len(front)):
        first, second = front[rows].T  # the second falls as the first rises
        lost = (np.append(first[1:], worst[0]) - first) * (np.append(worst[1], second[:-1]) - second)
        least = np.flatnonzero(lost <= lost.min())
        out = least[np.argmax(rows[least])]  # of equals the latest
        left[i] = rows[out]
        rows = np.delete(rows, out)
    return left


def _leaving(front: Floats, worst: Floats) -> Indices:
    """As `_leaving_two`, for any number of objectives."""
    rows = set(range(len(front)))

    def lost(row: int) -> float:
        others = np.maximum(front[[other for other in rows if other != row]], front[row])
        return max(0.0, hypervolume(front[row : row + 1], worst) - hypervolume(others, worst))

    # without some of the others a row's own share only grows, so what is known of it bounds it from below
    known = [(lost(row), -row) for row in rows]
    heapq.heapify(known)
    left = []
    while known:
        row = -known[0][1]
        entry = (lost(row), -row)
        if len(known) == 1 or entry <= min(known[1:3]):
            heapq.heappop(known)
            rows.discard(row)
            left.append(row)
        else:
            heapq.heapreplace(known, entry)
    return np.array(left, dtype=np.int64)
