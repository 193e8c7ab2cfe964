"""A search ends when its hypervolume stops growing, and says what it gave up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlpspace.stopping import Plateau


def after(volumes, patience=3, gain=0.01) -> Plateau:
    plateau = Plateau(patience, gain)
    for volume in volumes:
        plateau.update(float(volume))
    return plateau


def test_a_search_that_grows_by_less_than_the_share_has_reached_its_end():
    assert after([10, 20, 20.05, 20.05, 20.1]).reached  # 20 -> 20.1 in three trials: 0.5 %
    assert after([10, 20, 20.05, 20.05, 20.1]).grew == pytest.approx(0.005)
    assert not after([10, 20, 20.05, 20.05, 20.3]).reached  # 1.5 %
    assert not after([10, 19, 20.05, 20.05, 20.1], patience=4).reached


def test_it_never_ends_before_patience_nor_while_there_is_nothing():
    plateau = Plateau(3, 0.01)
    for _ in range(3):
        plateau.update(5.0)
        assert not plateau.reached
    plateau.update(5.0)
    assert plateau.reached
    assert not after([0.0] * 50).reached
    assert not after([0.0] * 50 + [1.0, 1.0, 1.0]).reached  # three trials ago there was nothing
    assert after([0.0] * 50 + [1.0, 1.0, 1.0, 1.0]).reached


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.0])
def test_a_power_law_is_carried_on_exactly(exponent):
    def volume(n: int) -> float:
        return 7.0 - 3.0 * n**-exponent

    plateau = after([volume(n) for n in range(1, 65)])
    expected = (volume(64 + 20) - volume(64)) / volume(64)
    assert plateau.expected_gain(20) == pytest.approx(expected, rel=1e-6)
    low, high = plateau.expected_range(20)
    assert low < expected < high


def test_a_logarithm_is_carried_on_exactly():
    plateau = after([5 + math.log(n) for n in range(1, 129)])
    assert plateau.expected_gain(128) == pytest.approx(math.log(2) / (5 + math.log(128)), rel=1e-6)


def test_where_nothing_came_of_the_last_half_the_range_leaves_room_for_one_find():
    plateau = after([1.0, 2.0, 3.0, 4.0] + [4.0] * 60)
    assert plateau.expected_gain(30) == 0
    low, high = plateau.expected_range(30)
    assert low == 0
    assert 0.02 < high < 0.5  # a find was worth a quarter of what there is


@pytest.mark.parametrize("volumes", [[], [0.0], [3.0], [0.0, 3.0], [3.0, 3.5]])
def test_what_has_no_trend_yet_has_an_answer_too(volumes):
    plateau = after(volumes)
    assert plateau.expected_gain(10) >= 0
    low, high = plateau.expected_range(10)
    assert 0 <= low <= high < math.inf


def test_the_estimate_holds_on_average_and_its_range_mostly_for_random_search():
    """Best of n random draws, whose growth slows down in its own way: no power law was told to it."""
    rng = np.random.default_rng(0)
    ratios, inside = [], []
    for _ in range(300):
        best = np.maximum.accumulate(rng.beta(2, 3, 240))
        plateau = after(best[:160])
        truth = best[239] / best[159] - 1
        low, high = plateau.expected_range(80)
        ratios.append((plateau.expected_gain(80), truth))
        inside.append(low <= truth <= high)
    expected, truth = np.mean(ratios, axis=0)
    assert 0.5 < expected / truth < 2
    assert np.mean(inside) > 0.65
