"""What a worker does for one assignment, and how each mishap comes out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlpspace import evaluate as evaluating
from mlpspace.architecture import (
    NORMS,
    Architecture,
    Axial,
    Dense,
    DepthwiseConv,
    ExternalAttention,
    Linear,
    NoTokenMixer,
    Patches,
    Stage,
    TokenMixer,
)
from mlpspace.data import Dataset
from mlpspace.engines import worker
from mlpspace.errors import DeviceLost
from mlpspace.evaluate import evaluate
from mlpspace.fresh_measurement import Asked, NotMeasured
from mlpspace.measurement import Assignment, Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.objectives import Deployment
from mlpspace.quiet import OtherPrograms, QuietDevice
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.reference import deployed
from mlpspace.throughput import measure_throughput

CPU = torch.device("cpu")
ASSIGNMENT = Assignment(
    trial=0,
    attempt=1,
    architecture=Architecture(stem=Patches(patch=4), stages=(Stage(depth=1, width=8, norm="affine"),)),
    recipe=Recipe(batch=16, lr=1e-2, augmentation=Augmentation(shift=0)),
    resolution=8,
    classes=2,
    dataset="noise",
    data_path=None,
    images=None,
    validation=0.2,
    epochs=(1, 2),
    seed=5,
    deployment=Deployment(batch=4),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)

    def measured(*args: Any, **named: Any) -> tuple[Measurement, Measurement]:
        return measure_throughput(*args, **named, budget_s=0.01)

    monkeypatch.setattr(evaluating, "measure_throughput", measured)
    monkeypatch.setattr(OtherPrograms, "cores_used", lambda self: 0.0)  # not what else runs on the machine


@pytest.fixture
def dataset() -> Dataset:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (80, 3, 8, 8), generator=rng).to(torch.uint8)
    labels = torch.arange(80) % 2
    return Dataset(
        name="noise",
        train_images=images[:64],
        train_labels=labels[:64],
        val_images=images[64:],
        val_labels=labels[64:],
        mean=torch.full((3,), 0.5),
        std=torch.full((3,), 0.3),
        classes=2,
        mirrors=False,
        fingerprint="0" * 16,
    )


@pytest.fixture
def events(dataset: Dataset, tmp_path: Path) -> Callable[..., Generator[Event, None, None]]:
    def run(assignment: Assignment = ASSIGNMENT, **named: Any) -> Generator[Event, None, None]:
        return evaluate(assignment, dataset=dataset, device=CPU, quiet=QuietDevice("cpu", tmp_path), **named)

    return run


class Broken(nn.Module):
    """A network that raises when it is trained."""

    def __init__(self, network: nn.Module, error: BaseException) -> None:
        super().__init__()
        self.network = network
        self.error = error

    def forward(self, image: Tensor) -> Tensor:
        if self.training:
            raise self.error
        return self.network(image)


class Small(nn.Module):
    """A network on a device that takes so many images at once."""

    def __init__(self, network: nn.Module, images: int) -> None:
        super().__init__()
        self.network = network
        self.images = images

    def forward(self, image: Tensor) -> Tensor:
        if image.device.type != "meta" and len(image) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(image)


@pytest.fixture
def broken_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    def put(error: BaseException) -> None:
        build = evaluating.build
        monkeypatch.setattr(evaluating, "build", lambda *args: Broken(build(*args), error))

    return put


def test_cheap_numbers_come_before_training(events: Callable[..., Generator[Event, None, None]]) -> None:
    told = list(events())
    assert [e.metric for e in told if isinstance(e, Measurement)] == [
        "throughput", "peak_memory_mb", "accuracy", "accuracy",
    ]  # fmt: skip
    first_of_training = next(i for i, e in enumerate(told) if isinstance(e, Progress) and e.phase == "training")
    assert isinstance(told[first_of_training - 1], Measurement)


def test_the_same_assignment_gives_the_same_accuracies(events: Callable[..., Generator[Event, None, None]]) -> None:
    assignment = dataclasses.replace(ASSIGNMENT, deployment=None)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = [e for e in events(assignment) if isinstance(e, Progress)]
    assert [e for e in events(assignment) if isinstance(e, Progress)] == one
    assert torch.equal(torch.get_rng_state(), state)  # and leaves the caller's random numbers alone


def test_throughput_is_not_measured_unless_asked_for(events: Callable[..., Generator[Event, None, None]]) -> None:
    told = list(events(dataclasses.replace(ASSIGNMENT, deployment=None)))
    assert {e.metric for e in told if isinstance(e, Measurement)} == {"accuracy"}


def test_a_paused_assignment_goes_on_to_the_accuracy_of_an_uninterrupted_one(
    events: Callable[..., Generator[Event, None, None]],
) -> None:
    uninterrupted = list(events(dataclasses.replace(ASSIGNMENT, deployment=None)))
    kept, _weights = (e for e in events() if isinstance(e, Checkpoint))
    rest = list(events(dataclasses.replace(ASSIGNMENT, deployment=None, state=kept.state)))
    assert [(m.rung, m.value) for m in rest if isinstance(m, Measurement)] == [
        (m.rung, m.value) for m in uninterrupted if isinstance(m, Measurement) and m.rung == 1
    ]


def test_a_repeat_is_trained_alike_from_other_weights(events: Callable[..., Generator[Event, None, None]]) -> None:
    repeat = dataclasses.replace(ASSIGNMENT, deployment=None, repeat=1, seed=6)
    told, first = list(events(repeat)), list(events())
    assert [(m.metric, m.rung, m.epochs) for m in told if isinstance(m, Measurement)] == [
        ("accuracy", 0, 1),
        ("accuracy", 1, 2),
    ]
    losses = [[e.loss for e in some if isinstance(e, Progress) and e.accuracy is not None] for some in (told, first)]
    assert losses[0] != losses[1]


def test_a_training_that_takes_too_long_is_a_failure(events: Callable[..., Generator[Event, None, None]]) -> None:
    last = list(events(dataclasses.replace(ASSIGNMENT, timeout_s=0.0)))[-1]
    assert isinstance(last, Failure)
    assert last.reason == "time limit"
    assert last.detail.endswith(" s of training and still in epoch 1 of 2; at most 0 s allowed")


def test_a_batch_that_does_not_fit_is_trained_in_smaller_ones(
    events: Callable[..., Generator[Event, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = evaluating.build
    monkeypatch.setattr(evaluating, "build", lambda *args: Small(build(*args), images=5))
    told = list(events(dataclasses.replace(ASSIGNMENT, deployment=None)))  # a batch is of 16 images
    assert [(m.batch, m.micro_batch) for m in told if isinstance(m, Measurement)] == [(16, 4), (16, 4)]


@pytest.mark.parametrize(
    ("require", "words"),
    [
        ({"throughput": (1e12, float("inf"))}, "images/s, at least 1e+12 required"),
        ({"peak_memory_mb": (0.0, 1e-6)}, "MB, at most 1e-06 required"),
    ],
)
def test_a_broken_requirement_is_told_and_not_trained(
    require: dict[str, tuple[float, float]], words: str, events: Callable[..., Generator[Event, None, None]]
) -> None:
    told = list(events(require=require))
    last = told[-1]
    assert isinstance(last, Failure)
    assert last.reason == "broken requirement"
    assert last.detail.startswith(next(iter(require)))
    assert last.detail.endswith(words)
    assert {e.metric for e in told if isinstance(e, Measurement)} == {"throughput", "peak_memory_mb"}
    assert not any(isinstance(e, Progress) and e.phase == "training" for e in told)


def test_requirements_that_are_met_do_not_disturb(events: Callable[..., Generator[Event, None, None]]) -> None:
    told = list(events(require={"throughput": (0.0, 1e12), "peak_memory_mb": (0.0, 1e6)}))
    assert isinstance(told[-1], Measurement)


@pytest.mark.parametrize("which", ["params", "macs"])
def test_a_count_that_two_ways_disagree_on_is_not_shown(
    which: str, events: Callable[..., Generator[Event, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = evaluating.profile

    def wrong(*args: Any) -> Any:
        right = profile(*args)
        return dataclasses.replace(right, **{which: round(getattr(right, which) * 1.01)})

    monkeypatch.setattr(evaluating, "profile", wrong)
    (failure,) = events()
    right = getattr(profile(ASSIGNMENT.architecture, 8, 2), which)
    assert isinstance(failure, Failure)
    assert failure.reason == "error"
    assert f"{round(right * 1.01):,} by arithmetic" in failure.detail
    assert f"{right:,} counted" in failure.detail


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_a_failure(
    error: Exception, events: Callable[..., Generator[Event, None, None]], broken_by: Callable[[BaseException], None]
) -> None:
    broken_by(error)
    told = list(events())
    assert isinstance(told[-1], Failure)
    assert told[-1].reason == "out of memory"
    assert str(error) in told[-1].detail
    assert {e.metric for e in told if isinstance(e, Measurement)} == {"throughput", "peak_memory_mb"}


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_finds_too_little_memory_to_be_measured_on_a_shared_gpu_is_measured_while_the_others_give_way(
    events: Callable[..., Generator[Event, None, None]], monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    """Only if it does not fit then is it out of memory."""
    measure, asked = evaluating.measure_throughput, []

    def short(*told: object, **others: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def given_way(told: Asked, quiet: QuietDevice) -> tuple[Measurement, ...]:
        asked.append(told)
        network = deployed(told.architecture, told.resolution, told.classes)
        if len(asked) > 1:
            raise NotMeasured(Failure("out of memory", "not even so"))
        return measure(
            network,
            resolution=told.resolution,
            deployment=told.deployment,
            device=told.device,
            quiet=quiet,
            patience_s=0,
        )

    monkeypatch.setattr(evaluating, "measure_throughput", short)
    monkeypatch.setattr(evaluating, "measured_while_others_give_way", given_way)
    monkeypatch.setattr(evaluating, "_shared", lambda device, quiet: is_shared)
    *_, last = first = list(events())
    if not is_shared:
        assert (last.reason, asked) == ("out of memory", [])
        return
    assert {each.metric for each in first if isinstance(each, Measurement)} == {
        "throughput",
        "peak_memory_mb",
        "accuracy",
    }
    assert asked[0].architecture == ASSIGNMENT.architecture
    *_, last = events()
    assert last == Failure("out of memory", "not even so")


def test_a_real_allocation_that_is_too_large_is_out_of_memory(
    events: Callable[..., Generator[Event, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "build", lambda *args: torch.empty(2**60))
    (failure,) = events()
    assert isinstance(failure, Failure)
    assert failure.reason == "out of memory"


def test_any_other_error_is_a_failure_with_its_place(
    events: Callable[..., Generator[Event, None, None]], broken_by: Callable[[BaseException], None]
) -> None:
    broken_by(ValueError("a shape that does not fit"))
    last = list(events())[-1]
    assert isinstance(last, Failure)
    assert last.reason == "error"
    assert last.detail.startswith("ValueError: a shape that does not fit (")
    assert "test_evaluate.py" in last.detail


@pytest.mark.parametrize(
    "mixer", [Dense(), Linear(), Axial(), ExternalAttention(memory=8, heads=2), DepthwiseConv(), NoTokenMixer()]
)
@pytest.mark.parametrize("norm", NORMS)
def test_every_mixer_is_measured_and_trained_in_bf16(
    mixer: TokenMixer, norm: str, events: Callable[..., Generator[Event, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; a CPU without the instructions emulates it."""
    monkeypatch.setattr("mlpspace.proxy.training_precision", lambda device: "bf16")
    monkeypatch.setattr("mlpspace.throughput.usual_precision", lambda device: "bf16")
    stage = Stage(depth=1, width=8, token_mixer=mixer, norm=norm, layer_scale=0.1)
    told = list(
        events(dataclasses.replace(ASSIGNMENT, architecture=Architecture(stem=Patches(patch=4), stages=(stage,))))
    )
    assert [e for e in told if isinstance(e, Failure)] == []
    assert {e.precision for e in told if isinstance(e, Measurement)} == {"bf16"}


