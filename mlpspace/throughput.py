"""Throughput and peak memory of a network by the clock, with the statistics."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlpspace.device import cores, describe, dtype_of, synchronize, training_precision
from mlpspace.measurement import Measurement
from mlpspace.quiet import OtherPrograms, QuietDevice

THROUGHPUT_PROTOCOL = "deployed-eval-v1"
DISTURBED_PROTOCOL = (
    f"{THROUGHPUT_PROTOCOL}, disturbed"  # other programs never left the CPU alone: compares with nothing
)
MEMORY_PROTOCOL = {"cpu": "live-tensors-v1", "cuda": "allocator-peak-v1"}

REPEAT_S = 0.010  # a repeat lasts at least so long, so that neither the clock nor a launch shows in it
REPEATS = 7  # at least
WARM = 0.03  # two successive windows that differ by less are warm
BLOCK_S = 0.2  # the kernel counts the CPU time of others in steps of 10 ms
DISTURBED = 0.25  # cores that others used
OTHERS_PATIENCE_S = 20.0  # after which disturbed repeats count too
LESS_PATIENCE_S = 3.0  # where others did not leave the CPU alone before: waiting as long again would be in vain
FEWER_REPEATS = 5  # are enough of a very slow network, for which
PATIENCE = 10  # budgets are spent already


def measure_throughput(
    network: nn.Module,
    *,
    resolution: int,
    batch: int,
    device: torch.device,
    quiet: QuietDevice,
    precision: str | None = None,
    budget_s: float = 0.8,
    patience_s: float = OTHERS_PATIENCE_S,
) -> tuple[Measurement, Measurement]:
    """Throughput (images/s) and peak memory (MB of 10^6 bytes) of a deployed network.

    Protocol deployed-eval-v1: eval and inference_mode, weights and images in the device's precision, one batch of
    normal random images that already lies on the device, nothing else of ours running there, all cores on a CPU.
    After warm-up, repeats of at least 10 ms of successive forward passes, those left out during which other programs
    used a CPU; the value is their median, the interval the 95 % bootstrap interval of that median. It covers the noise
    within this measurement and not the drift between two. Where others never leave the CPU alone, all repeats count and
    the protocol says "disturbed".

    Peak memory is weights, plus the images, plus the most that one forward pass holds beside them. On CUDA
    (allocator-peak-v1) the caching allocator tells. On a CPU (live-tensors-v1) it is the sum of all tensors alive at
    once; scratch space inside a kernel is not seen.

    Args:
        network: takes (batch, 3, resolution, resolution). It is moved and cast in place: hand over a copy, such as
            `nets.deploy` makes.
        precision: "fp32" or "bf16"; None: the one that pays on the device.
        budget_s: seconds to spend. A slow network takes longer, as it is still passed 7 times (a very slow one 5), and
            so does a CPU that other programs use.
        patience_s: seconds to wait for those other programs to leave the CPU alone.
    """
    precision = precision or training_precision(device)
    dtype = dtype_of(precision)
    with quiet.busy():
        network = network.to(device=device, dtype=dtype).eval()
        normal = torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
        images = normal.to(device=device, dtype=dtype)

    def forward() -> None:
        network(images)

    with quiet.alone(), _all_cores(device) as threads:
        started = time.perf_counter()
        peak_mb = peak_bytes(network, images) / 1e6  # first, as it is a cold pass that the clock must not see
        memory_seconds = time.perf_counter() - started
        with torch.inference_mode():
            seconds_each, undisturbed = _repeats(forward, device, budget_s, patience_s)
        seconds = time.perf_counter() - started - memory_seconds
    value, low, high = median_interval([batch / each for each in seconds_each])

    def told(metric: str, protocol: str, value: float, low: float, high: float, seconds: float) -> Measurement:
        return Measurement(
            metric=metric,
            value=value,
            low=low,
            high=high,
            seconds=seconds,
            protocol=protocol,
            device=describe(device),
            batch=batch,
            precision=precision,
            threads=threads,
        )

    return (
        told("throughput", THROUGHPUT_PROTOCOL if undisturbed else DISTURBED_PROTOCOL, value, low, high, seconds),
        told("peak_memory_mb", MEMORY_PROTOCOL[device.type], peak_mb, peak_mb, peak_mb, memory_seconds),
    )


def median_interval(samples: Sequence[float], *, seed: int = 0, resamples: int = 1000) -> tuple[float, float, float]:
    """Median of the samples and its 95 % percentile bootstrap interval: (median, low, high).

    Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7(1), 1979.
    """
    values = np.asarray(samples, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.percentile(np.median(values[draws], axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def _repeats(
    forward: Callable[[], None], device: torch.device, budget_s: float, patience_s: float
) -> tuple[list[float], bool]:
    """Seconds of one forward pass, from each repeat that no other program disturbed; False if there were too few.

    The lock keeps our own workers quiet and not the rest of the machine. One busy program beside a parallel forward
    pass makes it many times slower, as every parallel loop waits for the thread that lost its core. So repeats are
    taken in blocks, and blocks in which others used the CPU are left out while patience lasts.
    """
    started = time.perf_counter()

    def spent() -> float:
        return time.perf_counter() - started

    each, previous, passes = math.inf, math.inf, 1
    while spent() < budget_s / 2:  # warm-up, in windows
        previous = each
        each = _timed(forward, passes, device) / passes
        if passes * each >= REPEAT_S and abs(each / previous - 1) < WARM:
            break
        passes = max(1, math.ceil(1.2 * REPEAT_S / each))

    others = OtherPrograms() if device.type == "cpu" else None
    blocks: list[tuple[float, list[float]]] = []
    while True:
        block: list[float] = []
        began = time.perf_counter()
        while not block or time.perf_counter() - began < BLOCK_S:
            block.append(_timed(forward, passes, device) / passes)
        blocks.append((others.cores_used() if others else 0.0, block))
        undisturbed = [seconds for used, repeats in blocks if used <= DISTURBED for seconds in repeats]
        everything = [seconds for _, repeats in blocks for seconds in repeats]
        if len(undisturbed) >= REPEATS and spent() >= budget_s:
            return undisturbed, True
        enough = REPEATS if spent() < PATIENCE * budget_s else FEWER_REPEATS
        if spent() >= max(patience_s, budget_s) and len(everything) >= enough:
            return everything, False


def _timed(forward: Callable[[], None], passes: int, device: torch.device) -> float:
    """Seconds of so many passes in a row, by the device's own clock where it has one."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)  # without it an event lies on the current device, whichever that is
        start.record(stream)
        for _ in range(passes):
            forward()
        end.record(stream)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    started = time.perf_counter()
    for _ in range(passes):
        forward()
    return time.perf_counter() - started


