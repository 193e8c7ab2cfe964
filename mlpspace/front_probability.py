"""How likely each network is on the front, given the errors of its measurements.

B draws, n networks, m objectives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlpspace import pareto
from mlpspace.pareto import Floats

DRAWS = 2000  # a probability of one half is then known to one percentage point
_CERTAIN = 4.5  # standard errors: of 2,000 draws of 100 networks, one lies as far out as that


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
    drawn = np.empty((costs.shape[1], len(rows), draws))  # (m, n, B)
    for j in range(costs.shape[1]):
        kinds, of = np.unique(sources[rows, j], return_inverse=True)
        noise = np.random.default_rng([seed, j]).standard_normal((len(kinds), draws))[of.reshape(-1)]
        drawn[j] = costs[rows, j, None] + errors[rows, j, None] * noise
    on_front = _staircase(*drawn) if len(drawn) == 2 else _by_pairs(drawn)
    found[rows] = on_front.mean(axis=1)
    return found


def _contenders(costs: Floats, errors: Floats) -> NDArray[np.int64]:
    """Those that are not dominated beyond doubt; what they dominate, whatever dominates them dominates as well."""
    best, worst = costs - _CERTAIN * errors, costs + _CERTAIN * errors
    dominated = np.zeros(len(costs), dtype=bool)
    for corner in np.unique(worst[pareto.pareto_front(worst)], axis=0):
        dominated |= np.all(corner <= best, axis=1) & np.any(corner < best, axis=1)
    return np.flatnonzero(~dominated)


def _staircase(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Who is on the front of each draw, with two objectives: (n, B), (n, B) -> (n, B)."""
    order = np.lexsort((second, first), axis=0)
    first, second = np.take_along_axis(first, order, axis=0), np.take_along_axis(second, order, axis=0)
    lowest = np.minimum.accumulate(second, axis=0)
    steps = np.ones_like(order, dtype=bool)
    steps[1:] = second[1:] < lowest[:-1]
    # equal ones lie beside each other and fare alike: each looks at the first of them
    copies = np.zeros_like(steps)
    copies[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    rows = np.arange(len(order))[:, None]
    originals = np.maximum.accumulate(np.where(copies, 0, rows), axis=0)
    on_front = np.empty_like(steps)
    np.put_along_axis(on_front, order, np.take_along_axis(steps, originals, axis=0), axis=0)
    return on_front


def _by_pairs(drawn: Floats) -> NDArray[np.bool_]:
    """Who is on the front of each draw: (m, n, B) -> (n, B)."""
    dominated = np.zeros(drawn.shape[1:], dtype=bool)
    for i in range(drawn.shape[1]):
        one = drawn[:, i : i + 1]
        dominated |= np.all(one <= drawn, axis=0) & np.any(one < drawn, axis=0)
    return ~dominated
