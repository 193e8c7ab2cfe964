"""How a forward pass is run: as it is, compiled, or replayed as a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mlpspace.device import side_stream
from mlpspace.errors import UserError
from mlpspace.timing import REPEAT_S, timed

WORTH = 0.98  # of the plain pass's seconds: a graph that saves less is not taken
TRIES = 5  # of each
RECOVERS = torch.torch_version.TorchVersion(torch.__version__) >= "2.13"  # from a capture that failed

_failed = False  # a capture in this process, that torch did not recover from


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
    with selected(device):  # for a capture takes the GPU that is current
        graph = _graph(plain, device) if device.type == "cuda" and may_capture() else None
        if graph is None or _seconds(graph, device) >= WORTH * _seconds(plain, device):
            return plain, "plain"
    return graph, "cuda graph"


def selected(device: torch.device) -> AbstractContextManager[object]:
    """Within it a GPU is the one that takes whatever is asked without naming a device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def may_capture() -> bool:
    """Whether a CUDA graph may be captured in this process.

    Not once a capture has failed, before torch 2.13: its allocator then takes that one to be underway until the process
    ends, and asserts that it is not (pytorch pull request 180395, which 2.12 may have or not). With a later torch the
    next network is captured as ever, or one odd network would make all that follow it here several times slower.
    """
    return not _failed


def _graph(forward: Callable[[], object], device: torch.device) -> Callable[[], object] | None:
    """None where a pass cannot be captured, as when it waits for the device."""
    global _failed
    usual, side = torch.cuda.current_stream(device), side_stream(device)
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        for _ in range(3):  # what the libraries set up on first use cannot be captured
            forward()
    usual.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        # a reader thread may be at work
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            forward()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        _failed = not RECOVERS
        return None
    finally:
        torch.cuda.set_stream(usual)  # a capture that fails to end leaves its own current
    return graph.replay


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one pass, the best of a few short windows."""
    work()
    once = timed(work, 1, device)
    passes = max(1, round(REPEAT_S / 5 / max(once, 1e-6)))
    return min(timed(work, passes, device) / passes for _ in range(TRIES))
