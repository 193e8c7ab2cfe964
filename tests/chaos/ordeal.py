"""A search that is struck and started again until it is done, with all that has to hold on the way."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import books, claims, processes
from chaos.books import EMPTY, Book
from chaos.faults import DRIVER_FAULTS
from chaos.figures import Row
from chaos.instants import Instant
from chaos.processes import Process
from chaos.searches import Place, Session, trained


def new_place(space: Path, engine: Sequence[str], *, core: int | None = None) -> Place:
    """A folder of its own under the system's temporary folder: a short path, and a name that no other search has."""
    return Place(Path(tempfile.mkdtemp(prefix=f"chaos-{space.stem}-")), space, tuple(engine), core)


@contextmanager
def kept_if_it_fails(place: Place, told: str) -> Iterator[None]:
    """Deletes the folder of a search where all held; else says where it lies, and how to do the same again."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{told}, in {place.folder}: {error}") from error
    finally:
        for process in processes.marked(place.mark):
            process.kill()
    shutil.rmtree(place.folder, ignore_errors=True)  # what was killed may still write


@dataclass(slots=True)
class Ordeal:
    """One search from its first session to its last."""

    place: Place
    row: Row
    total: int
    last_rung: int
    workers_gone_within_s: float = 30  # of a dead driver or node
    all_gone_within_s: float = 120  # Ray's agents wait for a minute for an answer of what is dead
    book: Book = EMPTY
    sessions: list[Session] = field(default_factory=list)
    _orphans: list[Future[None]] = field(default_factory=list)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))
    _struck: list[tuple[set[int], Book]] = field(default_factory=list)  # pids, and what the ledger held then

    def start(self) -> Session:
        """The command, for the first time or once more."""
        session = self.place.start()
        self.sessions.append(session)
        return session

    def strike_driver(self, kind: str, instant: Instant, session: Session | None = None) -> bool:
        """Start it, strike its driver, look at what is left. False: it was done before the instant came."""
        session = session or self.start()
        if not instant.wait_for(session):
            self.came_to_its_end(session)
            return False
        strike, patience_s = DRIVER_FAULTS[kind]
        strike(session)
        session.wait(patience_s)
        self.watch(processes.marked(self.place.mark))  # the next session begins meanwhile, as a user's would
        self.look(session)
        self.cut_off((line for line in self.place.witnessed() if line["at"] >= session.begun), self.book)
        self.row.faults[kind] += 1
        return True

    def cut_off(self, witnessed: Iterable[Mapping[str, Any]], book: Book) -> None:
        """Those who trained these were struck just now, when the ledger was `book`; they may train on for a moment."""
        pids = {line["pid"] for line in witnessed}
        pids -= {pid for earlier, _ in self._struck for pid in earlier}
        self._struck.append((pids, book))

    @property
    def tails(self) -> int:
        """Epochs that faults cut off."""
        every = self.place.witnessed()
        return sum(
            claims.lost_epochs([line for line in every if line["pid"] in pids], book) for pids, book in self._struck
        )

    def watch(self, orphans: Sequence[Process]) -> None:
        """These have to go away by themselves, workers soon."""
        workers = [process for process in orphans if process.is_worker]
        self._orphans.append(self._pool.submit(self._see_gone, workers, self.workers_gone_within_s, True))
        self._orphans.append(self._pool.submit(self._see_gone, orphans, self.all_gone_within_s, False))

    def _see_gone(self, those: Sequence[Process], patience_s: float, note: bool) -> None:
        seconds, left = processes.until_gone(those, patience_s)
        assert not left, f"alive {seconds:.0f} s after their driver: {left}"
        if note and those:
            self.row.gone_s.append(seconds)

    def came_to_its_end(self, session: Session) -> None:
        """A session that nobody ended."""
        code = session.wait(60)
        assert code == 0, f"exit code {code}:\n{session.tail()}"
        self.look(session)

    def finish(self, seconds: float, session: Session | None = None) -> Book:
        """Start it for the last time, if it does not run, and leave it alone until it is done."""
        session = session or self.start()
        session.wait(seconds)
        self.came_to_its_end(session)
        self.check_end()
        return self.book

    def look(self, session: Session, *, live: bool = False) -> None:
        """What has to hold whenever something was struck."""
        lines = session.lines()  # first: what is printed was written before
        now = books.read_live(self.place.database) if live else books.read(self.place.database)
        try:
            claims.nothing_was_lost(self.book, now)
            claims.printed_is_in_the_ledger(lines, now, total=self.total, last_rung=self.last_rung)
        except AssertionError as error:
            raise AssertionError(f"in session {session.log.name}: {error}") from error
        self.book = now
        back_s = None if live else session.seconds_to_work()
        if back_s is not None and len(self.sessions) > 1:
            self.row.back_s.append(back_s)

    def check_end(self) -> None:
        """What has to hold when it is done, whatever it is compared with."""
        claims.is_whole(self.book, total=self.total, last_rung=self.last_rung)
        claims.sessions_count_once(self.book, self.sessions)
        for log in self.place.logs():
            lines = log.read_text().splitlines()
            claims.printed_is_in_the_ledger(lines, self.book, total=self.total, last_rung=self.last_rung)
        self.row.trials += len(self.book.trials)
        self.row.repeated += claims.trained_after_its_end(self.place, self.book)
        self.row.tails += self.tails
        for orphans in self._orphans:
            orphans.result()

    def compare(self, reference: Ordeal, *, undisturbed_epochs: int | None = None, but: Collection[int] = ()) -> None:
        """What has to hold beside an undisturbed search, or its first trials: then `undisturbed_epochs` are of all."""
        claims.same_as(self.book, reference.book, but=but)
        claims.trained_the_same(self.place, reference.place, self.book)
        epochs = len(trained(self.place.witnessed()))
        theirs = len(trained(reference.place.witnessed())) if undisturbed_epochs is None else undisturbed_epochs
        claims.within(epochs, theirs, self.tails)
        self.row.epochs += epochs
        self.row.undisturbed += theirs
