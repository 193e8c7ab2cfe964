"""Trials at work: who has them, since when, and with what the next worker goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set

from mlpspace.checkpoints import Shelf
from mlpspace.measurement import Assignment, Progress
from mlpspace.results import Running
from mlpspace.search.knowledge import Knowledge

NAP_S = 10.0  # between two looks at what hangs: longer, and the search itself was asleep


class Legs:
    """The trials that a worker has, or will get again.

    A leg is what one worker does of a trial, from its start or the state on the shelf.

    Args:
        epochs: the rungs.
        shelf: the states to go on from.
        clock: seconds, rising.

    Attributes:
        running: by number.
    """

    def __init__(self, epochs: Sequence[int], known: Knowledge, shelf: Shelf, clock: Callable[[], float]) -> None:
        self.running: dict[int, Running] = {}
        self._set_free: dict[int, None] = {}  # those of them that no worker has, and maybe more: see `free`
        self._epochs, self._known, self._shelf, self._clock = epochs, known, shelf, clock
        self._looked = clock()  # whether a trial hangs

    def free(self) -> list[Running]:
        """Trials that no worker has: a few, where a thousand are at work."""
        for number in list(self._set_free):
            if number not in self.running or self.running[number].given:
                del self._set_free[number]
        return [self.running[number] for number in self._set_free]

    # --- a leg, from its start to its end ---

    def give(self, running: Running) -> Assignment:
        """A leg begins. What the worker gets: with the state to go on from, where there is one."""
        self.running[running.assignment.trial] = running
        running.given = True
        running.started = running.heard = self._clock()
        assignment = self._with_state(running)
        running.fresh = False
        return assignment

    def heard(self, number: int) -> Running | None:
        """The worker of a trial gives a sign of life; None: it has none any more."""
        running = self.running.get(number)
        if running is not None:
            running.heard = self._clock()
            if running.progress is None:
                running.started = running.heard  # until now its worker may have been starting
        return running

    def note(self, running: Running, progress: Progress) -> None:
        """How far the worker is."""
        if running.progress is None or running.progress.phase != progress.phase:
            running.since = running.heard
        running.progress = progress

    def rest(self, running: Running) -> None:
        """A leg has ended."""
        running.seconds += self._clock() - running.started
        running.progress = None
        self.hand_back(running)

    def hand_back(self, running: Running) -> None:
        """No worker has it, and it is to be given out again."""
        self.running[running.assignment.trial] = running
        running.given = False
        self._set_free[running.assignment.trial] = None

    def leave(self, running: Running) -> None:
        """A leg has ended, and no other follows for now."""
        if running.given:
            self.rest(running)
        self.running.pop(running.assignment.trial, None)

    def end(self, running: Running) -> None:
        """No other follows at all."""
        self.leave(running)
        self._shelf.drop(running.assignment.trial)

    # --- once more ---

    def again(self, running: Running) -> None:
        """The leg was in vain: it begins once more, from the state on the shelf or from the start."""
        self.hand_back(running)
        running.progress = None
        running.checkpoint = None
        running.verdict = None
        running.judged = False
        if running.is_repeat:
            return
        running.seen.state = "running"
        self._set_back(running, self._shelf.epochs(running.assignment.trial))

    def stands_at_a_rung(self, running: Running) -> bool:
        """Whether it was cut off between a rung's measurement and the word on who goes on from there."""
        reached = max(running.seen.accuracy, default=None)
        if reached is None or running.label or len(running.curve) > self._epochs[reached]:
            return False
        return self._shelf.epochs(running.assignment.trial) == self._epochs[reached]

    def _with_state(self, running: Running) -> Assignment:
        """Where there is no state to go on from, it is another attempt."""
        assignment = running.assignment
        if assignment.remeasure or (running.fresh and not running.is_repeat):
            return assignment
        ready, running.ready = running.ready, False
        if ready and not running.curve:  # no worker has begun to train it
            return dataclasses.replace(assignment, deployment=None)
        checkpoint = self._shelf.get(assignment.trial, assignment.repeat)
        if running.is_repeat:
            return assignment if checkpoint is None else dataclasses.replace(assignment, state=checkpoint.state)
        self._set_back(running, 0 if checkpoint is None else checkpoint.epochs)
        if checkpoint is None:
            running.assignment = dataclasses.replace(assignment, attempt=assignment.attempt + 1)
            return running.assignment
        assignment = dataclasses.replace(assignment, state=checkpoint.state)
        # it is cheap to measure, so while there is a chance it is measured again
        if running.seen.disturbed and not ready:
            return assignment
        return dataclasses.replace(assignment, deployment=None)

    def _set_back(self, running: Running, epochs: int) -> None:
        """What came after so many epochs is trained again."""
        del running.curve[epochs:]
        for rung in list(running.seen.accuracy):
            if self._epochs[rung] > epochs:
                del running.seen.accuracy[rung]
        self._known.learn(running.seen)
        if not epochs:
            running.values.pop("accuracy", None)

    def clear_shelf(self, waiting: Set[int]) -> None:
        """Only these, and those of the trials at work, have states that are needed."""
        self._shelf.clear_except(self.running.keys() | waiting)

    # --- what hangs ---

    def overdue(self) -> list[int]:
        """Trials at work that had their time and are silent. To be asked every second or so."""
        now = self._clock()
        asleep, self._looked = now - self._looked, now
        if asleep > NAP_S:  # stopped, as by Ctrl-Z or with its machine: it could not hear what was said meanwhile
            for running in list(self.running.values()):
                running.started += asleep
                running.since += asleep
                running.heard += asleep
        return [number for number, running in list(self.running.items()) if running.given and running.is_hung(now)]

    def why_overdue(self, running: Running) -> str:
        """Why it is ended now."""
        told = f"no sign of life for {self._clock() - running.heard:.0f} s, ended from outside"
        return f"{told}; at most {running.assignment.timeout_s:g} s allowed"
