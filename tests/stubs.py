"""A worker that trains nothing: measurements by formula, so that a search runs in milliseconds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlpspace import sampling
from mlpspace.checkpoints import Checkpoints
from mlpspace.domain import SpaceDomain
from mlpspace.measurement import Assignment, Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.mirror import mirror
from mlpspace.results import Limits
from mlpspace.sampling.base import Sampler
from mlpspace.search import Search
from mlpspace.space import Space, read_space
from mlpspace.stopping import Plateau
from mlpspace.storage import holds_study
from mlpspace.study import Study

SPACE = """\
task: {classes: 10, resolution: 32}
space:
  norm: [layer, affine]
  layout:
    isotropic:
      patch: [4, 8]
      depth: 1..4
      width: 16..64 step 16
      token_mixer: {dense: {ratio: [0.5, 1.0]}, linear: {}, external_attention: {memory: 8, heads: [1, 3]}}
require: {macs: ..4M, throughput: 10..}
objectives:
  accuracy: {goal: maximize, worst: 10}
  throughput: {goal: maximize, worst: 100, scale: log}
fidelity: {dataset: mnist5k, epochs: 2}
fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}
search: {trials: 12, seed: 0}
"""


def measurement(metric: str, value: float, **changes: object) -> Measurement:
    told = {
        "metric": metric,
        "value": value,
        "low": value * 0.99,
        "high": value * 1.01,
        "seconds": 0.1,
        "protocol": f"{metric}-stub",
        "device": "stub",
        "batch": 64,
        "precision": "fp32",
        "threads": 1,
    }
    return Measurement(**{**told, **changes})  # type: ignore[arg-type]


def truth(assignment: Assignment) -> tuple[float, float]:
    """Accuracy and throughput of a network: larger is better and slower."""
    stage = assignment.architecture.stages[0]
    size = stage.depth * stage.width / 256
    return 90 - 40 * (1 - size) ** 2 + (2 if stage.norm == "layer" else 0), 10_000 / (1 + 20 * size)


def evaluate(assignment: Assignment, bounds: object) -> Iterator[Event]:
    accuracy, throughput = truth(assignment)
    first, last = 1, assignment.epochs[-1]
    if assignment.state is not None:
        first = int(assignment.state) + 1
    if assignment.deployment is not None:
        yield Progress(phase="throughput")
        yield measurement("throughput", throughput)
        yield measurement("peak_memory_mb", 1.0)
    if assignment.measure_only:
        return
    yield Progress(phase="training", epochs=last)
    for epoch in range(first, last + 1):
        shown = accuracy * epoch / last + 0.25 * assignment.repeat
        yield Progress(phase="training", epoch=epoch, epochs=last, loss=1 / epoch, accuracy=shown)
        if epoch in assignment.epochs:
            yield Checkpoint(epoch, str(epoch).encode())
            yield measurement("accuracy", shown, rung=assignment.epochs.index(epoch), epochs=epoch)


def make_evaluate() -> object:
    """For an engine that makes its workers elsewhere."""
    return evaluate


def failing(assignment: Assignment, bounds: object) -> Iterator[Event]:
    """Every third trial runs out of memory."""
    if assignment.trial % 3 == 2:
        yield Failure("out of memory", "2.0 GB asked for")
    else:
        yield from evaluate(assignment, bounds)


class Session:
    """A search on a study folder, opened as the driver opens it."""

    def __init__(
        self,
        folder: Path,
        *,
        text: str = SPACE,
        sampler: str | Sampler = "default",
        keep: str = "front",
        wrapped: Callable[[Any], Any] = lambda outlet: outlet,
        begun: Callable[[str], None] = lambda phase: None,
        **limits: float,
    ) -> None:
        """`wrapped`: stands between the search and whatever it writes to."""
        self.sampler = sampler
        self.keep = keep
        self.wrapped = wrapped
        self.begun = begun
        self.space: Space = read_space(text)
        exists = holds_study(folder)
        self.study = Study(folder) if exists else Study.create(folder, space_text=text, manifest={})
        self.limits = Limits(trials=int(limits.get("trials", 12)), seconds=limits.get("seconds", float("inf")))
        self.told: list = []
        self.clock = itertools.count(0, limits.get("tick", 0.0)).__next__

    def __enter__(self) -> Search:
        self._writing = self.study.writing("pytest", total=self.limits.trials)
        self.writer = self._writing.__enter__()
        trials = self.study.trials()
        domain = SpaceDomain(self.space)
        self._mirroring = mirror(self.study, domain, trials)
        stop = self.space.stop
        self.search = Search(
            domain,
            writer=self.wrapped(self.writer),
            trials=trials,
            sampler=self.sampler if isinstance(self.sampler, Sampler) else sampling.make(self.sampler, domain, seed=0),
            mirror=self.wrapped(self._mirroring.__enter__()),
            shelf=self.wrapped(Checkpoints(self.study.folder / "checkpoints")),
            weights=None if self.keep == "none" else self.wrapped(Checkpoints(self.study.folder / "weights")),
            keep_all=self.keep == "all",
            limits=self.limits,
            seed=0,
            repeats=self.space.fidelity.repeats_on_front,
            plateau=None if stop is None else Plateau(stop.patience, stop.gain),
            elapsed_seconds=self.study.elapsed_seconds,
            clock=self.clock,
            observe=self.told.append,
            begun=self.begun,
        )
        return self.search

    def __exit__(self, *exc: object) -> None:
        self._mirroring.__exit__(None, None, None)
        self._writing.__exit__(None, None, None)
