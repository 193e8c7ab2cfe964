"""How fast a study goes, and what is left of its time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mlpspace.results import Limits
from mlpspace.search.knowledge import Knowledge
from mlpspace.trial import SET_ASIDE

LATEST = 200  # results that tell how long a trial takes


class Pace:
    """The time of a study, all its sessions together.

    Args:
        before: seconds of earlier sessions.
        clock: seconds, rising.
    """

    def __init__(self, known: Knowledge, limits: Limits, *, before: float, clock: Callable[[], float]) -> None:
        self._known, self._limits, self._before, self._clock = known, limits, before, clock
        self._begun = clock()
        self._most_at_work = 0

    @property
    def elapsed_seconds(self) -> float:
        return self._before + self._clock() - self._begun

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.elapsed_seconds >= self._limits.seconds

    @property
    def trials_an_hour(self) -> float:
        return 3600 * self._known.ended / max(1e-9, self.elapsed_seconds)

    def at_work(self, workers: int) -> None:
        """So many have a trial now."""
        self._most_at_work = max(self._most_at_work, workers)

    def seconds_left(self) -> float | None:
        """Until the last trial ends, judged by the latest ones; None before the first has ended."""
        # a list at once, as the thread that shows it is not the one that adds to them
        latest = list(itertools.islice(reversed(self._known.results.values()), LATEST))
        seconds = [result.seconds for result in latest if result.seconds > 0 and result.reason != SET_ASIDE]
        if not seconds:
            return None
        rounds = (self._limits.trials - self._known.ended) / max(1, self._most_at_work)
        left = rounds * sum(seconds) / len(seconds)
        return max(0.0, min(left, self._limits.seconds - self.elapsed_seconds))
