"""A training's work in pieces, between which others may have the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mlpspace.device import synchronize
from mlpspace.measurement import Failure
from mlpspace.quiet import QuietDevice

PIECE_S = 0.1  # the device is held for about so long at a time, at least for one step
NAP_S = 5.0  # of a piece: longer, and hardly any work done, and the process was stopped


class Ended(Exception):
    """A training that comes to nothing."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.failure = Failure(reason, detail)


class Pieces:
    """Work on a device that others may want to measure on: in pieces, each with the device held."""

    def __init__(self, device: torch.device, quiet: QuietDevice, seconds: float, timeout_s: float | None) -> None:
        self.seconds = seconds  # of work
        self.took_s = 0.0  # of it, the last piece
        self.size = 1  # of the next piece
        self._device = device
        self._quiet = quiet
        self._timeout_s = timeout_s

    def run(self, count: int, work: Callable[[int], Tensor], now: str) -> Iterator[list[float]]:
        """Do work(0) .. work(count - 1), each giving a scalar on the device; yields the scalars of each piece.

        Steps of a piece are queued without waiting for one another. The device is not held while the caller has them.

        Raises:
            Ended: the time is up; no piece begins after it. `now` says how far the work has come.
        """
        first, self.size = 0, 1
        while first < count:
            if self._timeout_s is not None and self.seconds > self._timeout_s:
                limit = f"at most {self._timeout_s:g} s allowed"
                raise Ended("time limit", f"{self.seconds:.4g} s of training and still in {now}; {limit}")
            last = min(first + self.size, count)
            with self._quiet.busy():
                started, worked = time.perf_counter(), time.process_time()
                some = torch.stack([work(number) for number in range(first, last)]).tolist()
                synchronize(self._device)  # the optimizer's last kernels too, before another may measure
                took_s = time.perf_counter() - started
                awake_s = time.process_time() - worked
            if self._device.type == "cpu" and took_s > NAP_S and awake_s < took_s / 5:
                took_s = awake_s  # the process was stopped, as by Ctrl-Z: that is no time of the training
            self.seconds += took_s
            self.took_s = took_s
            self.size = min(4 * self.size, max(1, round(self.size * PIECE_S / took_s)))
            first = last
            yield some
