"""Timing against a clock of our own, on which a network takes what it is told and the machine slows down as it likes."""

from __future__ import annotations

import itertools
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mlpspace import processes, timing
from mlpspace.timing import in_turns, median_interval

CPU = torch.device("cpu")


class Clock:
    """Stands still until something takes its time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, *seconds: float, slowness: Callable[[float], float] = lambda now: 1.0) -> Callable[[], None]:
        """Takes each of `seconds` in turn, the last from then on, times how slow the machine is just then."""
        left = list(seconds)

        def pass_() -> None:
            self.now += (left.pop(0) if len(left) > 1 else left[0]) * slowness(self.now)

        return pass_


class Quiet:
    """No other program uses the machine."""

    def cores_used(self) -> float:
        return 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "OtherPrograms", Quiet)
    return clock


def test_the_ratio_is_that_of_the_seconds_once_both_are_warm(clock: Clock) -> None:
    pairs = in_turns(clock.work(5.0, 1.0, 0.02), clock.work(3.0, 0.005), CPU, budget_s=0.8)
    assert pairs.ratio() == (pytest.approx(math.log(4)), 0.0)
    assert pairs.reference_seconds == pytest.approx(0.005)
    assert pairs.undisturbed


@pytest.mark.parametrize(
    "slowness",
    [
        lambda now: 1 + 0.5 * (now - 1000),  # slower and slower, to half the speed within the measurement
        lambda now: 2.0 if now % 0.5 < 0.25 else 1.0,  # a neighbour that comes and goes
        lambda now: 1 + 0.3 * math.sin(now),  # clocks
    ],
)
def test_what_slows_both_down_cancels(clock: Clock, slowness: Callable[[float], float]) -> None:
    """By the clock alone the first network would be up to half as fast; beside the reference it is off by 2 % at most."""
    ours, reference = clock.work(0.003, slowness=slowness), clock.work(0.001, slowness=slowness)
    ratio, error = in_turns(ours, reference, CPU, budget_s=1.0).ratio()
    assert ratio == pytest.approx(math.log(3), abs=0.02)
    assert error < 0.02


def test_windows_last_ten_milliseconds_and_the_references_as_long_as_a_slow_networks(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, windows = timing.timed, []

    def timed(work: Callable[[], object], passes: int, device: torch.device) -> float:
        windows.append((work, seconds := inside(work, passes, device)))
        return seconds

    monkeypatch.setattr(timing, "timed", timed)
    for ours_s, least in ((1e-4, 0.010), (0.060, 0.060), (1.0, 0.100)):
        windows.clear()
        ours, reference = clock.work(ours_s), clock.work(1e-3)
        in_turns(ours, reference, CPU, budget_s=0.8)
        assert min(seconds for work, seconds in windows[-10:] if work is ours) >= 0.0099
        assert min(seconds for work, seconds in windows[-10:] if work is reference) >= 0.99 * least


def test_a_slow_network_is_timed_seven_times_and_a_very_slow_one_five(clock: Clock) -> None:
    for seconds, repeats in ((0.8, 7), (3.0, 5), (60.0, 5)):
        pairs = in_turns(clock.work(seconds), clock.work(0.001), CPU, budget_s=0.8)
        assert len(pairs.ours) == len(pairs.reference) == repeats
        assert pairs.undisturbed


def test_a_first_pass_that_was_cold_says_nothing_of_the_next(clock: Clock) -> None:
    """It spends what there is for warming up; a window is of many passes all the same."""
    passes, each = timing._warm(clock.work(0.45, 0.0002), CPU, 0.4, 0.010)
    assert each == pytest.approx(0.0002)
    assert passes * each >= 0.010


def test_the_threads_of_a_process_that_uses_a_gpu_do_not_count() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with timing.all_cores(torch.device("cuda", 0)) as told:
                assert (told, torch.get_num_threads()) == (1, threads)
    finally:
        torch.set_num_threads(before)


class Gpu:
    """What NVML tells of one: the share of the time in which it computed, of each look at its counter; who is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, readings: list[int | None], *listed: int) -> None:
        self.now, self.readings, self.listed = 0.0, readings, listed
        monkeypatch.setattr(timing, "time", self)
        monkeypatch.setattr(timing, "synchronize", lambda device: None)
        monkeypatch.setattr(timing, "key", lambda device: "a-b")
        monkeypatch.setattr(timing, "nvml", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def utilisation(self, uuid: str) -> int | None:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def others(self, uuid: str, *, ours: Callable[[int], bool]) -> tuple[int, ...]:
        return tuple(pid for pid in self.listed if not ours(pid))


@pytest.mark.parametrize(
    ("readings", "compute", "seconds"),
    [
        ([0], False, 0.0),
        ([90, 90, 60, 3], False, 0.75),  # what we did leaves the counter
        ([90], True, 2.5),  # whoever may be listed: in a container nobody is
        ([90, 90, 30], True, 2.5),
    ],
)
def test_a_gpu_that_ours_leave_alone_and_that_does_not_rest_is_used_by_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, readings: list[int | None], compute: bool, seconds: float
) -> None:
    gpu = Gpu(monkeypatch, readings)
    assert timing.others_compute(torch.device("cuda", 0), tmp_path / "room") == compute
    assert gpu.now == pytest.approx(seconds)


