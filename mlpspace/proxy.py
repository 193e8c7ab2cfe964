"""The proxy: train a network on a dataset that lies on the device, with an accuracy after each epoch."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from mlpspace.data import Dataset, augment, normalised
from mlpspace.device import describe, dtype_of, training_precision
from mlpspace.measurement import Checkpoint, Event, Measurement, Progress
from mlpspace.memory import MicroBatches, memory_kept
from mlpspace.nets.network import Network
from mlpspace.pieces import Ended, Pieces
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Recipe
from mlpspace.step import Forward, Step
from mlpspace.step_ways import CHANGES, Choice, Experience
from mlpspace.wall_time import spent

PROTOCOL = "proxy-v1"

SIGN_OF_LIFE_S = 2.0
RARELY = 50  # a checkpoint on the way is due once so many times what the last one took has passed

# An epoch's mean loss is divergent where it is so many times that of a guess, ln(classes), and no less than the epoch's
# before. Whoever gives all classes the same probability has that loss whatever the label smoothing; 3 times as much is
# as if the right class got 1 / classes^3 on average, with 10 classes 1 in 1000. Trainings that came to something were
# never near it: at most 1.004 times ln(classes), first epochs included (3,177 epochs of small networks, nearly all on
# MNIST and CIFAR-10 subsets with AdamW at 3e-3). The first epoch is not judged, as it holds the steps at the weights
# that chance gave; nor is a loss that falls, as the rate's way down mends much. The rule errs towards training on.
DIVERGENT = 3.0

EXPERIENCE = Experience()  # of this process


def train(
    network: nn.Module,
    dataset: Dataset,
    *,
    recipe: Recipe,
    epochs: tuple[int, ...],
    seed: int,
    device: torch.device,
    quiet: QuietDevice,
    state: bytes | None = None,
    timeout_s: float | None = None,
    checkpoint_s: float = math.inf,
    shared: bool = False,
) -> Generator[Event, None, None]:
    """Train for the last of `epochs`, with the validation accuracy after each epoch and a measurement at each rung.

    Protocol proxy-v1: one cycle over the last rung's epochs, so that an earlier rung is a point on the way and not a
    short training of its own; images drawn without replacement, a last batch that would not be full left out;
    autocast in the device's precision; accuracy in eval mode over the whole validation split. All randomness comes
    from `seed`: on a CPU with the same number of threads the curve is the same again, on a GPU nearly so.

    A batch that does not fit into memory is done once more, and then in micro-batches, half as large until they fit and
    from then on to the end of the training: the same images, augmented once, and the same loss, the mean over the
    batch. The step is the same but for rounding, unless the network has BatchNorm. Its statistics are then those of
    micro-batches, its running ones move several times a step (and may count what did not fit), and two images are the
    fewest.

    On a GPU steps are recorded as a CUDA graph, or go through torch.compile, where the clock says that it pays before
    the next rung (`step_ways`); the numbers are the same but for rounding. On a CPU they never are.

    From `state`, a Checkpoint's, it goes on after that rung as if it had never stopped, on the CPU to the last bit.
    Random numbers cannot move between a CPU and a GPU: on the other kind of device the images of later epochs are drawn
    from (seed, epoch), so that the curve is one of the same training and not the same curve.

    Args:
        network: takes (B, 3, s, s) for the dataset's images of s pixels; trained in place. Both lie on `device`.
        epochs: the rungs, rising.
        state: of the same network, dataset, recipe, epochs and seed.
        timeout_s: seconds that the training may take, counted as in its measurements: by the clock, over all its legs,
            pauses left out. It is looked at between steps: a step that never returns is not ended by it.
        checkpoint_s: wall time between two checkpoints, about: they come at an epoch's end, and rarer where writing
            one takes longer than a fiftieth of it.
        shared: others train on `device` too, which leaves torch.compile out: a first compiled step takes half a minute
            for which the device is held, and who wants to measure on it waits, and with him all the others.

    Yields:
        Progress with the accuracy after each epoch, and without it every few seconds. A Measurement of the accuracy
        at each rung; its seconds are those the device worked on it, pauses for the measurements of others left out.
        Just before it a Checkpoint, at the last rung one of the weights alone. A Failure "not a number", "divergent
        loss" (see DIVERGENT) or "time limit" is the last.

    Raises:
        torch.OutOfMemoryError: not even the smallest micro-batch fits; any other error of the network as it is.
    """
    proxy = _Proxy(network, dataset, recipe=recipe, epochs=epochs[-1], seed=seed, device=device, shared=shared)
    try:
        with memory_kept(device):
            yield from _epochs(proxy, dataset, epochs, quiet, state, timeout_s, checkpoint_s)
    except Ended as ended:
        yield ended.failure
    finally:
        proxy.close()


def _epochs(
    proxy: _Proxy,
    dataset: Dataset,
    epochs: tuple[int, ...],
    quiet: QuietDevice,
    state: bytes | None,
    timeout_s: float | None,
    checkpoint_s: float,
) -> Generator[Event, None, None]:
    """What `train` yields.

    Raises:
        Ended: the training comes to nothing.
    """
    past = _Past()
    if state is not None:
        with spent("saving"), quiet.busy():
            past = proxy.restore(state)
        yield Progress(phase="training", epoch=past.epochs, epochs=epochs[-1])
    pieces = Pieces(proxy.device, quiet, past.seconds, timeout_s)
    guess = math.log(dataset.classes)
    told = written = time.perf_counter()
    took = 0.0  # for a checkpoint
    images = len(dataset.val_labels)
    for epoch in range(past.epochs + 1, epochs[-1] + 1):
        now = f"epoch {epoch} of {epochs[-1]}"
        losses: list[float] = []
        rung = next(rung for rung in epochs if rung >= epoch)
        proxy.choice.go_on((rung - epoch + 1) * proxy.steps)
        for some in pieces.run(proxy.steps, proxy.step, now):
            losses += some
            if proxy.choice.took(len(some), pieces.took_s - proxy.waited()):
                pieces.size = 1
            if not math.isfinite(sum(some)):
                wrong = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
                raise Ended("not a number", f"loss {losses[wrong]} in epoch {epoch}, step {wrong + 1}")
            if time.perf_counter() - told > SIGN_OF_LIFE_S:
                yield Progress(phase="training", epoch=epoch - 1, epochs=epochs[-1], loss=_mean(losses))
                told = time.perf_counter()
        loss = _mean(losses)
        if loss > DIVERGENT * guess and loss >= past.loss:
            before = f"{past.loss:.4g} in the epoch before"
            raise Ended("divergent loss", f"{loss:.4g} in epoch {epoch}, {before}, {guess:.4g} by guessing")
        with spent("validating"):
            right = sum(sum(some) for some in pieces.run(proxy.validation_batches, proxy.right, now))
        if not math.isfinite(right):
            raise Ended("not a number", f"logits on the validation split after epoch {epoch}")
        share = right / images
        yield Progress(phase="training", epoch=epoch, epochs=epochs[-1], loss=loss, accuracy=100 * share)
        told = time.perf_counter()
        past = _Past(epochs=epoch, seconds=pieces.seconds, loss=loss)
        if epoch in epochs or told - written >= max(checkpoint_s, RARELY * took):
            with spent("saving"), quiet.busy():
                checkpoint = Checkpoint(epoch, proxy.weights() if epoch == epochs[-1] else proxy.state(past))
            yield checkpoint
            del checkpoint
            written, took = time.perf_counter(), time.perf_counter() - told
        if epoch in epochs:
            error = standard_error(share, images)
            yield Measurement(
                metric="accuracy",
                value=100 * share,
                low=100 * (share - error),
                high=100 * (share + error),
                seconds=pieces.seconds,
                protocol=PROTOCOL,
                device=describe(proxy.device),
                batch=proxy.recipe.batch,
                precision=proxy.precision,
                threads=torch.get_num_threads(),
                rung=epochs.index(epoch),
                epochs=epoch,
                data=dataset.fingerprint,
                micro_batch=proxy.micro_batch,
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


@dataclass(frozen=True, slots=True)
class _Past:
    """What a training has behind it."""

    epochs: int = 0
    seconds: float = 0.0  # of work
    loss: float = math.inf  # the last epoch's mean


class _Proxy:
    """A network on its way through the recipe: one step, one batch of the validation split at a time."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        *,
        recipe: Recipe,
        epochs: int,
        seed: int,
        device: torch.device,
        shared: bool,
    ) -> None:
        images = len(dataset.train_labels)
        self.precision = training_precision(device)
        self._batch = min(recipe.batch, images)
        self.steps = images // self._batch  # of an epoch
        self._validation_batch = 2 * recipe.batch  # without gradients it takes no more memory than training
        self.validation_batches = math.ceil(len(dataset.val_labels) / self._validation_batch)
        self.recipe = recipe
        self.device = device
        self._network = network
        self._dataset = dataset
        self._all_steps = epochs * self.steps
        self._done = 0
        self._seed = seed
        self._dtype = dtype_of(self.precision)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._optimizer = optimizer_for(network, recipe)
        self._order = torch.empty(0)
        self._images: Generator[Tensor, None, None] | None = None
        self._waited_s = 0.0
        norms = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())
        self._training = MicroBatches(self._batch, fewest=2 if norms else 1, device=device)  # one may have no variance
        self._validation = MicroBatches(self._validation_batch, fewest=1, device=device)
        # what others wrote may wait for the device in the middle of a step, which cannot be recorded
        changes = CHANGES.get(device.type, ()) if isinstance(network, Network) else ()
        if shared:
            changes = tuple(change for change in changes if change != "compiled")
        size = sum(1 for _ in network.modules())
        self.choice = Choice(steps=self._all_steps, size=size, changes=changes, experience=EXPERIENCE)
        self._step = Step(network, self._optimizer, self._gradients, self._training, self.choice, device)

    @property
    def micro_batch(self) -> int | None:
        """Images at once in training, at most; None where the whole batch fits."""
        return None if self._training.count == 1 else self._training.images

    def step(self, number: int) -> Tensor:
        """One step of training, the `number`-th of its epoch; gives its loss, a scalar on the device."""
        data, recipe = self._dataset, self.recipe
        if number == 0:
            self._network.train()
            self._order = torch.randperm(len(data.train_labels), generator=self._generator, device=self.device)
            self._take(data.train_batches(self._order[: self.steps * self._batch], self._batch))
        rows = self._order[number * self._batch : (number + 1) * self._batch]
        asked = time.perf_counter()
        images = self._next()
        self._waited_s += time.perf_counter() - asked
        images = augment(images, recipe.augmentation, data.mirrors, self._generator)
        labels = data.train_labels[rows]
        loss = self._step(images, labels, recipe.lr * one_cycle(self._done, self._all_steps, recipe.warmup))
        self._done += 1
        return loss

    def _take(self, images: Generator[Tensor, None, None] | None) -> None:
        """From now on the batches are these; those before may still be read ahead."""
        if self._images is not None:
            self._images.close()
        self._images = images

    def _next(self) -> Tensor:
        assert self._images is not None
        return next(self._images)

    def waited(self) -> float:
        """Seconds since the last call that steps waited for images, as on a slow disk: no way of a step spares them."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def close(self) -> None:
        """Nothing is read ahead any more, nor trained: the network's memory is free once nobody else holds it.

        The step holds this proxy, and this proxy the step: a circle that would wait for the garbage collector.
        """
        self._take(None)
        self._step.close()

    def _gradients(self, forward: Forward, images: Tensor, labels: Tensor, parts: int) -> Tensor:
        """Leaves the gradients of the mean loss over a batch, and gives that loss."""
        self._optimizer.zero_grad(set_to_none=True)  # also of what was begun and did not fit
        losses: list[Tensor] = []
        smoothing = self.recipe.label_smoothing
        for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = forward(normalised(some, self._dataset, self._dtype))
                loss = functional.cross_entropy(logits, theirs, label_smoothing=smoothing)
            loss = loss * (len(some) / len(images))  # 1.0 for a whole batch, which changes no bit
            loss.backward()
            losses.append(loss.detach())
        return sum(losses[1:], losses[0])

    @torch.inference_mode()
    def right(self, number: int) -> Tensor:
        """How many of a batch of the validation split are classified right; NaN if a logit is not finite."""
        self._network.eval()
        if number == 0:
            self._take(self._dataset.val_batches(self._validation_batch))
        rows = slice(number * self._validation_batch, (number + 1) * self._validation_batch)
        images, labels = self._next(), self._dataset.val_labels[rows]
        return self._validation.run(lambda parts: self._count_right(images, labels, parts))

    def _count_right(self, images: Tensor, labels: Tensor, parts: int) -> Tensor:
        counts: list[Tensor] = []
        for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            if not len(some):
                continue  # the last batch may hold fewer images than there are parts
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = self._network(normalised(some, self._dataset, self._dtype))
            right = (logits.argmax(1) == theirs).sum()
            counts.append(torch.where(logits.isfinite().all(), right.float(), math.nan))
        return sum(counts[1:], counts[0])

    def state(self, past: _Past) -> bytes:
        """All that it takes to go on after an epoch. Nothing in it is code."""
        buffer = io.BytesIO()
        told = {
            "past": dataclasses.asdict(past),
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": (self.device.type, self._generator.get_state()),
            "steps": self._done,
            "parts": (self._training.count, self._validation.count),
        }
        torch.save(told, buffer)
        return buffer.getvalue()

    def weights(self) -> bytes:
        """The network's weights, as `torch.load` and `load_state_dict` take them, also where there is no GPU."""
        buffer = io.BytesIO()
        weights = self._network.state_dict()
        for name, tensor in weights.items():
            weights[name] = tensor.cpu()
        torch.save(weights, buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> _Past:
        """Take up what `state` wrote, on this device or another."""
        told: dict[str, Any] = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        past = _Past(**told["past"])
        self._network.load_state_dict(told["network"])
        self._optimizer.load_state_dict(told["optimizer"])
        kind, generator = told["generator"]
        if kind == self.device.type:
            self._generator.set_state(generator)
        else:  # another kind of device has another kind of random numbers
            anew = np.random.SeedSequence([self._seed, past.epochs]).generate_state(1, np.uint64)[0]
            self._generator.manual_seed(int(anew))
        self._done = told["steps"]
        training, validation = told["parts"]
        if not (1 <= training <= self._batch and 1 <= validation <= self._validation_batch):
            raise ValueError(f"a checkpoint of another training: its batch is in {training} and {validation} parts")
        self._training.count, self._validation.count = training, validation
        return past


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)
