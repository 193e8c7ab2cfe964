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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlpspace import measured_again
from mlpspace.ahead import Ahead, Drawn
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
from mlpspace.recalled import Finished, Recalled, recalled
from mlpspace.recipe import Recipe
from mlpspace.references import References
from mlpspace.results import Limits, Result, Running, is_disturbed
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
        self._set_free: dict[int, None] = {}  # those of them that no worker has, and maybe more: see `_free`
        self.paused: dict[int, Running] = {}
        self.stopped: str | None = None  # why no more assignments are given
        self.exhausted = False  # stopped because nothing new is left to draw: going on would not help
        self.enough: str | None = None  # why no more trials are begun; what is at work goes on
        self.apart = False  # set by an engine where some workers measure and others train
        self.ahead: Ahead | None = None  # set by an engine whose workers shall not wait for the sampler
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
        self._forecast = Forecast((), self._last)
        self._foretold_by: dict[int, dict[int, float]] = {}  # trial -> its accuracies, as the forecast has them
        self._results: dict[int, Result] = {}
        self._known: set[Key] = set()  # of every trial but those set aside
        self._set_aside = 0
        self._set_aside_in_a_row = 0
        self._repeats = repeats
        self._trainings: dict[int, dict[int, float]] = {}  # trial -> repeat -> accuracy; 0 for its own
        self._finished: dict[int, Finished] = {}  # complete ones, for repeats
        self._anew: set[int] = set()  # that were trained more than once
        self._no_repeats: set[int] = set()  # that failed when they were trained anew
        self._references = References()
        self._speeds: dict[int, list[Measurement]] = {}  # of complete ones; several where it was measured again
        self._no_speeds: set[int] = set()  # that failed when they were measured again
        self._cut_off: list[Running] = []  # of an earlier session, between a rung's measurement and its decision
        self._all_but_told: list[Running] = []  # all was measured; only the word that they are complete was cut off
        self._plateau = plateau
        self._most_at_work = 0
        labels = set()
        recipes: dict[str, Recipe] = {}
        for trial in trials:
            for record in trial.records:
                self._references.scaled(record)
            self._remember(recalled(domain, trial, recipes))
            labels.add(trial.label)
        self._leaders.recall(each for each in self._results.values() if each.costs is not None)
        self._recall_growth(trials)
        for running in self._all_but_told:
            self._end(running, "complete")
        self._decide_what_was_cut_off()
        self._shelf.clear_except({*self.running, *self.paused, *self._finished})  # those may be trained anew
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
            running = self._ready() if self._left_to_train else None
            return None if running is None else self._to_train(running)
        waiting = [each for each in self._free() if not (each.ready or (self.apart and each.is_to_be_measured))]
        running = next(iter(waiting), None)
        running = running or self._promoted() or self._ready() or (None if self.apart else self._new_trial())
        later = self._may_begin and self.stopped is None and (self.apart or self.ahead is not None)
        if running is None and not later:  # a new trial comes before these, once it is drawn or measured
            running = self._last_resort() or (None if self.apart else self._measure_again()) or self._repeat()
        if running is None:
            self.prepare()  # else when its worker is heard of: until then it waits for this process
            return None
        return self._to_train(running)

    def _to_train(self, running: Running) -> Assignment:
        assignment = self._give(running)
        self._most_at_work = max(self._most_at_work, len(self.running) - len(self._free()))
        return dataclasses.replace(assignment, deployment=None) if self.apart else assignment

    def next_to_measure(self, ahead: int) -> Assignment | None:
        """Work for an idle worker that measures where others train (`apart`); None when there is none to give.

        Args:
            ahead: networks that may be measured and wait for a worker that trains, this one among them.
        """
        if self.elapsed_seconds >= self.limits.seconds:
            self.stop("time budget reached")
        if self.stopped is not None:
            return None
        unmeasured = [each for each in self.running.values() if each.is_to_be_measured]
        running = next((each for each in unmeasured if not each.given), None)
        if running is None and len(unmeasured) + sum(each.ready for each in self.running.values()) < ahead:
            running = self._new_trial() or self._measure_again()
        self.prepare()
        return None if running is None else dataclasses.replace(self._give(running), measure_only=True)

    def _give(self, running: Running) -> Assignment:
        running.given = True
        running.started = running.heard = self._clock()
        assignment = self._with_state(running)
        if not running.is_repeat:
            self._begin(running)
        running.fresh = False
        return assignment

    def prepare(self) -> None:
        """Have the next trial drawn, where that is done ahead of need; to be called when a worker was heard of."""
        ahead = self.ahead
        if ahead is None or self.stopped is not None or self._enqueued or not self._may_begin:
            return
        number, results = len(self._seen), len(self._results)
        if ahead.wants(number, results):
            seen = self._as_seen_now()
            ahead.draw(number, results, lambda: self._drawn(number, seen, lambda: ahead.ended))

    def _as_seen_now(self) -> list[Observation]:
        """All observations for another thread: those that may still change are copied."""
        seen = list(self._seen)
        for number in (*self.running, *self.paused):
            now = seen[number]
            seen[number] = dataclasses.replace(now, known=dict(now.known), accuracy=dict(now.accuracy))
        return seen

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
        if running.verdict is not None and not self._stands(running, event):
            return False
        if isinstance(event, Failure):
            self._end(running, "infeasible", event.reason, event.detail)
            return False
        goes_on = True
        if isinstance(event, Measurement):
            event = self._references.scaled(event)
        if isinstance(event, Progress):
            if running.progress is None or running.progress.phase != event.phase:
                running.since = running.heard
            running.progress = event
            if event.accuracy is not None:
                running.curve.append(event.accuracy)
                self._writer.record_progress(running.assignment, event)
            elif event.phase == "training" and not event.epoch and not running.judged:
                running.judged = True
                goes_on = self._is_worth_it(running)
        elif isinstance(event, Checkpoint):
            self._take_checkpoint(running, event)
        elif running.assignment.remeasure:
            self._take_speed(running, event)
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
            self._set_free[number] = None
            return False
        return goes_on

    def completed(self, number: int) -> None:
        """The worker of trial `number` came to its end."""
        running = self.running.get(number)
        if running is not None:
            self._end(running, "complete")

    def measured(self, number: int) -> None:
        """The worker that was to measure trial `number`, and no more, came to its end: another trains it, if it is
        worth that.
        """
        running = self.running.get(number)
        if running is not None and running.is_repeat:
            self._end(running, "complete")
        elif running is not None:
            self._rest(running)
            running.ready = running.judged = True
            self._is_worth_it(running)

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
            return not self._left_to_train
        if self.running or self._may_begin or self._can_promote():
            return False
        return self._due_repeat() is None and self._due_again() is None

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

    def _free(self) -> list[Running]:
        """Trials that no worker has: a few, where a thousand are at work."""
        for number in list(self._set_free):
            if number not in self.running or self.running[number].given:
                del self._set_free[number]
        return [self.running[number] for number in self._set_free]

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

    @property
    def _left_to_train(self) -> bool:
        """Whether nothing new is left to draw, and some of what was drawn waits to be trained."""
        in_time = self.elapsed_seconds < self.limits.seconds
        return self.exhausted and in_time and any(each.ready for each in self._free())

    def _ready(self) -> Running | None:
        """A network that one worker has measured, for another to train it."""
        for running in [each for each in self._free() if each.ready]:
            verdict = running.verdict
            if verdict is not None and not verdict.done():
                continue
            running.verdict = None
            if verdict is None or self._judged(running, verdict.result()):
                return running
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
        """None: nothing is left, or it is still being drawn."""
        drawn = self._drawn(number, self._seen) if self.ahead is None else self.ahead.take(number)
        if drawn is None:
            return None
        for reason, count in drawn.refused.items():
            self._writer.refuse(reason, count)
        if drawn.found is None:
            self._writer.sync()  # there may be nothing else to write
            self.stopped, self.exhausted = self._nothing_left(drawn.refused, drawn.smallest), True
        return drawn.found

    def _drawn(self, number: int, seen: Sequence[Observation], ended: Callable[[], bool] = lambda: False) -> Drawn:
        """Changes nothing, so that any thread may call it; broken off once it `ended`."""
        refused: Counter[str] = Counter()
        smallest = math.inf
        found = None
        for draw in range(MOST_DRAWS):
            if ended():
                break
            suggestion = self._draw(number, draw, seen)
            candidate = suggestion.candidate
            reason = "already a trial" if self.domain.key(candidate) in self._known else self.domain.refusal(candidate)
            if reason is None:
                found = suggestion
                break
            if reason != "already a trial":
                smallest = min(smallest, self.domain.known(candidate).get("macs", math.inf))
            refused[reason] += 1
        return Drawn(found, refused, smallest)

    def _draw(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        if draw < SAMPLER_DRAWS:
            return self._sampler.suggest(number, draw, seen)
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
        repeat = max(self._trainings[number]) + 1
        changes = {"seed": _seed(self._seed, number, repeat), "repeat": repeat, "deployment": None}
        again = self._finished[number].again(self.domain, self._seen[number], **changes)
        self.running[number] = again
        return again

    @property
    def _only_repeats(self) -> bool:
        """Whether the trials are done, so that the front stands but for what is measured and trained anew."""
        if self._may_begin or (self.enough is None and self._rungs.promotable() is not None):
            return False
        return all(running.is_repeat for running in self.running.values())

    def _due_repeat(self) -> int | None:
        """Once the trials are done: the next of the front that was not trained as often as it shall be."""
        if not self._repeats or not self._only_repeats:
            return None
        for result in self.front():
            number = result.number
            if number in self.running or number in self._no_repeats or number not in self._finished:
                continue
            if len(self._trainings[number]) <= self._repeats:
                return number
        return None

    def _measure_again(self) -> Running | None:
        """A network of the front that is as fast as another one, for all that is known."""
        number = self._due_again()
        if number is None:
            return None
        changes = {"repeat": len(self._speeds[number]) + 1, "remeasure": True}
        again = self._finished[number].again(self.domain, self._seen[number], **changes)
        self.running[number] = again
        return again

    def _due_again(self) -> int | None:
        if "throughput" not in self._metrics or not self._only_repeats:
            return None
        left_out = self._no_speeds | self.running.keys()
        front = [result.number for result in self.front() if result.number not in left_out]
        return measured_again.due(front, self._speeds)

    def _take_speed(self, running: Running, measured: Measurement) -> None:
        """One more throughput of a network; what they say together stands in the place of the first."""
        number, speeds = running.assignment.trial, self._speeds[running.assignment.trial]
        if len(speeds) == 1:  # the first is kept as it was found
            self._writer.record(dataclasses.replace(running.assignment, repeat=1), speeds[0])
        speeds.append(measured)
        self._writer.record(running.assignment, measured)
        self._writer.record(dataclasses.replace(running.assignment, repeat=0), self._take_combined(number))

    def _take_combined(self, number: int) -> Measurement:
        """The throughput of a trial is what all its measurements say together."""
        found = measured_again.combined(self._speeds[number])
        result = self._results[number]
        values = {**result.values, "throughput": found.value}
        self._seen[number].known["throughput"] = found.value
        seen = dataclasses.replace(self._seen[number], accuracy={self._last: values["accuracy"]})
        costs = seen.costs(self.objectives, self._last) if "accuracy" in values else None
        self._results[number] = dataclasses.replace(result, values=values, costs=costs or result.costs)
        if costs is not None:
            self._leaders.put(self._results[number])
        return found

    # --- what comes of it ---

    def _measured(self, running: Running, measured: Measurement) -> bool:
        """Take note; False: the leg ends here."""
        if running.is_repeat:
            if measured.rung == self._last:
                self._trainings[running.assignment.trial][running.assignment.repeat] = measured.value
                self._anew.add(running.assignment.trial)
            return True
        running.values[measured.metric] = measured
        if measured.metric != "accuracy":
            running.seen.known[measured.metric] = measured.value
            running.seen.disturbed = is_disturbed(running.values, self.objectives)
            return True
        assert measured.rung is not None
        running.seen.accuracy[measured.rung] = measured.value
        self._learn(running.seen)
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
        self._conclude(*_ended(running), "paused", None, None)
        return False

    def _behind(self, running: Running, rung: int) -> str | None:
        """Why a trial cannot reach the front even at the top of what its accuracy may become; None if it can."""
        # a throughput beside other programs says nothing against a network
        if not self.front() or running.seen.disturbed:
            return None
        top = self._forecast.top(rung, running.seen.accuracy[rung])
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

    def _learn(self, seen: Observation) -> None:
        """The accuracies of a trial are others now: the forecast hears of it."""
        self._forecast.remove(self._foretold_by.pop(seen.number, {}))
        if len(seen.accuracy) > 1:  # a line goes through two
            self._foretold_by[seen.number] = dict(seen.accuracy)
            self._forecast.add(seen.accuracy)

    def _is_worth_it(self, running: Running) -> bool:
        """Whether to train a network now that it was measured; else it is set aside, and may be chosen again later."""
        seen = running.seen
        if running.label or running.is_repeat or running.curve or self._set_aside_in_a_row >= MOST_SET_ASIDE:
            self._set_aside_in_a_row = 0
            return True
        if self.ahead is None:
            return self._judged(running, self._sampler.worth(seen, self._seen))
        others = self._as_seen_now()
        now = others[seen.number]
        running.verdict = self.ahead.ask(lambda: self._sampler.worth(now, others))
        return True

    def _stands(self, running: Running, event: Event) -> bool:
        """Whether a network whose worth is being thought about is trained on; it is to be known when an epoch ends."""
        verdict = running.verdict
        assert verdict is not None
        if isinstance(event, Progress) and event.accuracy is None and not verdict.done():
            return True
        running.verdict = None
        return isinstance(event, Failure) or self._judged(running, verdict.result())

    def _judged(self, running: Running, reason: str | None) -> bool:
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
        self._set_free[running.assignment.trial] = None
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
        result = self._conclude(*_ended(running), state, reason, detail)
        if state == "stopped":
            self._mirror.pause(number, standing(state, result.rung, result.epochs, reason))
        else:
            raw = None if result.costs is None else [result.values[metric] for metric in self._metrics]
            self._mirror.finish(number, raw, reason)

    def _end_repeat(self, running: Running, reason: str | None) -> None:
        number, repeat = running.assignment.trial, running.assignment.repeat
        if running.assignment.remeasure:
            times = len(self._speeds[number])
            if times < repeat:
                self._no_speeds.add(number)
            self._clear_weights()
            told = dataclasses.replace(self._results[number], reason=reason, measurements=times)
            self._observe(dataclasses.replace(told, seconds=running.seconds))
            return
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
        self._learn(self._seen[number])
        costs = seen.costs(self.objectives, self._last)
        self._results[number] = dataclasses.replace(result, values=values, costs=costs)
        if costs is not None:
            self._leaders.put(self._results[number])

    def _conclude(
        self,
        seen: Observation,
        finished: Finished,
        values: Mapping[str, Measurement],
        seconds: float,
        state: str,
        reason: str | None,
        detail: str | None,
        *,
        watch: bool = True,
    ) -> Result:
        number = seen.number
        seen.state, seen.reason = state, reason
        measured = {metric: measurement.value for metric, measurement in values.items()}
        complete = state == "complete"
        rung = max(seen.accuracy, default=None)
        if state in ("stopped", "infeasible"):
            self._rungs.drop(number)
        if reason == SET_ASIDE:
            self._known.discard(seen.key)
            self._set_aside += 1
        result = Result(
            number,
            finished.network,
            finished.label,
            {} if state == "infeasible" else {**seen.known, **measured},
            seen.costs(self.objectives, self._last) if complete else None,
            reason,
            detail,
            seconds,
            seen.disturbed,
            state,
            rung,
            None if rung is None else self.domain.epochs[rung],
        )
        self._results[number] = result
        if complete:
            self._finished[number] = finished
            if self._repeats:
                self._trainings.setdefault(number, {0: measured.get("accuracy", math.nan)})
            speed = values.get("throughput")
            if speed is not None and speed.reference is not None:
                self._speeds[number] = [speed]
        if not watch:
            return result
        if result.costs is not None and self._leaders.put(result):
            self._clear_weights()
        if state != "paused" and reason != SET_ASIDE:
            self._watch_growth(self.hypervolume())
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
            front = {result.number for result in self.front()}
            self._weights.clear_except(front | self._anew | self.running.keys())

    # --- trials of an earlier session ---

    def _remember(self, told: Recalled) -> None:
        """Finished ones teach the sampler, paused ones wait on, the others are given out again."""
        trial, seen = told.trial, told.seen
        number = trial.number
        assert number == len(self._seen), f"trial {len(self._seen)} is missing in the ledger"
        self._seen.append(seen)
        self._learn(seen)
        self._known.add(seen.key)
        unfinished = trial.state == "running" and self._last not in seen.accuracy
        running = told.running(self.domain) if trial.state in ("running", "paused") else None
        stands = running is not None and unfinished and self._stands_at_a_rung(running)
        if running is not None and unfinished and not stands:
            self._again(running)
        for rung in sorted(seen.accuracy):
            costs = seen.costs(self.objectives, rung)
            if costs is None:
                continue
            self._rungs.add(number, rung, costs)
            went_on = rung < max(seen.accuracy) or (trial.state in ("running", "complete") and not stands)
            if went_on and rung < self._last:
                self._rungs.promote(number, rung)
        self._set_aside_in_a_row = self._in_a_row(trial)
        if running is None or trial.state == "paused":
            if running is not None:
                self.paused[number] = running
            ended = seen, told.finished, told.values, trial.seconds
            self._conclude(*ended, trial.state, trial.reason, trial.detail, watch=False)
        elif stands:
            self._cut_off.append(running)
        elif not unfinished:
            self._all_but_told.append(running)
        if trial.state == "complete":
            self._recall_repeats(trial)
        if trial.repeat_failed is not None:
            self._no_repeats.add(number)

    def _recall_repeats(self, trial: Trial) -> None:
        """What was trained or measured again of a complete one."""
        repeated = [record for record in trial.records if record.repeat]
        if not repeated:
            return
        number = trial.number
        if trial.repeats:
            trainings = self._trainings.setdefault(number, {0: self._results[number].values.get("accuracy", math.nan)})
            trainings |= {record.repeat: record.value for record in trial.repeats}
            self._anew.add(number)
            self._take_mean(number)
        speeds = [record for record in repeated if record.metric == "throughput"]
        if len(speeds) > 1 and number in self._speeds:
            self._speeds[number] = list(speeds)
            self._take_combined(number)

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
            number = running.assignment.trial
            self.running[number] = running
            self._set_free[number] = None
            self._at_rung(running, max(running.seen.accuracy))
        self._cut_off.clear()

    # --- one trial ---

    def _again(self, running: Running) -> None:
        """Give it out once more, from its checkpoint or from the start."""
        running.given = False
        self._set_free[running.assignment.trial] = None
        running.progress = None
        running.checkpoint = None
        running.verdict = None
        running.judged = False
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
        self._learn(running.seen)
        if not epochs:
            running.values.pop("accuracy", None)

    def _with_state(self, running: Running) -> Assignment:
        """What the worker gets: with the checkpoint to go on from, where there is one; else it is another attempt."""
        assignment = running.assignment
        if running.fresh and not running.is_repeat:
            return assignment
        if running.ready:  # no worker has begun to train it
            running.ready = False
            return dataclasses.replace(assignment, deployment=None)
        checkpoint = self._shelf.get(assignment.trial, assignment.repeat)
        if assignment.remeasure:
            return assignment
        if running.is_repeat:
            return assignment if checkpoint is None else dataclasses.replace(assignment, state=checkpoint.state)
        self._set_back(running, 0 if checkpoint is None else checkpoint.epochs)
        if checkpoint is None:
            running.assignment = dataclasses.replace(assignment, attempt=assignment.attempt + 1)
            return running.assignment
        state = checkpoint.state
        if running.seen.disturbed:  # it is cheap to measure, so while there is a chance it is measured again
            return dataclasses.replace(assignment, state=state)
        return dataclasses.replace(assignment, state=state, deployment=None)

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


def _ended(running: Running) -> tuple[Observation, Finished, Mapping[str, Measurement], float]:
    """What stays of a trial that has ended, or waits: see `Search._conclude`."""
    told, seen = running.assignment, running.seen
    network = seen.candidate or Candidate({}, told.architecture, told.recipe)
    return (
        seen,
        Finished(told.attempt, told.seed, running.origin, running.label, network),
        running.values,
        running.seconds,
    )


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(list(entropy)).generate_state(1)[0] >> 1)
