"""Trials at rungs: who goes on from there, who waits, who is behind."""

from __future__ import annotations

import numpy as np

from mlpspace.domain import SearchDomain
from mlpspace.objectives import corner
from mlpspace.results import Running
from mlpspace.rungs import Rungs
from mlpspace.sampling.base import Observation
from mlpspace.search.knowledge import Knowledge


class AtRungs:
    """The rungs of a search, and the trials that wait at them.

    Attributes:
        paused: those that wait, by number.
    """

    def __init__(self, domain: SearchDomain, known: Knowledge) -> None:
        self.paused: dict[int, Running] = {}
        self._known, self._objectives = known, domain.objectives
        self._last = len(domain.epochs) - 1
        self._rungs = Rungs(len(domain.epochs), domain.keep, np.array(corner(domain.objectives)))

    def recall(self, seen: Observation, *, went_on: bool) -> None:
        """The rungs that a trial of an earlier session came to.

        Args:
            went_on: from the highest of them, too.
        """
        for rung in sorted(seen.accuracy):
            costs = seen.costs(self._objectives, rung)
            if costs is None:
                continue
            self._rungs.add(seen.number, rung, costs)
            if rung < self._last and (went_on or rung < max(seen.accuracy)):
                self._rungs.promote(seen.number, rung)

    def reach(self, running: Running, rung: int) -> str | None:
        """A trial comes to a rung. Why it is to be stopped there; None: it is not."""
        costs = running.seen.costs(self._objectives, rung)
        assert costs is not None, "an objective was not measured before the training"
        self._rungs.add(running.seen.number, rung, costs)
        return None if running.label else self._known.behind(running.seen, rung)

    def goes_on(self, running: Running, rung: int) -> bool:
        """Whether a trial goes on from there at once; else it waits."""
        number = running.seen.number
        # a published network is always trained to the end; one whose worker died may come here for the second time
        if running.label or self._rungs.is_promotable(number, rung) or self._rungs.has_gone_on(number, rung):
            self._rungs.promote(number, rung)
            return True
        self.paused[number] = running
        return False

    def drop(self, number: int) -> None:
        """A trial was stopped or is infeasible."""
        self._rungs.drop(number)

    @property
    def may_go_on(self) -> bool:
        """Whether one of those that wait is among the best that came there."""
        return self._rungs.promotable() is not None

    @property
    def has_last_resort(self) -> bool:
        """See `last_resort`."""
        return self._rungs.last_resort() is not None

    def next(self) -> tuple[Running, str | None] | None:
        """One of these, with the reason why it is to be stopped all the same, if there is one. It waits no more."""
        found = self._rungs.promotable()
        if found is None:
            return None
        number, rung = found
        behind = self._known.behind(self.paused[number].seen, rung)
        return (self._taken_up(number), behind) if behind else (self._promoted(number, rung), None)

    def last_resort(self) -> Running | None:
        """At the end of a study so small that no share of a rung came to one trial: its best."""
        found = self._rungs.last_resort()
        return None if found is None else self._promoted(*found)

    def _promoted(self, number: int, rung: int) -> Running:
        self._rungs.promote(number, rung)
        running = self._taken_up(number)
        running.seen.state = "running"
        return running

    def _taken_up(self, number: int) -> Running:
        running = self.paused.pop(number)
        self._known.take_up(running)
        return running
