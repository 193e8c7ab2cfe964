"""Search: every decision, no process, no clock of its own, no print.

An engine asks for assignments and reports what workers say; the search decides and commits each thing to the ledger
the moment it arrives. It knows nothing of Ray, an engine knows nothing of spaces, and neither knows whether a network
was trained or looked up in a table.

A trial comes to an engine as one or more legs. At a rung it goes on, or its leg ends: it waits there (paused, with its
checkpoint on the shelf) until it is promoted and any worker takes it up again, or it is stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from mlpspace.ahead import Ahead
from mlpspace.checkpoints import Shelf
from mlpspace.domain import SearchDomain
from mlpspace.errors import UserError
from mlpspace.leaders import Leaders
from mlpspace.measurement import Assignment, Event, Failure, Measurement, Progress
from mlpspace.objectives import corner
from mlpspace.outlets import Mirror, Writer
from mlpspace.recalled import Recalled, recalled
from mlpspace.recipe import Recipe
from mlpspace.references import References
from mlpspace.results import Limits, Result, Running
from mlpspace.sampling.base import Observation, Sampler
from mlpspace.search.agenda import Agenda
from mlpspace.search.at_rungs import AtRungs
from mlpspace.search.books import Books
from mlpspace.search.candidates import Candidates
from mlpspace.search.growth import Growth
from mlpspace.search.kept_weights import KeptWeights
from mlpspace.search.knowledge import Ended, Knowledge
from mlpspace.search.legs import Legs
from mlpspace.search.pace import Pace
from mlpspace.search.repeats import Repeats
from mlpspace.search.worth import Worth
from mlpspace.stopping import Plateau
from mlpspace.trial import SET_ASIDE, Trial

MOST_DEATHS = 3  # of workers that had a trial: after the first two it is given out again

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
        begun: hears of each phase of a worker (`Progress.phase`) once, when the first worker is at it.
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
        begun: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self.domain = domain
        self.objectives = domain.objectives
        self.limits = limits
        self.stopped: str | None = None  # why no more assignments are given
        self.apart = False  # set by an engine where some workers measure and others train
        self.ahead: Ahead | None = None  # set by an engine whose workers shall not wait for the sampler
        self._observe, self._begun = observe, begun
        self._phases: set[str] = set()  # that were heard of
        self._last = len(domain.epochs) - 1
        self._known = known = Knowledge(domain)
        self._legs = Legs(domain.epochs, known, shelf, clock)
        self.running = self._legs.running
        self._pace = Pace(known, limits, before=elapsed_seconds, clock=clock)
        self._growth = Growth(plateau, lambda: self._pace.trials_an_hour)
        self._weights = KeptWeights(weights, known, all_trials=keep_all)
        self._books = Books(domain, writer=writer, mirror=mirror, shelf=shelf, weights=self._weights)
        self._candidates = Candidates(domain, sampler, writer, seed=seed)
        self._worth = Worth(sampler)
        self._repeats = Repeats(domain, known, writer, trainings=repeats, seed=seed)
        self._at_rungs = AtRungs(domain, known)
        self.paused = self._at_rungs.paused
        trained = self._candidates, self._at_rungs, self._repeats
        self._agenda = Agenda(known, self.running, self._growth, *trained, trials=limits.trials)
        self._references = References()
        self._recall(trials)

    # --- what an engine calls ---

    def next_assignment(self) -> Assignment | None:
        """Work for an idle worker; None when there is none to give (see `stopped`)."""
        if self._pace.is_over:
            self.stop("time budget reached")
        if self.stopped is not None:
            running = self._ready() if self._left_to_train else None
            return None if running is None else self._to_train(running)
        waiting = (each for each in self._legs.free() if not (each.ready or (self.apart and each.is_to_be_measured)))
        running = next(waiting, None)
        running = running or self._promoted() or self._ready() or (None if self.apart else self._new_trial())
        later = self._agenda.may_begin and self.stopped is None and (self.apart or self.ahead is not None)
        if running is None and not later:  # a new trial comes before these, once it is drawn or measured
            running = self._going_on(self._agenda.last_resort())
            running = running or (None if self.apart else self._agenda.measurement()) or self._agenda.training()
        if running is None:
            self.prepare()  # else when its worker is heard of: until then it waits for this process
            return None
        return self._to_train(running)

    def next_to_measure(self, ahead: int) -> Assignment | None:
        """Work for an idle worker that measures where others train (`apart`); None when there is none to give.

        Args:
            ahead: networks that may be measured and wait for a worker that trains, this one among them.
        """
        if self._pace.is_over:
            self.stop("time budget reached")
        if self.stopped is not None:
            return None
        unmeasured = [each for each in self.running.values() if each.is_to_be_measured]
        running = next((each for each in unmeasured if not each.given), None)
        if running is None and len(unmeasured) + sum(each.ready for each in self.running.values()) < ahead:
            running = self._new_trial() or self._agenda.measurement()
        given = None if running is None else self._give(running)
        self.prepare()
        return None if given is None else dataclasses.replace(given, measure_only=True, state=None)

    def prepare(self) -> None:
        """Have the next trial drawn, where that is done ahead of need; to be called when a worker was heard of."""
        if self.ahead is not None and self.stopped is None and self._agenda.may_begin:
            number, results = len(self._known.seen), len(self._known.results)
            self._candidates.prepare(number, results, self._as_seen_now, self.ahead)

    def measured_bounds(self, number: int) -> dict[str, tuple[float, float]]:
        """What a worker requires of trial `number` before it trains it; a published network takes part regardless."""
        return {} if self.running[number].origin == "fixed point" else self.domain.measured_bounds()

    def report(self, number: int, event: Event) -> bool:
        """What the worker of trial `number` says. False: its leg ends here."""
        running = self._legs.heard(number)
        if running is None:
            return False
        if not self._judged(running, self._worth.heard(running, event)):
            return False
        if isinstance(event, Failure):
            self._end(running, "infeasible", event.reason, event.detail)
            return False
        goes_on = True
        if isinstance(event, Measurement):
            goes_on = self._take_measurement(running, self._references.scaled(event))
        elif isinstance(event, Progress):
            goes_on = self._take_progress(running, event)
        else:
            self._books.checkpoint(running, event)
        if goes_on and self._pace.is_over:
            self.stop("time budget reached")
            self._legs.hand_back(running)  # unfinished: given out again when the study goes on
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
            self._legs.rest(running)
            running.ready = running.judged = True
            self._is_worth_it(running)

    def lost(self, number: int, detail: str) -> None:
        """The worker of trial `number` died. It is given out again, twice at most; then it is infeasible."""
        running = self.running.get(number)
        if running is None:
            return
        running.deaths += 1
        self._books.lost(running)
        if running.deaths >= MOST_DEATHS:
            self._end(running, "infeasible", "worker died", detail)
        else:
            self._legs.again(running)

    def crashed(self, number: int, detail: str) -> str | None:
        """Trial `number` ended the process of an earlier session; what came of it, in a sentence. None: nothing."""
        told = f"trial {number} ended the last session: {detail}"
        if number in self.running:
            self.lost(number, detail)
            again = number in self.running
            return f"{told}; " + ("it is trained again" if again else f"after {MOST_DEATHS} times it is infeasible")
        return f"{told}; it is not trained anew" if self._repeats.give_up(number, "worker died") else None

    def returned(self, number: int) -> None:
        """The worker of trial `number` is gone, and the trial had no part in it, as when a node fails."""
        running = self.running.get(number)
        if running is not None:
            self._legs.again(running)

    def overdue(self) -> list[int]:
        """Trials at work that had their time and are silent: whoever looks after the workers ends theirs, and says so
        by `hung`. It is to be asked every second or so.

        A training looks at its own limit between steps; this is for what never comes to the end of a step.
        """
        return self._legs.overdue()

    def hung(self, number: int) -> None:
        """Trial `number` was overdue, and its worker is ended: see `overdue`."""
        running = self.running[number]
        self._end(running, "infeasible", "time limit", self._legs.why_overdue(running))

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
        return not self.running and self._agenda.is_empty

    # --- what a person sees ---

    @property
    def exhausted(self) -> bool:
        """Stopped because nothing new is left to draw: going on would not help."""
        return self._candidates.exhausted is not None

    @property
    def enough(self) -> str | None:
        """Why no more trials are begun; what is at work goes on."""
        return self._growth.enough

    @property
    def elapsed_seconds(self) -> float:
        """Of all sessions of the study."""
        return self._pace.elapsed_seconds

    @property
    def results(self) -> list[Result]:
        """Of all trials that ended or wait at a rung; those set aside before training left out."""
        return [result for result in list(self._known.results.values()) if result.reason != SET_ASIDE]

    @property
    def ended(self) -> int:
        """How many those are."""
        return self._known.ended

    @property
    def total(self) -> int:
        """How many there will be; more than were asked for, where more had begun already."""
        return max(self.limits.trials, self.ended)

    def front(self) -> list[Result]:
        """The front so far, the most accurate (the first objective's best) first."""
        return self._known.leaders.front()

    def hypervolume(self) -> float:
        """Of the front so far, from the objectives' `worst`."""
        return self._known.leaders.hypervolume()

    def seconds_left(self) -> float | None:
        """Until the last trial ends, judged by the latest ones; None before the first has ended."""
        return self._pace.seconds_left()

    # --- which work comes next ---

    @property
    def _left_to_train(self) -> bool:
        """Whether nothing new is left to draw, and some of what was drawn waits to be trained."""
        return self.exhausted and not self._pace.is_over and any(each.ready for each in self._legs.free())

    def _promoted(self) -> Running | None:
        """A trial that waits at a rung and is among the best of those that came there."""
        while (found := self._agenda.promoted()) is not None:
            running, behind = found
            if behind is not None:
                self._end(running, "stopped", BEHIND, behind)
            elif self._going_on(running) is not None:
                return running
        return None

    def _going_on(self, running: Running | None) -> Running | None:
        """A trial that waits no more at its rung; None: none does, or it is to be measured first, by another worker."""
        if running is None:
            return None
        self._books.resume(running.assignment.trial)
        if self.apart and running.is_to_be_measured:
            self._legs.hand_back(running)
            return None
        return running

    def _ready(self) -> Running | None:
        """A network that one worker has measured, for another to train it."""
        for running in [each for each in self._legs.free() if each.ready]:
            if not self._worth.is_asked(running) and self._judged(running, self._worth.answer(running)):
                return running
        return None

    def _new_trial(self) -> Running | None:
        running = self._agenda.new_trial(self.ahead)
        if running is None and self._candidates.exhausted is not None:
            if not self._known.results and not self.running:
                raise SearchError(self._candidates.exhausted)
            self.stop(self._candidates.exhausted)
        return running

    def _to_train(self, running: Running) -> Assignment:
        assignment = self._give(running)
        self._pace.at_work(len(self.running) - len(self._legs.free()))
        return dataclasses.replace(assignment, deployment=None) if self.apart else assignment

    def _give(self, running: Running) -> Assignment:
        assignment = self._legs.give(running)
        if not running.is_repeat:
            first = running.assignment.trial not in self._known.results and running.assignment.attempt == 1
            self._books.begin(running, first=first)
        return assignment

    def _as_seen_now(self) -> list[Observation]:
        return self._known.as_seen_now(self.running)

    # --- what comes of it ---

    def _take_progress(self, running: Running, told: Progress) -> bool:
        """False: the leg ends here; so with the others."""
        self._legs.note(running, told)
        if told.phase not in self._phases:
            self._phases.add(told.phase)
            self._begun(told.phase)
        if told.accuracy is not None:
            running.curve.append(told.accuracy)
            self._books.epoch(running, told)
        elif told.phase == "training" and not told.epoch and not running.judged:
            running.judged = True
            return self._is_worth_it(running)
        return True

    def _take_measurement(self, running: Running, measured: Measurement) -> bool:
        if not running.assignment.remeasure:
            self._books.measurement(running, measured)
        if running.is_repeat:
            self._repeats.take(running, measured)
            return True
        self._known.take(running, measured)
        return measured.rung in (None, self._last) or self._at_rung(running, measured.rung)

    def _at_rung(self, running: Running, rung: int) -> bool:
        """Whether a trial goes on from a rung at once; else it is paused, or stopped."""
        behind = self._at_rungs.reach(running, rung)
        if behind is not None:
            self._end(running, "stopped", BEHIND, behind)
            return False
        if self._at_rungs.goes_on(running, rung):
            return True
        self._legs.leave(running)
        self._conclude(running, "paused")
        return False

    def _is_worth_it(self, running: Running) -> bool:
        """Whether to train a network now that it was measured; else it is set aside, and may be chosen again later."""
        return self._judged(running, self._worth.ask(running, self._known.seen, self.ahead, self._as_seen_now))

    def _judged(self, running: Running, reason: str | None) -> bool:
        if reason is not None:
            self._end(running, "stopped", SET_ASIDE, reason)
        return reason is None

    def _end(self, running: Running, state: str, reason: str | None = None, detail: str | None = None) -> None:
        """Commit the end of a trial, tell the observer."""
        self._legs.end(running)
        if not running.is_repeat:
            self._conclude(running, state, reason, detail)
            return
        result = self._repeats.end(running, reason)
        self._clear_weights()
        self._observe(result)

    def _conclude(self, running: Running, state: str, reason: str | None = None, detail: str | None = None) -> None:
        """A trial has ended, or waits at a rung."""
        result = self._agenda.end(Ended.of(running), state, reason, detail)
        self._books.end(result)
        if result.costs is not None and self._known.leaders.put(result):
            self._clear_weights()
        if state != "paused" and reason != SET_ASIDE:
            self._growth.watch(self._known.leaders)
        self._observe(result)

    def _clear_weights(self) -> None:
        # one that was trained anew stays: the others' means may fall too
        self._weights.clear(self._repeats.trained_anew | self.running.keys())

    # --- trials of an earlier session ---

    def _recall(self, trials: Sequence[Trial]) -> None:
        """Finished ones teach the sampler, paused ones wait on, the others are given out again."""
        recipes: dict[str, Recipe] = {}
        cut_off = []
        for trial in trials:
            for record in trial.records:
                self._references.scaled(record)
            running = self._remember(recalled(self.domain, trial, recipes))
            if running is not None:
                cut_off.append(running)
        self._known.recall_front()
        self._growth.recall(trials, self._known.results, Leaders(corner(self.objectives)))
        # as it would have been decided then: all else that happened is known by now, and first what is complete
        for running in sorted(cut_off, key=lambda each: self._last not in each.seen.accuracy):
            if self._last in running.seen.accuracy:
                self._end(running, "complete")
            else:
                self._legs.hand_back(running)
                self._at_rung(running, max(running.seen.accuracy))
        self._legs.clear_shelf(self.paused.keys() | self._repeats.complete)  # those may be trained anew
        self._clear_weights()
        self._candidates.enqueue({trial.label for trial in trials})

    def _remember(self, told: Recalled) -> Running | None:
        """Back comes a trial that was cut off between a measurement and what was to be decided by it."""
        trial, seen = told.trial, told.seen
        self._agenda.add(seen)
        self._worth.recall(trial)
        running = told.running(self.domain) if trial.state in ("running", "paused") else None
        goes_on = trial.state == "running" and self._last not in seen.accuracy
        stands = running is not None and goes_on and self._legs.stands_at_a_rung(running)
        if running is not None and goes_on and not stands:
            self._legs.again(running)
        self._at_rungs.recall(seen, went_on=trial.state in ("running", "complete") and not stands)
        if running is not None and trial.state == "running":
            return running if stands or not goes_on else None
        self._agenda.recall(told, running)
        return None
