"""Search: every decision, no process, no clock of its own, no print.

An engine asks for assignments and reports what workers say; the search decides and commits each thing to the ledger
the moment it arrives. It knows nothing of Ray, an engine knows nothing of spaces, and neither knows whether a network
was trained or looked up in a table.

A trial comes to an engine as one or more legs. At a rung it goes on, or its leg ends: it waits there (paused, with its
checkpoint on the shelf) until it is promoted and any worker takes it up again, or it is stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlpspace.architecture import Architecture
from mlpspace.checkpoints import Shelf
from mlpspace.counts import Profile
from mlpspace.domain import Enqueued, Key, SearchDomain
from mlpspace.errors import UserError
from mlpspace.forecast import Forecast
from mlpspace.leaders import Leaders
from mlpspace.measurement import Assignment, Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.objectives import corner
from mlpspace.outlets import Mirror, Writer
from mlpspace.recipe import Recipe
from mlpspace.results import Limits, Result, Running, is_disturbed, recalled
from mlpspace.rungs import Rungs
from mlpspace.sampling.base import Observation, Sampler, Suggestion
from mlpspace.space.space import Candidate
from mlpspace.stopping import Plateau
from mlpspace.trial import SET_ASIDE, Trial, standing

MOST_DRAWS = 10_000  # refused in a row before a search gives up
SAMPLER_DRAWS = 32  # of the sampler for one trial; when all of them are refused, random ones go on
MOST_DEATHS = 3  # of workers that had a trial: after the first two it is given out again
NAP_S = 10.0  # between two looks at what hangs: longer, and the search itself was asleep
LATEST = 200  # results that tell how long a trial takes
MOST_SET_ASIDE = 3  # in a row; the next candidate is trained whatever its cost turns out to be

BEHIND = "cannot reach the front"


class SearchError(UserError):
    """A search that cannot go on; the text says why and what would help."""


class Search:
    """One session of a study's search.

    Args:
        domain: what is searched.
        writer: of the study's ledger.
        trials: those the ledger holds already.
        sampler, mirror, shelf: see there.
        weights: where those of finished trials are kept; None: nowhere.
        keep_all: weights of all of them, and not of the front alone.
        limits: totals of the study.
        repeats: trainings anew of each network on the front, when the trials are done.
        plateau: ends the search when the hypervolume stops growing; None: it goes on to its limits.
        elapsed_seconds: of earlier sessions.
        clock: seconds, rising.
        observe: hears each result.
    """

    def __init__(
        self,
        domain: SearchDomain,
        *,
        writer: Writer,
        trials: Sequence[Trial],
        sampler: Sampler,
        mirror: Mirror,
        shelf: Shelf,
        limits: Limits,
        seed: int,
        clock: Callable[[], float],
        repeats: int = 0,
        weights: Shelf | None = None,
        keep_all: bool = False,
        plateau: Plateau | None = None,
        elapsed_seconds: float = 0.0,
        observe: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self.domain = domain
        self.objectives = domain.objectives
        self.limits = limits
        self.running: dict[int, Running] = {}
        self.paused: dict[int, Running] = {}
        self.stopped: str | None = None  # why no more assignments are given
        self.exhausted = False  # stopped because nothing new is left to draw: going on would not help
        self.enough: str | None = None  # why no more trials are begun; what is at work goes on
        self._writer, self._sampler, self._mirror, self._shelf = writer, sampler, mirror, shelf
        self._weights, self._keep_all = weights, keep_all
        self._seed = seed
        self._elapsed_before = elapsed_seconds
        self._clock = clock
        self._observe = observe
        self._begun = clock()
        self._looked = self._begun  # whether a trial hangs
        self._metrics = [objective.metric for objective in self.objectives]
        self._last = len(domain.epochs) - 1
        self._leaders = Leaders(corner(self.objectives))
        self._rungs = Rungs(len(domain.epochs), domain.keep, np.array(corner(self.objectives)))
        self._seen: list[Observation] = []  # by number
        self._results: dict[int, Result] = {}
        self._known: set[Key] = set()  # of every trial but those set aside
        self._set_aside = 0
        self._set_aside_in_a_row = 0
        self._repeats = repeats
        self._trainings: dict[int, dict[int, float]] = {}  # trial -> repeat -> accuracy; 0 for its own
        self._last_trained: dict[int, Running] = {}  # complete ones, for repeats
        self._no_repeats: set[int] = set()  # that failed when they were trained anew
        self._cut_off: list[Running] = []  # of an earlier session, between a rung's measurement and its decision
        self._plateau = plateau
        self._most_at_work = 0
        labels = set()
        for trial in trials:
            self._remember(trial)
            labels.add(trial.label)
        self._recall_growth(trials)
        self._decide_what_was_cut_off()
        self._shelf.clear_except({*self.running, *self.paused, *self._last_trained})  # those may be trained anew
        self._clear_weights()
        # by label too: what a published network is may have been put right since the study began
        recipe = domain.default_recipe()
        self._enqueued: list[Enqueued] = [
            each
            for each in domain.enqueued()
            if (each.architecture.id, recipe.to_json()) not in self._known and each.label not in labels
        ]

    # --- what an engine calls ---

    def next_assignment(self) -> Assignment | None:
        """Work for an idle worker; None when there is none to give (see `stopped`)."""
        if self.elapsed_seconds >= self.limits.seconds:
            self.stop("time budget reached")
        if self.stopped is not None:
            return None
        running = next((each for each in self.running.values() if not each.given), None)
        running = running or self._promoted() or self._new_trial() or self._last_resort() or self._repeat()
        if running is None:
            return None
        running.given = True
        self._most_at_work = max(self._most_at_work, sum(each.given for each in self.running.values()))
        running.started = running.heard = self._clock()
        assignment = self._with_state(running)
        if not running.is_repeat:
            self._begin(running)
        running.fresh = False
        return assignment

    def measured_bounds(self, number: int) -> dict[str, tuple[float, float]]:
        """What a worker requires of trial `number` before it trains it; a published network takes part regardless."""
        return {} if self.running[number].origin == "fixed point" else self.domain.measured_bounds()

    def report(self, number: int, event: Event) -> bool:
        """What the worker of trial `number` says. False: its leg ends here."""
        running = self.running.get(number)
        if running is None:
            return False
        running.heard = self._clock()
        if running.progress is None:
            running.started = running.heard  # until now its worker may have been starting
        if isinstance(event, Failure):
            self._end(running, "infeasible", event.reason, event.detail)
            return False
        goes_on = True
        if isinstance(event, Progress):
            if running.progress is None or running.progress.phase != event.phase:
                running.since = running.heard
            running.progress = event
            if event.accuracy is not None:
                running.curve.append(event.accuracy)
                self._writer.record_progress(running.assignment, event)
            elif event.phase == "training" and not event.epoch:
                goes_on = self._is_worth_it(running)
        elif isinstance(event, Checkpoint):
            self._take_checkpoint(running, event)
        else:
            if event.rung == self._last and not running.is_repeat:
                self._keep_weights(running, event)
            self._writer.record(running.assignment, event)
            # only now: a state says less than its measurement
            if running.checkpoint is not None and event.rung != self._last:
                self._shelf.put(number, running.checkpoint, running.assignment.repeat)
            running.checkpoint = None
            goes_on = self._measured(running, event)
        if goes_on and self.elapsed_seconds >= self.limits.seconds:
            self.stop("time budget reached")
            running.given = False  # unfinished: given out again when the study goes on
            return False
        return goes_on

    def completed(self, number: int) -> None:
        """The worker of trial `number` came to its end."""
        running = self.running.get(number)
        if running is not None:
            self._end(running, "complete")

    def lost(self, number: int, detail: str) -> None:
        """The worker of trial `number` died. It is given out again, twice at most; then it is infeasible."""
        running = self.running.get(number)
        if running is None:
            return
        running.deaths += 1
        if not running.is_repeat:
            self._writer.lost(number)
        if running.deaths >= MOST_DEATHS:
            self._end(running, "infeasible", "worker died", detail)
        else:
            self._again(running)

    def crashed(self, number: int, detail: str) -> str | None:
        """Trial `number` ended the process of an earlier session; what came of it, in a sentence. None: nothing."""
        told = f"trial {number} ended the last session: {detail}"
        if number in self.running:
            self.lost(number, detail)
            again = number in self.running
            return f"{told}; " + ("it is trained again" if again else f"after {MOST_DEATHS} times it is infeasible")
        if self._repeats and number in self._trainings and number not in self._no_repeats:
            self._no_repeats.add(number)
            self._writer.repeat_failed(number, "worker died")
            return f"{told}; it is not trained anew"
        return None

    def returned(self, number: int) -> None:
        """The worker of trial `number` is gone, and the trial had no part in it, as when a node fails."""
        running = self.running.get(number)
        if running is not None:
            self._again(running)

    def overdue(self) -> list[int]:
        """Trials at work that had their time and are silent: whoever looks after the workers ends theirs, and says so
        by `hung`. It is to be asked every second or so.

        A training looks at its own limit between steps; this is for what never comes to the end of a step.
        """
        now = self._clock()
        asleep, self._looked = now - self._looked, now
        if asleep > NAP_S:  # stopped, as by Ctrl-Z or with its machine: it could not hear what was said meanwhile
            for running in list(self.running.values()):
                running.started += asleep
                running.since += asleep
                running.heard += asleep
        return [number for number, running in list(self.running.items()) if running.given and running.is_hung(now)]

    def hung(self, number: int) -> None:
        """Trial `number` was overdue, and its worker is ended: see `overdue`."""
        running = self.running[number]
        silent = self._clock() - running.heard
        told = f"no sign of life for {silent:.0f} s, ended from outside"
        limit = f"at most {running.assignment.timeout_s:g} s allowed"
        self._end(running, "infeasible", "time limit", f"{told}; {limit}")

    def stop(self, reason: str) -> None:
        """Give out nothing more. What is running stays unfinished in the ledger, and is given out again later."""
        self.stopped = self.stopped or reason

    @property
    def done(self) -> bool:
        """Nothing runs and nothing will."""
        if any(each.given for each in self.running.values()):
            return False
        if self.stopped is not None:
            return True
        return not (self.running or self._may_begin or self._can_promote() or self._due_repeat() is not None)

    # --- what a person sees ---

    @property
    def elapsed_seconds(self) -> float:
        """Of all sessions of the study."""
        return self._elapsed_before + self._clock() - self._begun

    @property
    def results(self) -> list[Result]:
        """Of all trials that ended or wait at a rung; those set aside before training left out."""
        return [result for result in list(self._results.values()) if result.reason != SET_ASIDE]

    @property
    def ended(self) -> int:
        """How many those are."""
        return len(self._results) - self._set_aside

    @property
    def total(self) -> int:
        """How many there will be; more than were asked for, where more had begun already."""
        return max(self.limits.trials, self.ended)

    def front(self) -> list[Result]:
        """The front so far, the most accurate (the first objective's best) first."""
        return self._leaders.front()

    def hypervolume(self) -> float:
        """Of the front so far, from the objectives' `worst`."""
        return self._leaders.hypervolume()

    def seconds_left(self) -> float | None:
        """Until the last trial ends, judged by the latest ones; None before the first has ended."""
        latest = itertools.islice(reversed(self._results.values()), LATEST)
        seconds = [result.seconds for result in latest if result.seconds > 0 and result.reason != SET_ASIDE]
        if not seconds:
            return None
        rounds = (self.limits.trials - self.ended) / max(1, self._most_at_work)
        left = rounds * sum(seconds) / len(seconds)
        return max(0.0, min(left, self.limits.seconds - self.elapsed_seconds))

    @property
    def trials_an_hour(self) -> float:
        """At the pace of this study so far."""
        return 3600 * self.ended / max(1e-9, self.elapsed_seconds)

    # --- which work comes next ---

    @property
    def _may_begin(self) -> bool:
        return self.enough is None and len(self._seen) - self._set_aside < self.limits.trials

    def _can_promote(self) -> bool:
        return self.enough is None and (
            self._rungs.promotable() is not None
            or (not self._may_begin and not self.running and self._rungs.last_resort() is not None)
        )

    def _promoted(self) -> Running | None:
        """A trial that waits at a rung and is among the best of those that came there."""
        while self.enough is None and (found := self._rungs.promotable()) is not None:
            number, rung = found
            running = self.paused[number]
            behind = self._behind(running, rung)
            if behind is None:
                return self._go_on(number, rung)
            self._end(self.paused.pop(number), "stopped", BEHIND, behind)
        return None

    def _last_resort(self) -> Running | None:
        """At the end of a study so small that no share of a rung came to one trial: its best."""
        if self.running or self.enough is not None:
            return None
        found = self._rungs.last_resort()
        return None if found is None else self._go_on(*found)

    def _go_on(self, number: int, rung: int) -> Running:
        running = self.paused.pop(number)
        self._rungs.promote(number, rung)
        running.seen.state = "running"
        self.running[number] = running
        self._mirror.resume(number)
        return running

    def _new_trial(self) -> Running | None:
        if not self._may_begin:
            return None
        number = len(self._seen)
        if self._enqueued:
            running = self._fixed_point(number, self._enqueued.pop(0))
        else:
            suggestion = self._suggest(number)
            if suggestion is None:
                return None
            candidate = suggestion.candidate
            running = self._running(
                number, candidate.architecture, candidate.recipe, "sampler", None, candidate, suggestion.why
            )
            running.seen.gain = suggestion.gain
        self._seen.append(running.seen)
        self._known.add(running.seen.key)
        self.running[number] = running
        return running

    def _fixed_point(self, number: int, fixed: Enqueued) -> Running:
        recipe = self.domain.default_recipe()
        candidate = None if fixed.point is None else Candidate(dict(fixed.point), fixed.architecture, recipe)
        return self._running(
            number, fixed.architecture, recipe, "fixed point", fixed.label, candidate, "fixed point: named in the file"
        )

    def _suggest(self, number: int) -> Suggestion | None:
        refused: Counter[str] = Counter()
        smallest = math.inf
        found = None
        for draw in range(MOST_DRAWS):
            suggestion = self._draw(number, draw)
            candidate = suggestion.candidate
            reason = "already a trial" if self.domain.key(candidate) in self._known else self.domain.refusal(candidate)
            if reason is None:
                found = suggestion
                break
            if reason != "already a trial":
                smallest = min(smallest, self.domain.known(candidate).get("macs", math.inf))
            refused[reason] += 1
        for reason, count in refused.items():
            self._writer.refuse(reason, count)
        if found is None:
            self.stopped, self.exhausted = self._nothing_left(refused, smallest), True
        return found

    def _draw(self, number: int, draw: int) -> Suggestion:
        if draw < SAMPLER_DRAWS:
            return self._sampler.suggest(number, draw, self._seen)
        rng = np.random.default_rng([self._seed, number, draw])
        why = f"random: {SAMPLER_DRAWS} draws of the sampler were known already or broke a requirement"
        return Suggestion(self.domain.draw(rng), why)

    def _nothing_left(self, refused: Counter[str], smallest: float) -> str:
        told = "; ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        text = f"No draw out of {MOST_DRAWS:,} from {self.domain.name} is a new network that meets the requirements.\n"
        text += f"  Refused: {told}."
        if refused["already a trial"] > MOST_DRAWS // 2:
            text += "\n  The space is searched to its end, or nearly so."
        elif smallest < math.inf:
            text += f"\n  The smallest network drawn needs {smallest:,.0f} macs."
            text += " Widen the requirements or the space."
        if not self._results and not self.running:
            raise SearchError(text)
        return text

    def _repeat(self) -> Running | None:
        """A network of the front, to be trained anew with another seed."""
        number = self._due_repeat()
        if number is None:
            return None
        trial = self._last_trained[number]
        repeat = max(self._trainings[number]) + 1
        assignment = dataclasses.replace(
            trial.assignment,
            seed=_seed(self._seed, number, repeat),
            repeat=repeat,
            throughput_batch=None,
        )
        again = Running(assignment, trial.origin, trial.label, trial.counts, trial.seen)
        self.running[number] = again
        return again

    def _due_repeat(self) -> int | None:
        """Once the trials are done: the next of the front that was not trained as often as it shall be."""
        if not self._repeats or self._may_begin or (self.enough is None and self._rungs.promotable() is not None):
            return None
        if any(not running.is_repeat for running in self.running.values()):
            return None
        for result in self.front():
            number = result.number
            if number in self.running or number in self._no_repeats or number not in self._last_trained:
                continue
            if len(self._trainings[number]) <= self._repeats:
                return number
        return None

    # --- what comes of it ---

    def _measured(self, running: Running, measured: Measurement) -> bool:
        """Take note; False: the leg ends here."""
        if running.is_repeat:
            if measured.rung == self._last:
                self._trainings[running.assignment.trial][running.assignment.repeat] = measured.value
            return True
        running.values[measured.metric] = measured
        if measured.metric != "accuracy":
            running.seen.known[measured.metric] = measured.value
            running.seen.disturbed = is_disturbed(running.values, self.objectives)
            return True
        assert measured.rung is not None
        running.seen.accuracy[measured.rung] = measured.value
        return measured.rung == self._last or self._at_rung(running, measured.rung)

    def _at_rung(self, running: Running, rung: int) -> bool:
        """Whether a trial goes on from a rung at once; else it is paused, or stopped."""
        number = running.assignment.trial
        costs = running.seen.costs(self.objectives, rung)
        assert costs is not None, "an objective was not measured before the training"
        self._rungs.add(number, rung, costs)
        behind = None if running.label else self._behind(running, rung)
        if behind is not None:
            self._end(running, "stopped", BEHIND, behind)
            return False
        # a published network is always trained to the end; one whose worker died may come here for the second time
        if running.label or self._rungs.is_promotable(number, rung) or self._rungs.has_gone_on(number, rung):
            self._rungs.promote(number, rung)
            return True
        del self.running[number]
        self._rest(running)
        self.paused[number] = running
        running.seen.state = "paused"
        self._writer.finish(number, "paused", seconds=running.seconds)
        self._mirror.pause(number, standing("paused", rung, self.domain.epochs[rung], None))
        self._conclude(running, "paused", None, None)
        return False

    def _behind(self, running: Running, rung: int) -> str | None:
        """Why a trial cannot reach the front even at the top of what its accuracy may become; None if it can."""
        # a throughput beside other programs says nothing against a network
        if not self.front() or running.seen.disturbed:
            return None
        forecast = Forecast([seen.accuracy for seen in self._seen], self._last)
        top = forecast.top(rung, running.seen.accuracy[rung])
        if top is None:
            return None
        at_best = dataclasses.replace(running.seen, accuracy={self._last: top})
        costs = at_best.costs(self.objectives, self._last)
        if costs is None or not self._leaders.reaches(costs):
            return None
        epochs = self.domain.epochs
        return (
            f"at {running.seen.accuracy[rung]:.2f} % after {epochs[rung]} epochs it reaches {top:.2f} % at most after"
            f" {epochs[-1]}: the front has a network that is as good and costs no more"
        )

    def _is_worth_it(self, running: Running) -> bool:
        """Whether to train a network now that it was measured; else it is set aside, and may be chosen again later."""
        seen = running.seen
        if running.label or running.is_repeat or running.curve or self._set_aside_in_a_row >= MOST_SET_ASIDE:
            self._set_aside_in_a_row = 0
            return True
        reason = self._sampler.worth(seen, self._seen)
        if reason is None:
            self._set_aside_in_a_row = 0
            return True
        self._set_aside_in_a_row += 1
        self._end(running, "stopped", SET_ASIDE, reason)
        return False

    def _rest(self, running: Running) -> None:
        """A leg has ended."""
        running.seconds += self._clock() - running.started
        running.given = False
        running.progress = None

    def _end(self, running: Running, state: str, reason: str | None = None, detail: str | None = None) -> None:
        """Commit the end of a trial, tell the observer."""
        number = running.assignment.trial
        if running.given:
            self._rest(running)
        self.running.pop(number, None)
        self._shelf.drop(number)
        if running.is_repeat:
            self._end_repeat(running, reason)
            return
        self._writer.finish(number, state, reason, detail, seconds=running.seconds)
        result = self._conclude(running, state, reason, detail)
        if state == "stopped":
            self._mirror.pause(number, standing(state, result.rung, result.epochs, reason))
        else:
            raw = None if result.costs is None else [result.values[metric] for metric in self._metrics]
            self._mirror.finish(number, raw, reason)

    def _end_repeat(self, running: Running, reason: str | None) -> None:
        number, repeat = running.assignment.trial, running.assignment.repeat
        if repeat not in self._trainings[number]:
            self._no_repeats.add(number)
            self._writer.repeat_failed(number, reason or "error")
            self._observe(dataclasses.replace(self._results[number], reason=reason, repeat=repeat))
            return
        self._take_mean(number)
        self._clear_weights()
        self._observe(dataclasses.replace(self._results[number], repeat=repeat, seconds=running.seconds))

    def _take_mean(self, number: int) -> None:
        """The accuracy of a trial is the mean of its trainings."""
        result = self._results[number]
        values = {**result.values, "accuracy": float(np.mean(list(self._trainings[number].values())))}
        seen = dataclasses.replace(self._seen[number], known=dict(values), accuracy={self._last: values["accuracy"]})
        self._seen[number].accuracy[self._last] = values["accuracy"]
        costs = seen.costs(self.objectives, self._last)
        self._results[number] = dataclasses.replace(result, values=values, costs=costs)
        if costs is not None:
            self._leaders.put(self._results[number])

    def _conclude(
        self, running: Running, state: str, reason: str | None, detail: str | None, *, watch: bool = True
    ) -> Result:
        number = running.assignment.trial
        seen = running.seen
        seen.state, seen.reason = state, reason
        measured = {metric: measurement.value for metric, measurement in running.values.items()}
        complete = state == "complete"
        rung = max(seen.accuracy, default=None)
        if state in ("stopped", "infeasible"):
            self._rungs.drop(number)
        if reason == SET_ASIDE:
            self._known.discard(seen.key)
            self._set_aside += 1
        result = Result(
            number,
            running.assignment.architecture.describe(),
            running.label,
            {} if state == "infeasible" else {**seen.known, **measured},
            seen.costs(self.objectives, self._last) if complete else None,
            reason,
            detail,
            running.seconds,
            seen.disturbed,
            state,
            rung,
            None if rung is None else self.domain.epochs[rung],
        )
        self._results[number] = result
        if complete:
            self._last_trained[number] = running
            self._trainings.setdefault(number, {0: measured.get("accuracy", math.nan)})
        if result.costs is not None and self._leaders.put(result) and watch:
            self._clear_weights()
        if watch and state != "paused" and reason != SET_ASIDE:
            self._watch_growth(self.hypervolume())
        if watch:
            self._observe(result)
        return result

    def _watch_growth(self, volume: float) -> None:
        """A trial has ended: does the hypervolume still grow?"""
        if self._plateau is None:
            return
        self._plateau.update(volume)
        if self._plateau.reached and self.enough is None:
            self.enough = self._why_enough(self._plateau)

    def _recall_growth(self, trials: Sequence[Trial]) -> None:
        """The hypervolume as it grew in earlier sessions."""
        if self._plateau is None:
            return
        ended = [each for each in trials if each.state in ("complete", "stopped", "infeasible")]
        leaders = Leaders(corner(self.objectives))
        for trial in sorted(ended, key=lambda each: each.ended or each.started):
            found = self._results[trial.number]
            if found.costs is not None:
                leaders.put(found)
            if found.reason != SET_ASIDE:
                self._watch_growth(leaders.hypervolume())

    def _why_enough(self, plateau: Plateau) -> str:
        trials = max(1, round(self.trials_an_hour))
        low, high = plateau.expected_range(trials)
        return (
            f"the hypervolume grew by {100 * (plateau.grew or 0.0):.2g} % over the last {plateau.patience} trials, less"
            f" than the {100 * plateau.gain:.2g} % asked for. The next hour, some {trials:,} trials, was expected to"
            f" bring {100 * plateau.expected_gain(trials):.2g} % ({100 * low:.2g} to {100 * high:.2g} %)"
        )

    # --- states and weights ---

    def _take_checkpoint(self, running: Running, checkpoint: Checkpoint) -> None:
        if checkpoint.epochs in self.domain.epochs:
            running.checkpoint = checkpoint  # waits for the measurement
        else:
            self._writer.sync()  # or a power cut could leave a state that is ahead of its curve
            self._shelf.put(running.assignment.trial, checkpoint, running.assignment.repeat)

    def _keep_weights(self, running: Running, measured: Measurement) -> None:
        """Before the measurement is in the ledger: what is complete has its weights, wherever the process ends."""
        if self._weights is None or running.checkpoint is None:
            return
        trained = dataclasses.replace(running.seen, accuracy={self._last: measured.value})
        costs = trained.costs(self.objectives, self._last)
        if self._keep_all or (costs is not None and self._leaders.stands(costs, running.seen.disturbed)):
            self._weights.put(running.assignment.trial, running.checkpoint)

    def _clear_weights(self) -> None:
        """Those of trials that have left the front. One that was trained anew stays: the others' means may fall too."""
        if self._weights is not None and not self._keep_all:
            anew = {number for number, trainings in self._trainings.items() if len(trainings) > 1}
            front = {result.number for result in self.front()}
            self._weights.clear_except(front | anew | self.running.keys())

    # --- trials of an earlier session ---

    def _remember(self, trial: Trial) -> None:
        """Finished ones teach the sampler, paused ones wait on, the others are given out again."""
        running = recalled(self.domain, trial)
        number = trial.number
        assert number == len(self._seen), f"trial {len(self._seen)} is missing in the ledger"
        self._seen.append(running.seen)
        self._known.add(running.seen.key)
        unfinished = trial.state == "running" and self._last not in running.seen.accuracy
        stands = unfinished and self._stands_at_a_rung(running)
        if unfinished and not stands:
            self._again(running)
        for rung in sorted(running.seen.accuracy):
            costs = running.seen.costs(self.objectives, rung)
            if costs is None:
                continue
            self._rungs.add(number, rung, costs)
            went_on = rung < max(running.seen.accuracy) or (trial.state in ("running", "complete") and not stands)
            if went_on and rung < self._last:
                self._rungs.promote(number, rung)
        self._set_aside_in_a_row = self._in_a_row(trial)
        if stands:
            self._cut_off.append(running)
        elif trial.state == "running":
            if not unfinished:
                self._end(running, "complete")  # all was measured; only the word that it is complete was cut off
        else:
            if trial.state == "paused":
                self.paused[number] = running
            self._conclude(running, trial.state, trial.reason, trial.detail, watch=False)
        if trial.state == "complete" and trial.repeats:
            for record in trial.repeats:
                self._trainings[number][record.repeat] = record.value
            self._take_mean(number)
        if trial.repeat_failed is not None:
            self._no_repeats.add(number)

    def _in_a_row(self, trial: Trial) -> int:
        """How many were set aside, one after the other, up to `trial`."""
        if trial.reason == SET_ASIDE:
            return self._set_aside_in_a_row + 1
        judged = trial.curve or trial.state != "running"
        return 0 if judged and trial.reason != "broken requirement" else self._set_aside_in_a_row

    def _stands_at_a_rung(self, running: Running) -> bool:
        """Whether it was cut off between a rung's measurement and the word on who goes on from there."""
        reached = max(running.seen.accuracy, default=None)
        if reached is None or running.label or len(running.curve) > self.domain.epochs[reached]:
            return False
        return self._shelf.epochs(running.assignment.trial) == self.domain.epochs[reached]

    def _decide_what_was_cut_off(self) -> None:
        """As it would have been decided then: all else that happened is known by now."""
        for running in self._cut_off:
            running.started = self._clock()
            self.running[running.assignment.trial] = running
            self._at_rung(running, max(running.seen.accuracy))
        self._cut_off.clear()

    # --- one trial ---

    def _again(self, running: Running) -> None:
        """Give it out once more, from its checkpoint or from the start."""
        running.given = False
        running.progress = None
        running.checkpoint = None
        if running.is_repeat:
            return
        running.seen.state = "running"
        self._set_back(running, self._shelf.epochs(running.assignment.trial))
        self.running[running.assignment.trial] = running

    def _set_back(self, running: Running, epochs: int) -> None:
        """What came after so many epochs is trained again."""
        del running.curve[epochs:]
        for rung in list(running.seen.accuracy):
            if self.domain.epochs[rung] > epochs:
                del running.seen.accuracy[rung]
        if not epochs:
            running.values.clear()

    def _with_state(self, running: Running) -> Assignment:
        """What the worker gets: with the checkpoint to go on from, where there is one; else it is another attempt."""
        assignment = running.assignment
        if running.fresh and not running.is_repeat:
            return assignment
        checkpoint = self._shelf.get(assignment.trial, assignment.repeat)
        if running.is_repeat:
            return assignment if checkpoint is None else dataclasses.replace(assignment, state=checkpoint.state)
        self._set_back(running, 0 if checkpoint is None else checkpoint.epochs)
        if checkpoint is None:
            running.assignment = dataclasses.replace(assignment, attempt=assignment.attempt + 1)
            return running.assignment
        state = checkpoint.state
        if running.seen.disturbed:  # it is cheap to measure, so while there is a chance it is measured again
            return dataclasses.replace(assignment, state=state)
        return dataclasses.replace(assignment, state=state, throughput_batch=None)

    def _begin(self, running: Running) -> None:
        first = running.assignment.trial not in self._results and running.assignment.attempt == 1
        self._writer.begin(
            running.assignment,
            params=running.counts.params,
            macs=running.counts.macs,
            tokens=running.counts.tokens,
            activations=running.counts.activations,
            origin=running.origin,
            label=running.label,
            point=running.point,
            why=running.why,
            gain=running.seen.gain,
            epochs=len(running.curve),
        )
        if first:
            self._mirror.begin(running.assignment.trial, running.point or {}, self._attributes(running))

    def _running(
        self,
        number: int,
        architecture: Architecture,
        recipe: Recipe,
        origin: str,
        label: str | None,
        candidate: Candidate | None,
        why: str,
    ) -> Running:
        assignment = self.domain.assignment(number, 1, architecture, recipe, seed=_seed(self._seed, number))
        counts: Profile = self.domain.counts(architecture)
        known = {"params": float(counts.params), "macs": float(counts.macs)}
        if candidate is not None:
            known |= self.domain.known(candidate)
        seen = Observation(
            number=number, key=self.domain.key(Candidate({}, architecture, recipe)), candidate=candidate, known=known
        )
        return Running(assignment, origin, label, counts, seen, why)

    @staticmethod
    def _attributes(running: Running) -> dict[str, Any]:
        told = {
            "architecture": running.assignment.architecture.describe(),
            "id": running.assignment.architecture.id,
            "params": running.counts.params,
            "macs": running.counts.macs,
        }
        return told | ({"fixed_point": running.label} if running.label else {})


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(list(entropy)).generate_state(1)[0] >> 1)