def test_ctrl_c_is_not_a_failure(
    events: Callable[..., Generator[Event, None, None]], broken_by: Callable[[BaseException], None]
) -> None:
    broken_by(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        list(events())


def test_it_can_be_closed_after_any_event(events: Callable[..., Generator[Event, None, None]], tmp_path: Path) -> None:
    for length in range(1, len(list(events())) + 1):
        run = events()
        for _ in range(length):
            next(run)
        run.close()
        with QuietDevice("cpu", tmp_path).alone():
            pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_left_as_empty_as_it_was(
    dataset: Dataset, tmp_path: Path, broken_by: Callable[[BaseException], None]
) -> None:
    device = torch.device("cuda", 0)
    on_gpu = dataset.to(device)
    list(evaluate(ASSIGNMENT, dataset=on_gpu, device=device, quiet=QuietDevice("gpu", tmp_path)))  # library workspaces
    before = torch.cuda.memory_allocated(device)
    list(evaluate(ASSIGNMENT, dataset=on_gpu, device=device, quiet=QuietDevice("gpu", tmp_path)))
    assert torch.cuda.memory_allocated(device) == before
    broken_by(torch.OutOfMemoryError("none left"))
    for event in evaluate(ASSIGNMENT, dataset=on_gpu, device=device, quiet=QuietDevice("gpu", tmp_path)):
        if isinstance(event, Failure):
            assert torch.cuda.memory_allocated(device) == before


def test_the_patience_asked_for_reaches_the_measurement(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measured(*args: Any, **named: Any) -> tuple[Measurement, Measurement]:
        asked.append(named["patience_s"])
        return measure_throughput(*args, **named, budget_s=0.01)

    monkeypatch.setattr(evaluating, "measure_throughput", measured)
    list(evaluate(ASSIGNMENT, dataset=dataset, device=CPU, quiet=QuietDevice("cpu", tmp_path), patience_s=0.25))
    assert asked == [0.25]


def test_a_disturbed_throughput_breaks_no_requirement(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*args: Any, **named: Any) -> tuple[Measurement, ...]:
        throughput, memory = measure_throughput(*args, **named, budget_s=0.01)
        return dataclasses.replace(throughput, protocol="any, disturbed"), memory

    monkeypatch.setattr(evaluating, "measure_throughput", measured)
    require = {"throughput": (1e12, float("inf"))}
    found = list(evaluate(ASSIGNMENT, dataset=dataset, device=CPU, quiet=QuietDevice("cpu", tmp_path), require=require))
    assert isinstance(found[-1], Measurement)


def test_a_device_that_fails_is_no_fault_of_the_network(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **named: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(evaluating, "train", fails)
    with pytest.raises(DeviceLost, match=r"cpu fails: CUDA error: an illegal memory access was encountered$"):
        list(evaluate(ASSIGNMENT, dataset=dataset, device=CPU, quiet=QuietDevice("cpu", tmp_path)))


@pytest.mark.parametrize("fails", [False, True])
def test_on_a_gpu_garbage_is_collected_before_its_memory_is_given_back(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first optimizer of a process is in a circle, and with it the network."""
    done: list[str] = []

    def nothing(*args: Any, **named: Any) -> Generator[Event, None, None]:
        if fails:
            raise RuntimeError("shapes do not fit")
        yield from ()

    monkeypatch.setattr(evaluating, "_evaluate", nothing)
    monkeypatch.setattr(evaluating.gc, "collect", lambda: done.append("collected"))
    monkeypatch.setattr(evaluating, "free", lambda device: done.append(f"{device} freed"))
    quiet, gpu = QuietDevice("gpu", tmp_path), torch.device("cuda", 0)
    list(evaluate(ASSIGNMENT, dataset=None, device=gpu, quiet=quiet, measured_on=CPU))
    assert done == ["collected", "cuda:0 freed", "cpu freed"] * (1 + fails)


def test_a_worker_that_shares_its_device_says_so_and_has_few_processes_that_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bool] = []

    def nothing(*args: Any, shared: bool, **named: Any) -> Generator[Event, None, None]:
        told.append(shared)
        yield from ()

    monkeypatch.setattr(worker, "evaluate", nothing)
    measured_only = dataclasses.replace(ASSIGNMENT, measure_only=True)
    for threads, before, after in ((2, None, "2"), (64, None, "32"), (2, "7", "7")):
        if before is None:
            monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
        else:
            monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", before)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
        list(worker.Worker("cpu", threads, shared=threads == 2).events(measured_only, {}))
        assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == after
    assert told == [True, False, True]
