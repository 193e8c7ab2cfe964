"""Search: every decision, no process, no clock of its own, no print.

An engine asks for assignments and reports what workers say; the search decides and commits each thing to the ledger
the moment it arrives. It knows nothing of Ray, and an engine knows nothing of spaces.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlpspace.architecture import Architecture
from mlpspace.counts import Profile, profile
from mlpspace.errors import UserError
from mlpspace.fixed_points import fixed_points
from mlpspace.ledger import Writer
from mlpspace.measurement import Assignment, Event, Failure, Measurement, Progress
from mlpspace.objectives import costs
from mlpspace.pareto import hypervolume, pareto_front
from mlpspace.recipe import Recipe
from mlpspace.space.dims import Value
from mlpspace.space.space import NotInSpace, Space
from mlpspace.study import Trial

MOST_DRAWS = 10_000  # refused in a row before a search gives up
MOST_ATTEMPTS = 3  # a trial whose worker dies is given out again so often in all


class SearchError(UserError):
    """A search that cannot go on; the text says why and what would help."""


class Sampler(Protocol):
    """Chooses candidates. Told costs, smaller is better; None for a trial that ended infeasible."""

    def distributions(self, point: Mapping[str, Value]) -> dict[str, Any]: ...
    def draw(self, number: int, draw: int) -> Any: ...
    def refuse(self, number: int) -> None: ...
    def tell(self, number: int, point: Mapping[str, Value], costs: Sequence[float] | None) -> None: ...


class Mirror(Protocol):
    """Keeps Optuna's tables in step with the ledger, for its dashboard."""

    def begin(
        self, number: int, params: Mapping[str, Any], distributions: Mapping[str, Any], user_attrs: Mapping[str, Any]
    ) -> None: ...
    def finish(self, number: int, values: Sequence[float] | None, reason: str | None = None) -> None: ...


@dataclass(slots=True)
class Running:
    """A trial that a worker has, or will get again."""

    assignment: Assignment
    origin: str
    label: str | None
    point: Mapping[str, Value] | None
    counts: Profile
    given: bool = False  # to a worker, in this session
    deaths: int = 0  # of workers that had it, in this session
    started: float = 0.0
    progress: Progress | None = None
    values: dict[str, Measurement] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)  # accuracy after each epoch, %


@dataclass(frozen=True, slots=True)
class Result:
    """A trial that ended."""

    number: int
    architecture: str
    label: str | None
    values: Mapping[str, float]  # by metric; empty for an infeasible one
    costs: tuple[float, ...] | None
    reason: str | None
    detail: str | None
    seconds: float
    disturbed: bool = False  # other programs used the CPU while its throughput was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a study is done: both are totals over all its sessions."""

    trials: int
    seconds: float = math.inf


