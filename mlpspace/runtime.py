"""How a forward pass is run: as it is, compiled, or replayed as a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from mlpspace.errors import UserError
from mlpspace.timing import REPEAT_S, timed

WORTH = 0.98  # of the plain pass's seconds: a graph that saves less is not taken
TRIES = 5  # of each


def compiled(network: nn.Module, images: torch.Tensor, *, simple: nn.Module) -> nn.Module:
    """The network through torch.compile, for these images' shape; compiled when this returns.

    Args:
        simple: another network that takes the images, which tells whose fault an error is.

    Raises:
        UserError: torch.compile does not work on this machine.
        Exception: it does not compile this network; the error as it is.
    """
    try:
        return _compiled(network, images)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        try:
            _compiled(simple, images)
        except Exception as also:
            why = str(also).strip().splitlines()[0]
            raise UserError(
                f"torch.compile does not work here: {why}\n  {_remedy()} Or write compile: false in the objectives'"
                " throughput."
            ) from error
        raise


def _remedy() -> str:
    if " " in torch.__file__:  # seen in torch 2.13: the linker is given the folder's name without quotes
        return f"torch lies in a folder with a blank in its name, {torch.__file__!r}: install it in one without."
    return "On a CPU it takes a C++ compiler (apt install g++), on a GPU Triton."


def _compiled(network: nn.Module, images: torch.Tensor) -> nn.Module:
    # all networks share one forward: after 8 of them torch would run the next as it is, and say nothing
    torch._dynamo.reset()
    found = nn.Sequential()
    found.forward = torch.compile(network, dynamic=False)  # type: ignore[method-assign]
    with torch.inference_mode():
        found(images)
    return found


def fastest(network: nn.Module, images: torch.Tensor, device: torch.device) -> tuple[Callable[[], object], str]:
    """A forward pass in the way that is fastest on this device, and its name: "plain" or "cuda graph".

    Where launching a kernel takes longer than the kernel, as in small networks, replaying all of them at once is
    several times faster; where kernels are long it makes no difference.
    """
    plain = functools.partial(network, images)
    graph = _graph(plain, device) if device.type == "cuda" else None
    if graph is None:
        return plain, "plain"
    return (graph, "cuda graph") if _seconds(graph, device) < WORTH * _seconds(plain, device) else (plain, "plain")


def _graph(forward: Callable[[], object], device: torch.device) -> Callable[[], object] | None:
    """None where a pass cannot be captured, as when it waits for the device."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # what the libraries set up on first use cannot be captured
            forward()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a reader thread may be at work
            forward()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    return graph.replay


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one pass, the best of a few short windows."""
    work()
    once = timed(work, 1, device)
    passes = max(1, round(REPEAT_S / 5 / max(once, 1e-6)))
    return min(timed(work, passes, device) / passes for _ in range(TRIES))
