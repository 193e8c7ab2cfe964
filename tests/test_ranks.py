"""Rows that came one by one, and rows that came at once, are in the ranks that they are in by definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlpspace.pareto import Floats, dominates
from mlpspace.ranks import Ranks

MANY = 20  # in the place of the usual number: the slow way takes long
ROWS = 3 * MANY


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpspace.ranks.MANY", MANY)


def slow_ranks(costs: Floats) -> list[set[int]]:
    """Those that none of the others dominates; then the same of what is left."""
    left, found = set(range(len(costs))), []
    while left:
        found.append({row for row in left if not any(dominates(costs[other], costs[row]) for other in left)})
        left -= found[-1]
    return found


def ranks_of(ranks: Ranks) -> list[set[int]]:
    found = [[int(key[-1]) for key in each.keys] for each in ranks._all()]
    assert all(len(rows) == len(set(rows)) for rows in found)
    return [set(rows) for rows in found]


def some_costs(objectives: int, kind: str) -> Floats:
    rng = np.random.default_rng(objectives)
    if kind == "ties":  # few values: copies, and rows that are equal in some costs
        return rng.integers(0, 6, (ROWS, objectives)).astype(float)
    found = rng.uniform(0, 1, (ROWS, objectives))
    return found / found.sum(axis=1, keepdims=True) + rng.exponential(0.05, found.shape) * (kind == "near a front")


@pytest.mark.parametrize("kind", ["ties", "near a front"])
@pytest.mark.parametrize("objectives", [1, 2, 3])
# how many came each time before anybody asked: more than MANY, and more than were there, are ranked together
@pytest.mark.parametrize(
    "together",
    [[MANY], [1] * ROWS, [ROWS], [3, ROWS - 3], [MANY + 1, 1, 1, MANY // 2], [5, MANY + 1, MANY + 10]],
    ids=str,
)
def test_the_ranks_are_those_of_leaving_out_one_front_after_the_other(
    objectives: int, kind: str, together: list[int]
) -> None:
    costs = some_costs(objectives, kind)
    ranks = Ranks(np.full(objectives, 10.0))
    rows = iter(range(ROWS))
    for count in together:
        for row in itertools.islice(rows, count):
            assert ranks.add(costs[row].tolist(), waiting=row % 3 > 0) == row
        found = ranks_of(ranks)
    assert found == slow_ranks(costs[: len(ranks)])
    assert [each.waiting for each in ranks._all()] == [sum(row % 3 > 0 for row in rows) for rows in found]


@pytest.mark.parametrize("objectives", [2, 3])
def test_whether_they_came_at_once_or_one_by_one_the_same_row_is_next(objectives: int) -> None:
    costs, worst = some_costs(objectives, "ties"), np.full(objectives, 5.0)
    at_once, one_by_one = Ranks(worst), Ranks(worst)
    for row in costs.tolist():
        at_once.add(row, waiting=True)
        one_by_one.add(row, waiting=True)
        one_by_one.first(1)
    for _ in range(25):
        first = at_once.first(25)
        assert first is not None
        assert one_by_one.first(25) == first
        assert at_once.has(first, 25)
        assert one_by_one.has(first, 25)
        at_once.gone(first)
        one_by_one.gone(first)
    assert at_once.first(25) is one_by_one.first(25) is None
