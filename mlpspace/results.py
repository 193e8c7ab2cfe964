"""What a search holds of its trials while it runs: those at work, and how the others ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from mlpspace.counts import Profile
from mlpspace.measurement import Assignment, Checkpoint, Measurement, Progress
from mlpspace.objectives import Objective
from mlpspace.sampling.base import Observation
from mlpspace.space.space import Candidate

HANG_S = (15.0, 120.0)  # without a sign of life, at least and at most, before a trial over its time counts as hung
# more time for what comes before the training: reading the dataset, waiting for others that measure on the device
MORE_S = {"data": 1800.0, "calibrating": 600.0, "throughput": 600.0}
MEASURED_FIRST = {"throughput", "peak_memory_mb"}  # before the training


@dataclass(slots=True)
class Running:
    """A trial that a worker has, will get again, or that waits at a rung."""

    assignment: Assignment
    origin: str  # "fixed point" or "sampler"
    label: str | None
    counts: Profile
    seen: Observation  # as the sampler sees it
    why: str | None = None
    fresh: bool = True  # no worker ever had it
    given: bool = False  # to a worker, in this session
    ready: bool = False  # measured by one worker, and to be trained by another
    judged: bool = False  # whether it is worth its training was asked, since a worker got it
    deaths: int = 0  # of workers that had it
    started: float = 0.0  # of this leg, on the search's clock
    since: float = 0.0  # its phase, on that clock
    heard: float = 0.0  # the last sign of life, on that clock
    seconds: float = 0.0  # of earlier legs
    progress: Progress | None = None
    checkpoint: Checkpoint | None = None  # of a rung that came, until its measurement does
    verdict: Future[str | None] | None = None  # why it shall not be trained, while that is being thought about
    values: dict[str, Measurement] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)  # accuracy after each epoch, %

    @property
    def point(self) -> Mapping[str, object] | None:
        """None for a fixed point outside the space."""
        return None if self.seen.candidate is None else self.seen.candidate.point

    @property
    def is_repeat(self) -> bool:
        """Whether a finished trial is trained anew with another seed, or measured again."""
        return self.assignment.repeat > 0

    @property
    def is_unmeasured(self) -> bool:
        """Whether it is to be measured before it is trained, and that has not come about, or was disturbed."""
        if self.assignment.deployment is None or self.is_repeat:
            return False
        # cheap as it is, it is measured again before each leg until nothing disturbs it
        told = self.curve or self.seen.accuracy or self.values.keys() >= MEASURED_FIRST
        return not told or (self.seen.disturbed and not self.given and not self.ready)

    @property
    def is_to_be_measured(self) -> bool:
        """Whether it waits for a worker that measures."""
        return self.is_unmeasured or self.assignment.remeasure

    def is_hung(self, now: float) -> bool:
        """Whether it had its time and gives no sign of life."""
        limit = self.assignment.timeout_s
        if limit is None or self.progress is None:  # the worker of what was not heard of yet may still be starting
            return False
        limit += MORE_S.get(self.progress.phase, 0.0)
        silence = min(max(limit / 2, HANG_S[0]), HANG_S[1])
        return now - self.since > limit and now - self.heard > silence


def is_disturbed(values: Mapping[str, Measurement], objectives: Sequence[Objective]) -> bool:
    """Whether other programs used the device while an objective was measured; what is no objective decides nothing."""
    return any(objective.metric in values and values[objective.metric].disturbed for objective in objectives)


@dataclass(frozen=True, slots=True)
class Result:
    """A trial that ended, or waits at a rung; or one that was trained anew."""

    number: int
    network: Candidate | str  # as it is, or as a person reads it
    label: str | None
    values: Mapping[str, float]  # by metric; empty for an infeasible one
    costs: tuple[float, ...] | None  # at the last rung; None for what has not come there
    reason: str | None
    detail: str | None
    seconds: float  # of work on it in all
    disturbed: bool = False  # other programs used its device while its throughput was measured
    state: str = "complete"  # or "paused", "stopped", "infeasible"
    rung: int | None = None  # the highest it reached; None: it was not trained
    epochs: int | None = None  # of that rung
    repeat: int = 0  # which training anew this tells of
    measurements: int = 1  # of the throughput; more: this tells of the last of them

    @property
    def architecture(self) -> str:
        """One readable line."""
        return self.network if isinstance(self.network, str) else self.network.architecture.describe()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a study is done: both are totals over all its sessions."""

    trials: int  # that are trained; those set aside after their throughput was measured do not count
    seconds: float = math.inf
