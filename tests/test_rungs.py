"""Successive halving: the best go on, nobody waits, nothing is promoted twice."""

from __future__ import annotations

import numpy as np
import pytest

from mlpspace.pareto import hypervolume, rank
from mlpspace.rungs import Rungs, order

WORST = (10.0, 10.0)


def order_by_trying(costs: np.ndarray, worst: tuple[float, ...]) -> list[int]:
    """The obvious slow way: of each rank, leave out every row in turn and see what the volume is without it."""
    found = []
    ranks = rank(costs)
    for level in range(ranks.max() + 1):
        left = list(np.flatnonzero(ranks == level))
        out = []
        while left:
            without = [hypervolume(np.delete(costs[left], i, axis=0), worst) for i in range(len(left))]
            beyond = [np.any(costs[row] >= worst) for row in left]
            # what lies beyond the corner leaves first, then what is missed least; of equals the latest
            out.append(max(range(len(left)), key=lambda i: (beyond[i], round(without[i], 9), left[i])))
            out[-1] = left.pop(out[-1])
        found += out[::-1]
    return [int(row) for row in found]


def test_the_order_is_by_rank_and_then_by_what_the_hypervolume_would_lose():
    # by hand: row 3 is dominated; of the front, row 1 adds 2 x 4, row 0 adds 1 x 2, row 2 adds 1 x 1 (a knee and two ends)
    assert list(order([[1.0, 8.0], [3.0, 2.0], [9.0, 1.0], [9.0, 9.0]], WORST)) == [1, 0, 2, 3]


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_leaving_out_every_row_in_turn(objectives, seed):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 12, (14, objectives)).astype(float) if seed % 2 else rng.uniform(0, 12, (14, objectives))
    worst = (10.0,) * objectives
    assert list(order(costs, worst)) == order_by_trying(costs, worst)


def test_ends_beyond_the_corner_come_last_in_their_rank():
    costs = [[0.0, 11.0], [5.0, 5.0], [11.0, 0.0], [6.0, 6.0]]
    assert list(order(costs, WORST)) == [1, 0, 2, 3]


def test_of_copies_and_near_copies_one_stays_in_front():
    good = [5.0, 2.0]
    costs = [good, good, [1.0, 9.0], [9.0, 1.0], [5.001, 1.999]]
    found = list(order(costs, WORST))
    assert found[0] in (0, 4)  # one of the three alike, though two others would make up for each
    assert {found[0], found[-1], found[-2]} == {0, 1, 4}


def filled(costs, keep=1 / 3, count=3) -> Rungs:
    rungs = Rungs(count, keep, WORST)
    for trial, row in enumerate(costs):
        rungs.add(trial, 0, row)
    return rungs


def test_a_rung_promotes_its_best_third_and_waits_for_no_other():
    rungs = Rungs(3, 1 / 3, WORST)
    rungs.add(0, 0, (5.0, 5.0))
    rungs.add(1, 0, (4.0, 4.0))
    assert rungs.promotable() is None  # a third of two is none
    rungs.add(2, 0, (6.0, 6.0))
    assert rungs.promotable() == (1, 0)
    assert [rungs.is_promotable(trial, 0) for trial in range(3)] == [False, True, False]
    rungs.promote(1, 0)
    assert rungs.promotable() is None
    for trial in (3, 4, 5):  # a third of six is two; the best of all is new
        rungs.add(trial, 0, (1.0 + trial, 1.0))
    assert rungs.promotable() == (3, 0)


def test_who_was_once_among_the_worse_is_promoted_when_the_share_has_grown():
    rungs = filled([(1.0, 1.0), (2.0, 2.0), (8.0, 8.0)])
    rungs.promote(0, 0)
    for trial in (3, 4, 5):
        rungs.add(trial, 0, (9.0, 9.0))
    assert rungs.promotable() == (1, 0)