class Search:
    """One session of a study's search.

    Args:
        space: what is searched.
        writer: of the study's ledger.
        trials: those the ledger holds already.
        sampler, mirror: see the protocols.
        limits: totals of the study.
        elapsed_seconds: of earlier sessions.
        data_path: where the dataset lives; None for an embedded one.
        clock: seconds, rising.
        observe: hears each result.
    """

    def __init__(
        self,
        space: Space,
        *,
        writer: Writer,
        trials: Sequence[Trial],
        sampler: Sampler,
        mirror: Mirror,
        limits: Limits,
        seed: int,
        elapsed_seconds: float,
        data_path: str | None,
        clock: Callable[[], float],
        observe: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self.space = space
        self.limits = limits
        self.running: dict[int, Running] = {}
        self.results: list[Result] = []
        self.stopped: str | None = None  # why no more assignments are given
        self.exhausted = False  # stopped because nothing new is left to draw: going on would not help
        self._writer = writer
        self._sampler = sampler
        self._mirror = mirror
        self._seed = seed
        self._elapsed_before = elapsed_seconds
        self._data_path = data_path
        self._clock = clock
        self._observe = observe
        self._begun = clock()
        self._metrics = [objective.metric for objective in space.objectives]
        self._known: set[tuple[str, str]] = set()  # (architecture id, recipe) of every trial
        self._next_number = 0
        self._most_at_work = 0
        labels = set()
        for trial in trials:
            self._remember(trial)
            labels.add(trial.label)
        # by label too: what a published network is may have been put right since the study began
        self._fixed = [
            point
            for point in fixed_points(space, self._broken)
            if (point.architecture.id, space.default_recipe().to_json()) not in self._known
            and point.label not in labels
        ]

    # --- what an engine calls ---

    def next_assignment(self) -> Assignment | None:
        """Work for an idle worker; None when there is none to give (see `stopped`)."""
        if self.elapsed_seconds >= self.limits.seconds:
            self.stop("time budget reached")
        if self.stopped is not None:
            return None
        waiting = next((running for running in self.running.values() if not running.given), None)
        if waiting is None:
            waiting = self._new_trial() if self._next_number < self.limits.trials else None
            if waiting is None:
                return None
        waiting.given = True
        self._most_at_work = max(self._most_at_work, sum(running.given for running in self.running.values()))
        waiting.started = self._clock()
        self._writer.begin(
            waiting.assignment,
            params=waiting.counts.params,
            macs=waiting.counts.macs,
            tokens=waiting.counts.tokens,
            activations=waiting.counts.activations,
            origin=waiting.origin,
            label=waiting.label,
            point=waiting.point,
        )
        if waiting.assignment.attempt == 1:
            point = waiting.point or {}
            self._mirror.begin(
                waiting.assignment.trial, point, self._sampler.distributions(point), self._attributes(waiting)
            )
        return waiting.assignment

    def measured_bounds(self, number: int) -> dict[str, tuple[float, float]]:
        """What a worker requires of trial `number` before it trains it; a published network takes part regardless."""
        return {} if self.running[number].origin == "fixed point" else self.space.require.measured()

    def report(self, number: int, event: Event) -> bool:
        """What the worker of trial `number` says. False: it shall stop; the trial is over, or the search is."""
        running = self.running.get(number)
        if running is None:
            return False
        if running.progress is None:
            running.started = self._clock()  # until now its worker may have been starting
        if isinstance(event, Failure):
            self._end(running, reason=event.reason, detail=event.detail)
            return False
        if isinstance(event, Progress):
            running.progress = event
            if event.accuracy is not None:
                running.curve.append(event.accuracy)
                self._writer.record_progress(running.assignment, event)
        else:
            running.values[event.metric] = event
            self._writer.record(running.assignment, event)
        if self.elapsed_seconds >= self.limits.seconds:
            self.stop("time budget reached")
            running.given = False  # unfinished: given out again when the study goes on
            return False
        return True

    def completed(self, number: int) -> None:
        """The worker of trial `number` came to its end."""
        running = self.running.get(number)
        if running is not None:
            self._end(running)

    def lost(self, number: int, detail: str) -> None:
        """The worker of trial `number` died. It is given out again, then infeasible."""
        running = self.running.get(number)
        if running is None:
            return
        running.deaths += 1
        if running.deaths >= MOST_ATTEMPTS:
            self._end(running, reason="worker died", detail=detail)
        else:
            self._again(running)

    def stop(self, reason: str) -> None:
        """Give out nothing more. What is running stays unfinished in the ledger, and is given out again later."""
        self.stopped = self.stopped or reason

    @property
    def done(self) -> bool:
        """Nothing runs and nothing will."""
        if self.stopped is not None:
            return not any(running.given for running in self.running.values())
        return self._next_number >= self.limits.trials and not self.running

    # --- what a person sees ---

    @property
    def elapsed_seconds(self) -> float:
        """Of all sessions of the study."""
        return self._elapsed_before + self._clock() - self._begun

    def front(self) -> list[Result]:
        """The front so far, the most accurate (the first objective's best) first."""
        finished = self._comparable()
        if not finished:
            return []
        mask = pareto_front(np.array([result.costs for result in finished]))
        front = [result for result, on in zip(finished, mask, strict=True) if on]
        return sorted(front, key=lambda result: result.costs or ())

    def hypervolume(self) -> float:
        """Of the front so far, from the objectives' `worst`."""
        found = [result.costs for result in self._comparable()]
        worst = np.array([objective.cost(objective.worst) for objective in self.space.objectives])
        return hypervolume(np.array(found), worst) if found else 0.0

    def _comparable(self) -> list[Result]:
        """What is on the front or below it; disturbed measurements only while there are no others (as in `front`)."""
        finished = [result for result in self.results if result.costs is not None]
        return [result for result in finished if not result.disturbed] or finished

    def seconds_left(self) -> float | None:
        """Until the last trial ends, judged by the trials so far; None before the first has ended."""
        seconds = [result.seconds for result in self.results if result.seconds > 0]
        if not seconds:
            return None
        rounds = (self.limits.trials - len(self.results)) / max(1, self._most_at_work)
        left = rounds * sum(seconds) / len(seconds)
        return max(0.0, min(left, self.limits.seconds - self.elapsed_seconds))

    # --- inside ---

    def _remember(self, trial: Trial) -> None:
        """A trial of an earlier session: finished ones teach the sampler, the others are given out again."""
        self._next_number = max(self._next_number, trial.number + 1)
        self._known.add((trial.architecture_id, trial.recipe_json))
        counts = Profile(
            params=trial.params,
            macs=trial.macs,
            activations=trial.activations,
            tokens=trial.tokens,
            resolution=self.space.resolution,
            classes=self.space.classes,
        )
        assignment = self._assignment(trial.number, trial.attempt, trial.architecture, trial.recipe, trial.seed)
        running = Running(assignment, trial.origin, trial.label, trial.point, counts, started=trial.started)
        if trial.state == "running":
            last = trial.measurements.get("accuracy")
            if last is not None and last.epochs == self.space.fidelity.epochs[-1]:
                # all was measured; only the word that it is complete was cut off
                running.values = dict(trial.measurements)
                self._end(running, seconds=0.0)
            else:
                self._again(running)
            return
        running.values = dict(trial.measurements)
        self._conclude(running, trial.reason, trial.detail, (trial.ended or trial.started) - trial.started)

    def _again(self, running: Running) -> None:
        assignment = running.assignment
        again = self._assignment(
            assignment.trial, assignment.attempt + 1, assignment.architecture, assignment.recipe, assignment.seed
        )
        fresh = Running(again, running.origin, running.label, running.point, running.counts, deaths=running.deaths)
        self.running[assignment.trial] = fresh

    def _new_trial(self) -> Running | None:
        number = self._next_number
        recipe = self.space.default_recipe()
        if self._fixed:
            fixed = self._fixed.pop(0)
            try:
                point: Mapping[str, Value] | None = self.space.encode(fixed.architecture)
            except NotInSpace:
                point = None  # measured and drawn, but nothing a sampler could learn from
            running = self._running(number, fixed.architecture, recipe, "fixed point", fixed.label, point)
        else:
            drawn = self._draw(number)
            if drawn is None:
                return None
            running = drawn
        self._next_number += 1
        self._known.add((running.assignment.architecture.id, running.assignment.recipe.to_json()))
        self.running[number] = running
        return running

    def _draw(self, number: int) -> Running | None:
        refused: Counter[str] = Counter()
        smallest = math.inf
        found = None
        for draw in range(MOST_DRAWS):
            candidate = self._sampler.draw(number, draw)
            reason = candidate.architecture.unfit(self.space.resolution) and "does not fit the resolution"
            if reason is None and (candidate.architecture.id, candidate.recipe.to_json()) in self._known:
                reason = "already a trial"
            if reason is None:
                reason = self._broken(candidate.architecture)
                smallest = min(smallest, self._profile(candidate.architecture).macs)
            if reason is None:
                found = self._running(
                    number, candidate.architecture, candidate.recipe, "sampler", None, candidate.point
                )
                break
            refused[reason] += 1
            self._sampler.refuse(number)
        for reason, count in refused.items():
            self._writer.refuse(reason, count)
        if found is None:
            self.stopped, self.exhausted = self._nothing_left(refused, smallest), True
        return found

    def _nothing_left(self, refused: Counter[str], smallest: float) -> str:
        told = "; ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        text = f"No draw out of {MOST_DRAWS:,} from {self.space.path} is a new network that meets the requirements.\n"
        text += f"  Refused: {told}."
        if refused["already a trial"] > MOST_DRAWS // 2:
            text += "\n  The space is searched to its end, or nearly so."
        elif smallest < math.inf:
            text += f"\n  The smallest network drawn needs {smallest:,.0f} macs."
            text += " Widen the requirements or the space."
        if not self.results and not self.running:
            raise SearchError(text)
        return text

    def _running(
        self,
        number: int,
        architecture: Architecture,
        recipe: Recipe,
        origin: str,
        label: str | None,
        point: Mapping[str, Value] | None,
    ) -> Running:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0] >> 1)
        assignment = self._assignment(number, 1, architecture, recipe, seed)
        return Running(assignment, origin, label, point, self._profile(architecture))

    def _assignment(
        self, number: int, attempt: int, architecture: Architecture, recipe: Recipe, seed: int
    ) -> Assignment:
        fidelity = self.space.fidelity
        return Assignment(
            trial=number,
            attempt=attempt,
            architecture=architecture,
            recipe=recipe,
            resolution=self.space.resolution,
            classes=self.space.classes,
            dataset=fidelity.dataset,
            data_path=self._data_path,
            images=fidelity.images,
            validation=fidelity.validation,
            epochs=fidelity.epochs,
            seed=seed,
            throughput_batch=self.space.throughput_batch,
        )

    def _profile(self, architecture: Architecture) -> Profile:
        return profile(architecture, self.space.resolution, self.space.classes)

    def _broken(self, architecture: Architecture) -> str | None:
        counts = self._profile(architecture)
        told = {"params": counts.params, "macs": counts.macs, "tokens": counts.tokens}
        return self.space.require.broken(architecture, told)

    def _end(
        self, running: Running, *, reason: str | None = None, detail: str | None = None, seconds: float | None = None
    ) -> None:
        """Commit the end of a trial, teach the sampler, tell the observer."""
        number = running.assignment.trial
        self.running.pop(number, None)
        self._writer.finish(number, "complete" if reason is None else "infeasible", reason, detail)
        result = self._conclude(
            running, reason, detail, self._clock() - running.started if seconds is None else seconds
        )
        raw = None if reason else [result.values[metric] for metric in self._metrics]
        self._mirror.finish(number, raw, reason)
        self._observe(result)

    def _conclude(self, running: Running, reason: str | None, detail: str | None, seconds: float) -> Result:
        number = running.assignment.trial
        measured = {metric: measurement.value for metric, measurement in running.values.items()}
        everything = {"params": running.counts.params, "macs": running.counts.macs, **measured}
        found = None if reason else costs(self.space.objectives, everything)
        disturbed = any(measurement.disturbed for measurement in running.values.values())
        if found is not None and disturbed and any(not result.disturbed for result in self._comparable()):
            self._sampler.refuse(number)  # beside the others it would teach that the network is slow
        elif running.point is not None:
            self._sampler.tell(number, running.point, found)
        result = Result(
            number,
            running.assignment.architecture.describe(),
            running.label,
            {} if reason else everything,
            found,
            reason,
            detail,
            seconds,
            disturbed,
        )
        self.results.append(result)
        return result

    @staticmethod
    def _attributes(running: Running) -> dict[str, Any]:
        told = {
            "architecture": running.assignment.architecture.describe(),
            "id": running.assignment.architecture.id,
            "params": running.counts.params,
            "macs": running.counts.macs,
        }
        return told | ({"fixed_point": running.label} if running.label else {})
