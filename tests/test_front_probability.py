"""Probabilities of being on a front, against what can be worked out by hand and against a slow obvious method."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlpspace import pareto
from mlpspace.front_probability import DRAWS, _on_front, front_probabilities

TOLERANCE = 4 * math.sqrt(0.25 / DRAWS)  # four standard errors of the worst share


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def own(costs: np.ndarray) -> np.ndarray:
    """Each cost is of a measurement of its own."""
    return np.tile(np.arange(len(costs))[:, None], costs.shape[1])


def phi(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@pytest.mark.parametrize("ahead", [0.0, 0.5, 1.0, 2.0])
def test_one_of_two_is_the_better_with_the_probability_of_a_difference_of_normals(ahead: float) -> None:
    costs = np.array([[0.0], [ahead]])
    errors = np.array([[0.6], [0.8]])  # their difference has an error of 1
    found = front_probabilities(costs, errors, own(costs))
    assert found == pytest.approx([phi(ahead), 1 - phi(ahead)], abs=TOLERANCE)


def test_with_two_objectives_it_takes_both_to_be_dominated() -> None:
    costs = np.array([[0.0, 0.0], [0.5, 1.0]])
    errors = np.sqrt(np.array([[0.5, 0.5], [0.5, 0.5]]))
    found = front_probabilities(costs, errors, own(costs))
    assert found[1] == pytest.approx(1 - phi(0.5) * phi(1.0), abs=TOLERANCE)
    assert found[0] == pytest.approx(1 - phi(-0.5) * phi(-1.0), abs=TOLERANCE)


def test_without_errors_it_is_the_front(rng: np.random.Generator) -> None:
    for objectives in (1, 2, 3):
        costs = rng.integers(0, 6, size=(40, objectives)).astype(float)  # equal ones among them
        found = front_probabilities(costs, np.zeros_like(costs), own(costs))
        assert (found == pareto.pareto_front(costs)).all()


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_each_draw_has_the_front_that_dominance_gives(rng: np.random.Generator, objectives: int) -> None:
    drawn = rng.integers(0, 5, size=(objectives, 12, 200)).astype(float)
    ahead = rng.random(12) < 0.5 if objectives == 2 else np.zeros(12, dtype=bool)
    found = _on_front(drawn, ahead)
    for draw in range(drawn.shape[2]):
        assert (found[:, draw] == pareto.pareto_front(drawn[:, :, draw].T)).all()


def test_what_is_left_away_beyond_doubt_changes_nothing(rng: np.random.Generator) -> None:
    """Against drawing everything."""
    costs, errors = rng.uniform(size=(60, 2)), np.full((60, 2), 0.03)
    slow = np.zeros(60)
    for _ in range(DRAWS):
        slow += pareto.pareto_front(costs + errors * rng.standard_normal(costs.shape))
    assert front_probabilities(costs, errors, own(costs)) == pytest.approx(slow / DRAWS, abs=1.5 * TOLERANCE)


def test_who_shares_a_measurement_shares_its_error() -> None:
    """Two recipes of one network: whichever is the more accurate dominates the other."""
    costs, errors = np.array([[-90.0, 3.0], [-90.0, 3.0]]), np.array([[1.0, 0.1], [1.0, 0.1]])
    shared = np.array([[0, 0], [1, 0]])
    assert front_probabilities(costs, errors, shared).sum() == pytest.approx(1.0)
    assert front_probabilities(costs, errors, own(costs)).sum() > 1.3


def test_nobody_has_no_probability() -> None:
    assert front_probabilities(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2), dtype=np.int64)).shape == (0,)
