"""What is left to be done in a search."""

from __future__ import annotations

from collections.abc import Mapping

from mlpspace.ahead import Ahead
from mlpspace.recalled import Recalled
from mlpspace.results import Result, Running
from mlpspace.sampling.base import Observation
from mlpspace.search.at_rungs import AtRungs
from mlpspace.search.candidates import Candidates
from mlpspace.search.growth import Growth
from mlpspace.search.knowledge import Ended, Knowledge
from mlpspace.search.repeats import Repeats
from mlpspace.trial import SET_ASIDE


class Agenda:
    """Trials to begin, trials to promote; and when that is done, what is measured and trained again of the front.

    Args:
        running: trials at work, by number.
        trials: as many as shall be trained.
    """

    def __init__(
        self,
        known: Knowledge,
        running: Mapping[int, Running],
        growth: Growth,
        candidates: Candidates,
        at_rungs: AtRungs,
        repeats: Repeats,
        *,
        trials: int,
    ) -> None:
        self._known, self._running, self._growth, self._trials = known, running, growth, trials
        self._candidates, self._at_rungs, self._repeats = candidates, at_rungs, repeats

    # --- what comes next ---

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left; while nothing is at work."""
        if self.may_begin or self._may_promote or self._has_last_resort:
            return False
        return not (self._only_repeats and self._repeats.is_due(self._running.keys()))

    @property
    def may_begin(self) -> bool:
        """Whether more trials are wanted."""
        return self._growth.enough is None and self._known.begun < self._trials

    def new_trial(self, ahead: Ahead | None) -> Running | None:
        """None: no more are wanted, it is still being drawn, or nothing new is left."""
        if not self.may_begin:
            return None
        running = self._candidates.next(len(self._known.seen), self._known.seen, ahead)
        if running is not None:
            self.add(running.seen)
        return running

    def promoted(self) -> tuple[Running, str | None] | None:
        """A trial that waits no more at its rung: see `AtRungs.next`."""
        return self._at_rungs.next() if self._growth.enough is None else None

    def last_resort(self) -> Running | None:
        """At the end of a study so small that no share of a rung came to one trial: its best."""
        return self._at_rungs.last_resort() if self._has_last_resort else None

    def measurement(self) -> Running | None:
        """Of a network that was measured before."""
        return self._repeats.measurement(self._running.keys()) if self._only_repeats else None

    def training(self) -> Running | None:
        """Of a network that was trained before."""
        return self._repeats.training(self._running.keys()) if self._only_repeats else None

    # --- what is done ---

    def add(self, seen: Observation) -> None:
        """A trial has begun, also in an earlier session."""
        self._known.add(seen)
        self._candidates.take(seen.key)

    def end(self, ended: Ended, state: str, reason: str | None = None, detail: str | None = None) -> Result:
        """A trial has ended, or waits at a rung."""
        if state in ("stopped", "infeasible"):
            self._at_rungs.drop(ended.seen.number)
        if reason == SET_ASIDE:
            self._candidates.release(ended.seen.key)
        if state == "complete":
            self._repeats.add(ended)
        return self._known.conclude(ended, state, reason, detail)

    def recall(self, told: Recalled, waiting: Running | None) -> None:
        """A trial has ended in an earlier session, or waits at a rung since then."""
        trial = told.trial
        if waiting is not None:
            self._at_rungs.paused[trial.number] = waiting
        ended = Ended(told.seen, told.finished, told.values, trial.seconds)
        self.end(ended, trial.state, trial.reason, trial.detail)
        if trial.state == "complete":
            self._repeats.recall(trial)

    # --- in short ---

    @property
    def _may_promote(self) -> bool:
        return self._growth.enough is None and self._at_rungs.may_go_on

    @property
    def _has_last_resort(self) -> bool:
        return not self._running and self._growth.enough is None and self._at_rungs.has_last_resort

    @property
    def _only_repeats(self) -> bool:
        """Whether the trials are done, so that the front stands but for what is measured and trained anew."""
        return not (self.may_begin or self._may_promote) and all(each.is_repeat for each in self._running.values())