def test_of_a_gpu_without_a_counter_those_count_that_are_listed_and_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ours is whoever has the file open that the one who asks has told."""
    shared = tmp_path / "room"
    with shared.open("w") as held, subprocess.Popen(["sleep", "60"], stdin=held, start_new_session=True) as paused:
        try:
            monkeypatch.setattr(processes, "lineage", lambda pid: (pid,))  # of another session, as on a cluster
            for listed, compute in (((), False), ((paused.pid,), False), ((paused.pid, 1), True)):
                Gpu(monkeypatch, [None], *listed)
                assert timing.others_compute(torch.device("cuda", 0), shared) == compute
            Gpu(monkeypatch, [None], paused.pid)
            assert timing.others_compute(torch.device("cuda", 0), tmp_path / "another")
        finally:
            paused.kill()


def test_what_other_programs_disturb_does_not_count(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program takes a core for the first second: the network is half as fast then, the reference is not."""

    def loud() -> bool:
        return clock.now < 1001.0

    class Disturbance:
        def __init__(self) -> None:
            self.last = loud()

        def cores_used(self) -> float:
            before, self.last = self.last, loud()
            return 1.0 if before else 0.0

    monkeypatch.setattr(timing, "OtherPrograms", Disturbance)
    ours = clock.work(0.02, slowness=lambda now: 2.0 if loud() else 1.0)
    pairs = in_turns(ours, clock.work(0.01), CPU, budget_s=0.8)
    assert pairs.undisturbed
    assert pairs.ratio() == (pytest.approx(math.log(2)), 0.0)


def test_a_machine_that_is_never_quiet_is_measured_all_the_same_and_it_is_told(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loud:
        def cores_used(self) -> float:
            return 1.0

    monkeypatch.setattr(timing, "OtherPrograms", Loud)
    pairs = in_turns(clock.work(0.05), clock.work(0.05), CPU, budget_s=0.8, patience_s=3.0)
    assert not pairs.undisturbed
    assert pairs.ratio() == (pytest.approx(0.0), 0.0)
    assert clock.now - 1000 < 4


def test_the_error_of_the_ratio_is_that_of_a_median(clock: Clock) -> None:
    """The median of n normal numbers has the standard error sigma sqrt(pi / 2 n); here of 400 measurements."""
    rng = np.random.default_rng(0)
    sigma, found, errors = 0.05, [], []
    for _ in range(400):
        noise = rng.normal(0, sigma, size=40)
        pairs = timing.Pairs(tuple(np.exp(noise)), (1.0,) * 40, undisturbed=True)
        ratio, error = pairs.ratio()
        found.append(ratio)
        errors.append(error)
    expected = sigma * math.sqrt(math.pi / 2 / 40)
    assert np.std(found) == pytest.approx(expected, rel=0.15)
    assert np.median(errors) == pytest.approx(expected, rel=0.2)


def test_the_interval_is_that_of_every_resample_of_a_small_sample() -> None:
    """Of 4 samples there are 4^4 equally likely resamples: the exact bootstrap distribution of the median."""
    samples = [1.0, 2.0, 4.0, 8.0]
    medians = [float(np.median(draw)) for draw in itertools.product(samples, repeat=4)]
    exact = np.percentile(medians, [2.5, 97.5])
    median, low, high = median_interval(samples, resamples=200_000)
    assert median == 3.0
    assert (low, high) == pytest.approx(tuple(exact))


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    """Of a normal distribution, whose median is its mean: 500 samples of 40, expected to be covered 475 times."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        _, low, high = median_interval(list(rng.normal(100, 5, size=40)))
        covered += low <= 100 <= high
    assert 450 <= covered <= 495


def test_the_interval_is_the_same_each_time() -> None:
    samples = list(np.random.default_rng(0).normal(size=30))
    assert median_interval(samples) == median_interval(samples)


def test_one_slow_repeat_in_sixty_does_not_widen_the_interval() -> None:
    median, low, high = median_interval([100.0, 101.0, 102.0] * 20 + [3.0])
    assert 100 <= low <= median <= high <= 102
