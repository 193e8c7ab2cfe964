"""What a search knows of its trials: as its sampler sees them, how they ended, which of them are the front."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mlpspace.domain import SearchDomain
from mlpspace.forecast import Forecast
from mlpspace.leaders import Leaders
from mlpspace.measurement import Measurement
from mlpspace.objectives import corner
from mlpspace.recalled import Finished
from mlpspace.results import Result, Running, is_disturbed
from mlpspace.sampling.base import Observation
from mlpspace.space.space import Candidate
from mlpspace.trial import SET_ASIDE


class Ended(NamedTuple):
    """What stays of a trial that has ended, or waits at a rung."""

    seen: Observation
    finished: Finished
    values: Mapping[str, Measurement]
    seconds: float

    @classmethod
    def of(cls, running: Running) -> Ended:
        told, seen = running.assignment, running.seen
        network = seen.candidate or Candidate({}, told.architecture, told.recipe)
        finished = Finished(told.attempt, told.seed, running.origin, running.label, network)
        return cls(seen, finished, running.values, running.seconds)


class Knowledge:
    """All trials of a search, by number.

    Attributes:
        seen: as the sampler sees them.
        results: of those that ended or wait at a rung.
        leaders: the front among them.
    """

    def __init__(self, domain: SearchDomain) -> None:
        self.seen: list[Observation] = []
        self.results: dict[int, Result] = {}
        self.leaders = Leaders(corner(domain.objectives))
        self._objectives, self._epochs = domain.objectives, domain.epochs
        self._last = len(domain.epochs) - 1
        self._set_aside = 0
        self._forecast = Forecast((), self._last)
        self._foretold_by: dict[int, dict[int, float]] = {}  # trial -> its accuracies, as the forecast has them

    @property
    def begun(self) -> int:
        """Trials so far; those that were set aside before training do not count."""
        return len(self.seen) - self._set_aside

    @property
    def ended(self) -> int:
        """How many of those have ended, or wait at a rung."""
        return len(self.results) - self._set_aside

    def add(self, seen: Observation) -> None:
        """A new trial, or the next one of earlier sessions."""
        assert seen.number == len(self.seen), f"trial {len(self.seen)} is missing in the ledger"
        self.seen.append(seen)
        self.learn(seen)

    def take(self, running: Running, measured: Measurement) -> None:
        """A trial was measured, or came to a rung."""
        seen = running.seen
        running.values[measured.metric] = measured
        if measured.metric != "accuracy":
            seen.known[measured.metric] = measured.value
            seen.disturbed = is_disturbed(running.values, self._objectives)
            return
        assert measured.rung is not None
        seen.accuracy[measured.rung] = measured.value
        self.learn(seen)

    def learn(self, seen: Observation) -> None:
        """The accuracies of a trial are others now: the forecast hears of it."""
        self._forecast.remove(self._foretold_by.pop(seen.number, {}))
        if len(seen.accuracy) > 1:  # a line goes through two
            self._foretold_by[seen.number] = dict(seen.accuracy)
            self._forecast.add(seen.accuracy)

    def conclude(self, ended: Ended, state: str, reason: str | None = None, detail: str | None = None) -> Result:
        """How a trial ended, or that it waits at a rung; whether it is on the front is asked apart from that."""
        seen, finished = ended.seen, ended.finished
        seen.state, seen.reason = state, reason
        measured = {metric: measurement.value for metric, measurement in ended.values.items()}
        rung = max(seen.accuracy, default=None)
        self._set_aside += reason == SET_ASIDE
        result = Result(
            seen.number,
            finished.network,
            finished.label,
            {} if state == "infeasible" else {**seen.known, **measured},
            seen.costs(self._objectives, self._last) if state == "complete" else None,
            reason,
            detail,
            ended.seconds,
            seen.disturbed,
            state,
            rung,
            None if rung is None else self._epochs[rung],
        )
        self.results[seen.number] = result
        return result

    def revise(self, number: int, metric: str, value: float, *, disturbed: bool | None = None) -> None:
        """A complete trial was trained or measured again: what it is worth now.

        Args:
            disturbed: whether that is so of its throughput now; None: as before.
        """
        seen, before = self.seen[number], self.results[number]
        if metric == "accuracy":
            seen.accuracy[self._last] = value
            self.learn(seen)
        else:
            seen.known[metric] = value
        if disturbed is not None:
            seen.disturbed = disturbed
        self.results[number] = dataclasses.replace(
            before,
            values={**before.values, metric: value},
            costs=seen.costs(self._objectives, self._last),
            disturbed=seen.disturbed,
        )
        if self.results[number].costs is not None:
            self.leaders.put(self.results[number])

    def recall_front(self) -> None:
        """The front of the results so far, all of which are of earlier sessions."""
        self.leaders.recall(each for each in self.results.values() if each.costs is not None)

    def final_costs(self, seen: Observation, accuracy: float) -> tuple[float, ...] | None:
        """Those of a trial if that is its accuracy at the last rung; None while another objective is not known."""
        return dataclasses.replace(seen, accuracy={self._last: accuracy}).costs(self._objectives, self._last)

    def behind(self, seen: Observation, rung: int) -> str | None:
        """Why a trial cannot reach the front even at the top of what its accuracy may become; None if it can."""
        # a throughput beside other programs says nothing against a network
        if not self.leaders.front() or seen.disturbed:
            return None
        top = self._forecast.top(rung, seen.accuracy[rung])
        costs = None if top is None else self.final_costs(seen, top)
        if costs is None or not self.leaders.reaches(costs):
            return None
        return (
            f"at {seen.accuracy[rung]:.2f} % after {self._epochs[rung]} epochs it reaches {top:.2f} % at most after"
            f" {self._epochs[-1]}: the front has a network that is as good and costs no more"
        )

    def as_seen_now(self, changing: Iterable[int]) -> list[Observation]:
        """All observations for another thread: those of `changing` trials are copied.

        Not of those that wait at a rung, which may be tens of thousands: see `take_up`.
        """
        seen = list(self.seen)
        for number in changing:
            seen[number] = _copy(seen[number])
        return seen

    def take_up(self, running: Running) -> None:
        """A trial waits at its rung no more: its observation may change, and another thread may still have this one."""
        running.seen = self.seen[running.seen.number] = _copy(running.seen)


def _copy(seen: Observation) -> Observation:
    return dataclasses.replace(seen, known=dict(seen.known), accuracy=dict(seen.accuracy))
