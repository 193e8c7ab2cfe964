"""The front kept up to date is the front of all there is, whatever came and in which order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mlpspace.leaders import Leaders
from mlpspace.pareto import hypervolume, pareto_front
from mlpspace.results import Result


def result(number: int, costs: tuple[float, ...], *, disturbed: bool = False) -> Result:
    return Result(number, "", None, {}, costs, None, None, 1.0, disturbed)


def slow_front(results: list[Result]) -> list[Result]:
    """All of them compared with all of them."""
    taking_part = [each for each in results if not each.disturbed] or results
    mask = pareto_front(np.array([each.costs for each in taking_part]))
    return [each for each, on in zip(taking_part, mask, strict=True) if on]


def numbers(results: list[Result]) -> list[int]:
    return sorted(each.number for each in results)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("first_undisturbed", [0, 40])
def test_after_each_result_it_is_the_front_of_all(objectives: int, first_undisturbed: int) -> None:
    rng = np.random.default_rng([objectives, first_undisturbed])
    worst = (8.0,) * objectives
    leaders = Leaders(worst)
    results: dict[int, Result] = {}
    for step in range(150):
        # few values, so that many are equal; a network that is trained anew has other costs afterwards
        number = step if rng.random() < 0.8 or not results else int(rng.choice(sorted(results)))
        costs = tuple(float(cost) for cost in rng.integers(0, 10, objectives))
        new = result(number, costs, disturbed=bool(step < first_undisturbed or rng.random() < 0.3))
        would = leaders.stands(costs, new.disturbed)
        if number not in results:
            others = [*results.values(), new]
            assert would == (number in numbers(slow_front(others))), "whether it would stand"
        before = numbers(leaders.front())
        changed = leaders.put(new)
        results[number] = new
        expected = slow_front(list(results.values()))
        assert numbers(leaders.front()) == numbers(expected)
        assert changed or before == numbers(expected)
        assert leaders.hypervolume() == pytest.approx(hypervolume(np.array([each.costs for each in expected]), worst))
        probe = rng.integers(0, 10, objectives)
        as_good = any(all(a <= b for a, b in zip(each.costs or (), probe, strict=True)) for each in expected)
        assert leaders.reaches([float(cost) for cost in probe]) == as_good


def test_nothing_is_on_the_front_of_nothing() -> None:
    leaders = Leaders((1.0, 1.0))
    assert leaders.front() == []
    assert leaders.hypervolume() == 0.0
    assert not leaders.reaches((5.0, 5.0))
    assert leaders.stands((5.0, 5.0), disturbed=True)


def test_the_best_in_the_first_objective_comes_first() -> None:
    leaders = Leaders((9.0, 9.0))
    for number, costs in enumerate([(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)]):
        leaders.put(result(number, costs))
    assert [each.number for each in leaders.front()] == [1, 2, 0]


def test_what_is_put_again_with_other_words_is_shown_with_them() -> None:
    leaders = Leaders((9.0,))
    told = result(0, (1.0,))
    leaders.put(told)
    leaders.put(dataclasses.replace(told, seconds=5.0))
    assert [each.seconds for each in leaders.front()] == [5.0]
