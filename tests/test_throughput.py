"""Throughput and memory against closed forms and a clock of our own."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlpspace import throughput
from mlpspace.device import cores
from mlpspace.quiet import QuietDevice
from mlpspace.throughput import measure_throughput, median_interval

CPU = torch.device("cpu")


class Clock:
    """Stands still until a network takes its time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


class Quiet:
    """No other program uses the machine."""

    def cores_used(self) -> float:
        return 0.0


class Clockwork(nn.Module):
    """Takes the seconds it is told for each forward pass in turn, the last of them from then on."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = list(seconds)
        self.seen: list[Tensor] = []
        self.modes: set[tuple[bool, bool, int]] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.seen.append(images)
        self.modes.add((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return images.new_zeros(len(images), 2)


def test_throughput_is_images_by_the_clock(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "OtherPrograms", Quiet)
    network = Clockwork(clock, 5.0, 1.0, 0.02)  # the first passes are cold
    found, _ = measure_throughput(network, resolution=4, batch=8, device=CPU, quiet=QuietDevice("cpu", tmp_path))
    assert found.metric == "throughput"
    assert found.value == found.low == found.high == pytest.approx(8 / 0.02)
    assert (found.batch, found.precision, found.rung, found.epochs) == (8, "fp32", None, None)


def test_a_fast_network_is_timed_in_groups_of_passes(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "OtherPrograms", Quiet)
    timed: list[float] = []
    inside = throughput._timed
    monkeypatch.setattr(throughput, "_timed", lambda f, n, d: timed.append(n * 1e-4) or inside(f, n, d))  # type: ignore[func-returns-value]
    network = Clockwork(clock, 1e-4)
    found, _ = measure_throughput(network, resolution=4, batch=8, device=CPU, quiet=QuietDevice("cpu", tmp_path))
    assert found.value == pytest.approx(80_000)
    assert min(timed[1:]) >= 0.01  # all but the first, which finds out how many it takes
    assert 0.8 <= sum(timed) <= 1.1


def test_what_other_programs_disturb_does_not_count(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes a core for the first 0.6 s of repeats: twice as many as the quiet ones after it."""

    class Disturbance:
        def __init__(self) -> None:
            self.until = clock.now + 0.6

        def cores_used(self) -> float:
            used = 1.0 if network.seconds == [0.03] else 0.0
            network.seconds = [0.02 if clock.now >= self.until else 0.03]
            return used

    monkeypatch.setattr(throughput, "OtherPrograms", Disturbance)
    network = Clockwork(clock, 0.03)
    found, _ = measure_throughput(network, resolution=4, batch=8, device=CPU, quiet=QuietDevice("cpu", tmp_path))
    assert found.value == found.low == found.high == pytest.approx(8 / 0.02)


def test_a_machine_that_is_never_quiet_is_measured_all_the_same_and_the_protocol_says_so(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loud:
        def cores_used(self) -> float:
            return 1.0

    monkeypatch.setattr(throughput, "OtherPrograms", Loud)
    network = Clockwork(clock, 0.05)
    quiet = QuietDevice("cpu", tmp_path)
    found, _ = measure_throughput(network, resolution=4, batch=8, device=CPU, quiet=quiet, patience_s=3.0)
    assert found.value == pytest.approx(8 / 0.05)
    assert found.seconds < 4
    assert found.protocol == throughput.DISTURBED_PROTOCOL != throughput.THROUGHPUT_PROTOCOL


def test_a_slow_network_is_passed_seven_times_and_a_very_slow_one_five(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "OtherPrograms", Quiet)
    for seconds, repeats in ((1.0, 7), (60.0, 5)):
        network = Clockwork(clock, seconds)
        measure_throughput(network, resolution=4, batch=1, device=CPU, quiet=QuietDevice("cpu", tmp_path))
        assert len(network.seen) == 1 + 1 + repeats  # memory, warm-up


def test_the_network_sees_random_images_in_eval_mode_on_all_cores(clock: Clock, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    network = Clockwork(clock, 0.1).train()
    found, _ = measure_throughput(network, resolution=4, batch=8, device=CPU, quiet=QuietDevice("cpu", tmp_path))
    assert network.modes == {(False, False, cores())}
    assert found.threads == cores()
    assert torch.get_num_threads() == 1
    images = network.seen[0]
    assert images.shape == (8, 3, 4, 4)
    assert images.std() > 0.5


def test_threads_are_restored_after_an_error(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    with pytest.raises(RuntimeError):
        measure_throughput(nn.Linear(5, 5), resolution=4, batch=2, device=CPU, quiet=QuietDevice("cpu", tmp_path))
    assert torch.get_num_threads() == 1
    with QuietDevice("cpu", tmp_path).alone():
        pass


@pytest.mark.parametrize(
    ("widths", "widest_pair"),
    [
        pytest.param((48, 2000, 500), 2000 + 2000, marks=pytest.mark.slow),
        pytest.param((48, 100, 3000), 100 + 3000, marks=pytest.mark.slow),
        ((48, 300, 10), 300 + 300),
    ],
)
def test_peak_memory_of_a_chain_is_weights_images_and_its_widest_pair_of_maps(
    widths: tuple[int, int, int], widest_pair: int, tmp_path: Path
) -> None:
    """Linear, relu, linear: what goes into a step and what comes out are alive at once, and nothing else."""
    a, b, c = widths
    network = nn.Sequential(nn.Flatten(), nn.Linear(a, b, bias=False), nn.ReLU(), nn.Linear(b, c, bias=False))
    quiet = QuietDevice("cpu", tmp_path)
    _, found = measure_throughput(network, resolution=4, batch=16, device=CPU, quiet=quiet, budget_s=0.02)
    assert found.metric == "peak_memory_mb"
    numbers = a * b + b * c + 16 * a + 16 * widest_pair
    assert found.value == found.low == found.high == pytest.approx(4 * numbers / 1e6)


def test_peak_memory_counts_a_shared_weight_and_a_view_once(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(48, 48, bias=False)
            self.two = nn.Linear(48, 48, bias=False)
            self.two.weight = self.one.weight

        def forward(self, images: Tensor) -> Tensor:
            x = self.two(self.one(images.flatten(1)))
            return x.view(-1, 3, 16).transpose(1, 2)[:, :2]

    quiet = QuietDevice("cpu", tmp_path)
    _, found = measure_throughput(Twice(), resolution=4, batch=16, device=CPU, quiet=quiet, budget_s=0.02)
    assert found.value == pytest.approx(4 * (48 * 48 + 16 * 48 + 2 * 16 * 48) / 1e6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_measured_in_its_own_precision(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4096), nn.ReLU(), nn.Linear(4096, 10))
    quiet = QuietDevice("gpu", tmp_path)
    ballast = torch.empty(10**8, dtype=torch.uint8, device=device)  # a dataset, say: not the network's
    found, memory = measure_throughput(network, resolution=32, batch=64, device=device, quiet=quiet)
    size = 2 if found.precision == "bf16" else 4
    least = size * (3072 * 4096 + 4096 * 10 + 64 * 3072 + 2 * 64 * 4096) / 1e6
    assert least <= memory.value < least + 20
    assert found.low <= found.value <= found.high
    del ballast


# --- the statistics ---


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
