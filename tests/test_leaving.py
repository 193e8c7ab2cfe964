"""In which order the rows of a rank leave it: remembered shares are those that are worked out anew each time."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest

from mlpspace import leaving
from mlpspace.leaving import Leaving, Shares
from mlpspace.pareto import Floats, hypervolume, pareto_front, rank
from mlpspace.rungs import Rungs, order


def left_the_slow_way(front: Floats, worst: Floats) -> list[int]:
    """Every share worked out by two hypervolumes, each time that it is asked for."""
    rows = set(range(len(front)))

    def lost(row: int) -> float:
        others = np.maximum(front[[other for other in rows if other != row]], front[row])
        return max(0.0, hypervolume(front[row : row + 1], worst) - hypervolume(others, worst))

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
    return left


def slow_order(costs: Floats, worst: Floats) -> list[int]:
    """All rows from the best, by rank."""
    found: list[int] = []
    ranks = rank(costs)
    for level in range(ranks.max() + 1):
        rows = np.flatnonzero(ranks == level)
        inside = np.all(costs[rows] < worst, axis=1)
        left = left_the_slow_way(costs[rows[inside]], worst)
        found += [*rows[inside][left[::-1]].tolist(), *rows[~inside].tolist()]
    return found


def some_costs(seed: int, rows: int, objectives: int) -> Floats:
    """Trade-offs, many of them near a front; with every second seed of few values, so that there are ties."""
    rng = np.random.default_rng([seed, rows, objectives])
    found = rng.dirichlet(np.ones(objectives), rows) + rng.exponential(0.05, (rows, objectives))
    return np.round(found, 1) if seed % 2 else found


@pytest.mark.parametrize("objectives", [1, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_that_of_working_out_every_share_anew(objectives: int, seed: int) -> None:
    costs, worst = some_costs(seed, 30, objectives), np.full(objectives, 0.9)
    assert list(order(costs, worst)) == slow_order(costs, worst)


@pytest.mark.parametrize("few", [0, 8, 1000])
@pytest.mark.parametrize("seed", range(2))
def test_what_is_remembered_of_other_rows_changes_nothing(few: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come to a rank and leave it, as where others sink below it or rise."""
    monkeypatch.setattr(leaving, "FEW", few)
    rng, worst = np.random.default_rng(seed), np.full(3, 0.9)
    costs = some_costs(seed, 60, 3)
    costs = costs[pareto_front(costs)]
    shares, there = Shares(worst), set[int]()
    for step in range(40):
        there ^= set(rng.choice(len(costs), 2).tolist())
        rows = sorted(there)
        if rows and step % 4 == 3:
            found = Leaving(rows, costs[rows], shares, worst).all()
            assert found == [rows[at] for at in slow_order(costs[rows], worst)]


def test_infinite_costs_are_worked_out_as_the_hypervolume_has_them() -> None:
    costs, worst = some_costs(0, 20, 3), np.full(3, 0.9)
    costs[:3, 0] = -np.inf
    costs[3:5, 1] = np.inf
    with np.errstate(invalid="ignore"):
        assert list(order(costs, worst)) == slow_order(costs, worst)


@pytest.mark.parametrize("objectives", [2, 3])
def test_what_is_asked_of_an_order_is_answered_as_the_whole_of_it_says(objectives: int) -> None:
    for seed in range(6):
        rng, worst = np.random.default_rng(seed), np.full(objectives, 0.7)
        costs = some_costs(seed, 25, objectives)
        costs = costs[pareto_front(costs)]
        rows = list(range(10, 10 + len(costs)))
        whole = Leaving(rows, costs, Shares(worst), worst).all()
        asked = Leaving(rows, costs, Shares(worst), worst)
        for _ in range(30):
            count = int(rng.integers(1, len(rows) + 1))
            waiting = set(rng.choice(rows, rng.integers(len(rows))).tolist())
            best = whole[:count]
            assert asked.first(count, waiting.__contains__) == next((row for row in best if row in waiting), None)
            row = int(rng.choice(rows))
            assert asked.has(row, count) == (row in best)


@pytest.mark.parametrize("seed", range(2))
def test_with_three_objectives_those_go_on_that_the_slow_way_lets_go_on(seed: int) -> None:
    costs, worst = some_costs(seed, 40, 3), np.full(3, 0.9)
    rungs, gone = Rungs(2, 0.4, worst), set[int]()
    for trial, row in enumerate(costs.tolist()):
        rungs.add(trial, 0, row)
        share = slow_order(costs[: trial + 1], worst)[: int((trial + 1) * 0.4)]
        assert rungs.is_promotable(trial, 0) == (trial in share)
        expected = next((each for each in share if each not in gone), None)
        assert rungs.promotable() == (None if expected is None else (expected, 0))
        if expected is not None and trial % 3:
            gone.add(expected)
            rungs.promote(expected, 0)


def test_a_volume_is_to_the_bit_that_of_pareto() -> None:
    """Else two rows of equal worth might change places."""
    worst = (0.9, 0.9, 0.9, 0.9)
    for seed, objectives in itertools.product(range(20), (1, 3, 4)):
        costs = some_costs(seed, 40, objectives)
        costs = np.unique(costs[pareto_front(costs) & np.all(costs < 0.9, axis=1)], axis=0)
        found = leaving._volume([tuple(row) for row in costs.tolist()], worst[:objectives])
        assert found == hypervolume(costs, worst[:objectives])
