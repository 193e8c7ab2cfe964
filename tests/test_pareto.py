"""Expectations are closed forms, the slow obvious method, or Optuna's own functions."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from mlpspace import pareto
from mlpspace.pareto import contributions, dominates, hypervolume, pareto_front, rank


def slow_front(costs: np.ndarray) -> list[bool]:
    return [not any(dominates(other, row) for other in costs) for row in costs]


def slow_volume(costs: np.ndarray, worst: np.ndarray) -> float:
    """Inclusion and exclusion over the boxes between each row and the corner."""
    total = 0.0
    for size in range(1, len(costs) + 1):
        for rows in itertools.combinations(costs, size):
            total -= (-1) ** size * np.prod(np.maximum(worst - np.max(rows, axis=0), 0.0))
    return total


def clumped(seed: int, n: int, m: int) -> np.ndarray:
    """Random rows of few values, so that ties and copies are common."""
    return np.random.default_rng(seed).integers(0, 6, size=(n, m)).astype(float)


#          b: | (0,0) | (0,1) | (1,0) | (1,1) |
# a: (0,0)    |   no  |  yes  |  yes  |  yes  |
#    (0,1)    |   no  |   no  |   no  |  yes  |
#    (1,0)    |   no  |   no  |   no  |  yes  |
#    (1,1)    |   no  |   no  |   no  |   no  |
@pytest.mark.parametrize(("a", "dominated"), [((0, 0), 3), ((0, 1), 1), ((1, 0), 1), ((1, 1), 0)])
def test_dominance_table(a: tuple[int, int], dominated: int) -> None:
    assert sum(dominates(a, b) for b in itertools.product((0, 1), repeat=2)) == dominated


def test_nothing_dominates_itself() -> None:
    assert not dominates([1.0, np.inf], [1.0, np.inf])


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_the_definition_says(seed: int, m: int) -> None:
    costs = clumped(seed, 40, m)
    assert pareto_front(costs).tolist() == slow_front(costs)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_points_on_a_sphere_are_all_on_the_front(m: int) -> None:
    points = np.abs(np.random.default_rng(0).normal(size=(100, m)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert pareto_front(-points).all()


@pytest.mark.parametrize("m", [2, 3])
def test_doubling_every_point_leaves_the_front_as_it_was(m: int) -> None:
    costs = np.random.default_rng(1).random((50, m))
    once = pareto_front(costs)
    assert pareto_front(np.concatenate([costs, costs])).tolist() == [*once, *once]


@pytest.mark.parametrize("m", [2, 3, 4])
def test_ranks_agree_with_optuna(m: int) -> None:
    costs = np.random.default_rng(2).random((80, m))
    assert rank(costs).tolist() == _fast_non_domination_rank(costs).tolist()


@pytest.mark.parametrize("m", [2, 3])
def test_rank_zero_is_the_front_and_peeling_it_lowers_every_other_rank_by_one(m: int) -> None:
    costs = clumped(3, 40, m)
    ranks = rank(costs)
    assert (ranks == 0).tolist() == pareto_front(costs).tolist()
    assert rank(costs[ranks > 0]).tolist() == (ranks[ranks > 0] - 1).tolist()


def test_a_chain_has_as_many_ranks_as_points() -> None:
    assert rank([[i, i] for i in range(10)]).tolist() == list(range(10))


@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_the_volume_of_a_staircase(n: int) -> None:
    """Steps (i, n - 1 - i) before the corner (n, n): all of n^2 but the n(n-1)/2 unit squares below the stairs."""
    steps = [[i, n - 1 - i] for i in range(n)]
    assert hypervolume(steps, [n, n]) == n**2 - n * (n - 1) / 2
    scaled = np.array(steps) * [2.0, 0.5] + [3.0, -1.0]
    assert hypervolume(scaled, [2.0 * n + 3.0, 0.5 * n - 1.0]) == pytest.approx(n**2 - n * (n - 1) / 2)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_one_point_spans_a_box(m: int) -> None:
    assert hypervolume([[1.0] * m], [3.0] * m) == 2.0**m


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_volume_agrees_with_inclusion_and_exclusion(seed: int, m: int) -> None:
    costs, worst = clumped(seed, 9, m), np.full(m, 5.0)
    assert hypervolume(costs, worst) == pytest.approx(slow_volume(costs, worst))


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_volume_agrees_with_optuna(m: int) -> None:
    costs, worst = np.random.default_rng(4).random((40, m)), np.ones(m)
    assert hypervolume(costs, worst) == pytest.approx(compute_hypervolume(costs, worst))


@pytest.mark.parametrize("m", [2, 3])
def test_dominated_rows_and_copies_add_no_volume(m: int) -> None:
    costs, worst = np.random.default_rng(5).random((30, m)), np.ones(m)
    assert hypervolume(costs[pareto_front(costs)], worst) == pytest.approx(hypervolume(costs, worst))
    assert hypervolume(np.repeat(costs, 2, axis=0), worst) == pytest.approx(hypervolume(costs, worst))


def test_rows_beyond_the_corner_add_no_volume() -> None:
    assert hypervolume([[1.0, 5.0], [5.0, 1.0], [4.0, 1.0]], [4.0, 4.0]) == 0.0
    assert hypervolume([[1.0, 3.0], [0.0, np.inf]], [4.0, 4.0]) == 3.0


def test_no_rows_have_an_empty_front_and_no_volume() -> None:
    none = np.empty((0, 2))
    assert pareto_front(none).tolist() == rank(none).tolist() == contributions(none, [1, 1]).tolist() == []
    assert hypervolume(none, [1, 1]) == 0.0


@pytest.mark.parametrize("m", [2, 3])
def test_a_contribution_is_what_is_lost_without_the_row(m: int) -> None:
    costs, worst = clumped(6, 20, m) / 6, np.ones(m)
    whole = hypervolume(costs, worst)
    lost = [whole - hypervolume(np.delete(costs, i, axis=0), worst) for i in range(len(costs))]
    assert contributions(costs, worst) == pytest.approx(lost)


def test_infinite_costs_are_in_order() -> None:
    assert pareto_front([[1.0, np.inf], [1.0, 5.0], [-np.inf, 9.0]]).tolist() == [False, True, True]
    assert hypervolume([[-np.inf, 1.0]], [2.0, 2.0]) == np.inf


def test_a_cost_that_is_no_number_is_refused() -> None:
    for function in (pareto_front, rank):
        with pytest.raises(ValueError, match="NaN"):
            function([[1.0, np.nan]])
    with pytest.raises(ValueError, match="NaN"):
        hypervolume([[1.0, 1.0]], [np.nan, 2.0])


def test_a_flat_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(networks, objectives\)"):
        pareto_front([1.0, 2.0])


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(pareto).failed == 0
    assert doctest.testmod(pareto).attempted == 3


def test_zero_has_no_sign() -> None:
    assert pareto_front([[0.0, -0.0], [-0.0, 0.0]]).all()
