"""Trainings whose steps change their way in the midst, on the CPU: with torch.compile's eager backend, and with a stand-in
for CUDA graphs that calls what would be recorded. Real graphs are for a GPU, at the end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from draws import KINDS, of_kind
from test_proxy import SHIFTED, curve, halves, measured, mixed, same_weights, states
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlpspace import step, step_ways
from mlpspace.measurement import Event
from mlpspace.nets import build
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.step_ways import Bet, Experience

CAPTURED, BESIDE = step.Captured, step.beside  # which the tests of trainings have stand-ins for
FREE = {"captured": Bet(0.0, 0.1), "compiled": Bet(0.0, 0.1)}


class Replayed:
    """As `Captured` is: the recorded step reads images and labels from one place, and is not done when recorded."""

    calls = 0

    def __init__(self, once: Callable[[Tensor, Tensor], Tensor], optimizer: object, images: Tensor, labels: Tensor):
        self._once, self._images, self._labels = once, images.clone(), labels.clone()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        Replayed.calls += 1
        self._images.copy_(images)
        self._labels.copy_(labels)
        return self._once(self._images, self._labels)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is tried after two steps and, whatever the clock says, kept."""
    torch.set_num_threads(1)
    monkeypatch.setattr("mlpspace.proxy.training_precision", lambda device: "fp32")  # on whatever CPU
    monkeypatch.setattr(Replayed, "calls", 0)
    monkeypatch.setattr("mlpspace.proxy.EXPERIENCE", Experience())
    monkeypatch.setattr(step_ways, "ENOUGH_S", 0.0)
    monkeypatch.setattr(step_ways, "ENOUGH_STEPS", 1)
    monkeypatch.setattr(step_ways, "WORTH", 1e9)
    monkeypatch.setattr(step_ways, "UNTRIED", FREE)
    monkeypatch.setattr(step, "BACKEND", "eager")
    monkeypatch.setattr(step, "Captured", Replayed)
    monkeypatch.setattr(step, "beside", lambda work, device: work())


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Event]]:
    def run(network: nn.Module, *changes: str, data: Any = None, epochs: tuple[int, ...] = (2,), **named: Any) -> Any:
        cpu = torch.device("cpu")
        monkeypatch.setattr("mlpspace.proxy.CHANGES", {"cpu": changes})
        quiet = QuietDevice("cpu", tmp_path)
        named = {"recipe": SHIFTED, "epochs": epochs, "seed": 0, "device": cpu, "quiet": quiet, **named}
        return list(train(network, data or halves(), **named))

    return run


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("changes", [("captured",), ("compiled",), ("captured", "compiled")])
def test_the_way_of_a_step_changes_no_curve(
    norm: str, changes: tuple[str, ...], trained: Callable[..., list[Event]]
) -> None:
    network, other = mixed(norm), mixed(norm)
    plain, changed = trained(network), trained(other, *changes)
    assert curve(changed) == curve(plain)
    assert same_weights(network, other)  # BatchNorm's running statistics too
    assert ("captured" in changes) == (Replayed.calls > 10)


def test_a_compiled_training_is_that_of_the_network_but_for_rounding(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "BACKEND", "aot_eager")  # traced forwards and backwards, and not made code of
    network, other = mixed("affine"), mixed("affine")
    plain, changed = trained(network), trained(other, "compiled")
    assert [loss for loss, _ in curve(changed)] == pytest.approx([loss for loss, _ in curve(plain)], rel=1e-4)


@pytest.mark.slow
def test_many_networks_are_compiled_in_one_process(trained: Callable[..., list[Event]]) -> None:
    """torch gives up after eight for one code, and Network.forward is one code."""
    compiled: list[int] = []

    def noting(graph: Any, inputs: Any) -> Any:
        compiled.append(1)
        return graph.forward

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step, "BACKEND", noting)
        for number in range(12):
            patched.setattr("mlpspace.proxy.EXPERIENCE", Experience())
            trained(mixed("layer", seed=number), "compiled", epochs=(1,))
            assert len(compiled) == number + 1


