"""Training the proxy: small networks on images that a linear model can tell apart."""

from __future__ import annotations

import dataclasses
import gc
import io
import itertools
import math
import pickle
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlpspace.architecture import Architecture, Axial, Dense, ExternalAttention, Linear, Patches, Stage
from mlpspace.data import Dataset
from mlpspace.measurement import Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.nets import build
from mlpspace.proxy import _Proxy, one_cycle, optimizer_for, standard_error, train
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.step_ways import Choice

CPU = torch.device("cpu")
PLAIN = Recipe(batch=32, lr=1e-2, augmentation=Augmentation(shift=0, flip="never"))


@pytest.fixture(autouse=True)
def one_thread_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CPU it is: what holds to so many digits does not in bf16."""
    torch.set_num_threads(1)
    monkeypatch.setattr("mlpspace.proxy.training_precision", lambda device: "fp32")


def halves(images: int = 320, validation: int = 80, seed: int = 0) -> Dataset:
    """Gray 8 x 8 images, bright on the left (class 0) or on the right (class 1), under noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (images + validation,), generator=rng)
    pixels = torch.randint(0, 160, (images + validation, 1, 8, 8), generator=rng)
    pixels[:, :, :, :4] += 60 * (labels == 0).view(-1, 1, 1, 1)
    pixels[:, :, :, 4:] += 60 * (labels == 1).view(-1, 1, 1, 1)
    pixels = pixels.to(torch.uint8)
    return Dataset(
        name="halves",
        train_images=pixels[:images],
        train_labels=labels[:images],
        val_images=pixels[images:],
        val_labels=labels[images:],
        mean=torch.tensor([0.4]),
        std=torch.tensor([0.2]),
        classes=2,
        mirrors=False,
        fingerprint="0" * 16,
    )


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., list[Event]]:
    def run(
        network: nn.Module,
        data: Dataset,
        recipe: Recipe = PLAIN,
        epochs: tuple[int, ...] = (2,),
        seed: int = 0,
        **named: Any,
    ) -> list[Event]:
        quiet = QuietDevice("cpu", tmp_path)
        return list(train(network, data, recipe=recipe, epochs=epochs, seed=seed, device=CPU, quiet=quiet, **named))

    return run


def curve(events: list[Event]) -> list[tuple[float | None, float | None]]:
    return [(e.loss, e.accuracy) for e in events if isinstance(e, Progress) and e.accuracy is not None]


def measured(events: list[Event]) -> list[Measurement]:
    return [e for e in events if isinstance(e, Measurement)]


def states(events: list[Event]) -> dict[int, bytes]:
    return {e.epochs: e.state for e in events if isinstance(e, Checkpoint)}


def same_weights(network: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


# --- what comes out ---


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_a_linear_model_can_tell_apart_is_learned(optimizer: str, trained: Callable[..., list[Event]]) -> None:
    events = trained(linear(), halves(), dataclasses.replace(PLAIN, optimizer=optimizer), epochs=(5,))
    assert isinstance(events[-1], Measurement)
    assert events[-1].value > 90


def test_each_rung_is_measured_once_with_its_fidelity(trained: Callable[..., list[Event]]) -> None:
    events = trained(linear(), halves(), epochs=(1, 3, 4))
    measured = [e for e in events if isinstance(e, Measurement)]
    assert [(m.metric, m.rung, m.epochs) for m in measured] == [
        ("accuracy", 0, 1),
        ("accuracy", 1, 3),
        ("accuracy", 2, 4),
    ]
    assert [e.epoch for e in events if isinstance(e, Progress) and e.accuracy is not None] == [1, 2, 3, 4]
    assert measured[0].seconds < measured[1].seconds < measured[2].seconds
    assert {(m.batch, m.precision, m.threads) for m in measured} == {(32, measured[0].precision, 1)}


def test_accuracy_is_bounded_by_one_standard_error(trained: Callable[..., list[Event]]) -> None:
    found = trained(linear(), halves(validation=80), epochs=(1,))[-1]
    assert isinstance(found, Measurement)
    share = found.value / 100
    assert share * 80 == pytest.approx(round(share * 80))
    share = min(max(share, 1 / 80), 79 / 80)  # no split of 80 images shows certainty
    assert found.high - found.value == pytest.approx(100 * math.sqrt(share * (1 - share) / 80))
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_the_standard_error_is_the_deviation_of_a_binomial_share() -> None:
    exact = math.sqrt(sum(math.comb(20, k) * 0.3**k * 0.7 ** (20 - k) * (k / 20 - 0.3) ** 2 for k in range(21)))
    assert standard_error(0.3, 20) == pytest.approx(exact)


def test_accuracy_is_that_of_the_whole_validation_split_in_eval_mode(trained: Callable[..., list[Event]]) -> None:
    data = halves(validation=83)  # no multiple of any batch
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.5), nn.Linear(192, 2))
    found = trained(network, data, epochs=(2,))[-1]
    assert isinstance(found, Measurement)
    pixels = (data.val_images.double() / 255 - 0.4) / 0.2
    with torch.no_grad():
        logits = network.eval()(pixels.float().repeat(1, 3, 1, 1))
    assert found.value == pytest.approx(100 * (logits.argmax(1) == data.val_labels).double().mean().item())


