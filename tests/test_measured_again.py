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
    some = [speed(100, 0.02), speed(102, 0.05), speed(98.5, 0.04)]
    variances = np.array([0.02, 0.05, 0.04]) ** 2
    logs = np.log([100, 102, 98.5])
    design = np.ones((3, 1))
    middle, *_ = np.linalg.lstsq(design / np.sqrt(variances)[:, None], logs / np.sqrt(variances), rcond=None)
    both = combined(some)
    assert both.value == pytest.approx(math.exp(middle[0]))
    assert math.log(both.high / both.value) == pytest.approx(1 / math.sqrt((1 / variances).sum()))
    assert math.log(both.value / both.low) == pytest.approx(1 / math.sqrt((1 / variances).sum()))


def test_measurements_that_differ_by_more_than_they_say_have_a_wider_interval() -> None:
    """Two alike differ from their mean by d / 2, so chi-square is d^2 / 2 sigma^2, and the Birge ratio its root."""
    both = combined([speed(10_000, 0.02), speed(11_500, 0.02)])
    sigma, apart = 0.02 / 1.959964, math.log(1.15)
    assert both.value == pytest.approx(math.sqrt(10_000 * 11_500))
    ratio = apart / (math.sqrt(2) * sigma)
    assert math.log(both.high / both.value) == pytest.approx(1.959964 * sigma / math.sqrt(2) * ratio)
    assert both.low < 10_000 < 11_500 < both.high


def test_the_interval_covers_the_truth_also_where_processes_differ_by_more_than_the_calibration_says() -> None:
    """Of 2,000 means of 5 measurements, each 3 % off by chance and said to be known to 1 % (standard errors); of a
    normal mean whose error is known from these 5 alone, 1.96 errors cover 87.8 % (Student's t, 4 degrees of freedom)."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        found = combined([speed(100 * math.exp(rng.normal(0, 0.03)), 0.0196) for _ in range(5)])
        covered += found.low <= 100 <= found.high
    assert covered / 2000 == pytest.approx(0.878, abs=0.025)


def test_neighbours_are_networks_that_were_measured_in_one_way() -> None:
    """Of networks on two devices each is compared with its like, whatever stands between them."""
    here = {1: [speed(100, 0.02)], 3: [speed(101, 0.02)]}
    there = {2: [speed(100.5, 0.02, device="NVIDIA H200", threads=8)], 4: [speed(150, 0.02, device="NVIDIA H200")]}
    assert due([1, 2, 3, 4], here | there) == 1
    assert due([1, 2, 4], here | there) is None
    there[2].append(speed(100.5, 0.02, device="NVIDIA H200", protocol="median 1, disturbed"))
    there[4] = [speed(101, 0.02, device="NVIDIA H200", threads=1)]
    assert due([1, 2, 4], here | there) == 4


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
    for threads, images in ((8, 1000.0), (2, 1100.0)):  # of a process that uses a GPU: of no account
        gpu = references.scaled(speed(images / 2, 0.05, reference=images, device="NVIDIA H200", threads=threads))
        assert gpu.value == pytest.approx(500)
    accuracy = measured("accuracy", 50.0)
    assert references.scaled(accuracy) is accuracy
