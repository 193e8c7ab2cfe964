"""A step of training in one of its ways (`step_ways`): plain, recorded as a CUDA graph, through torch.compile.

The graph is written by the documentation of `torch.cuda.graph`; unrun, as no GPU was there to run it on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlpspace.device import side_stream
from mlpspace.memory import MicroBatches, free, out_of_memory
from mlpspace.step_ways import Choice, Way
from mlpspace.wall_time import spent

BACKEND = "inductor"  # of torch.compile

Forward: TypeAlias = Callable[[Tensor], Tensor]
Gradients: TypeAlias = Callable[[Forward, Tensor, Tensor, int], Tensor]
"""(network, images, labels, micro-batches) -> the mean loss; leaves its gradients with the weights."""


class Step:
    """Gradients and what the optimizer makes of them, in the way that `choice` says."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        gradients: Gradients,
        batch: MicroBatches,
        choice: Choice,
        device: torch.device,
    ) -> None:
        self._network = network
        self._optimizer = optimizer
        self._gradients = gradients
        self._batch = batch
        self._choice = choice
        self._device = device
        self._way = Way()
        self._forward: Forward = network
        self._captured: Captured | None = None
        # where a recorded step reads it; else a number, as the CPU has always been given
        self._rate = torch.zeros((), device=device) if device.type == "cuda" else None

    def close(self) -> None:
        """No step follows: lets go of the graph and of who makes the gradients, who may hold this step."""
        self._captured = None
        del self._gradients

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """One step at that learning rate; gives the loss, a scalar on the device."""
        if self._rate is not None:
            self._rate.fill_(rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate if self._rate is None else self._rate
        if self._way != self._choice.way:
            with spent("compiling"):
                return self._first(images, labels)
        return self._whole(images, labels) if self._captured is None else self._captured(images, labels)

    def _whole(self, images: Tensor, labels: Tensor) -> Tensor:
        """A step, in micro-batches where it does not fit."""
        loss = self._batch.run(lambda parts: self._gradients(self._forward, images, labels, parts))
        self._optimizer.step()
        return loss

    def _recorded(self, images: Tensor, labels: Tensor) -> Tensor:
        """A step in as many micro-batches as it took so far."""
        loss = self._gradients(self._forward, images, labels, self._batch.count)
        self._optimizer.step()
        return loss

    def _first(self, images: Tensor, labels: Tensor) -> Tensor:
        """The first step in the way that was chosen; a plain one if that way comes to nothing."""
        self._captured = None  # its memory is free for what comes, and no two graphs of one stream live together
        way, begun = self._choice.way, time.perf_counter()
        if way == Way():
            self._way, self._forward = way, self._network
            return self._whole(images, labels)
        try:
            if way.compiled != self._way.compiled:
                self._forward = compiled(self._network) if way.compiled else self._network
            if way.captured:
                loss = beside(lambda: self._whole(images, labels), self._device)
            else:
                loss = self._whole(images, labels)
        except Exception as error:  # whatever it was: the network's own mistakes come again in a plain step
            self._give_up(time.perf_counter() - begun, error)
        else:
            self._way = way
            if way.captured:
                try:  # recorded, and not done once more
                    self._captured = Captured(self._recorded, self._optimizer, images, labels)
                except RuntimeError as error:
                    # memory lacks for this network; anything else comes again with the next one
                    self._give_up(time.perf_counter() - begun, error, for_good=not out_of_memory(error))
            return loss
        free(self._device)
        return self._whole(images, labels)

    def _give_up(self, seconds: float, error: Exception, *, for_good: bool = False) -> None:
        """The way that was chosen came to nothing after so long.

        Args:
            for_good: no training of this process tries to record a step any more.
        """
        what = "torch.compile" if self._choice.way.compiled else "a CUDA graph"
        why = (str(error).strip().splitlines() or [""])[0]
        warnings.warn(f"a training goes on without {what}: {type(error).__name__}: {why}", stacklevel=2)
        self._choice.failed(seconds, capture=for_good)
        self._way, self._forward = Way(), self._network


class Captured:
    """A step recorded once as a CUDA graph; a call replays it on other images.

    All that it reads but images and labels is read where it lay when it was recorded: weights, the optimizer's state
    and its rate, a tensor. Its memory is its own, beside what other steps take, and lasts as long as it does.

    Args:
        step: leaves gradients, moves the weights, gives a scalar, and never waits for the device. It was called on the
            device before, as the first call of much cannot be recorded.
        optimizer: that of the step.
        images, labels: a batch in the shape of all to come. The step is recorded and not done.

    Raises:
        RuntimeError: it cannot be recorded; torch.OutOfMemoryError is one.
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor], Tensor], optimizer: Optimizer, images: Tensor, labels: Tensor
    ) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        stream, before = side_stream(images.device), torch.cuda.current_stream(images.device)
        _capturable(optimizer, True)
        try:
            # thread_local: the thread that reads images ahead may go on copying them
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._loss = step(self._images, self._labels)
        finally:
            torch.cuda.set_stream(before)  # torch leaves the other one current where CUDA has invalidated the capture
            _capturable(optimizer, False)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The step on a batch; gives its loss."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss.clone()


def beside(work: Callable[[], Tensor], device: torch.device) -> Tensor:
    """work() on the device's side stream, as the last step before one is recorded has to be done."""
    current, side = torch.cuda.current_stream(device), side_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        found = work()
    current.wait_stream(side)
    return found


def compiled(network: nn.Module) -> Forward:
    """The network through torch.compile, which happens when it is first called; for batches of one shape.

    What was compiled for others is forgotten: torch stops compiling, in silence, what it has compiled eight times, and
    to it all our networks are the same code.
    """
    torch._dynamo.reset()
    return torch.compile(network, dynamic=False, backend=BACKEND)


def _capturable(optimizer: Optimizer, value: bool) -> None:
    """AdamW asks to be told; said all the time, it would warn of steps that are not recorded."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = value
