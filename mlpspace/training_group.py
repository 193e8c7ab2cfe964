"""Trainings at the same time on one device, each a process of its own, as the workers of a search are.

How many of them a device trains fastest is asked by `sharing`. A process makes the network and random images, trains
by `proxy.train` until its steps are done in the way that they stay in (`step_ways`), and then trains for so many
seconds as often as it is told, at rest in between.

torch.compile is left out: it would take longer than all of this. Images are always on the device, also where a search
would read them ahead from a file. No GPU was there to run it on yet.
"""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpspace.architecture import Architecture
from mlpspace.data import Dataset
from mlpspace.data.pixels import machine_bytes
from mlpspace.device import free_memory_bytes, synchronize
from mlpspace.evaluate import fresh_network
from mlpspace.failure import failure_of
from mlpspace.fresh_process import FreshProcessError, environment
from mlpspace.measurement import Failure, Progress
from mlpspace.memory import free
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Recipe
from mlpspace.wall_time import PROCESS

EPOCH_S = 0.25  # an epoch takes about so long, as images are counted by whole ones
PROBE_STEPS = 5  # of an epoch, until it is known how long a step takes; and the fewest of any
SETTLED_S, SETTLED_STEPS = 0.6, 12  # without a change of the way: then `step_ways.Choice` has nothing more to try
RUNG_S = 15.0  # until a rung, at most: too few steps for torch.compile to pay, however slow others make them
RUNGS = 2000  # more than are ever reached
END_S = 5.0  # that a process has to end by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a trial trains, as far as its speed hangs on it."""

    architecture: Architecture
    recipe: Recipe
    resolution: int  # pixels
    classes: int
    images: int  # of an epoch
    validation: int  # images, after each epoch
    epochs: int  # until the first rung: what has to pay, as a CUDA graph, has to pay until then

    @property
    def batch(self) -> int:
        """Images of a step."""
        return min(self.recipe.batch, self.images)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.images // self.batch

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        plain = {name: getattr(self, name) for name in ("resolution", "classes", "images", "validation", "epochs")}
        return {"architecture": self.architecture.to_json(), "recipe": self.recipe.to_json(), **plain}

    @staticmethod
    def heard(told: dict[str, Any]) -> Training:
        """What `told` wrote."""
        architecture, recipe = Architecture.from_json(told["architecture"]), Recipe.from_json(told["recipe"])
        return Training(**{**told, "architecture": architecture, "recipe": recipe})


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a device, in bytes: what all processes on it hold, ours or not, and what there is."""

    used: int
    total: int


class Group:
    """The processes, from the side of whoever asks. Keep the device quiet for others while there is one.

    Args:
        limit_s: seconds after which nothing is waited for any longer.
    """

    def __init__(self, device: torch.device, *, limit_s: float) -> None:
        self._device = device
        self._limit_s = limit_s
        self._until = time.monotonic() + limit_s
        self._processes: list[subprocess.Popen[str]] = []
        self._folder = tempfile.TemporaryDirectory()
        self._said = Path(self._folder.name) / "said"  # what they write beside their answers: warnings, a traceback
        self._steps: dict[Training, tuple[int, float]] = {}  # of an epoch, and seconds of a step of one alone

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()  # by which it ends
        end = time.monotonic() + (END_S if exc[0] is None else 0.0)
        for process in self._processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._folder.cleanup()

    @property
    def left_s(self) -> float:
        """Until nothing is waited for any longer."""
        return self._until - time.monotonic()

    def grow(self, count: int) -> None:
        """Start processes until there are so many.

        Raises:
            FreshProcessError: one fails, or the time is up; as from the other methods.
        """
        command = [sys.executable, "-m", "mlpspace.training_group", json.dumps(str(self._device))]
        begun, pipe = len(self._processes), subprocess.PIPE
        here = environment() | {"TMPDIR": self._folder.name}  # what they leave there goes with it
        try:
            with self._said.open("a") as said:
                while len(self._processes) < count:
                    started = subprocess.Popen(command, env=here, stdin=pipe, stdout=pipe, stderr=said, text=True)
                    self._processes.append(started)
        except OSError as error:
            raise FreshProcessError(f"no process can be started: {error.strerror or error}") from None
        self._answers(self._processes[begun:])

    def prepare(self, training: Training, *, alone: bool) -> None:
        """Each process makes this training and trains until its steps are done in the way that they stay in.

        Args:
            alone: the first does so by itself, as it is to train alone: another way may pay then than beside others.
        """
        first, *others = self._processes
        self._ask([first], "forget")
        self._ask(others, "forget")
        if training not in self._steps:
            ((each_s,),) = self._ask([first], "probe", training.told())
            steps = max(min(PROBE_STEPS, training.steps), min(training.steps, round(EPOCH_S / each_s)))
            self._steps[training] = steps, each_s
        for some in ([first], others) if alone else (self._processes,):
            self._ask(some, "make", training.told(), *self._steps[training])

    def train(self, count: int, seconds: float) -> tuple[float, Memory]:
        """Images/s that the first so many of them train in sum, all at the same time; the others are at rest.

        The memory is that of all of them, those at rest among them.
        """
        found = self._ask(self._processes[:count], "train", seconds)
        used, total = max((used, total) for _, _, used, total in found)
        return sum(float(images / took) for images, took, _, _ in found), Memory(used, total)

    def _ask(self, processes: Sequence[subprocess.Popen[str]], what: str, *told: Any) -> list[Any]:
        for process in processes:
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([what, *told]) + "\n")
                process.stdin.flush()
            except OSError:  # it ended: told when its answer is read
                continue
        return self._answers(processes)

    def _answers(self, processes: Sequence[subprocess.Popen[str]]) -> list[Any]:
        return [self._answer(process) for process in processes]

    def _answer(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, self.left_s))
        if not ready:
            raise FreshProcessError(f"it took longer than {self._limit_s:g} s")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            said = self._said.read_text(errors="replace").strip().splitlines()
            raise FreshProcessError(f"a process ended, {f'signal {-code}' if code < 0 else said[-1] if said else code}")
        told = json.loads(line)
        if "failed" in told:
            raise FreshProcessError(told["failed"])
        return told["answer"]


# --- in a process of the group ----------------------------------------------------------------------------------------


class _Member:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._epochs: Iterator[int] = iter(())

    def forget(self) -> None:
        """The training so far, and its memory."""
        self._epochs = iter(())
        gc.collect()
        free(self._device)

    def probe(self, told: dict[str, Any]) -> tuple[float]:
        """Seconds of a step, about."""
        training = Training.heard(told)
        steps = min(PROBE_STEPS, training.steps)
        epochs = _epochs(training, steps, self._device, to_rung=3 * steps)  # no rung within what is timed
        next(epochs)  # with all that comes but once
        begun = time.perf_counter()
        next(epochs)
        synchronize(self._device)
        return ((time.perf_counter() - begun) / steps,)

    def make(self, told: dict[str, Any], steps: int, each_s: float) -> None:
        training = Training.heard(told)
        to_rung = min(training.epochs * training.steps, int(RUNG_S / each_s))
        self._epochs = _epochs(training, steps, self._device, to_rung=to_rung)
        done, seconds, compiling = 0, 0.0, PROCESS.tally().get("compiling", 0.0)
        while done < SETTLED_STEPS or seconds < SETTLED_S:
            begun = time.perf_counter()
            next(self._epochs)
            now = PROCESS.tally().get("compiling", 0.0)
            changed, compiling = now > compiling, now
            done, seconds = (0, 0.0) if changed else (done + steps, seconds + time.perf_counter() - begun)

    def train(self, seconds: float) -> tuple[int, float, int, int]:
        """Images, the seconds it took, bytes of the device that are used and that there are."""
        begun = time.perf_counter()
        images = 0
        while time.perf_counter() - begun < seconds:
            images += next(self._epochs)
        synchronize(self._device)
        took = time.perf_counter() - begun
        memory = _memory(self._device)
        return images, took, memory.used, memory.total


def _epochs(training: Training, steps: int, device: torch.device, *, to_rung: int) -> Iterator[int]:
    """Trains in epochs of so many steps, with a rung after about `to_rung` of them; the images of each.

    Raises:
        RuntimeError: the training came to nothing.
    """
    every = max(1, round(to_rung / steps))
    network = fresh_network(training.architecture, training.resolution, training.classes, seed=0).to(device)
    with tempfile.TemporaryDirectory() as folder:  # who asks keeps the device quiet, and has taken the locks of it
        events = train(
            network,
            _dataset(training, steps, device),
            recipe=training.recipe,
            epochs=tuple(range(every, every * RUNGS + 1, every)),
            seed=0,
            device=device,
            quiet=QuietDevice("group", Path(folder)),
        )
        for event in events:
            if isinstance(event, Failure):
                raise RuntimeError(f"{event.reason}: {event.detail}")
            if isinstance(event, Progress) and event.accuracy is not None:
                yield steps * training.batch


def _dataset(training: Training, steps: int, device: torch.device) -> Dataset:
    """Random images for epochs of so many steps, the validation part as much smaller as these are."""
    rng = torch.Generator(device).manual_seed(0)
    images, side = steps * training.batch, training.resolution
    validation = max(1, round(training.validation * steps / training.steps))

    def random(most: int, *shape: int) -> Tensor:
        return torch.randint(most, shape, generator=rng, device=device, dtype=torch.uint8 if most == 256 else None)

    return Dataset(
        name="random",
        train_images=random(256, images, 3, side, side),
        train_labels=random(training.classes, images),
        val_images=random(256, validation, 3, side, side),
        val_labels=random(training.classes, validation),
        mean=torch.full((3,), 0.5, device=device),
        std=torch.full((3,), 0.29, device=device),
        classes=training.classes,
        mirrors=True,
        fingerprint="0" * 16,
    )


def _memory(device: torch.device) -> Memory:
    if device.type == "cuda":
        left, total = torch.cuda.mem_get_info(device)
        return Memory(total - left, total)
    total = machine_bytes()
    told = free_memory_bytes()
    return Memory(total - min(total, total if told is None else told), total)


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(told: dict[str, Any]) -> None:
        answers.write(json.dumps(told) + "\n")

    device = torch.device(json.loads(sys.argv[1]))
    try:
        torch.set_num_threads(1)  # of the CPU, which but feeds a GPU
        if device.type == "cuda":
            torch.cuda.set_device(device)  # for whatever takes the current device without asking
        torch.zeros((), device=device)
        member = _Member(device)
        answer({"answer": None})
        for line in sys.stdin:
            what, *told = json.loads(line)
            answer({"answer": getattr(member, what)(*told)})
    except Exception as error:
        answer({"failed": failure_of(error).detail.splitlines()[0]})


if __name__ == "__main__":
    _main()
