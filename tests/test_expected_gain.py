"""The expected gain of hypervolume, against averages over draws of the uncertain cost."""

from __future__ import annotations

import numpy as np
import pytest

from mlpspace.pareto import hypervolume
from mlpspace.sampling.expected_gain import expected_gain


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_it_is_the_mean_of_what_the_hypervolume_gains(objectives):
    rng = np.random.default_rng(objectives)
    front, corner = rng.random((6, objectives)), np.full(objectives, 1.1)
    mean, sd, known = rng.random(5), 0.1 + 0.2 * rng.random(5), rng.random((5, objectives - 1))
    before = hypervolume(front, corner)
    for i, gain in enumerate(expected_gain(mean, sd, known, front, corner)):
        draws = rng.normal(mean[i], sd[i], 600)
        gains = [hypervolume(np.vstack([front, [draw, *known[i]]]), corner) - before for draw in draws]
        error = np.std(gains) / np.sqrt(len(gains))
        assert gain == pytest.approx(np.mean(gains), abs=4 * error + 1e-4)


def test_without_a_front_it_is_the_whole_volume():
    gain = expected_gain(np.array([0.25]), np.array([1e-9]), np.array([[0.5]]), np.zeros((0, 2)), np.ones(2))
    assert gain[0] == pytest.approx(0.75 * 0.5)


def test_what_costs_more_than_the_corner_gains_nothing_however_accurate():
    gain = expected_gain(np.array([-5.0]), np.array([1.0]), np.array([[1.5]]), np.zeros((0, 2)), np.ones(2))
    assert gain[0] == 0


def test_a_certain_candidate_gains_what_the_hypervolume_says():
    rng = np.random.default_rng(0)
    front, corner = rng.random((20, 2)), np.ones(2)
    points = rng.random((50, 2))
    gains = expected_gain(points[:, 0], np.full(50, 1e-12), points[:, 1:], front, corner)
    before = hypervolume(front, corner)
    assert gains == pytest.approx([hypervolume(np.vstack([front, p]), corner) - before for p in points], abs=1e-9)
