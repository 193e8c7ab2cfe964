"""How a search is told to end: Ctrl-C, a batch system's SIGTERM, a terminal that is closed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mlpspace.engines import EXIT_INTERRUPTED


class Interrupt:
    """The first Ctrl-C asks the engine to end; the second one ends it at once.

    SIGTERM does the same, which is what a batch system sends before it kills, and SIGHUP, when the terminal is closed:
    nobody can be told anything then. Those who get the signal too, such as Ray's processes, may be gone before the
    engine has ended, and it would wait for them for minutes: after a while the process ends all the same.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    PATIENCE_S = 20.0

    def __init__(self, note: Callable[[str], None]) -> None:
        self.seen = False
        self._note = note
        self._before: dict[signal.Signals, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Interrupt:
        for each in self.SIGNALS:
            if signal.getsignal(each) != signal.SIG_IGN:  # as under nohup
                self._before[each] = signal.signal(each, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            _to_nowhere()
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
        self._timer = threading.Timer(self.PATIENCE_S, self._end)
        self._timer.daemon = True
        self._timer.start()
        word = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}.get(
            signal.Signals(number), "the terminal is closed"
        )
        with suppress(RuntimeError):  # it came in the middle of another line
            self._note(f"{word}: the workers are ending. Once more ends at once; nothing that was measured is lost.")

    def _end(self) -> None:
        with suppress(RuntimeError, OSError):
            self._note(
                "The workers do not answer, and this process ends without them. Nothing that was measured is lost."
            )
            sys.stdout.flush()
        os._exit(EXIT_INTERRUPTED)


def _to_nowhere() -> None:
    """A terminal that is gone refuses what is written to it, and the refusal would end the search before its time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
