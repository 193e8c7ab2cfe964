"""Thinking ahead: the sampler at work in a thread of its own, so that no worker waits for its suggestions.

The next candidate is drawn once the last one is at a worker, so that it is ready when another worker is. It knows all
results but those that came since; as a rule that is one, of the very trial whose end makes a worker idle. Where more
have come and still nobody has asked, it is drawn anew, and until that is done the older one stands.

For workers that become idle together, and for more of them than one thread can think for, a draft has candidates for
the trials after it as well. They stand in as long as nothing newer is drawn.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from mlpspace.sampling.base import Suggestion

T = TypeVar("T")

MOST = 16  # candidates of a draft
STALE = 2  # results that a candidate does not know of, before it is drawn anew


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of drawing a new trial."""

    found: Suggestion | None  # None: nothing new is left, or the drawing was broken off
    refused: Counter[str] = field(default_factory=Counter)  # why others were not taken
    smallest: float = float("inf")  # MACs of those that broke a requirement
    more: tuple[Suggestion, ...] = ()  # for the trials after it, each chosen as if those before it were being trained


@dataclass(frozen=True, slots=True)
class _Draft:
    """A candidate, or on its way to be one."""

    results: int  # that it knows of
    drawn: Future[Drawn]


class Ahead:
    """One thread for all that the sampler is asked, one question after the other. Within `with`, or not at all."""

    def __init__(self) -> None:
        self.workers = 1  # that may all become idle together; an engine knows
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler")
        self._ready: _Draft | None = None
        self._begun: _Draft | None = None
        self._more: deque[Suggestion] = deque()  # of the draft that was taken last
        self.seconds = 0.0  # of thinking so far
        self.ended = False  # whoever thinks shall come to an end

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = True
        self._thread.shutdown(cancel_futures=True)

    @property
    def candidates(self) -> int:
        """Asked of a draft."""
        return min(self.workers, MOST)

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """The answer, once it is found."""

        def answer() -> T:
            begun = time.monotonic()
            try:
                return question()
            finally:
                self.seconds += time.monotonic() - begun

        return self._thread.submit(answer)

    def wants(self, results: int) -> bool:
        """Whether a draft is to be drawn, now that there are so many results."""
        self._look()
        if self._begun is not None:
            return False
        return self._ready is None or results - self._ready.results >= STALE

    def draw(self, results: int, draw: Callable[[], Drawn]) -> None:
        """Begin one."""
        self._begun = _Draft(results, self.ask(draw))

    def take(self) -> Drawn | None:
        """The newest candidate that there is; None: there is none.

        Others may have been taken since it was drawn, so that it may be one of them.

        Raises:
            What the sampler raised.
        """
        self._look()
        ready, self._ready = self._ready, None
        if ready is None:
            return Drawn(self._more.popleft()) if self._more else None
        drawn = ready.drawn.result()
        self._more = deque(drawn.more)
        return drawn

    def _look(self) -> None:
        if self._begun is not None and self._begun.drawn.done():
            self._ready, self._begun = self._begun, None
