"""What a search holds of its trials while it runs: those at work, and how the others ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlpspace.counts import Profile
from mlpspace.measurement import Assignment, Checkpoint, Measurement, Progress
from mlpspace.sampling.base import Observation


@dataclass(slots=True)
class Running:
    """A trial that a worker has, will get again, or that waits at a rung."""

    assignment: Assignment
    origin: str  # "fixed point" or "sampler"
    label: str | None
    counts: Profile
    seen: Observation  # as the sampler sees it
    why: str | None = None
    given: bool = False  # to a worker, in this session
    deaths: int = 0  # of workers that had it, in this session
    started: float = 0.0  # of this leg, on the search's clock
    seconds: float = 0.0  # of earlier legs
    progress: Progress | None = None
    checkpoint: Checkpoint | None = None  # that came, until its measurement does
    values: dict[str, Measurement] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)  # accuracy after each epoch, %

    @property
    def point(self) -> Mapping[str, object] | None:
        """None for a fixed point outside the space."""
        return None if self.seen.candidate is None else self.seen.candidate.point

    @property
    def is_repeat(self) -> bool:
        """Whether a finished trial is trained anew with another seed."""
        return self.assignment.repeat > 0


@dataclass(frozen=True, slots=True)
class Result:
    """A trial that ended, or waits at a rung; or one that was trained anew."""

    number: int
    architecture: str
    label: str | None
    values: Mapping[str, float]  # by metric; empty for an infeasible one
    costs: tuple[float, ...] | None  # at the last rung; None for what has not come there
    reason: str | None
    detail: str | None
    seconds: float  # of work on it in all
    disturbed: bool = False  # other programs used the CPU while its throughput was measured
    state: str = "complete"  # or "paused", "stopped", "infeasible"
    rung: int | None = None  # the highest it reached; None: it was not trained
    epochs: int | None = None  # of that rung
    repeat: int = 0  # which training anew this tells of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a study is done: both are totals over all its sessions."""

    trials: int  # that are trained; those set aside after their throughput was measured do not count
    seconds: float = math.inf
