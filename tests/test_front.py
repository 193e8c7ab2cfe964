"""Fronts of hand-made trials, whose right answer can be seen."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hand_made import ACCURACY, BOTH, PARAMS, THROUGHPUT, a_trial, accuracy, throughput

from mlpspace.front import Front, Standing, front
from mlpspace.objectives import Objective
from mlpspace.recipe import Recipe
from mlpspace.trial import Record, Trial


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


def test_what_disturbed_a_measurement_is_told_by_its_metric_and_its_device() -> None:
    energy = Objective("energy_mj", "minimize", worst=100.0)

    def on_a_gpu(value: float, protocol: str) -> Record:
        told = {"device": "NVIDIA H200", "protocol": protocol}
        return dataclasses.replace(throughput(value, **told), metric="energy_mj")

    calm = a_trial(accuracy(80.0), on_a_gpu(5.0, "board 1"))
    loud = a_trial(accuracy(90.0), on_a_gpu(1.0, "board 1, disturbed"))
    found = front([calm, loud], (ACCURACY, energy))
    assert [point.trial for point in found.points] == [calm]
    assert found.left_out == {"energy_mj measured while other programs used the GPU": 1}


def test_the_threads_of_processes_that_measured_on_a_gpu_do_not_matter() -> None:
    """By how many workers share it they have more or fewer."""
    trials = [a_trial(accuracy(value), throughput(1e3, device="NVIDIA H200", threads=int(value))) for value in (80, 90)]
    assert len(front(trials, BOTH).entries) == 2


def test_two_sets_of_images_under_one_name_are_two_datasets() -> None:
    one, other = (a_trial(accuracy(value, data=data), throughput(1e3)) for value, data in ((80.0, "a"), (90.0, "b")))
    found = front([one, other], BOTH)
    assert drawn(found) == [(90.0, 1000.0)]
    assert found.left_out == {"trained on other images under the same dataset's name": 1}


# --- rungs ----------------------------------------------------------------------------------------------------------


def with_rungs(number: int) -> list[Trial]:
    """`number` trials of three rungs: each later one is slower and better, and all reach the rung of their number
    modulo three; a rung is worth more than what lies between any two networks."""
    made = []
    for i in range(number):
        reached = i % 3
        records = [accuracy(10 + 20 * rung + 0.1 * i, rung=rung) for rung in range(reached + 1)]
        state = "complete" if reached == 2 else ("paused", "stopped", "running")[i // 3 % 3]
        made.append(a_trial(*records, throughput(1000.0 - i), state=state))
    return made


@pytest.mark.parametrize("rung", [None, 0, 1, 2])
def test_no_point_lies_beyond_the_front_of_its_own_rung(rung: int | None) -> None:
    trials = with_rungs(18)
    found = front(trials, BOTH, rung=rung)
    at = 2 if rung is None else rung
    there = [trial for trial in trials if any(record.rung == at for record in trial.records)]
    assert {entry.trial.number for entry in found.entries} == {trial.number for trial in there}
    assert {entry.records["accuracy"].rung for entry in found.entries} == {at}
    pairs = [(entry.values["accuracy"], entry.values["throughput"]) for entry in found.entries]
    for entry, (a, t) in zip(found.entries, pairs, strict=True):
        assert entry.on_front == (not any(a2 >= a and t2 >= t and (a2, t2) != (a, t) for a2, t2 in pairs))
    assert found.partial == (at < 2)


def test_the_front_says_how_many_trials_stand_at_which_rung() -> None:
    found = front([*with_rungs(18), a_trial(accuracy(90.0), state="infeasible", reason="not a number")], BOTH)
    assert found.standing == (
        Standing(rung=0, epochs=6, reached=18, paused=2, stopped=2, running=2),
        Standing(rung=1, epochs=12, reached=12, paused=2, stopped=2, running=2),
        Standing(rung=2, epochs=18, reached=6, paused=0, stopped=0, running=0),
    )
    assert found.standing == front(with_rungs(18), BOTH, rung=0).standing


def test_partial_trials_are_counted_by_where_they_stand() -> None:
    full = a_trial(accuracy(70.0), accuracy(80.0, rung=1), throughput(1000.0))
    others = [
        a_trial(accuracy(70.0), throughput(900.0), state="paused"),
        a_trial(accuracy(70.0), throughput(900.0), state="paused"),
        a_trial(accuracy(20.0), throughput(900.0), state="stopped", reason="cannot reach the front"),
        a_trial(throughput(1.0), state="stopped", reason="set aside before training"),
        a_trial(accuracy(70.0), throughput(900.0), state="running"),
    ]
    assert front([full, *others], BOTH).left_out == {
        "paused at rung 0, 6 epochs": 2,
        "stopped at rung 0, 6 epochs: cannot reach the front": 1,
        "set aside before training": 1,
        "not finished": 1,
    }


def test_while_no_trial_has_ended_the_front_is_a_partial_one() -> None:
    paused = a_trial(accuracy(70.0), accuracy(80.0, rung=1), throughput(1000.0), state="paused")
    found = front([paused, a_trial(accuracy(90.0), throughput(1e4), state="paused")], BOTH)
    assert (found.rung, found.partial, len(found.points)) == (1, True, 1)


def test_a_network_that_was_set_aside_stands_once_it_is_chosen_again() -> None:
    aside = a_trial(throughput(1000.0), width=64, state="stopped", reason="set aside before training")
    again = a_trial(accuracy(90.0), throughput(1010.0), width=64)
    found = front([aside, again], BOTH)
    assert [point.trial for point in found.points] == [again]


# --- repeats --------------------------------------------------------------------------------------------------------


def repeated(*values: float, speed: float = 1000.0, error: float = 1.0) -> Trial:
    records = [accuracy(value, repeat=k, low=value - error, high=value + error) for k, value in enumerate(values)]
    return a_trial(*records, throughput(speed))


def test_a_network_that_was_trained_several_times_stands_with_its_mean() -> None:
    lucky, steady = repeated(92.0, 86.0, 89.0), repeated(90.0, speed=990.0)
    found = front([lucky, steady], BOTH)
    assert drawn(found) == [(90.0, 990.0), (89.0, 1000.0)]
    of = {entry.trial.number: entry for entry in found.entries}
    assert (of[lucky.number].spread, of[lucky.number].accuracy.trainings) == (3.0, 3)
    assert (of[steady.number].spread, of[steady.number].accuracy.trainings) == (None, 1)


@pytest.mark.parametrize(
    ("values", "error", "expected"),
    [
        ((90.0,), 1.0, 1.0),
        ((92.0, 86.0, 89.0), 1.0, 3 / math.sqrt(3)),  # the seeds differ by more than the images explain
        ((90.0, 90.0, 90.0), 1.0, 1 / math.sqrt(3)),  # they agree by chance: the images still say no more
    ],
)
def test_the_error_of_a_mean_falls_with_the_trainings_and_never_below_the_images(
    values: tuple[float, ...], error: float, expected: float
) -> None:
    (entry,) = front([repeated(*values, error=error)], BOTH).entries
    assert entry.accuracy is not None
    assert entry.accuracy.error == pytest.approx(expected)


def test_repeats_that_were_not_trained_alike_or_not_to_this_rung_are_none() -> None:
    own = [accuracy(80.0), accuracy(90.0, rung=1)]
    others = [accuracy(10.0, repeat=1), accuracy(20.0, rung=1, repeat=2, dataset="cifar10")]
    (entry,) = front([a_trial(*own, *others, throughput(1000.0))], BOTH).entries
    assert (entry.values["accuracy"], entry.spread) == (90.0, None)


def test_a_repeat_alone_is_no_measurement_of_a_trial() -> None:
    found = front([a_trial(accuracy(90.0, repeat=1), throughput(1000.0)), repeated(80.0, speed=500.0)], BOTH)
    assert drawn(found) == [(80.0, 500.0)]
    assert found.left_out == {"never trained": 1}


# --- probabilities --------------------------------------------------------------------------------------------------


def phi(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def test_the_probability_is_that_of_a_difference_of_normal_accuracies() -> None:
    """One is faster beyond doubt, so that the other is on the front just if it is more accurate."""
    slow, fast = repeated(91.0, speed=1000.0), repeated(90.0, speed=1e5)
    found = {entry.trial.number: entry.probability for entry in front([slow, fast], BOTH).entries}
    assert found[fast.number] == 1.0
    assert found[slow.number] == pytest.approx(phi(1 / math.sqrt(2)), abs=0.045)


def test_the_probability_is_that_of_a_ratio_of_log_normal_throughputs() -> None:
    records = [dataclasses.replace(throughput(value), low=value * 0.9, high=value * 1.1) for value in (1000.0, 1100.0)]
    exact = {"low": 90.0, "high": 90.0}
    good = a_trial(accuracy(95.0), records[0])
    bad = a_trial(accuracy(90.0, **exact), records[1])
    found = {entry.trial.number: entry.probability for entry in front([good, bad], BOTH).entries}
    sigma = (math.log(1.1) - math.log(0.9)) / (2 * 1.96)
    better = phi(math.log(1.1) / (sigma * math.sqrt(2)))  # 5 % of accuracy: five errors, so beyond doubt
    assert found[bad.number] == pytest.approx(better, abs=0.045)
    assert found[good.number] == pytest.approx(1.0, abs=0.01)


def test_those_off_the_front_have_a_probability_too() -> None:
    best, close, far = repeated(90.0), repeated(89.5, speed=990.0), repeated(50.0, speed=500.0)
    of = {entry.trial.number: entry for entry in front([best, close, far], BOTH).entries}
    assert of[best.number].on_front
    assert not of[close.number].on_front
    assert 0.2 < of[close.number].probability < of[best.number].probability
    assert of[far.number].probability == 0.0


def test_of_two_recipes_of_one_network_the_better_is_on_the_front_and_the_other_is_not() -> None:
    other = Recipe(lr=1e-5).to_json()
    pair = [a_trial(accuracy(90.0), throughput(1e3), width=72)]
    pair.append(a_trial(accuracy(90.0), throughput(1010.0), width=72, recipe_json=other))
    assert sum(entry.probability for entry in front(pair, BOTH).entries) == pytest.approx(1.0)


def test_doubling_every_trial_leaves_the_front_as_it_was() -> None:
    trials = [*with_rungs(18), repeated(92.0, 86.0, 89.0), repeated(88.0, speed=2000.0)]
    doubled = [*trials, *(dataclasses.replace(trial, number=trial.number + 10_000) for trial in trials)]
    for rung in (None, 0):
        once, twice = front(trials, BOTH, rung=rung), front(doubled, BOTH, rung=rung)
        assert (once.points, once.hypervolume) == (twice.points, twice.hypervolume)
        assert once.entries == twice.entries


def test_a_front_is_the_same_each_time() -> None:
    trials = [repeated(92.0, 86.0, 89.0), repeated(88.0), repeated(87.0, speed=2000.0)]
    assert front(trials, BOTH) == front(trials, BOTH)