# --- seeds ---


def test_the_same_seed_gives_the_same_curve(trained: Callable[..., list[Event]]) -> None:
    recipe = Recipe(batch=32, augmentation=Augmentation(shift=1, flip="always", cutout=3))
    one, same = (curve(trained(linear(), halves(), recipe, seed=3)) for _ in range(2))
    assert one == same
    assert curve(trained(linear(), halves(), recipe, seed=4)) != one


def test_the_global_seed_does_not_matter(trained: Callable[..., list[Event]]) -> None:
    network, same = linear(), linear()
    one = curve(trained(network, halves()))
    torch.manual_seed(99)
    assert curve(trained(same, halves())) == one


def test_validation_labels_are_not_used_in_training(trained: Callable[..., list[Event]]) -> None:
    data = halves()
    poisoned = dataclasses.replace(data, val_labels=1 - data.val_labels, val_images=torch.zeros_like(data.val_images))
    clean_network, network = linear(), linear()
    trained(clean_network, data)
    trained(network, poisoned)
    assert all(torch.equal(a, b) for a, b in zip(clean_network.parameters(), network.parameters(), strict=True))


# --- pausing and going on ---

MIXED = Architecture(stem=Patches(patch=4), stages=(Stage(depth=1, width=8, token_mixer=Dense(), norm="batch"),))
SHIFTED = Recipe(batch=32, lr=1e-2, augmentation=Augmentation(shift=1, flip="always", cutout=3))


