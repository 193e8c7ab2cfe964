"""Dominance, rank, front and hypervolume: arrays in, arrays out, numpy and nothing else.

Everything here is a cost, smaller is better. Shapes: n networks, m objectives.
Infinite costs are ordinary numbers (+inf: as bad as can be). NaN has no order and is refused with a ValueError.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Is no cost of `a` higher than that of `b`, and at least one lower? Both (m,)."""
    first, second = _ordered(a), _ordered(b)
    return bool(np.all(first <= second) and np.any(first < second))


def pareto_front(costs: ArrayLike) -> NDArray[np.bool_]:
    """Which rows no other row dominates: (n, m) -> (n,). Equal rows do not dominate each other.

    Example:
        >>> pareto_front([[1.0, 3.0], [2.0, 1.0], [2.0, 4.0]])
        array([ True,  True, False])
    """
    rows, copies = _sorted_once(_table(costs))
    return _front_of_sorted(rows)[copies]


def rank(costs: ArrayLike) -> NDArray[np.int64]:
    """0 for the front, 1 for the front of what is left without it, and so on: (n, m) -> (n,).

    Example:
        >>> rank([[1.0, 3.0], [2.0, 1.0], [2.0, 4.0]])
        array([0, 0, 1])
    """
    rows, copies = _sorted_once(_table(costs))
    ranks = np.zeros(len(rows), dtype=np.int64)
    left = np.arange(len(rows))
    current = 0
    while left.size:
        on_front = _front_of_sorted(rows[left])
        ranks[left[on_front]] = current
        left = left[~on_front]
        current += 1
    return ranks[copies]


def hypervolume(costs: ArrayLike, worst: ArrayLike) -> float:
    """Volume of the region that `costs` dominate and that dominates `worst`, exact for any m.

    Args:
        costs: (n, m). Rows that are not better than `worst` in every objective add nothing.
        worst: (m,), the reference corner. Two volumes compare only if it is the same.

    Returns:
        The volume in the product of the objectives' units; 0.0 for no rows, inf if a row that counts is infinitely
        far from the corner.

    The volume is cut along the last objective into slabs, each as large as the (m-1)-dimensional volume of the rows
    that reach it (While et al. 2006, doi:10.1109/TEVC.2005.851275): O(n log n) for m = 2, a power of n more for each
    objective beyond.

    Example:
        >>> hypervolume([[1.0, 3.0], [2.0, 1.0]], [4.0, 4.0])
        7.0
    """
    table, corner = _table(costs), _ordered(worst)
    rows = table[np.all(table < corner, axis=1)]
    if not len(rows):
        return 0.0
    if not (np.isfinite(rows).all() and np.isfinite(corner).all()):
        return float("inf")
    return _volume(_front(rows), corner)


def contributions(costs: ArrayLike, worst: ArrayLike) -> Floats:
    """What the hypervolume would lose without each row: (n, m), (m,) -> (n,). Rows off the front and copies lose 0."""
    table, corner = _table(costs), _ordered(worst)
    lost = np.zeros(len(table))
    for i in np.flatnonzero(pareto_front(table)):
        own = hypervolume(table[i : i + 1], corner)
        # what the others have of this row's own box: they reach into it as far as their worse coordinate goes
        others = np.maximum(np.delete(table, i, axis=0), table[i])
        shared = hypervolume(others, corner)
        lost[i] = 0.0 if shared >= own else own - shared
    return lost


def _volume(rows: Floats, corner: Floats) -> float:
    """`rows` are on one front and finite."""
    if rows.shape[1] == 1:
        return float(corner[0] - rows.min())
    if rows.shape[1] == 2:
        first, second = rows[np.argsort(rows[:, 0])].T  # the second falls as the first rises: a staircase
        heights = np.append(corner[1], second[:-1]) - second
        return float(np.sum((corner[0] - first) * heights))
    rows = rows[np.argsort(rows[:, -1])]
    ends = np.append(rows[1:, -1], corner[-1])
    volume = 0.0
    for i, thickness in enumerate(ends - rows[:, -1]):
        if thickness > 0:
            volume += thickness * _volume(_front(rows[: i + 1, :-1]), corner[:-1])
    return float(volume)


def _front(rows: Floats) -> Floats:
    """The rows of the front, each once, in lexicographic order."""
    rows, _ = _sorted_once(rows)
    return rows[_front_of_sorted(rows)]


def _sorted_once(rows: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Each once in lexicographic order, and which of these each was; `np.unique` takes many times as long."""
    order = np.lexsort(rows.T[::-1]) if len(rows) else np.zeros(0, dtype=np.int64)
    ordered = rows[order]
    differs = np.ones(len(rows), dtype=bool)
    differs[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    which = np.empty(len(rows), dtype=np.int64)
    which[order] = np.cumsum(differs) - 1
    return ordered[differs], which


def _front_of_sorted(rows: Floats) -> NDArray[np.bool_]:
    """`rows` differ and are in lexicographic order, so that a later one can never dominate an earlier one."""
    on_front = np.zeros(len(rows), dtype=bool)
    if not len(rows):
        return on_front
    if rows.shape[1] == 1:
        on_front[0] = True
        return on_front
    if rows.shape[1] == 2:
        # the first cost only rises, so a row is on the front if its second is lower than every one before
        on_front[0] = True
        on_front[1:] = rows[1:, 1] < np.minimum.accumulate(rows[:, 1])[:-1]
        return on_front
    left = np.arange(len(rows))
    while left.size:
        on_front[left[0]] = True
        left = left[np.any(rows[left] < rows[left[0]], axis=1)]
    return on_front


def _table(costs: ArrayLike) -> Floats:
    table = _ordered(costs)
    if table.ndim != 2:
        raise ValueError(f"costs are a table of shape (networks, objectives), not of shape {table.shape}")
    return table


def _ordered(costs: Any) -> Floats:
    array = np.asarray(costs, dtype=np.float64) + 0.0  # no -0.0, which would sort apart from its equal
    if np.isnan(array).any():
        raise ValueError("a cost is NaN, which is neither better nor worse than anything; leave that network out")
    return array
