"""What a search holds of its trials while it runs: those at work, and how the others ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlpspace.counts import Profile
from mlpspace.domain import SearchDomain
from mlpspace.measurement import Assignment, Checkpoint, Measurement, Progress
from mlpspace.objectives import Objective
from mlpspace.sampling.base import Observation
from mlpspace.space.space import Candidate
from mlpspace.trial import Trial

HANG_S = (15.0, 120.0)  # without a sign of life, at least and at most, before a trial over its time counts as hung
# more time for what comes before the training: reading the dataset, waiting for others that measure on the device
MORE_S = {"data": 1800.0, "throughput": 600.0}


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
    deaths: int = 0  # of workers that had it
    started: float = 0.0  # of this leg, on the search's clock
    since: float = 0.0  # its phase, on that clock
    heard: float = 0.0  # the last sign of life, on that clock
    seconds: float = 0.0  # of earlier legs
    progress: Progress | None = None
    checkpoint: Checkpoint | None = None  # of a rung that came, until its measurement does
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

    def is_hung(self, now: float) -> bool:
        """Whether it had its time and gives no sign of life."""
        limit = self.assignment.timeout_s
        if limit is None or self.progress is None:  # the worker of what was not heard of yet may still be starting
            return False
        limit += MORE_S.get(self.progress.phase, 0.0)
        silence = min(max(limit / 2, HANG_S[0]), HANG_S[1])
        return now - self.since > limit and now - self.heard > silence


def recalled(domain: SearchDomain, trial: Trial) -> Running:
    """A trial of an earlier session, as far as the ledger knows it."""
    candidate = None if trial.point is None else Candidate(dict(trial.point), trial.architecture, trial.recipe)
    seen = Observation(
        number=trial.number,
        key=(trial.architecture_id, trial.recipe_json),
        candidate=candidate,
        state=trial.state,
        known={"params": float(trial.params), "macs": float(trial.macs)},
        reason=trial.reason,
        gain=trial.gain,
    )
    running = Running(
        domain.assignment(trial.number, trial.attempt, trial.architecture, trial.recipe, seed=trial.seed),
        trial.origin,
        trial.label,
        domain.counts(trial.architecture),
        seen,
        trial.why,
        fresh=False,
        deaths=trial.deaths,
        seconds=trial.seconds,
        curve=[accuracy for _, _, accuracy in trial.curve if accuracy is not None],
    )
    for record in trial.records:
        if record.repeat:
            continue
        running.values[record.metric] = record
        if record.metric != "accuracy":
            seen.known[record.metric] = record.value
        elif record.rung is not None:
            seen.accuracy[record.rung] = record.value
    seen.disturbed = is_disturbed(running.values, domain.objectives)
    return running


def is_disturbed(values: Mapping[str, Measurement], objectives: Sequence[Objective]) -> bool:
    """Whether other programs used the CPU while an objective was measured; what is no objective decides nothing."""
    return any(objective.metric in values and values[objective.metric].disturbed for objective in objectives)


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
