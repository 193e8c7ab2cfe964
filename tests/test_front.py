"""Fronts of hand-made trials, whose right answer can be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hand_made import ACCURACY, BOTH, PARAMS, THROUGHPUT, a_trial, accuracy, throughput

from mlpspace.front import Front, front
from mlpspace.recipe import Recipe


def drawn(found: Front) -> list[tuple[float, float]]:
    return [(point.values["accuracy"], point.values["throughput"]) for point in found.points]


def test_the_front_holds_what_nothing_dominates_best_accuracy_first() -> None:
    pairs = [(90.0, 1000.0), (95.0, 500.0), (94.0, 400.0), (80.0, 2000.0)]
    found = front([a_trial(accuracy(a), throughput(t)) for a, t in pairs], BOTH)
    assert drawn(found) == [(95.0, 500.0), (90.0, 1000.0), (80.0, 2000.0)]
    assert len(found.entries) == 4
    assert found.left_out == {}


def test_the_hypervolume_counts_percent_times_factors_of_ten() -> None:
    found = front([a_trial(accuracy(90.0), throughput(1000.0))], BOTH)
    assert found.hypervolume == pytest.approx((90 - 10) * math.log10(1000 / 100))


def test_a_trial_of_two_epochs_never_stands_beside_one_of_twelve() -> None:
    short = a_trial(accuracy(99.0, rung=0), throughput(9000.0))
    long = a_trial(accuracy(70.0, rung=0), accuracy(80.0, rung=1), throughput(1000.0))
    found = front([short, long], BOTH)
    assert drawn(found) == [(80.0, 1000.0)]
    assert (found.rung, found.epochs) == (1, 12)
    assert found.left_out == {"below rung 1": 1}


def test_the_front_of_an_earlier_rung_compares_at_that_rung() -> None:
    short = a_trial(accuracy(60.0, rung=0), throughput(500.0))
    long = a_trial(accuracy(70.0, rung=0), accuracy(80.0, rung=1), throughput(1000.0))
    found = front([short, long], BOTH, rung=0)
    assert drawn(found) == [(70.0, 1000.0)]
    assert (found.rung, found.epochs, len(found.entries)) == (0, 6, 2)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: a_trial(accuracy(99.0), throughput(9e3, device="h100")), "measured on another device"),
        (lambda: a_trial(accuracy(99.0), throughput(9e3, batch=1)), "measured with another batch"),
        (lambda: a_trial(accuracy(99.0), throughput(9e3, precision="bf16")), "measured in another precision"),
        (lambda: a_trial(accuracy(99.0), throughput(9e3, threads=1)), "measured with another number of threads"),
        (lambda: a_trial(accuracy(99.0), throughput(9e3, protocol="x")), "throughput measured by another protocol"),
        (lambda: a_trial(accuracy(99.0, dataset="cifar10"), throughput(9e3)), "trained on another dataset"),
        (lambda: a_trial(accuracy(99.0, resolution=64), throughput(9e3)), "trained at another resolution"),
        (lambda: a_trial(accuracy(99.0, epochs=60), throughput(9e3)), "trained for another number of epochs"),
        (lambda: a_trial(accuracy(99.0, protocol="x"), throughput(9e3)), "accuracy measured by another protocol"),
        (lambda: a_trial(throughput(9e3), state="running"), "not finished"),
        (lambda: a_trial(throughput(9e3)), "never trained"),
        (lambda: a_trial(accuracy(99.0)), "no throughput measured"),
        (lambda: a_trial(state="infeasible", reason="out of memory"), "infeasible: out of memory"),
        (
            lambda: a_trial(accuracy(99.0), throughput(9e3), state="infeasible", reason="not a number"),
            "infeasible: not a number",
        ),
    ],
)
def test_what_was_not_measured_alike_is_left_out_and_counted(other: Any, reason: str) -> None:
    """Whether it came before the others or after them."""
    alike = [a_trial(accuracy(90.0), throughput(1000.0)), a_trial(accuracy(80.0), throughput(2000.0))]
    for trials in ([*alike, other()], [other(), *alike]):
        found = front(trials, BOTH)
        assert drawn(found) == [(90.0, 1000.0), (80.0, 2000.0)]
        assert found.left_out == {reason: 1}


def test_a_trial_that_was_timed_again_on_the_common_device_takes_part() -> None:
    moved = a_trial(accuracy(90.0), throughput(9000.0, device="h100"), throughput(500.0, attempt=2))
    found = front([moved, a_trial(accuracy(80.0), throughput(1000.0))], BOTH)
    assert drawn(found) == [(90.0, 500.0), (80.0, 1000.0)]


def test_every_trial_takes_part_or_is_counted_as_left_out() -> None:
    trials = [
        a_trial(accuracy(90.0), throughput(1000.0)),
        a_trial(accuracy(80.0), throughput(900.0)),
        a_trial(throughput(9.0), state="running"),
        a_trial(state="infeasible", reason="error"),
        a_trial(state="infeasible", reason="error"),
    ]
    found = front(trials, BOTH)
    assert found.left_out == {"infeasible: error": 2, "not finished": 1}
    assert len(found.entries) + sum(found.left_out.values()) == len(trials)


def test_fixed_points_take_part_and_those_off_the_front_are_told() -> None:
    best = a_trial(accuracy(95.0), throughput(1000.0), label="mixer_s16", origin="fixed point")
    beaten = a_trial(accuracy(90.0), throughput(500.0), label="resmlp_s12", origin="fixed point")
    found = front([best, beaten, a_trial(accuracy(80.0), throughput(900.0))], BOTH)
    assert [point.trial.label for point in found.points] == ["mixer_s16"]
    assert [point.trial.label for point in found.fixed_points_off] == ["resmlp_s12"]


def test_equal_values_are_all_on_the_front() -> None:
    found = front([a_trial(accuracy(90.0), throughput(1000.0)) for _ in range(3)], BOTH)
    assert len(found.points) == 3


def test_one_network_measured_twice_stands_once() -> None:
    first = a_trial(accuracy(90.0), throughput(1000.0), width=64)
    again = a_trial(accuracy(91.0), throughput(990.0), width=64)
    found = front([first, again], BOTH)
    assert [point.trial for point in found.points] == [first]
    assert found.left_out == {"the same network and recipe as an earlier trial": 1}


def test_two_recipes_of_one_network_share_its_throughput() -> None:
    slow_recipe = Recipe(lr=1e-5).to_json()
    good = a_trial(accuracy(90.0), throughput(1000.0), width=72)
    bad = a_trial(accuracy(80.0), throughput(1010.0), width=72, recipe_json=slow_recipe)  # noise, no other network
    assert drawn(front([good, bad], BOTH)) == [(90.0, 1000.0)]


def test_counts_can_be_objectives() -> None:
    small = a_trial(accuracy(80.0), params=10_000)
    large = a_trial(accuracy(90.0), params=1_000_000)
    wasteful = a_trial(accuracy(85.0), params=2_000_000)
    found = front([small, large, wasteful], (ACCURACY, PARAMS))
    assert [point.trial for point in found.points] == [large, small]


def test_a_front_of_what_takes_no_training_has_no_rung() -> None:
    found = front([a_trial(throughput(1000.0))], (THROUGHPUT, PARAMS))
    assert len(found.points) == 1
    assert (found.rung, found.epochs) == (None, None)


def test_three_objectives() -> None:
    a = a_trial(accuracy(90.0), throughput(1000.0), params=3000)
    b = a_trial(accuracy(90.0), throughput(1000.0), params=2000)
    c = a_trial(accuracy(80.0), throughput(900.0), params=1000)
    assert [point.trial for point in front([a, b, c], (*BOTH, PARAMS)).points] == [b, c]


def test_no_trials_have_an_empty_front() -> None:
    found = front([], BOTH)
    assert (found.entries, found.left_out, found.hypervolume, found.rung) == ((), {}, 0.0, None)


def test_one_calm_throughput_stands_against_any_number_of_disturbed_ones() -> None:
    calm = a_trial(accuracy(80.0), throughput(1000.0))
    others = [a_trial(accuracy(90.0), throughput(10.0, protocol="median 1, disturbed")) for _ in range(3)]
    found = front([*others, calm], BOTH)
    assert drawn(found) == [(80.0, 1000.0)]
    assert found.left_out == {"throughput measured while other programs used the CPU": 3}
    assert len(front(others, BOTH).entries) == 3  # where there is nothing else they compare with one another


def test_two_sets_of_images_under_one_name_are_two_datasets() -> None:
    one, other = (a_trial(accuracy(value, data=data), throughput(1e3)) for value, data in ((80.0, "a"), (90.0, "b")))
    found = front([one, other], BOTH)
    assert drawn(found) == [(90.0, 1000.0)]
    assert found.left_out == {"trained on other images under the same dataset's name": 1}
