"""Peak memory of a network's forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlpspace.device import synchronize

MEMORY_PROTOCOL = {"cpu": "live-tensors-v1", "cuda": "allocator-peak-v1"}


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
