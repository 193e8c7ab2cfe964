"""Whether a network is trained, now that its cheap objectives were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlpspace.ahead import Ahead
from mlpspace.measurement import Event, Failure, Progress
from mlpspace.results import Running
from mlpspace.sampling.base import Observation, Sampler
from mlpspace.trial import SET_ASIDE, Trial

MOST_SET_ASIDE = 3  # in a row; the next candidate is trained whatever its cost turns out to be


class Worth:
    """What the sampler says of networks that were measured: each is trained, or set aside for a reason.

    Published networks and what has been trained before are not asked about.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._in_a_row = 0  # set aside

    def recall(self, trial: Trial) -> None:
        """What became of the next trial of earlier sessions."""
        if trial.reason == SET_ASIDE:
            self._in_a_row += 1
        elif (trial.curve or trial.state != "running") and trial.reason != "broken requirement":
            self._in_a_row = 0

    def ask(
        self,
        running: Running,
        seen: Sequence[Observation],
        ahead: Ahead | None,
        seen_now: Callable[[], Sequence[Observation]],
    ) -> str | None:
        """Why a network shall be set aside; None: it is trained, at least while that is being thought about.

        Args:
            seen: all trials.
            ahead: thinks in a thread of its own; then the answer comes later, see `heard` and `answer`.
            seen_now: all trials, for another thread.
        """
        if running.label or running.is_repeat or running.curve or self._in_a_row >= MOST_SET_ASIDE:
            self._in_a_row = 0
            return None
        if ahead is None:
            return self._judged(self._sampler.worth(running.seen, seen))
        others = seen_now()
        now = others[running.seen.number]
        running.verdict = ahead.ask(lambda: self._sampler.worth(now, others))
        return None

    def heard(self, running: Running, event: Event) -> str | None:
        """The answer about a network that is trained meanwhile, once it is there; it is to be known when an epoch ends.

        Args:
            event: what the worker says.
        """
        if isinstance(event, Failure):
            running.verdict = None
        if isinstance(event, Progress) and event.accuracy is None and self.is_asked(running):
            return None
        return self.answer(running)

    def is_asked(self, running: Running) -> bool:
        """Whether that is being thought about."""
        return running.verdict is not None and not running.verdict.done()

    def answer(self, running: Running) -> str | None:
        """Why a network shall be set aside, however long that takes; None: it is trained, or nobody was asked."""
        verdict, running.verdict = running.verdict, None
        return None if verdict is None else self._judged(verdict.result())

    def _judged(self, reason: str | None) -> str | None:
        self._in_a_row = 0 if reason is None else self._in_a_row + 1
        return reason
