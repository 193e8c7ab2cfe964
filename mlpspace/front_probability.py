"""How likely each network is on the front, given the errors of its measurements.

B draws, n networks, m objectives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpspace import pareto
from mlpspace.pareto import Floats

DRAWS = 2000  # a probability of one half is then known to one percentage point
_CERTAIN = 4.5  # standard errors: of 2,000 draws of 100 networks, one lies as far out as that
_ALL_BUT_CERTAIN = 4.0  # standard errors of a difference: it turns around in one of 30,000 draws
_MOST = 6_000_000  # networks times draws, half a second; pairs of networks times draws are 60 times as quick
_FEWEST = 100  # draws


def front_probabilities(
    costs: Floats, errors: Floats, sources: NDArray[np.int64], *, draws: int = DRAWS, seed: int = 0
) -> Floats:
    """The share of draws in which no other network dominates it: (n, m), (n, m), (n, m) -> (n,).

    Each cost is drawn from a normal distribution, all independently of each other.

    Args:
        costs: smaller is better, on a scale where the error is normal. Any rising scale will do, as dominance
            does not ask for more than an order: the logarithm for what is log-normal.
        errors: the standard error of each cost; 0.0 for what is exact.
        sources: which measurement a cost is of. Networks that share one share its error too.

    Example:
        >>> front_probabilities(np.array([[1.0], [1.0]]), np.ones((2, 1)), np.array([[0], [1]])).round(1)
        array([0.5, 0.5])
    """
    found = np.zeros(len(costs))
    rows = _contenders(costs, errors)
    if not len(rows):
        return found
    if _work(costs, rows) * draws > _MOST:  # thousands near the front have a small share each: fewer draws will do
        rows = _likely(costs, errors, rows)
        draws = min(draws, max(_FEWEST, int(_MOST / _work(costs, rows))))
    drawn = np.empty((costs.shape[1], len(rows), draws))  # (m, n, B)
    for j in range(costs.shape[1]):
        rng = np.random.default_rng([seed, j])
        kinds, of = np.unique(sources[rows, j], return_inverse=True)
        if np.array_equal(kinds, sources[rows, j]):  # nearly always: each has its own
            rng.standard_normal(out=drawn[j])
        else:
            drawn[j] = rng.standard_normal((len(kinds), draws))[of.reshape(-1)]
        drawn[j] *= errors[rows, j, None]
        drawn[j] += costs[rows, j, None]
    found[rows] = _on_front(drawn, pareto.pareto_front(costs[rows])).mean(axis=1)
    return found


def _work(costs: Floats, rows: NDArray[np.int64]) -> float:
    """Of one draw, in networks."""
    return len(rows) if costs.shape[1] <= 2 else len(rows) ** 2 / 60


def _contenders(costs: Floats, errors: Floats) -> NDArray[np.int64]:
    """Those that are not dominated beyond doubt; what they dominate, whatever dominates them dominates as well."""
    best, worst = costs - _CERTAIN * errors, costs + _CERTAIN * errors
    corners = np.unique(worst[pareto.pareto_front(worst)], axis=0)
    if costs.shape[1] == 2:  # the corners are a staircase: of those that are no worse in the first, the last is lowest
        before = np.searchsorted(corners[:, 0], best[:, 0], side="right") - 1
        nearest = np.where(before[:, None] >= 0, corners[before], np.inf)
        return np.flatnonzero(~(np.all(nearest <= best, axis=1) & np.any(nearest < best, axis=1)))
    left = np.arange(len(costs))
    for corner in _shuffled(corners):
        dominated = np.all(corner <= best[left], axis=1) & np.any(corner < best[left], axis=1)
        left = left[~dominated]
    return left


def _likely(costs: Floats, errors: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of some rows that no one of the front is all but certain to dominate."""
    left = rows
    for row in _shuffled(rows[pareto.pareto_front(costs[rows])])[:500]:
        gap = costs[left] - costs[row]
        sure = gap >= _ALL_BUT_CERTAIN * np.hypot(errors[left], errors[row])
        left = left[~(np.all(sure, axis=1) & np.any(gap > 0, axis=1))]
    return left


