"""Energy of an image: a GPU played by arithmetic, of which the energy of a pass is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from mlpspace import energy, nvml
from mlpspace.energy import energy_per_image


class Gpu:
    """Passes of so many seconds, drawing `busy_w` while it computes and `idle_w` while not, and a counter that moves
    only every `period_s`."""

    def __init__(
        self,
        *,
        pass_s: float,
        period_s: float = 0.1,
        busy_w: float = 400.0,
        idle_w: float = 70.0,
        read_s: float = 0.0,
        rise_s: float = 0.0,
    ) -> None:
        self.pass_s, self.period_s, self.busy_w, self.idle_w = pass_s, period_s, busy_w, idle_w
        self.read_s, self.rise_s = read_s, rise_s
        self.now = 0.0
        self.passes = 0
        self.work: list[tuple[float, float]] = []  # when it computed: from, to

    def start(self, passes: int) -> Callable[[], None]:
        self.passes += passes
        begin = max(self.now, self.work[-1][1] if self.work else 0.0)
        end = begin + passes * self.pass_s
        if self.work and self.work[-1][1] == begin:
            self.work[-1] = (self.work[-1][0], end)
        else:
            self.work.append((begin, end))

        def wait() -> None:
            self.now = max(self.now, end)

        return wait

    def millijoules(self) -> int:
        self.now += self.read_s
        until = math.floor(self.now / self.period_s) * self.period_s
        busy = sum(max(0.0, min(end, until) - begin) for begin, end in self.work)
        rising = min(until, self.rise_s) / 2  # until then it drew half
        return round(1000 * (self.busy_w * max(0.0, busy - rising) + self.idle_w * (until - busy)))


def windows(gpu: Gpu, seconds: float = 1.5) -> list[float]:
    return energy._windows(gpu.start, gpu.millijoules, seconds=seconds, clock=lambda: gpu.now)


@pytest.mark.parametrize("pass_s", [0.0001, 0.0007, 0.003, 0.015, 0.04])
@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_every_window_finds_the_energy_of_a_pass_whatever_the_counters_period(pass_s: float, period_s: float) -> None:
    samples = windows(Gpu(pass_s=pass_s, period_s=period_s))
    assert len(samples) >= 5
    # the move of a counter is seen up to one look too late, and a window is 0.3 s long
    assert samples == pytest.approx([400_000 * pass_s] * len(samples), rel=1.1 * max(0.012, pass_s) / 0.3)


def test_a_counter_that_is_slow_to_read_does_not_let_the_gpu_rest() -> None:
    gpu = Gpu(pass_s=0.001, read_s=0.02)
    samples = windows(gpu)
    assert len(gpu.work) <= 4  # the first passes, one at a time; then without a pause
    assert sorted(samples)[len(samples) // 2] == pytest.approx(400.0, rel=0.2)


def test_the_window_in_which_the_power_rises_does_not_count() -> None:
    assert windows(Gpu(pass_s=0.001, rise_s=0.2)) == pytest.approx([400.0] * 5, rel=0.05)


def test_as_many_seconds_are_measured_as_asked_for() -> None:
    gpu = Gpu(pass_s=0.001)
    assert len(windows(gpu, seconds=3.0)) >= 3.0 / 0.5
    assert gpu.now >= 3.0


def test_a_counter_that_stands_still_does_not_count() -> None:
    gpu = Gpu(pass_s=0.001)
    assert energy._windows(gpu.start, lambda: 7, seconds=1.5, clock=lambda: gpu.now) == []
    assert gpu.now < 5


def test_a_counter_that_is_lost_on_the_way_does_not_count() -> None:
    gpu = Gpu(pass_s=0.001)
    readings = iter([0, 0, 1])
    assert energy._windows(gpu.start, lambda: next(readings, None), seconds=1.5, clock=lambda: gpu.now) == []


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="a-b"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    return torch.device("cuda", 0)


def test_an_image_takes_a_pass_over_the_batch(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(pass_s=0.002)

    class Event:
        """What was handed over before it was recorded is done when it has been waited for."""

        def record(self, stream: object) -> None:
            self.synchronize = waits.pop()
            waits.clear()

    waits: list[Callable[[], None]] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(nvml, "energy_mj", lambda uuid: gpu.millijoules() if uuid == "a-b" else None)
    found = energy_per_image(
        lambda: waits.append(gpu.start(1)), batch=64, device=cuda, seconds=1.5, clock=lambda: gpu.now
    )
    assert found is not None
    value, low, high = found
    assert low <= value <= high
    assert value == pytest.approx(400_000 * 0.002 / 64, rel=0.04)


def test_without_a_counter_there_is_no_energy(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("nothing is passed where nothing can be measured")

    monkeypatch.setattr(nvml, "energy_mj", lambda uuid: None)
    assert energy_per_image(never, batch=64, device=cuda) is None
    assert energy_per_image(never, batch=64, device=torch.device("cpu")) is None
