"""Training the proxy: small networks on images that a linear model can tell apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlpspace.architecture import Architecture, Axial, Dense, ExternalAttention, Linear, Patches, Stage
from mlpspace.data import Dataset
from mlpspace.measurement import Event, Failure, Measurement, Progress
from mlpspace.nets import build
from mlpspace.proxy import one_cycle, optimizer_for, standard_error, train
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Augmentation, Recipe

CPU = torch.device("cpu")
PLAIN = Recipe(batch=32, lr=1e-2, augmentation=Augmentation(shift=0, flip="never"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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
        network: nn.Module, data: Dataset, recipe: Recipe = PLAIN, epochs: tuple[int, ...] = (2,), seed: int = 0
    ) -> list[Event]:
        quiet = QuietDevice("cpu", tmp_path)
        return list(train(network, data, recipe=recipe, epochs=epochs, seed=seed, device=CPU, quiet=quiet))

    return run


def curve(events: list[Event]) -> list[tuple[float | None, float | None]]:
    return [(e.loss, e.accuracy) for e in events if isinstance(e, Progress)]


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
    monkeypatch.setattr("mlpspace.proxy.time", SimpleNamespace(perf_counter=lambda: now[0]))

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
