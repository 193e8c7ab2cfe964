"""A device's memory when there is not enough of it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
import platform
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

WORDS = (
    "CUDA error: out of memory",
    "can't allocate memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # CUDNN_STATUS_INTERNAL_ERROR_..., as cuDNN 9 says it
)

# what mallopt(3) calls M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_MMAP_MAX, and where glibc's own rule for them ends
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
LARGEST_THRESHOLD = 32 << 20  # bytes; twice as many for trimming
MAPPINGS = 65536


def out_of_memory(error: Exception) -> bool:
    """Whether it says that memory was lacking: CUDA has a class for it, but its libraries and the CPU have only words.

    Linux promises more main memory than there is, and ends the process that comes to collect it: such a trial is seen
    as a worker that died.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def free(device: torch.device) -> None:
    """Gives back what the allocator keeps; others may share the GPU."""
    if device.type == "cuda":
        with contextlib.suppress(torch.AcceleratorError):  # the device is lost, which is told already
            torch.cuda.empty_cache()


class MicroBatches:
    """A batch done in so many micro-batches that each fits into memory; once as many, for good."""

    def __init__(self, batch: int, *, fewest: int, device: torch.device) -> None:
        self.count = 1
        self._batch = batch
        self._most = max(1, batch // fewest)
        self._device = device

    @property
    def images(self) -> int:
        """At once, at most."""
        return math.ceil(self._batch / self.count)

    def run(self, work: Callable[[int], Tensor]) -> Tensor:
        """work(count), done anew with twice the count as often as memory runs out.

        The first time it is done anew as it was, as what filled the memory may have been for the garbage collector, or
        for a neighbour that had a step of its own: twice the count is for good.

        Raises:
            torch.OutOfMemoryError: with the largest count; any other error of `work` as it is.
        """
        collected = False
        while True:
            try:
                return work(self.count)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if collected and self.count == self._most:
                    smallest = f"{self.images} at once of a batch of {self._batch}"
                    raise torch.OutOfMemoryError(f"{smallest}: {type(error).__name__}: {error}") from error
                if collected:
                    self.count = min(2 * self.count, self._most)
            # only here: the error with its frames, and the activations in them, is gone by now
            gc.collect()
            free(self._device)
            collected = True


@contextlib.contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Within it, main memory that is freed stays with the process, which soon asks for as much again.

    A step of training frees what the next one needs. glibc gives large tensors back to the system at once, and the
    system hands out every page anew, filled with zeros: 47,000 to 205,000 page faults in a step of mixers of 0.9 and
    1.1 M weights on batches of 256, and next to none with memory kept. What that is worth hangs on what a fault costs
    on the machine at the time: the best step of a run was 1.00 to 1.16 times as fast (10 pairs of runs, 1 and 2
    threads, shared 2-core Xeon VM, torch 2.13 and 2.15, 2026-11-22). No number that is computed changes.

    By glibc's own rule it depends on the largest block freed so far, and so on all that a process did before: a
    deployed mixer of 3 blocks of width 48 on batches of 64 made 8,000 images/s in a fresh process, and 14,500 in one
    that had trained (2 threads, the same machine). So whoever measures speed is within it too.

    On leaving, what is free goes back to the system. It does nothing on a GPU, nor where the C library is not glibc.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, MAPPINGS)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