def test_a_rung_in_a_changed_way_is_gone_on_from_elsewhere(trained: Callable[..., list[Event]]) -> None:
    whole = trained(mixed("layer"), "captured", "compiled", epochs=(1, 3))
    rest = trained(mixed("layer", seed=1), "captured", epochs=(1, 3), state=states(whole)[1])
    plain = trained(mixed("layer", seed=1), epochs=(1, 3), state=states(whole)[1])
    assert curve(rest) == curve(plain) == curve(whole)[1:]


def test_a_batch_in_micro_batches_is_recorded_in_as_many(trained: Callable[..., list[Event]]) -> None:
    network = mixed("affine")
    shown: list[int] = []

    def room(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if not module.training:
            return
        if len(inputs[0]) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        shown.append(len(inputs[0]))

    network.register_forward_pre_hook(room)
    events = trained(network, "captured")
    assert measured(events)[-1].micro_batch == 8
    assert set(shown) == {8}
    assert Replayed.calls > 10
    whole = mixed("affine")
    trained(whole)
    torch.testing.assert_close(network.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-5)


class Unwilling:
    def __init__(self, *_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")


def test_what_cannot_be_recorded_trains_on_without(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "Captured", Unwilling)
    network, other = mixed("batch"), mixed("batch")
    plain = trained(network)
    with pytest.warns(UserWarning, match="goes on without a CUDA graph: RuntimeError: operation not permitted"):
        assert curve(trained(other, "captured")) == curve(plain)
    assert same_weights(network, other)  # no step is done twice


def test_what_cannot_be_compiled_trains_on_without(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no C compiler")

    monkeypatch.setattr(step, "BACKEND", broken)
    network, other = mixed("layer"), mixed("layer")
    plain = trained(network)
    with pytest.warns(UserWarning, match="goes on without torch.compile: BackendCompilerFailed"):
        assert curve(trained(other, "compiled")) == curve(plain)
    assert same_weights(network, other)


def test_what_failed_to_be_recorded_once_is_left_alone_by_the_next_training(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "Captured", Unwilling)
    with pytest.warns(UserWarning, match="goes on without a CUDA graph"):
        trained(mixed("layer"), "captured")
    monkeypatch.setattr(step, "Captured", Replayed)
    trained(mixed("layer"), "captured")
    assert Replayed.calls == 0


def test_memory_that_lacks_for_one_graph_is_there_for_the_next_network(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_ways, "PAYS", 0.0)  # however long the first one took to fail

    class Large:
        def __init__(self, *_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "Captured", Large)
    with pytest.warns(UserWarning, match="goes on without a CUDA graph"):
        trained(mixed("layer"), "captured")
    monkeypatch.setattr(step, "Captured", Replayed)
    trained(mixed("layer"), "captured")
    assert Replayed.calls > 10


def test_no_two_graphs_live_together(trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one training and those of two, and nobody collects garbage between them."""
    alive: list[weakref.ref[Replayed]] = []

    class Watched(Replayed):
        def __init__(self, *told: Any) -> None:
            assert not any(each() for each in alive)
            alive.append(weakref.ref(self))
            super().__init__(*told)

    monkeypatch.setattr(step, "Captured", Watched)
    trained(mixed("layer"))  # torch's imports for the first optimizer make a circle
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            monkeypatch.setattr("mlpspace.proxy.EXPERIENCE", Experience())
            trained(mixed("layer"), "captured", "compiled")
    finally:
        gc.enable()
    assert len(alive) == 4
    assert Replayed.calls > 20


def test_where_workers_share_a_device_nothing_is_compiled(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants to measure would wait for it, and all the others for him."""
    monkeypatch.setattr(step, "compiled", lambda network: pytest.fail("compiled"))
    plain = trained(mixed("layer"))
    assert curve(trained(mixed("layer"), "captured", "compiled", shared=True)) == curve(plain)
    assert Replayed.calls > 10


class Cuda:
    """What stands for torch.cuda where a graph is recorded: which stream is current, and which was used."""

    def __init__(self, *, fails: bool) -> None:
        self.current, self.used, self.fails = "usual", [], fails

    def graph(self, graph: object, *, stream: str, capture_error_mode: str) -> Cuda:
        self.stream = stream
        return self

    def __enter__(self) -> None:
        self.before, self.current = self.current, self.stream
        self.used.append(self.stream)

    def __exit__(self, *_: object) -> None:
        """As torch 2.13 does it: the stream stays where the end of the capture fails."""
        if self.fails:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self.current = self.before


@pytest.mark.parametrize("fails", [False, True])
def test_a_recorded_step_takes_the_one_side_stream_and_leaves_the_usual_one_current(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Cuda(fails=fails)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", cuda.graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: cuda.current)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(cuda, "current", stream))
    monkeypatch.setattr(step, "side_stream", lambda device: "side")
    some = torch.zeros(2)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))])
    with pytest.raises(RuntimeError, match="previous error") if fails else nullcontext():
        CAPTURED(lambda images, labels: images.sum(), optimizer, some, some)
    assert cuda.used == ["side"]
    assert cuda.current == "usual"
    assert not optimizer.param_groups[0]["capturable"]


def test_the_step_before_it_is_done_on_the_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[object] = []
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(torch.cuda, "stream", lambda side: (used.append(side), nullcontext())[1])
    monkeypatch.setattr(step, "side_stream", lambda device: stream)
    BESIDE(lambda: torch.zeros(()), torch.device("cuda", 0))
    assert used == [stream]


def test_networks_of_others_stay_as_they_are(trained: Callable[..., list[Event]]) -> None:
    """They may wait for the device in the middle of a step."""
    trained(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "captured")
    assert Replayed.calls == 0


class Devices(TorchDispatchMode):
    """Notes where each tensor lies that an operation takes or gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, found))
        self.seen |= {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        return found


@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_a_step_of_our_networks_never_waits_for_the_device(table: str, kind: str) -> None:
    """On the meta device there is nothing to wait for: asking for a number raises. Nor is there a copy from the CPU."""
    with torch.device("meta"):
        network = build(of_kind(table, kind, "batch", 0.1), 32, 10)
    images, labels = torch.empty(4, 3, 32, 32, device="meta"), torch.empty(4, dtype=torch.long, device="meta")
    with Devices() as devices:
        F.cross_entropy(network(images), labels, label_smoothing=0.1).backward()
    assert devices.seen == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("changes", [("captured",), ("compiled",), ("captured", "compiled")])
def test_on_a_gpu_every_way_trains_the_same_network(
    changes: tuple[str, ...], optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    monkeypatch.undo()
    monkeypatch.setattr(step_ways, "ENOUGH_S", 0.0)
    monkeypatch.setattr(step_ways, "ENOUGH_STEPS", 1)
    monkeypatch.setattr(step_ways, "WORTH", 1e9)
    monkeypatch.setattr(step_ways, "UNTRIED", FREE)
    cuda, recipe = torch.device("cuda", 0), dataclasses.replace(SHIFTED, optimizer=optimizer)
    found = []
    for each in ((), changes):
        monkeypatch.setattr("mlpspace.proxy.EXPERIENCE", Experience())
        monkeypatch.setattr("mlpspace.proxy.CHANGES", {"cuda": each})
        network, quiet = mixed("layer").to(cuda), QuietDevice("gpu", tmp_path)
        named: dict[str, Any] = {"recipe": recipe, "epochs": (2,), "seed": 0, "device": cuda, "quiet": quiet}
        found.append([loss for loss, _ in curve(list(train(network, halves().to(cuda), **named)))])
    assert found[1] == pytest.approx(found[0], rel=0.02)