def test_the_highest_rung_comes_first():
    rungs = filled([(float(i), 1.0) for i in range(9)])
    for trial in range(3):
        assert rungs.promotable() == (trial, 0)
        rungs.promote(trial, 0)
    for trial in range(3):
        rungs.add(trial, 1, (float(trial), 1.0))
    rungs.add(9, 0, (0.0, 0.0))
    rungs.add(10, 0, (9.0, 9.0))
    rungs.add(11, 0, (9.0, 9.0))
    assert rungs.promotable() == (0, 1)
    rungs.promote(0, 1)
    assert rungs.promotable() == (9, 0)


def test_what_was_dropped_is_never_promoted_but_counts():
    rungs = filled([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)])
    rungs.drop(0)
    assert rungs.promotable() is None  # the one place is taken by a trial that is gone
    assert not rungs.is_promotable(0, 0)
    for trial in (3, 4, 5):
        rungs.add(trial, 0, (9.0, 9.0))
    assert rungs.promotable() == (1, 0)


def test_copies_do_not_both_starve():
    copies = filled([(1.0, 1.0), (1.0, 1.0), (9.0, 1.0)])
    assert copies.promotable() == (0, 0)
    ends = filled([(5.0, 5.0), (5.0, 5.0), (1.0, 9.0), (9.0, 1.0), (9.5, 9.5), (9.5, 9.5)])
    promoted = set()
    while (found := ends.promotable()) is not None:
        ends.promote(*found)
        promoted.add(found[0])
    assert 0 in promoted
    assert 1 not in promoted


def test_with_everything_kept_everything_goes_on_and_from_the_last_rung_nothing():
    rungs = filled([(1.0, 1.0), (2.0, 2.0)], keep=1.0, count=2)
    assert rungs.is_promotable(1, 0)
    rungs.add(0, 1, (1.0, 1.0))
    assert not rungs.is_promotable(0, 1)
    assert not rungs.has_gone_on(1, 0)
    rungs.promote(1, 0)
    assert rungs.has_gone_on(1, 0)
    single = filled([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)], count=1)
    assert single.promotable() is None
    assert single.last_resort() is None


def test_a_study_that_is_too_small_to_promote_sends_its_best_on():
    rungs = filled([(2.0, 2.0), (1.0, 1.0)])
    assert rungs.promotable() is None
    assert rungs.last_resort() == (1, 0)
    rungs.promote(1, 0)
    assert rungs.last_resort() is None  # it is on its way
    rungs.add(1, 1, (1.0, 1.0))
    assert rungs.last_resort() == (1, 1)
    rungs.promote(1, 1)
    rungs.drop(1)  # it ran out of memory there
    assert rungs.last_resort() == (0, 0)
    rungs.promote(0, 0)
    rungs.add(0, 1, (2.0, 2.0))
    rungs.promote(0, 1)
    rungs.add(0, 2, (2.0, 2.0))
    assert rungs.last_resort() is None
    assert Rungs(3, 0.5, WORST).last_resort() is None


@pytest.mark.parametrize("objectives", [2, 3])
def test_whatever_comes_the_next_one_is_the_first_of_the_share_that_is_not_on_its_way(objectives):
    rng = np.random.default_rng(0)
    worst = (10.0,) * objectives
    rungs = Rungs(2, 0.4, worst)
    costs: list[np.ndarray] = []
    gone: set[int] = set()
    for trial in range(60):
        costs.append(rng.integers(0, 12, objectives).astype(float))
        rungs.add(trial, 0, costs[-1])
        share = list(order(costs, worst))[: int(len(costs) * 0.4)]
        expected = next((int(row) for row in share if row not in gone), None)
        assert rungs.promotable() == (None if expected is None else (expected, 0))
        assert {t for t in range(len(costs)) if rungs.is_promotable(t, 0)} == set(share) - gone
        if expected is not None and rng.random() < 0.7:
            gone.add(expected)
            rungs.promote(expected, 0)
        elif rng.random() < 0.2:
            gone.add(trial)
            rungs.drop(trial)


def test_a_trial_that_comes_to_a_rung_again_is_counted_once():
    rungs = filled([(1.0, 1.0), (2.0, 2.0)], keep=0.5)
    rungs.add(1, 0, (0.0, 0.0))
    assert rungs.promotable() == (0, 0)
