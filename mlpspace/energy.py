"""Energy of a network on a GPU: what NVML's counter says that an image takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from mlpspace import nvml
from mlpspace.device import key
from mlpspace.timing import median_interval

ENERGY_PROTOCOL = "board-energy-v1"

WINDOW_S = 0.3  # at least: the counter moves every 20 to 100 ms
WINDOWS = 5  # at least: of fewer samples the median has no 95 % interval (of 5, the smallest and the largest are 94 %)
CHUNK_S = 0.010  # of passes between two looks at the counter, and
READS = 4  # times the time that a look takes, if that is longer
STUCK_S = 2.0  # a counter that has not moved for so long does not count


def energy_per_image(
    forward: Callable[[], object],
    *,
    batch: int,
    device: torch.device,
    seconds: float = WINDOWS * WINDOW_S,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float] | None:
    """Millijoules an image: median over windows, and the 95 % bootstrap interval of that median.

    Protocol board-energy-v1: `forward` passes back to back without a pause; first a window that does not count, in
    which the power rises to its level, then windows of at least 0.3 s, each from one move of the GPU's energy counter
    to another, as between two moves it says nothing. A window's value is the counter's difference over the images that
    were passed in it.

    The power of the idle board is not subtracted. It is paid while the images are computed, a slow network pays it
    longer, and what the board would take without them depends on the clocks and the heat that they leave behind. So
    the value is what a machine that does nothing else takes for an image; the rest of the machine is not in it.

    Args:
        forward: one pass of `batch` images on the device, in the mode in which it is to be measured. The device should
            be ours alone: the counter is the board's.
        seconds: to measure at least; five windows are taken at least.

    Returns:
        None where there is no counter: a CPU, a MIG slice, a GPU before Volta, a machine without NVML.
    """
    if device.type != "cuda":
        return None
    uuid = key(device)
    if nvml.energy_mj(uuid) is None:
        return None

    def start(passes: int) -> Callable[[], None]:
        for _ in range(passes):
            forward()
        end = torch.cuda.Event()
        end.record(torch.cuda.current_stream(device))
        return end.synchronize

    samples = _windows(start, lambda: nvml.energy_mj(uuid), seconds=seconds, clock=clock)
    return median_interval([each / batch for each in samples]) if samples else None


def _windows(
    start: Callable[[int], Callable[[], None]],
    energy_mj: Callable[[], int | None],
    *,
    seconds: float,
    clock: Callable[[], float],
) -> list[float]:
    """Millijoules of a pass, of each window; [] if the counter stops.

    Args:
        start: hands the device so many passes and gives what waits for their end. The next are handed over before the
            last are waited for, so that the device does not rest while the counter is read.
    """
    start(1)()
    began = clock()
    start(1)()
    between = clock()
    energy_mj()
    chunk_s = max(CHUNK_S, READS * (clock() - between))
    chunk = max(1, math.ceil(chunk_s / max(between - began, 1e-6)))

    samples: list[float] = []
    measured = 0.0
    opened: tuple[int, int, float] | None = None  # passes, counter and time when the window began
    warm = False
    done, last, moved = 0, energy_mj(), clock()
    wait = start(chunk)
    while len(samples) < WINDOWS or measured < seconds:
        following = start(chunk)
        wait()
        wait = following
        done += chunk
        reading, now = energy_mj(), clock()
        if reading is None or (reading == last and now - moved > STUCK_S):
            samples = []
            break
        if reading == last:
            continue
        last, moved = reading, now
        if opened is not None:
            if now - opened[2] < WINDOW_S:
                continue
            if warm:
                samples.append((reading - opened[1]) / (done - opened[0]))
                measured += now - opened[2]
            warm = True
        opened = (done, reading, now)
    wait()
    return samples
