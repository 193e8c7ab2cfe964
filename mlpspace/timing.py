"""One thing timed beside another: A B A B, so that whatever slows the machine down slows both.

What a shared machine does in a minute (clocks, caches, neighbours behind the same hypervisor) moves a network's
images/s by several percent, and that of a network beside it by the same share. The quotient of the two stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlpspace import nvml, processes
from mlpspace.device import cores, key, synchronize
from mlpspace.measurement import Z95
from mlpspace.quiet import OtherPrograms

REPEAT_S = 0.010  # a window lasts at least so long, so that neither the clock nor a launch shows in it
COLD_S = 0.100  # a pass that takes longer does not feel what filling the caches takes
LONGEST_S = 0.100  # of the reference beside a slow network: as long as that one takes, up to here
REPEATS = 7  # at least
WARM = 0.03  # two successive windows that differ by less are warm
SURE = 0.01  # of the ratio: an error below is small beside what processes differ by
LONGER = 3  # budgets are spent on one that is less sure
BLOCK_S = 0.2  # the kernel counts the CPU time of others in steps of 10 ms
DISTURBED = 0.25  # cores that others used
OTHERS_PATIENCE_S = 20.0  # after which disturbed repeats count too
LESS_PATIENCE_S = 3.0  # where others did not leave the CPU alone before: waiting as long again would be in vain
FEWER_REPEATS = 5  # are enough of a very slow network, for which
PATIENCE = 10  # budgets are spent already
RESTING_S = 2.5  # NVML counts over the last second at most: by then what this process did has left the counter
RESTING_PERCENT = 5  # a desktop that redraws its clock disturbs nothing
LOOK_S = 0.25  # between two looks at that counter


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of one pass of each, window by window."""

    ours: tuple[float, ...]
    reference: tuple[float, ...]
    undisturbed: bool  # False: other programs used the CPU meanwhile, and all windows are here

    def ratio(self) -> tuple[float, float]:
        """How many passes of the reference one of ours takes, as a logarithm: (median, its standard error)."""
        logs = np.log(self.ours) - np.log(self.reference)
        median, low, high = median_interval(logs)
        return median, (high - low) / (2 * Z95)

    @property
    def reference_seconds(self) -> float:
        """Of one pass, the median."""
        return float(np.median(self.reference))


def in_turns(
    ours: Callable[[], object],
    reference: Callable[[], object],
    device: torch.device,
    *,
    budget_s: float,
    patience_s: float = OTHERS_PATIENCE_S,
) -> Pairs:
    """Time both in turns, once they are warm.

    The quiet locks keep our own workers away and not the rest of the machine. One busy program beside a parallel
    forward pass makes it many times slower, as every parallel loop waits for the thread that lost its core. So windows
    are taken in blocks, and blocks in which others used the CPU are left out while patience lasts.

    Args:
        budget_s: seconds to spend, on both together; three times as much where the ratio is not known to 1 % by then. A
            slow network takes longer, as it is still timed 7 times (a very slow one 5), and so does a CPU that other
            programs use.
        patience_s: seconds to wait for those other programs to leave the CPU alone.
    """
    started = time.perf_counter()

    def spent() -> float:
        return time.perf_counter() - started

    passes, each = _warm(ours, device, budget_s / 2, REPEAT_S)
    window = min(max(REPEAT_S, passes * each), LONGEST_S)
    beside, reference_each = _warm(reference, device, budget_s / 4, window)
    others = OtherPrograms() if device.type == "cpu" else None
    blocks: list[tuple[float, list[tuple[float, float]]]] = []
    while True:
        block: list[tuple[float, float]] = []
        began = time.perf_counter()
        while not block or time.perf_counter() - began < BLOCK_S:
            seconds = []
            for work, count, pass_s in ((ours, passes, each), (reference, beside, reference_each)):
                if pass_s < COLD_S:
                    work()  # not timed: it finds the other's data in the caches
                seconds.append(timed(work, count, device) / count)
            block.append((seconds[0], seconds[1]))
        blocks.append((others.cores_used() if others else 0.0, block))
        undisturbed = [pair for used, pairs in blocks if used <= DISTURBED for pair in pairs]
        everything = [pair for _, pairs in blocks for pair in pairs]
        enough = REPEATS if spent() < PATIENCE * budget_s else FEWER_REPEATS
        if len(undisturbed) >= enough and spent() >= budget_s:
            found = _pairs(undisturbed, undisturbed=True)
            if spent() >= LONGER * budget_s or found.ratio()[1] <= SURE:
                return found
        if spent() >= max(patience_s, budget_s) and len(everything) >= enough:
            return _pairs(everything, undisturbed=False)


def _pairs(pairs: list[tuple[float, float]], *, undisturbed: bool) -> Pairs:
    ours, reference = zip(*pairs, strict=True)
    return Pairs(ours, reference, undisturbed)


def _warm(work: Callable[[], object], device: torch.device, budget_s: float, window_s: float) -> tuple[int, float]:
    """Run until two successive windows agree: (passes that make a window, seconds of one)."""
    started = time.perf_counter()
    each, previous, passes = math.inf, math.inf, 1
    # two at least: the first one may be cold, and a thousand times as slow as the next
    while time.perf_counter() - started < budget_s or not math.isfinite(previous):
        previous = each
        each = timed(work, passes, device) / passes
        if passes * each >= window_s and abs(each / previous - 1) < WARM:
            break
        passes = max(1, math.ceil(1.2 * window_s / each))
    return passes, each


def timed(work: Callable[[], object], passes: int, device: torch.device) -> float:
    """Seconds of so many passes in a row, by the device's own clock where it has one."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)  # without it an event lies on the current device, whichever that is
        start.record(stream)
        for _ in range(passes):
            work()
        end.record(stream)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    started = time.perf_counter()
    for _ in range(passes):
        work()
    return time.perf_counter() - started


def others_compute(device: torch.device, shared: Path) -> bool:
    """Whether another program computes on a GPU that all of ours leave alone; False where nobody can tell.

    NVML's counter tells whether anything did in its last period. A list of processes would not do: in a container it
    may be without those of others, and a program may hold memory and rest. Only of a MIG slice, which has no such
    counter, those that are listed count.

    Args:
        shared: the file that those of ours have open who share the GPU (`quiet.QuietDevice.file`).
    """
    synchronize(device)
    uuid, until = key(device), time.monotonic() + RESTING_S
    while (busy := nvml.utilisation(uuid)) is not None and busy > RESTING_PERCENT:
        if time.monotonic() >= until:
            return True
        time.sleep(LOOK_S)
    return busy is None and bool(nvml.others(uuid, ours=processes.ours(shared)))


@contextmanager
def all_cores(device: torch.device) -> Iterator[int]:
    """All cores of the machine for a CPU's forward passes; gives the threads in use, for a GPU the one that feeds it.

    However many threads a worker on a GPU may have, by how many share the machine, its speed does not hang on them.
    """
    before = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(cores())
        yield torch.get_num_threads() if device.type == "cpu" else 1
    finally:
        torch.set_num_threads(before)


def median_interval(
    samples: Sequence[float] | np.ndarray, *, seed: int = 0, resamples: int = 1000
) -> tuple[float, float, float]:
    """Median of the samples and its 95 % percentile bootstrap interval: (median, low, high).

    Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7(1), 1979.
    """
    values = np.asarray(samples, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.percentile(np.median(values[draws], axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)