def mixed(norm: str = "batch", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(dataclasses.replace(MIXED, stages=(dataclasses.replace(MIXED.stages[0], norm=norm),)), 8, 2)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("rung", [0, 1])
def test_a_training_that_paused_gives_the_same_curve_as_an_uninterrupted_one(
    rung: int, optimizer: str, trained: Callable[..., list[Event]]
) -> None:
    recipe = dataclasses.replace(SHIFTED, optimizer=optimizer)
    network, other = mixed(seed=1), mixed(seed=2)  # a worker builds it anew, with whatever weights
    whole = trained(network, halves(), recipe, epochs=(1, 3, 4), seed=5)
    paused_at = (1, 3)[rung]
    rest = trained(other, halves(), recipe, epochs=(1, 3, 4), seed=5, state=states(whole)[paused_at])
    assert curve(rest) == curve(whole)[paused_at:]
    assert [(m.rung, m.value) for m in measured(rest)] == [(m.rung, m.value) for m in measured(whole)[rung + 1 :]]
    assert same_weights(network, other)  # BatchNorm's running statistics too


def test_a_training_may_pause_at_every_rung(trained: Callable[..., list[Event]]) -> None:
    network = mixed()
    whole = trained(network, halves(), SHIFTED, epochs=(1, 2, 3))
    state, legs = None, []
    for rung in range(3):
        other = mixed(seed=rung)
        leg = trained(other, halves(), SHIFTED, epochs=(1, 2, 3), state=state)
        until = next(i for i, e in enumerate(leg) if isinstance(e, Measurement))
        state = states(leg).get(rung + 1)
        legs += leg[: until + 1]
    assert curve(legs) == curve(whole)
    assert [m.rung for m in measured(legs)] == [0, 1, 2]
    assert same_weights(network, other)


def test_a_checkpoint_comes_just_before_the_measurement_of_each_rung(
    trained: Callable[..., list[Event]],
) -> None:
    events = trained(linear(), halves(), epochs=(1, 3, 4))
    assert [e.epochs for e in events if isinstance(e, Checkpoint)] == [1, 3, 4]
    for checkpoint, following in itertools.pairwise(events):
        if isinstance(checkpoint, Checkpoint):
            assert isinstance(following, Measurement)
            assert following.epochs == checkpoint.epochs


def test_the_last_checkpoint_holds_the_weights_alone(trained: Callable[..., list[Event]]) -> None:
    network, fresh = linear(), linear()
    last = states(trained(network, halves(), epochs=(2,)))[2]
    fresh.load_state_dict(torch.load(io.BytesIO(last), weights_only=True))
    assert same_weights(network, fresh)


def test_checkpoints_come_on_the_way_too_and_the_curve_goes_on_from_each(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpspace.proxy.RARELY", 0)
    whole = trained(linear(), halves(), epochs=(2, 5), checkpoint_s=0.0)
    assert list(states(whole)) == [1, 2, 3, 4, 5]
    for epoch in (1, 3, 4):
        rest = trained(linear(), halves(), epochs=(2, 5), state=states(whole)[epoch])
        assert curve(rest) == curve(whole)[epoch:]
    assert list(states(trained(linear(), halves(), epochs=(2, 5), checkpoint_s=3600))) == [2, 5]


def test_who_goes_on_says_at_once_from_where(trained: Callable[..., list[Event]]) -> None:
    state = states(trained(linear(), halves(), epochs=(2, 4)))[2]
    assert trained(linear(), halves(), epochs=(2, 4), state=state)[0] == Progress(phase="training", epoch=2, epochs=4)


def test_seconds_are_those_of_all_legs(trained: Callable[..., list[Event]]) -> None:
    first = trained(linear(), halves(), epochs=(2, 3))
    rest = trained(linear(), halves(), epochs=(2, 3), state=states(first)[2])
    assert measured(rest)[0].seconds > measured(first)[0].seconds


def test_a_state_runs_no_code(trained: Callable[..., list[Event]]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise SystemExit('code ran')",)

    buffer = io.BytesIO()
    torch.save({"past": Evil()}, buffer)
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        trained(linear(), halves(), state=buffer.getvalue())


def from_a_gpu(state: bytes) -> bytes:
    """As if a GPU had written it: of 16 bytes is the state of its random numbers, a seed and an offset."""
    told = torch.load(io.BytesIO(state), weights_only=True)
    told["generator"] = ("cuda", torch.zeros(16, dtype=torch.uint8))
    buffer = io.BytesIO()
    torch.save(told, buffer)
    return buffer.getvalue()


def test_on_another_kind_of_device_the_rest_is_drawn_from_the_seed_and_the_epoch(
    trained: Callable[..., list[Event]],
) -> None:
    def rest(seed: int, at: int) -> list[tuple[float | None, float | None]]:
        state = states(trained(linear(), halves(), SHIFTED, epochs=(1, 2, 4)))[at]
        return curve(trained(linear(), halves(), SHIFTED, epochs=(1, 2, 4), seed=seed, state=from_a_gpu(state)))

    assert rest(seed=0, at=2) == rest(seed=0, at=2)
    assert rest(seed=0, at=2) != rest(seed=1, at=2)
    assert rest(seed=0, at=1)[1:] != rest(seed=0, at=2)
    assert len(rest(seed=0, at=1)) == 3


# --- memory ---


class Room(nn.Module):
    """A network on a device that takes so many images at once; notes those it was shown while training."""

    def __init__(self, network: nn.Module, images: int) -> None:
        super().__init__()
        self.network = network
        self.room = images
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert len(images)
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.training:
            self.shown.append(images)
        return self.network(images)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_batch_in_micro_batches_makes_the_same_steps(optimizer: str, trained: Callable[..., list[Event]]) -> None:
    recipe = dataclasses.replace(SHIFTED, optimizer=optimizer, batch=50)  # which no power of two divides
    # not LayerNorm: it takes out the mixer's bias, and AdamW makes a full step of the rounding that is its gradient
    whole, small = Room(mixed("affine"), 100), Room(mixed("affine"), 14)
    events, others = (trained(network, halves(), recipe, epochs=(1, 2)) for network in (whole, small))
    torch.testing.assert_close(small.network.state_dict(), whole.network.state_dict(), rtol=1e-4, atol=1e-5)
    assert [loss for loss, _ in curve(others)] == pytest.approx([loss for loss, _ in curve(events)], rel=1e-5)
    assert torch.equal(torch.cat(small.shown), torch.cat(whole.shown))  # augmented once, and each of them trained once
    assert {(m.batch, m.micro_batch) for m in measured(events)} == {(50, None)}
    assert {(m.batch, m.micro_batch) for m in measured(others)} == {(50, 13)}  # 13, 13, 12, 12


class HalfWay(torch.autograd.Function):
    """Passes images on, and runs out of memory on the way back: the gradients of what comes after it are made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, room: int) -> Tensor:
        ctx.room = room
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        if len(slope) > ctx.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return slope, None


class TwoLayers(nn.Module):
    def __init__(self, room: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.room = nn.Linear(192, 8), nn.Linear(8, 2), room

    def forward(self, images: Tensor) -> Tensor:
        return self.second(HalfWay.apply(self.first(images.flatten(1)), self.room))


def test_gradients_of_a_step_that_did_not_fit_are_forgotten(trained: Callable[..., list[Event]]) -> None:
    whole, small = TwoLayers(room=32), TwoLayers(room=8)
    recipe = dataclasses.replace(PLAIN, optimizer="sgd")
    trained(whole, halves(), recipe)
    assert {m.micro_batch for m in measured(trained(small, halves(), recipe))} == {8}
    torch.testing.assert_close(small.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_error_of_the_network_is_gone_before_the_batch_is_tried_again(trained: Callable[..., list[Event]]) -> None:
    """It holds the frames it came through, and they the activations that memory is lacking for."""
    alive: list[bool] = []

    class Held:
        count = 0

        def __init__(self) -> None:
            Held.count += 1

        def __del__(self) -> None:
            Held.count -= 1

    class Holding(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            alive.append(Held.count > 0)
            held = Held()
            if self.training and len(images) > 10:
                error = torch.OutOfMemoryError(f"none left {held is None}")
                raise error  # which its own frame holds: a circle
            return super().forward(images)

    trained(Holding(), halves(images=32), epochs=(1,))
    assert not any(alive)


def test_validation_that_does_not_fit_is_done_in_smaller_batches(trained: Callable[..., list[Event]]) -> None:
    """Of 83 images, with 6 at once: the accuracy is still that of all of them."""
    data, network = halves(validation=83), Room(mixed("layer"), 6)
    found = measured(trained(network, data, epochs=(1,)))[-1]
    network.room = 83
    pixels = ((data.val_images.double() / 255 - 0.4) / 0.2).float().repeat(1, 3, 1, 1)
    with torch.no_grad():
        right = (network.eval()(pixels).argmax(1) == data.val_labels).double().mean().item()
    assert found.value == pytest.approx(100 * right)
    assert found.micro_batch == 4  # of 32, which are 8 parts; the accuracy says nothing of validation's


@pytest.mark.parametrize(("norm", "fewest"), [("layer", 1), ("affine", 1), ("batch", 2)])
def test_memory_for_less_than_the_smallest_micro_batch_is_none(
    norm: str, fewest: int, trained: Callable[..., list[Event]]
) -> None:
    network = Room(mixed(norm), 0)
    with pytest.raises(torch.OutOfMemoryError) as told:
        trained(network, halves(images=32))
    assert str(told.value) == (
        f"{fewest} at once of a batch of 32: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    )


def test_batchnorm_is_never_shown_one_image(trained: Callable[..., list[Event]]) -> None:
    network = Room(mixed("batch"), 3)
    trained(network, halves(images=35), dataclasses.replace(PLAIN, batch=35), epochs=(1,))
    assert {len(images) for images in network.shown} == {2, 3}


def test_what_did_not_fit_is_not_tried_again(trained: Callable[..., list[Event]]) -> None:
    """Halved once for a training, after a second try, and not once for a step; who goes on elsewhere keeps to it."""
    tries: list[int] = []

    class Noting(Room):
        def forward(self, images: Tensor) -> Tensor:
            tries.extend([len(images)] * self.training)
            return super().forward(images)

    whole = trained(Noting(mixed("layer"), 16), halves(), SHIFTED, epochs=(1, 2))
    assert tries.count(32) == 2
    rest = trained(Room(mixed("layer", seed=1), 100), halves(), SHIFTED, epochs=(1, 2), state=states(whole)[1])
    assert curve(rest) == curve(whole)[1:]
    assert measured(rest)[-1].micro_batch == measured(whole)[-1].micro_batch == 16


def test_any_other_error_is_not_tried_again(trained: Callable[..., list[Event]]) -> None:
    calls: list[int] = []

    class Wrong(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            calls.append(len(images))
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trained(Wrong(), halves())
    assert calls == [32]


def test_a_network_is_gone_with_its_training_and_waits_for_no_garbage_collector(
    trained: Callable[..., list[Event]],
) -> None:
    trained(mixed("layer"), halves(), epochs=(1,))  # torch's imports for the first optimizer make a circle of their own
    gc.collect()
    gc.disable()
    try:
        network = mixed("layer")
        gone = weakref.ref(network)
        trained(network, halves(), epochs=(1,))
        del network
        assert gone() is None
    finally:
        gc.enable()


def test_weights_are_brought_to_the_cpu_before_they_are_kept() -> None:
    """Where there is no GPU, torch.load does not take a tensor that lay on one."""

    class There:
        """A tensor elsewhere."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

        def cpu(self) -> Tensor:
            return self.tensor

    network = mixed("batch")
    here = network.state_dict()
    there = network.state_dict()
    for name, tensor in here.items():
        there[name] = There(tensor)
    told: Any = SimpleNamespace(_network=SimpleNamespace(state_dict=lambda: there))
    kept = torch.load(io.BytesIO(_Proxy.weights(told)), weights_only=True)
    other = mixed("batch", seed=1)
    other.load_state_dict(kept)
    assert same_weights(other, network)
    assert kept._metadata == here._metadata  # type: ignore[attr-defined]  # by which load_state_dict knows older ones
    buffer = io.BytesIO()
    torch.save(here, buffer)
    assert _Proxy.weights(SimpleNamespace(_network=network)) == buffer.getvalue()  # type: ignore[arg-type]


def test_waiting_for_images_is_no_part_of_a_step(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only images and networks move: 5 s for a batch from the disk, 1 s for a step."""
    now, steps = [0.0], []

    class Slow(Dataset):
        def train_batches(self, order: Tensor, batch: int) -> Generator[Tensor, None, None]:
            for rows in order.split(batch):
                now[0] += 5.0
                yield self.train_images[rows]  # type: ignore[index]

        def val_batches(self, batch: int) -> Generator[Tensor, None, None]:
            for images in super().val_batches(batch):
                now[0] += 5.0
                yield images

    class Ticking(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            now[0] += 1.0 if self.training else 0.0
            return super().forward(images)

    class Told(Choice):
        def took(self, steps_: int, seconds: float) -> bool:
            steps.append((steps_, seconds))
            return super().took(steps_, seconds)

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    for module in ("proxy", "pieces"):
        monkeypatch.setattr(f"mlpspace.{module}.time", clock)
    monkeypatch.setattr("mlpspace.proxy.Choice", Told)
    data = halves()
    slow = Slow(**{field.name: getattr(data, field.name) for field in dataclasses.fields(data)})
    found = measured(trained(Ticking(), slow, epochs=(1, 2)))
    assert [seconds for _, seconds in steps] == [pytest.approx(count) for count, _ in steps]
    assert sum(count for count, _ in steps) == 20
    assert found[-1].seconds == pytest.approx(20 * 6.0 + 2 * 2 * 5.0)  # it is work all the same


# --- the recipe ---


def test_the_schedule_is_a_line_up_and_half_a_cosine_down() -> None:
    """1000 steps, 200 of warm-up, read at the middle of each step."""
    found = [one_cycle(step, 1000, 0.2) for step in range(1000)]
    line = [(step + 0.5) / 200 for step in range(200)]
    cosine = [math.cos(math.pi / 2 * (step + 0.5) / 800) ** 2 for step in range(800)]
    assert found == pytest.approx(line + cosine)


@pytest.mark.parametrize("warmup", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_no_step_is_wasted_on_a_rate_of_zero(warmup: float, steps: int) -> None:
    assert all(0 < one_cycle(step, steps, warmup) <= 1 for step in range(steps))


def test_the_cycle_ends_with_the_last_rung(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    class Noting(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    monkeypatch.setattr("mlpspace.proxy.AdamW", Noting)
    trained(linear(), halves(images=100), epochs=(1, 4))  # 3 full batches of 32 an epoch
    assert rates == pytest.approx([1e-2 * one_cycle(i, 12, 0.2) for i in range(12)])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("mixer", [Dense(), Linear(), Axial(), ExternalAttention(memory=8)])
@pytest.mark.parametrize("norm", ["layer", "affine", "batch"])
def test_norms_biases_and_layer_scale_do_not_decay(optimizer: str, mixer: object, norm: str) -> None:
    stage = Stage(depth=1, width=16, token_mixer=mixer, norm=norm, layer_scale=0.1)  # type: ignore[arg-type]
    network = build(Architecture(stem=Patches(patch=4), stages=(stage,)), 16, 3)
    groups = optimizer_for(network, Recipe(optimizer=optimizer, weight_decay=0.3)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    products = (nn.Linear, nn.Conv1d, nn.Conv2d)
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, products) or type(m).__name__ == "TokenLinear"}
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        name: 0.3 if id(p) in matrices else 0.0 for name, p in network.named_parameters()
    }


def test_one_step_is_the_step_of_a_plain_loop(trained: Callable[..., list[Event]]) -> None:
    """One batch with all images: order does not matter, so torch's own loop gives the same weights and loss."""
    data = halves(images=32)
    network, same = linear(), linear()
    events = trained(network, data, dataclasses.replace(PLAIN, label_smoothing=0.2, warmup=0.0), epochs=(1,))
    pixels = ((data.train_images.float() / 255 - 0.4) / 0.2).repeat(1, 3, 1, 1)
    log_p = functional.log_softmax(same(pixels), dim=1)
    wanted = torch.full((32, 2), 0.1).scatter(1, data.train_labels[:, None], 0.9)  # 0.2 spread over both classes
    loss = -(wanted * log_p).sum(1).mean()
    weight, bias = same[1].weight, same[1].bias  # type: ignore[index]
    rate = 1e-2 * math.cos(math.pi / 4) ** 2
    optimizer = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": 0.05}, {"params": [bias], "weight_decay": 0.0}], lr=rate
    )
    loss.backward()
    optimizer.step()
    assert isinstance(events[0], Progress)
    assert events[0].loss == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(network[1].weight, weight, rtol=1e-5, atol=1e-6)  # type: ignore[index]
    torch.testing.assert_close(network[1].bias, bias, rtol=1e-5, atol=1e-6)  # type: ignore[index]


class Recorder(nn.Module):
    """Notes the images it is shown while training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 2)
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.batches.append(images.detach())
        return self.linear(images.flatten(1))


def test_an_epoch_shows_each_image_at_most_once_in_full_batches(trained: Callable[..., list[Event]]) -> None:
    network = Recorder()
    trained(network, halves(images=100), epochs=(2,))
    assert [len(batch) for batch in network.batches] == [32] * 6
    first, second = (torch.cat(network.batches[i : i + 3]).flatten(1) for i in (0, 3))
    assert len(first.unique(dim=0)) == len(second.unique(dim=0)) == 96
    assert not torch.equal(first, second)


def test_a_batch_larger_than_the_set_takes_all_of_it(trained: Callable[..., list[Event]]) -> None:
    network = Recorder()
    events = trained(network, halves(images=20), epochs=(3,))
    assert [len(batch) for batch in network.batches] == [20, 20, 20]
    assert isinstance(events[-1], Measurement)
    assert events[-1].batch == 32  # as the recipe says


# --- what goes wrong, and what others see ---


@pytest.mark.parametrize("poison", [math.inf, math.nan])
def test_a_number_that_is_none_is_a_failure_that_says_where(poison: float, trained: Callable[..., list[Event]]) -> None:
    network = linear()
    with torch.no_grad():
        network[1].weight.fill_(poison)  # type: ignore[index]
    events = trained(network, halves())
    assert events == [Failure("not a number", "loss nan in epoch 1, step 1")]


def test_a_learning_rate_that_is_too_large_ends_as_a_failure(trained: Callable[..., list[Event]]) -> None:
    class Explosive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(192, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images.flatten(1)).exp().exp()

    events = trained(Explosive(), halves(), Recipe(batch=32, optimizer="sgd", lr=100.0))
    assert isinstance(events[-1], Failure)
    assert events[-1].reason == "not a number"


class Told(nn.Module):
    """Its loss in an epoch is what the list says: the same for each of two labels, all epochs of two steps."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2))
        self.losses = [loss for loss in losses for _ in range(2)]

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return torch.zeros(len(images), 2)
        loss = self.losses.pop(0)  # of class 0, which all images are: ln(1 + e^gap)
        gap = math.log(math.expm1(loss))
        return torch.tensor([0.0, gap]).expand(len(images), 2) + 0 * self.unused


@pytest.mark.parametrize(
    ("losses", "failed"),
    [
        ([9.0, 9.5, 9.0, 9.0], 2),  # three times that of a guess are 2.079
        ([9.0, 8.0, 7.0, 6.0], None),  # it comes down
        ([0.7, 0.6, 2.0, 2.07], None),
        ([0.7, 0.6, 0.5, 2.09], 4),
        ([9.0, 5.0, 1.0, 2.5], 4),
    ],
)
def test_a_loss_far_above_that_of_a_guess_that_does_not_fall_is_divergent(
    losses: list[float], failed: int | None, trained: Callable[..., list[Event]]
) -> None:
    data = halves(images=64)
    data = dataclasses.replace(data, train_labels=torch.zeros(64, dtype=torch.long))
    events = trained(Told(losses), data, dataclasses.replace(PLAIN, label_smoothing=0.0), epochs=(4,))
    assert len(curve(events)) == (4 if failed is None else failed - 1)
    if failed:
        now, before = losses[failed - 1], losses[failed - 2]
        detail = f"{now:.4g} in epoch {failed}, {before:.4g} in the epoch before, 0.6931 by guessing"
        assert events[-1] == Failure("divergent loss", detail)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_a_guess_has_the_same_loss_whatever_the_label_smoothing(smoothing: float, classes: int) -> None:
    logits, labels = torch.zeros(1, classes), torch.zeros(1, dtype=torch.long)
    assert functional.cross_entropy(logits, labels, label_smoothing=smoothing).item() == pytest.approx(
        math.log(classes)
    )


def test_who_goes_on_remembers_the_loss_before(trained: Callable[..., list[Event]]) -> None:
    data = dataclasses.replace(halves(images=64), train_labels=torch.zeros(64, dtype=torch.long))
    recipe = dataclasses.replace(PLAIN, label_smoothing=0.0)
    state = states(trained(Told([9.0, 8.0]), data, recipe, epochs=(1, 2)))[1]
    assert trained(Told([9.5]), data, recipe, epochs=(1, 2), state=state)[-1] == Failure(
        "divergent loss", "9.5 in epoch 2, 9 in the epoch before, 0.6931 by guessing"
    )


def test_a_network_with_far_too_large_a_rate_diverges(trained: Callable[..., list[Event]]) -> None:
    last = trained(mixed("layer"), halves(), dataclasses.replace(PLAIN, lr=30.0, warmup=0.5), epochs=(8,))[-1]
    assert isinstance(last, Failure)
    assert last.reason == "divergent loss"


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    for module in ("proxy", "pieces"):
        monkeypatch.setattr(
            f"mlpspace.{module}.time", SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
        )
    yield now


def test_a_time_limit_counts_the_work_of_all_legs(
    trained: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass takes 1 s: an epoch 3 batches of 32 in 100 images and 2 of 64 in 70, so 5 s."""
    with clock(monkeypatch) as now:

        class OneSecond(Recorder):
            def forward(self, images: Tensor) -> Tensor:
                now[0] += 1
                return super().forward(images)

        data = halves(100, 70)
        enough = trained(OneSecond(), data, epochs=(1, 3), timeout_s=15.0)
        assert measured(enough)[-1].seconds == 15
        now[0] += 1000  # between the legs
        rest = trained(OneSecond(), data, epochs=(1, 3), timeout_s=11.5, state=states(enough)[1])
        assert len(curve(rest)) == 1
        assert rest[-1] == Failure("time limit", "12 s of training and still in epoch 3 of 3; at most 11.5 s allowed")


def test_weights_that_break_in_the_last_step_are_seen_on_the_validation_split(
    trained: Callable[..., list[Event]],
) -> None:
    class LateBreak(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(192, 2)

        def forward(self, images: Tensor) -> Tensor:
            logits = self.linear(images.flatten(1))
            return logits if self.training else logits / 0

    assert trained(LateBreak(), halves()) == [Failure("not a number", "logits on the validation split after epoch 1")]


def test_the_device_is_free_whenever_an_event_is_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpspace.proxy.SIGN_OF_LIFE_S", 0.0)  # a sign after each piece
    quiet = QuietDevice("cpu", tmp_path)
    events = train(linear(), halves(), recipe=PLAIN, epochs=(1,), seed=0, device=CPU, quiet=quiet)
    signs = 0
    for event in events:
        with QuietDevice("cpu", tmp_path).alone():  # would wait for ever
            signs += isinstance(event, Progress) and event.accuracy is None
    assert signs >= 1


def test_pauses_and_a_slow_listener_are_not_training_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only the network (1 s a pass), a pause (100 s) and the listener (1000 s) move."""
    now = [0.0]
    for module in ("proxy", "pieces"):
        monkeypatch.setattr(
            f"mlpspace.{module}.time", SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
        )

    class Pausing(QuietDevice):
        @contextmanager
        def busy(self) -> Iterator[float]:
            now[0] += 100
            with super().busy():
                yield 100.0

    class OneSecond(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            now[0] += 1
            return super().forward(images)

    told: list[Event] = []
    for event in train(
        OneSecond(), halves(100, 70), recipe=PLAIN, epochs=(2,), seed=0, device=CPU, quiet=Pausing("cpu", tmp_path)
    ):
        told.append(event)
        now[0] += 1000
    found = told[-1]
    assert isinstance(found, Measurement)
    assert found.seconds == 2 * (3 + 2)  # epochs x (batches of 32 in 100 images, of 64 in 70)


def test_a_training_that_is_closed_frees_the_device(tmp_path: Path) -> None:
    quiet = QuietDevice("cpu", tmp_path)
    events = train(linear(), halves(), recipe=PLAIN, epochs=(5,), seed=0, device=CPU, quiet=quiet)
    next(iter(events))
    events.close()
    with QuietDevice("cpu", tmp_path).alone():
        pass
