"""Passes on a GPU that is not there: which device is current, and which stream, when something is captured or fails to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from mlpspace import runtime
from mlpspace.runtime import fastest, may_capture

SECOND = torch.device("cuda", 1)


class Stream:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None:
        pass


class Gpus:
    """Two, the first of which is current; as torch.cuda has it, a graph that fails to end leaves its stream current."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = torch.device("cuda", 0)
        self.usual, self.side = Stream(SECOND), Stream(SECOND)
        self.stream = self.usual
        self.error: Exception | None = None  # of the next capture
        self.captures: list[tuple[torch.device, Stream]] = []  # on which device, and stream
        for name in ("device", "graph", "set_stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(runtime, "side_stream", lambda device: self.side)
        monkeypatch.setattr(runtime, "_failed", False)
        monkeypatch.setattr(runtime, "_seconds", lambda work, device: 0.1 if work == self.replay else 1.0)

    def replay(self) -> None:
        pass

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device
        yield
        self.current = before

    def current_stream(self, device: torch.device) -> Stream:
        return self.stream

    def set_stream(self, stream: Stream) -> None:
        self.stream = stream

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    @contextmanager
    def graph(self, graph: object, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        self.captures.append((self.current, stream))
        before, self.stream = self.stream, stream
        yield
        if self.error is not None:
            raise self.error
        self.stream = before


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    return Gpus(monkeypatch)


def way(network: Callable[..., object] = nn.Identity()) -> str:  # noqa: B008
    return fastest(network, torch.zeros(1), SECOND)[1]  # type: ignore[arg-type]


def test_a_pass_is_captured_on_its_own_gpu_and_that_ones_side_stream(gpus: Gpus) -> None:
    assert [way(), way()] == ["cuda graph"] * 2
    assert gpus.captures == [(SECOND, gpus.side)] * 2
    assert (gpus.current.index, gpus.stream) == (0, gpus.usual)


@pytest.mark.parametrize(("recovers", "captures"), [(True, 2), (False, 1)])
def test_after_a_capture_that_fails_all_is_as_before_and_an_older_torch_tries_no_more(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, recovers: bool, captures: int
) -> None:
    monkeypatch.setattr(runtime, "RECOVERS", recovers)
    gpus.error = RuntimeError("operation failed due to a previous error during capture")
    assert way() == "plain"
    assert gpus.stream is gpus.usual
    assert may_capture() == recovers
    gpus.error = None
    assert way() == ("cuda graph" if recovers else "plain")
    assert len(gpus.captures) == captures


def test_memory_that_lacks_is_told_and_says_nothing_of_other_captures(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "RECOVERS", False)
    gpus.error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(torch.OutOfMemoryError):
        way()
    assert gpus.stream is gpus.usual
    assert may_capture()


def test_a_cpu_captures_nothing(gpus: Gpus) -> None:
    assert fastest(nn.Identity(), torch.zeros(1), torch.device("cpu"))[1] == "plain"
    assert gpus.captures == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_capture_that_fails_leaves_the_stream_as_it_was() -> None:
    device = torch.device("cuda", 0)

    class Waiting(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * float(images.sum())

    with torch.inference_mode():
        images = torch.zeros(8, device=device)
        before = torch.cuda.current_stream(device)
        assert fastest(Waiting(), images, device)[1] == "plain"
        assert torch.cuda.current_stream(device) == before
        assert float((images + 1).sum()) == 8
        if runtime.RECOVERS:
            small = nn.Sequential(*[nn.Linear(8, 8) for _ in range(30)]).to(device)
            assert fastest(small, images[None], device)[1] == "cuda graph"
