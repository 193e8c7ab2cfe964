"""The accuracy at the last rung, foretold from that at an earlier one.

Straight lines from rung to rung, through the trials that were at both. Only those that were promoted were. As they were
chosen by the accuracy from which the line starts, the line itself is not bent by it; but low accuracies are far from
those it was drawn through, and its uncertainty grows towards them. A line that leaves out a rung would be bent: those
that came through it had become better there than their first accuracy said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

FEWEST = 4  # pairs that a line is drawn through
PRIOR_PAIRS = 2.0  # what the belief in a slope of 1 is worth: so many pairs that lie as the others do
PRIOR_SD = 1.0  # percentage points about the line, a belief that is worth one pair
Z = 1.959964  # of the normal distribution's 97.5 %


class Forecast:
    """What the trials so far say of those that are not at their end. Trials come, and go, one by one.

    Args:
        curves: rung -> accuracy in %, one for each trial.
        last: the last rung.
    """

    def __init__(self, curves: Iterable[Mapping[int, float]], last: int) -> None:
        self.last = last
        self._sums = {(start, end): _Sums() for start in range(last) for end in (start + 1, last)}
        self._lines: dict[tuple[int, int], _Line] = {}
        for curve in curves:
            self.add(curve)

    def add(self, curve: Mapping[int, float]) -> None:
        """A trial more."""
        self._count(curve, 1)

    def remove(self, curve: Mapping[int, float]) -> None:
        """One less, as it was added."""
        self._count(curve, -1)

    def _count(self, curve: Mapping[int, float], times: int) -> None:
        if len(curve) < 2:
            return  # no line goes through it
        for (start, end), sums in self._sums.items():
            if start in curve and end in curve:
                sums.count(curve[start], curve[end], times)
                self._lines.pop((start, end), None)

    def _line(self, start: int, end: int) -> _Line | None:
        sums = self._sums.get((start, end))
        if sums is None or sums.pairs < FEWEST:
            return None
        if (start, end) not in self._lines:
            self._lines[start, end] = sums.line()
        return self._lines[start, end]

    def final(self, rung: int, accuracy: float) -> tuple[float, float] | None:
        """(mean, standard deviation) of the accuracy at the last rung, %; None where too little is known to say.

        The deviation is that of the normal distribution with the same upper 2.5 % as the line's t distribution: wide
        while few trials have come to the end. Where a rung between is missing, one line from here to the last.
        """
        steps = [(start, start + 1) for start in range(rung, self.last)]
        if not all(self._line(*step) for step in steps):
            steps = [(rung, self.last)]
        mean, variance = accuracy, 0.0
        for step in steps:
            line = self._line(*step)
            if line is None:
                return None
            mean, sd = line.at(mean)
            variance = line.slope**2 * variance + sd**2
        return mean, math.sqrt(variance)

    def top(self, rung: int, accuracy: float) -> float | None:
        """The upper end of the forecast: the accuracy at the last rung is above it in 2.5 % of all cases."""
        found = self.final(rung, accuracy)
        return None if found is None else min(100.0, found[0] + Z * found[1])


@dataclass(frozen=True, slots=True)
class _Line:
    """mean = center_y + slope * (x - center_x), and how sure."""

    pairs: int
    center_x: float
    center_y: float
    slope: float
    spread: float  # sum of squares of x about its center, the prior's pairs included
    variance: float  # about the line

    def at(self, x: float) -> tuple[float, float]:
        away = x - self.center_x
        variance = self.variance * (1 + 1 / self.pairs + (away**2 / self.spread if self.spread > 0 else 0.0))
        return self.center_y + self.slope * away, math.sqrt(variance) * _t(self.pairs - 1) / Z


_UNIT = 2.0**-40  # %: sums of whole numbers are the same in any order, and forget nothing where trials go


@dataclass(slots=True)
class _Sums:
    """Of pairs (x, y) of accuracies, and of their products."""

    pairs: int = 0
    x: int = 0
    y: int = 0
    xx: int = 0
    xy: int = 0
    yy: int = 0

    def count(self, x: float, y: float, times: int) -> None:
        """A pair more, or less."""
        i, j = round(x / _UNIT), round(y / _UNIT)
        self.pairs += times
        self.x += times * i
        self.y += times * j
        self.xx += times * i * i
        self.xy += times * i * j
        self.yy += times * j * j

    def line(self) -> _Line:
        """Least squares with a prior: the slope near 1, hence the intercept near the mean gain."""
        n = self.pairs
        # about the means: whole numbers until the last step, so that nothing cancels
        own = (n * self.xx - self.x * self.x) / n * _UNIT**2
        both = (n * self.xy - self.x * self.y) / n * _UNIT**2
        theirs = (n * self.yy - self.y * self.y) / n * _UNIT**2
        prior = PRIOR_PAIRS * max(own / n, PRIOR_SD**2)
        slope = (both + prior) / (own + prior)
        # the slope's distance from what was believed of it counts as a deviation too
        squares = max(0.0, theirs - 2 * slope * both + slope**2 * own) + prior * (slope - 1) ** 2
        variance = (squares + PRIOR_SD**2) / (n - 1)  # the belief's pair makes up for the slope
        return _Line(n, self.x / n * _UNIT, self.y / n * _UNIT, slope, own + prior, variance)


def _t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 1 % from 3 degrees of freedom on.

    Abramowitz and Stegun 1964, 26.7.5.
    """
    powers = {n: Z**n for n in (1, 3, 5, 7)}
    first = (powers[3] + powers[1]) / 4
    second = (5 * powers[5] + 16 * powers[3] + 3 * powers[1]) / 96
    third = (3 * powers[7] + 19 * powers[5] + 17 * powers[3] - 15 * powers[1]) / 384
    return Z + first / freedom + second / freedom**2 + third / freedom**3
