"""The replay engine: a search with simulated workers on simulated time.

The same Search, sampler and rungs as on the real engines, thousands of trainings a minute: what is claimed of a
search's quality is claimed from here, over a table, and what is claimed of its driver with many workers. Time passes
as the recorded trainings took it (as in Syne Tune's simulator, Salinas et al. 2022,
https://proceedings.mlr.press/v188/salinas22a.html), so workers finish in the order they would.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mlpspace.checkpoints import MemoryCheckpoints
from mlpspace.measurement import Assignment, Event, Progress
from mlpspace.pareto import hypervolume
from mlpspace.replay.simulation import NullMirror, NullWriter, SimulatedClock, events
from mlpspace.replay.table import TableDomain
from mlpspace.results import Limits, Result
from mlpspace.sampling.base import Observation, Sampler, Suggestion
from mlpspace.search import Search

TimedEvents: TypeAlias = Generator[tuple[float, Event], None, None]


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that was trained to the last rung, with what was spent until then by all."""

    costs: tuple[float, ...]
    epochs: int
    seconds: float  # simulated


@dataclass(slots=True)
class Replay:
    """What came of one search."""

    trained: list[Trained] = field(default_factory=list)  # in the order they ended
    epochs: int = 0  # trained in all
    seconds: float = 0.0  # simulated, with all workers
    begun: int = 0  # trials
    cpu_seconds: list[float] = field(default_factory=list)  # of each time that the sampler was asked something

    def volume(self, worst: Sequence[float], *, trained: float = math.inf, epochs: float = math.inf) -> float:
        """The hypervolume of the first so many networks, or of those that ended within so many epochs."""
        told = [each.costs for i, each in enumerate(self.trained) if i < trained and each.epochs <= epochs]
        return hypervolume(told, worst) if told else 0.0


def run(
    domain: TableDomain,
    make: Callable[..., Sampler],
    *,
    trials: int,
    seed: int,
    workers: int = 1,
    epochs: float = math.inf,
) -> Replay:
    """One search over a table.

    Args:
        make: (domain, seed=seed) -> sampler, such as a class of samplers.
        trials: begun at most.
        epochs: trained at most, all trials together.
    """
    told = Replay()
    clock = SimulatedClock()

    def observe(result: Result) -> None:
        if result.costs is not None:
            told.trained.append(Trained(result.costs, at_work.epochs, clock.now))

    search = Search(
        domain,
        writer=NullWriter(),
        trials=(),
        sampler=Timed(make(domain, seed=seed), told.cpu_seconds, time.process_time),
        mirror=NullMirror(),
        shelf=MemoryCheckpoints(),
        limits=Limits(trials=trials),
        seed=seed,
        clock=clock,
        observe=observe,
    )
    at_work = Workers(search, clock, workers, lambda assignment: events(domain.table, assignment))
    at_work.work(until=lambda: at_work.epochs >= epochs)
    told.epochs, told.begun, told.seconds = at_work.epochs, at_work.begun, clock.now
    return told


class Workers:
    """They wait in a queue of what happens next: (time, order, trial, event, what comes after it).

    Args:
        events_of: what a worker says of an assignment, each with the seconds that pass before it.
    """

    def __init__(
        self, search: Search, clock: SimulatedClock, count: int, events_of: Callable[[Assignment], TimedEvents]
    ) -> None:
        self.begun = 0  # trials
        self.epochs = 0  # trained in all
        self._search, self._clock, self._events_of = search, clock, events_of
        self._idle = count
        self._order = 0
        self._queue: list[tuple[float, int, int, Event | None, TimedEvents]] = []

    def work(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until there is nothing more to do, or `until` says so after an event; then it may be called again."""
        while True:
            while self._idle and (assignment := self._search.next_assignment()) is not None:
                self._idle -= 1
                self.begun += assignment.state is None
                self._next(assignment.trial, self._events_of(assignment))
            if not self._queue:
                return
            self._clock.now, _, trial, event, coming = heapq.heappop(self._queue)
            if event is None:
                self._search.completed(trial)
                self._idle += 1
            else:
                if isinstance(event, Progress) and event.accuracy is not None:
                    self.epochs += 1
                if self._search.report(trial, event):
                    self._next(trial, coming)
                else:
                    self._idle += 1
            if until():
                return

    def _next(self, trial: int, coming: TimedEvents) -> None:
        seconds, event = next(coming, (0.0, None))
        self._order += 1
        heapq.heappush(self._queue, (self._clock.now + seconds, self._order, trial, event, coming))


class Timed(Sampler):
    """Another sampler, with the seconds of each answer by `clock`."""

    def __init__(self, sampler: Sampler, seconds: list[float], clock: Callable[[], float]) -> None:
        super().__init__(sampler.domain, seed=sampler.seed)
        self._sampler = sampler
        self._seconds = seconds
        self._clock = clock

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        begun = self._clock()
        suggestion = self._sampler.suggest(number, draw, seen)
        self._seconds.append(self._clock() - begun)
        return suggestion

    def worth(self, trial: Observation, seen: Sequence[Observation]) -> str | None:
        begun = self._clock()
        reason = self._sampler.worth(trial, seen)
        self._seconds.append(self._clock() - begun)
        return reason
