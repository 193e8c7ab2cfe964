"""Networks that cannot be told apart in speed, measured again."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hand_made import measured

from mlpspace.measured_again import MOST, combined, due
from mlpspace.measurement import Measurement
from mlpspace.references import References


def speed(value: float, half: float, **other: object) -> Measurement:
    """With an interval of `half` (a share) to either side."""
    plain = measured("throughput", value)
    return dataclasses.replace(plain, low=value * math.exp(-half), high=value * math.exp(half), **other)  # type: ignore[arg-type]


def test_neighbours_whose_intervals_overlap_are_measured_in_turns_until_they_part() -> None:
    """Two networks that differ by 4 %, seen with intervals of 5 %: k measurements narrow them to 5 % / sqrt(k)."""
    found = {1: [speed(100, 0.05)], 2: [speed(104, 0.05)], 3: [speed(200, 0.05)]}
    asked = []
    while (number := due([3, 2, 1], found)) is not None:
        asked.append(number)
        found[number].append(found[number][0])
    assert asked == [1, 2, 1, 2, 1, 2, 1, 2]  # 2 x 5 % / sqrt(5) is still more than 4 %: the limit
    assert [len(found[n]) for n in (1, 2, 3)] == [MOST, MOST, 1]
    wider = {1: [speed(100, 0.05)], 2: [speed(107, 0.05)]}
    asked = []
    while (number := due([1, 2], wider)) is not None:
        asked.append(number)
        wider[number].append(wider[number][0])
    # parted once the two halves add up to less than log(1.07): 0.05 / sqrt(2) + 0.05 / sqrt(3) do
    assert asked == [1, 2, 1]


def test_networks_that_stand_apart_are_not_measured_again() -> None:
    assert due([1, 2], {1: [speed(100, 0.01)], 2: [speed(110, 0.01)]}) is None
    assert due([1], {1: [speed(100, 0.5)]}) is None
    assert due([], {}) is None


def test_a_disturbed_one_is_not_waited_for() -> None:
    loud = speed(100, 0.5, protocol="p, disturbed")
    assert due([1, 2], {1: [loud], 2: [speed(101, 0.1)]}) is None


def test_several_measurements_are_combined_by_the_inverse_of_their_variance() -> None:
    """Against the generalised least squares of their logarithms."""
    some = [speed(100, 0.02), speed(110, 0.05), speed(95, 0.04)]
    variances = np.array([0.02, 0.05, 0.04]) ** 2
    logs = np.log([100, 110, 95])
    design = np.ones((3, 1))
    middle, *_ = np.linalg.lstsq(design / np.sqrt(variances)[:, None], logs / np.sqrt(variances), rcond=None)
    both = combined(some)
    assert both.value == pytest.approx(math.exp(middle[0]))
    assert math.log(both.high / both.value) == pytest.approx(1 / math.sqrt((1 / variances).sum()))
    assert math.log(both.value / both.low) == pytest.approx(1 / math.sqrt((1 / variances).sum()))


def test_a_disturbed_measurement_says_nothing_beside_the_others() -> None:
    calm, loud = speed(100, 0.02), speed(10, 0.02, protocol="p, disturbed")
    assert combined([calm, loud]) == calm
    assert combined([loud]) == loud


def test_a_study_keeps_to_the_scale_of_its_first_measurement() -> None:
    """A second machine of the same kind calibrated its reference 10 % faster: a network twice as slow as the reference
    on both is as fast on both."""
    references = References()
    first = references.scaled(speed(500, 0.05, reference=1000.0))
    second = references.scaled(speed(550, 0.05, reference=1100.0))
    assert first.value == second.value == pytest.approx(500)
    assert (second.low, second.high) == (pytest.approx(first.low), pytest.approx(first.high))
    elsewhere = references.scaled(speed(550, 0.05, reference=1100.0, device="another"))
    assert elsewhere.value == 550
    accuracy = measured("accuracy", 50.0)
    assert references.scaled(accuracy) is accuracy