def _shuffled(rows: NDArray[Any]) -> NDArray[Any]:
    """What lies side by side takes away the same ones, and the sooner most are gone the better."""
    return np.random.default_rng(0).permutation(rows)


def _on_front(drawn: Floats, ahead: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Who is on the front of each draw: (m, n, B) -> (n, B).

    Args:
        ahead: (n,) some that are on the front of many draws.
    """
    if len(drawn) == 1:
        return np.asarray(drawn[0] == drawn[0].min(axis=0))
    return _staircase(drawn[0], drawn[1], ahead) if len(drawn) == 2 else _by_pairs(drawn)


_BINS = 512


def _staircase(first: Floats, second: Floats, ahead: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With two objectives: (n, B), (n, B), (n,) -> (n, B)."""
    near = _not_far_behind(first, second, np.flatnonzero(ahead))
    draws, rows = np.nonzero(near.T)
    numbers = np.bincount(draws, minlength=first.shape[1])
    at = np.arange(len(draws)) - np.repeat(np.cumsum(numbers) - numbers, numbers)  # its place among those of its draw
    x, y = np.full((2, len(numbers), int(numbers.max())), np.inf)  # (B, those near)
    x[draws, at], y[draws, at] = first[rows, draws], second[rows, draws]
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, axis=1), np.take_along_axis(y, order, axis=1)
    steps = np.ones_like(order, dtype=bool)
    steps[:, 1:] = y[:, 1:] < np.minimum.accumulate(y, axis=1)[:, :-1]
    # equal ones lie beside each other and fare alike: each looks at the first of them
    copies = np.zeros_like(steps)
    copies[:, 1:] = (x[:, 1:] == x[:, :-1]) & (y[:, 1:] == y[:, :-1])
    originals = np.maximum.accumulate(np.where(copies, 0, np.arange(order.shape[1])), axis=1)
    sorted_back = np.empty_like(steps)
    np.put_along_axis(sorted_back, order, np.take_along_axis(steps, originals, axis=1), axis=1)
    on_front = np.zeros_like(near)
    on_front[rows, draws] = sorted_back[draws, at]
    return on_front


def _not_far_behind(first: Floats, second: Floats, ahead: NDArray[np.int64]) -> NDArray[np.bool_]:
    """All but those that one of `ahead` dominates from another bin of the first objective, without sorting anybody:
    (n, B), (n, B), (a few,) -> (n, B)."""
    ahead = ahead[:: 1 + len(ahead) // 500]
    start, end = first[ahead].min(), first[ahead].max()
    scale = _BINS / (end - start) if end > start else 0.0
    draws = np.arange(first.shape[1])
    lowest = np.full((_BINS + 2, len(draws)), np.inf)  # of the second, in all bins before

    def bins(values: Floats) -> NDArray[np.int64]:
        return np.clip((values - start) * scale, 0, _BINS).astype(np.int64)  # rises with the value, so bins order them

    for row in ahead:
        after = bins(first[row]) + 1
        lowest[after, draws] = np.minimum(lowest[after, draws], second[row])
    np.minimum.accumulate(lowest, axis=0, out=lowest)
    near = np.empty(first.shape, dtype=bool)
    for rows in np.array_split(np.arange(len(first)), 1 + first.size // 200_000):  # a few MB at a time
        near[rows] = second[rows] < lowest[bins(first[rows]), draws]
    return near


def _by_pairs(drawn: Floats) -> NDArray[np.bool_]:
    """With any number of objectives: (m, n, B) -> (n, B)."""
    dominated = np.zeros(drawn.shape[1:], dtype=bool)
    best, worst = drawn.min(axis=2), drawn.max(axis=2)
    for i in np.argsort(drawn[0].mean(axis=1)):
        if dominated[i].all():  # what dominates it dominates those behind it too
            continue
        below = np.flatnonzero(np.all(best[:, i, None] <= worst, axis=0))  # in one draw or another
        one, others = drawn[:, i, None], drawn[:, below]
        dominated[below] |= np.all(one <= others, axis=0) & np.any(one < others, axis=0)
    return ~dominated