@contextmanager
def _all_cores(device: torch.device) -> Iterator[int]:
    """All cores of the machine for a CPU's forward passes; gives the threads in use."""
    before = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(cores())
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def peak_bytes(network: nn.Module, images: torch.Tensor) -> int:
    """Weights, images, and the most that one forward pass holds beside them.

    On the meta device it is told without any of that memory, for a CPU.
    """
    device = images.device
    held = {s._cdata: s.nbytes() for s in _storages([*network.parameters(), *network.buffers(), images])}
    # not inference_mode: there composite operations run whole, and what they allocate within could not be seen
    with torch.no_grad():
        if device.type == "cuda":
            network(images)  # whatever the libraries keep for good, they have now
            synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            network(images)
            synchronize(device)
            beside = torch.cuda.max_memory_allocated(device) - before
        else:
            with _LiveTensors(known=set(held)) as live:
                network(images)
            beside = live.peak_bytes
    return sum(held.values()) + beside


def _storages(tensors: Sequence[torch.Tensor]) -> list[torch.UntypedStorage]:
    return [tensor.untyped_storage() for tensor in tensors]


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors alive that operations have made, each storage once, views never."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self._alive = set(known)  # storages that are counted, or not to be counted, by address
        self._live_bytes = 0
        self.peak_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for storage in _storages([leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]):
            if storage._cdata not in self._alive:
                self._alive.add(storage._cdata)
                self._live_bytes += storage.nbytes()
                weakref.finalize(storage, self._died, storage._cdata, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        return result

    def _died(self, address: int, size: int) -> None:
        self._alive.discard(address)
        self._live_bytes -= size
