"""The proxy: train a network on a dataset that lies on the device, with an accuracy after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from mlpspace.data import Dataset, augment, normalised
from mlpspace.device import describe, dtype_of, synchronize, training_precision
from mlpspace.measurement import Event, Failure, Measurement, Progress
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Recipe

PROTOCOL = "proxy-v1"

PIECE_S = 0.1  # the device is held for about so long at a time, at least for one step
SIGN_OF_LIFE_S = 2.0


def train(
    network: nn.Module,
    dataset: Dataset,
    *,
    recipe: Recipe,
    epochs: tuple[int, ...],
    seed: int,
    device: torch.device,
    quiet: QuietDevice,
) -> Generator[Event, None, None]:
    """Train for the last of `epochs`, with the validation accuracy after each epoch and a measurement at each rung.

    Protocol proxy-v1: one cycle over the last rung's epochs, so that an earlier rung is a point on the way and not a
    short training of its own; images drawn without replacement, a last batch that would not be full left out;
    autocast in the device's precision; accuracy in eval mode over the whole validation split. All randomness comes
    from `seed`: on a CPU with the same number of threads the curve is the same again, on a GPU nearly so.

    Args:
        network: takes (B, 3, s, s) for the dataset's images of s pixels; trained in place. Both lie on `device`.
        epochs: the rungs, rising.

    Yields:
        Progress with the accuracy after each epoch, and without it every few seconds. A Measurement of the accuracy
        at each rung; its seconds are those the device worked on it, pauses for the measurements of others left out.
        A Failure "not a number" is the last.
    """
    pieces = _Pieces(device, quiet)
    proxy = _Proxy(network, dataset, recipe=recipe, epochs=epochs[-1], seed=seed, device=device)
    told = time.perf_counter()
    images = len(dataset.val_labels)
    for epoch in range(1, epochs[-1] + 1):
        losses: list[float] = []
        for some in pieces.run(proxy.steps, proxy.step):
            losses += some
            if not math.isfinite(sum(some)):
                wrong = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
                yield Failure("not a number", f"loss {losses[wrong]} in epoch {epoch}, step {wrong + 1}")
                return
            if time.perf_counter() - told > SIGN_OF_LIFE_S:
                yield Progress(phase="training", epoch=epoch - 1, epochs=epochs[-1], loss=_mean(losses))
                told = time.perf_counter()
        right = sum(sum(some) for some in pieces.run(proxy.validation_batches, proxy.right))
        if not math.isfinite(right):
            yield Failure("not a number", f"logits on the validation split after epoch {epoch}")
            return
        share = right / images
        yield Progress(phase="training", epoch=epoch, epochs=epochs[-1], loss=_mean(losses), accuracy=100 * share)
        told = time.perf_counter()
        if epoch in epochs:
            error = standard_error(share, images)
            yield Measurement(
                metric="accuracy",
                value=100 * share,
                low=100 * (share - error),
                high=100 * (share + error),
                seconds=pieces.seconds,
                protocol=PROTOCOL,
                device=describe(device),
                batch=recipe.batch,
                precision=proxy.precision,
                threads=torch.get_num_threads(),
                rung=epochs.index(epoch),
                epochs=epoch,
                data=dataset.fingerprint,
            )


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """The share of the top learning rate at a step counted from 0: a straight line up, then half a cosine down to 0.

    Read at the middle of the step, so that neither the first nor the last is wasted on a rate of 0.
    """
    t = (step + 0.5) / steps
    if t < warmup:
        return t / warmup
    return 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))


def standard_error(share: float, images: int) -> float:
    """Of the share of so many images that was classified right: sqrt(p (1 - p) / n).

    Where none or all are right it is that of one image more or less, since no split of n images shows certainty.
    """
    share = min(max(share, 1 / images), 1 - 1 / images)
    return math.sqrt(share * (1 - share) / images)


def optimizer_for(network: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9; only matrices and kernels decay.

    What has one dimension does not: norms, biases, LayerScale, class token, the weights of a fusion.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)
    return AdamW(groups, lr=recipe.lr, fused=True)


class _Proxy:
    """A network on its way through the recipe: one step, one batch of the validation split at a time."""

    def __init__(
        self, network: nn.Module, dataset: Dataset, *, recipe: Recipe, epochs: int, seed: int, device: torch.device
    ) -> None:
        images = len(dataset.train_labels)
        self.precision = training_precision(device)
        self._batch = min(recipe.batch, images)
        self.steps = images // self._batch  # of an epoch
        self._validation_batch = 2 * recipe.batch  # without gradients it takes no more memory than training
        self.validation_batches = math.ceil(len(dataset.val_labels) / self._validation_batch)
        self._network = network
        self._dataset = dataset
        self._recipe = recipe
        self._all_steps = epochs * self.steps
        self._done = 0
        self._device = device
        self._dtype = dtype_of(self.precision)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._optimizer = optimizer_for(network, recipe)
        self._order = torch.empty(0)

    def step(self, number: int) -> Tensor:
        """One step of training, the `number`-th of its epoch; gives its loss, a scalar on the device."""
        data, recipe = self._dataset, self._recipe
        if number == 0:
            self._network.train()
            self._order = torch.randperm(len(data.train_labels), generator=self._generator, device=self._device)
        rows = self._order[number * self._batch : (number + 1) * self._batch]
        images = augment(data.train_images[rows], recipe.augmentation, data.mirrors, self._generator)
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.lr * one_cycle(self._done, self._all_steps, recipe.warmup)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self._network(normalised(images, data, self._dtype))
            loss = functional.cross_entropy(logits, data.train_labels[rows], label_smoothing=recipe.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._done += 1
        return loss.detach()

    @torch.inference_mode()
    def right(self, number: int) -> Tensor:
        """How many of a batch of the validation split are classified right; NaN if a logit is not finite."""
        self._network.eval()
        rows = slice(number * self._validation_batch, (number + 1) * self._validation_batch)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self._network(normalised(self._dataset.val_images[rows], self._dataset, self._dtype))
        right = (logits.argmax(1) == self._dataset.val_labels[rows]).sum()
        return torch.where(logits.isfinite().all(), right.float(), math.nan)


class _Pieces:
    """Work on a device that others may want to measure on: in pieces, each with the device held."""

    def __init__(self, device: torch.device, quiet: QuietDevice) -> None:
        self.seconds = 0.0  # of work
        self._device = device
        self._quiet = quiet

    def run(self, count: int, work: Callable[[int], Tensor]) -> Iterator[list[float]]:
        """Do work(0) .. work(count - 1), each giving a scalar on the device; yields the scalars of each piece.

        Steps of a piece are queued without waiting for one another. The device is not held while the caller has them.
        """
        first, size = 0, 1
        while first < count:
            last = min(first + size, count)
            with self._quiet.busy():
                started = time.perf_counter()
                some = torch.stack([work(number) for number in range(first, last)]).tolist()
                synchronize(self._device)  # the optimizer's last kernels too, before another may measure
                took = time.perf_counter() - started
            self.seconds += took
            size = min(4 * size, max(1, round(size * PIECE_S / took)))
            first = last
            yield some


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)
