"""Throughput and memory against closed forms and known sleeps."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlpspace.quiet import QuietDevice
from mlpspace.throughput import measure_throughput, median_interval

CPU = torch.device("cpu")


class Sleeper(nn.Module):
    """Takes so long for a forward pass, whatever the batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.seen: list[Tensor] = []
        self.modes: set[tuple[bool, bool, int]] = set()

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        self.seen.append(images)
        self.modes.add((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return images.new_zeros(len(images), 2)


def test_throughput_is_images_by_the_clock(tmp_path: Path) -> None:
    quiet = QuietDevice("cpu", tmp_path)
    found, _ = measure_throughput(Sleeper(0.02), resolution=4, batch=8, device=CPU, quiet=quiet, budget_s=0.3)
    assert found.metric == "throughput"
    assert 0.5 * 8 / 0.02 < found.value <= 8 / 0.02  # a sleep may last longer than asked for, never shorter
    assert found.low <= found.value <= found.high
    assert (found.batch, found.precision, found.rung, found.epochs) == (8, "fp32", None, None)


def test_the_network_sees_random_images_in_eval_mode_on_all_cores(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    network = Sleeper(0.001).train()
    quiet = QuietDevice("cpu", tmp_path)
    found, _ = measure_throughput(network, resolution=4, batch=8, device=CPU, quiet=quiet, budget_s=0.1)
    assert network.modes == {(False, False, found.threads)}
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


def test_a_slow_network_is_passed_a_few_times_and_no_more(tmp_path: Path) -> None:
    network = Sleeper(0.05)
    quiet = QuietDevice("cpu", tmp_path)
    measure_throughput(network, resolution=4, batch=1, device=CPU, quiet=quiet, budget_s=0.01)
    assert 1 + 1 + 3 <= len(network.seen) <= 1 + 1 + 8  # memory, warm-up, repeats: in blocks of 0.2 s


def test_peak_memory_of_a_chain_is_weights_images_and_its_widest_pair_of_maps(tmp_path: Path) -> None:
    """48 -> 2000 -> relu -> 500: at the relu two maps of 2000 are alive."""
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(48, 2000, bias=False), nn.ReLU(), nn.Linear(2000, 500, bias=False)
    )
    quiet = QuietDevice("cpu", tmp_path)
    _, found = measure_throughput(network, resolution=4, batch=16, device=CPU, quiet=quiet, budget_s=0.02)
    weights, images, maps = 48 * 2000 + 2000 * 500, 16 * 48, 2 * 16 * 2000
    assert found.metric == "peak_memory_mb"
    assert found.value == found.low == found.high == pytest.approx(4 * (weights + images + maps) / 1e6)


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


def test_one_slow_repeat_moves_neither_median_nor_interval() -> None:
    samples = [100.0 + i % 3 for i in range(60)]
    assert median_interval([*samples, 101.0]) == median_interval([*samples, 101.0 if False else 3.0][:60] + [101.0])
