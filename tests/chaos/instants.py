"""When to strike a running search: at any instant of its life, or within milliseconds of something it writes."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.searches import Session

PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Instant:
    """`seconds` after the `count`-th `event` of a session: "start", "line", "epoch", "commit" or "file NAME"."""

    event: str
    count: int
    seconds: float

    def __str__(self) -> str:
        return f"{1000 * self.seconds:.1f} ms after {self.event} {self.count}"

    def wait_for(self, session: Session) -> bool:
        """Whether the session still lives when it comes."""
        if self.event != "start":
            change = _Changes(session, self.event)
            for _ in range(self.count):
                if not change.wait():
                    return False
        until = session.begun if self.event == "start" else time.time()
        time.sleep(max(0.0, until + self.seconds - time.time()))
        return session.lives


def drawn(rng: random.Random, *, to_work_s: float) -> Instant:
    """An instant, a third of them at any time while it starts or works, the others just after something came.

    An epoch is told by the witness before the search hears of it, a line comes when all of it is written; a file
    `*.part` is a checkpoint on its way to its name.

    Args:
        to_work_s: from the command to the first epoch.
    """
    event = rng.choices(("start", "epoch", "line", "commit", "file checkpoints/*.part"), (6, 5, 3, 3, 1))[0]
    if event == "start":
        return Instant(event, 0, rng.uniform(0, to_work_s) if rng.random() < 0.4 else to_work_s + rng.uniform(0, 2.5))
    most, delay_s = {"epoch": (5, 0.3), "line": (2, 0.004), "commit": (12, 0.004)}.get(event, (1, 0.004))
    # many of those at an epoch fall between the witness's word and the search's
    return Instant(event, rng.randint(1, most), rng.uniform(0, delay_s) if rng.random() < 0.7 else 0.0)


def drawn_at_work(rng: random.Random) -> Instant:
    """An instant of a search that works: up to a second after an epoch, or just after something was written."""
    event = rng.choices(("epoch", "line", "commit"), (3, 1, 1))[0]
    return Instant(event, rng.randint(1, 4), rng.uniform(0, 1.0 if event == "epoch" else 0.01))


class _Changes:
    """Waits for one change after the other."""

    def __init__(self, session: Session, event: str) -> None:
        self._session = session
        self._event = event
        self._last = self._now()

    def wait(self) -> bool:
        """Until the next one. False: the session ended, or none came for long."""
        until = time.monotonic() + PATIENCE_S
        while self._session.lives and time.monotonic() < until:
            now = self._now()
            if now != self._last:
                self._last = now
                if now:  # something came; that a file went is no event
                    return True
            time.sleep(0.001)
        return False

    def _now(self) -> object:
        place = self._session.place
        if self._event == "line":
            return _count(self._session.log, b"\n[")
        if self._event == "epoch":
            return _count(place.folder / "witness", b'"what": "epoch"')
        if self._event == "commit":
            try:
                told = place.database.with_name("study.db-wal").stat()
            except OSError:
                return ()
            return (told.st_size, told.st_mtime_ns)
        return tuple(sorted(path.name for path in place.study.glob(self._event.removeprefix("file "))))


def _count(file: Path, words: bytes) -> int:
    return file.read_bytes().count(words) if file.exists() else 0
