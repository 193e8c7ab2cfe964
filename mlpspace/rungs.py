"""Who goes on after a rung: successive halving for several objectives, asynchronous, with true promotion.

Shapes: n trials at a rung, m objectives. Everything is a cost, smaller is better.

A trial that reached a rung is paused there until it is among the best share `keep` of all that ever came there, and
goes on from where it stopped; nobody waits for a rung to fill (Li et al. 2020, arXiv:1810.05934, Algorithm 2). Best
is by non-dominated rank, and within a rank by what the hypervolume would lose (as Schmucker et al. 2021,
arXiv:2106.12639, with another order inside the rank).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlpspace.leaving import Leaving, Shares
from mlpspace.pareto import Floats, rank
from mlpspace.ranks import Ranks


def order(costs: ArrayLike, worst: ArrayLike) -> NDArray[np.int64]:
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
    found: list[int] = []
    for level in range(int(ranks.max()) + 1):
        rows = np.flatnonzero(ranks == level)
        found += Leaving(rows.tolist(), table[rows], Shares(corner), corner).all()
    return np.array(found)


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
            trial = self._rungs[rung].first(self._share(rung))
            if trial is not None:
                return trial, rung
        return None

    def is_promotable(self, trial: int, rung: int) -> bool:
        """Whether `trial` may go on from `rung` now."""
        return rung < len(self._rungs) - 1 and self._rungs[rung].has(trial, self._share(rung))

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
            trial = self._rungs[number].first(len(self._rungs[number].trials))
            if trial is not None:
                return trial, number
        return None

    def _share(self, number: int) -> int:
        """How many of those that came to a rung may go on."""
        return math.floor(len(self._rungs[number].trials) * self._keep + 1e-9)


class _Rung:
    """One rung: who came there, and which of them wait."""

    def __init__(self, worst: Floats) -> None:
        self.rows: dict[int, int] = {}  # trial -> row of the ranks
        self.trials: list[int] = []  # by row
        self._ranks = Ranks(worst)

    def add(self, trial: int, costs: Sequence[float], *, waiting: bool) -> None:
        if trial not in self.rows:
            self.rows[trial] = self._ranks.add(costs, waiting=waiting)
            self.trials.append(trial)

    def gone(self, trial: int) -> None:
        """It is promoted or dropped."""
        if trial in self.rows:
            self._ranks.gone(self.rows[trial])

    def has(self, trial: int, count: int) -> bool:
        """Whether a trial waits here and is one of the first `count` in order."""
        return trial in self.rows and self._ranks.has(self.rows[trial], count)

    def first(self, count: int) -> int | None:
        """Of the first `count` in order the first that waits."""
        row = self._ranks.first(count)
        return None if row is None else self.trials[row]
