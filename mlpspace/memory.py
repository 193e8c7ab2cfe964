"""A device's memory when there is not enough of it."""

from __future__ import annotations

import contextlib

import torch

WORDS = (
    "CUDA error: out of memory",
    "can't allocate memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # CUDNN_STATUS_INTERNAL_ERROR_..., as cuDNN 9 says it
)


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
