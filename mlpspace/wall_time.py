"""Where the time of a process goes, by the clock: each moment of it belongs to one kind.

A process has one such account, `PROCESS`, as it has one CPU time; code says what it is at with `spent`:

    with spent("training"):
        ...
        with spent("compiling"):  # counts as compiling, and not as training
            ...

A generator that is suspended within such a block goes on being counted; whoever takes over from it says so, with
`spent` or with `enter` and `leave`, until it hands back. It is the account of the thread that began it: what other
threads say is not counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

T = TypeVar("T")

# what a worker is at -> what that is, as a person reads it
WORKER = {
    "training": "steps of training",
    "validating": "the validation split, after each epoch",
    "measuring": "throughput and memory",
    "compiling": "torch.compile and CUDA graphs",
    "data": "reading, decoding and moving the dataset; images of a file that are not there yet",
    "building": "networks: making, counting, folding, freeing",
    "saving": "checkpoints",
    "reporting": "telling the driver, and its answer",
    "waiting": "for the driver's next trial, or at the end for the others",
    "starting": "the process, imports, the device",
    "paused": "while a neighbour measured",
    "lost": "in processes that hung or died, since they were last heard of",
}
WORK = ("training", "validating", "measuring")  # what a search is for

# what the driver is at
DRIVER = {
    "sampling": "choosing candidates",
    "ahead": "choosing them in a thread beside all else",
    "writing": "the ledger, Optuna's tables, checkpoints",
    "deciding": "all else that the search does",
    "engine": "Ray, or waiting for the workers",
    "opening": "imports, the study, Ray, how many trials share a GPU",
}


class WallTime:
    """An account whose kinds sum up to the time since it was begun."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, kind: str = "starting") -> None:
        self._clock = clock
        self.begin(kind)

    def begin(self, kind: str, *, ago: float = 0.0) -> None:
        """Anew, as of `ago` seconds before now."""
        self._thread = threading.get_ident()
        self._told: dict[str, float] = {}
        self._open = [kind]
        self._last = self._clock() - ago

    def turn_to(self, kind: str) -> None:
        """What is counted where no block is open."""
        self._charge()
        self._open[0] = kind

    @contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """Within it time is counted as `kind`, but for blocks within."""
        if threading.get_ident() != self._thread:
            yield
            return
        depth = len(self._open)
        self.enter(kind)
        try:
            yield
        finally:  # also of what was left open, as by a generator that is closed from outside
            self._charge()
            del self._open[depth:]

    def enter(self, kind: str) -> None:
        """The beginning of such a block; for those whose end is in another function."""
        self._charge()
        self._open.append(kind)

    def leave(self, kind: str | None = None) -> None:
        """The end of the block that was entered last.

        Args:
            kind: what it has been, if that was not known before.
        """
        if len(self._open) > 1:
            self._open[-1] = kind or self._open[-1]
            self._charge()
            self._open.pop()

    def tally(self) -> dict[str, float]:
        """Kind -> seconds up to now."""
        self._charge()
        return dict(self._told)

    def _charge(self) -> None:
        now = self._clock()
        kind = self._open[-1]
        self._told[kind] = self._told.get(kind, 0.0) + now - self._last
        self._last = now


PROCESS = WallTime()
spent = PROCESS.spent


def counted(what: T, kind: str, account: WallTime = PROCESS) -> T:
    """What stands for an object, and counts the time in its methods as one kind."""
    return cast(T, _Counted(what, kind, account))


class _Counted:
    def __init__(self, what: Any, kind: str, account: WallTime) -> None:
        self._what, self._kind, self._account = what, kind, account

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._what, name)
        if not callable(found):
            return found

        def within(*args: Any, **kwargs: Any) -> Any:
            with self._account.spent(self._kind):
                return found(*args, **kwargs)

        setattr(self, name, within)  # asked for once
        return within


class Tallies:
    """What the workers and the driver of a session say of their time, written down now and then.

    Args:
        write: keeps it: {"workers": {name: {kind: seconds}}, "driver": {kind: seconds}}.
        driver: gives the driver's own.
        every_s: between two writings, about; longer where one takes more than a hundredth of that.
    """

    def __init__(
        self,
        write: Callable[[Mapping[str, Mapping[str, Any]]], None],
        driver: Callable[[], Mapping[str, float]],
        *,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 5.0,
    ) -> None:
        self._write, self._driver, self._clock = write, driver, clock
        self._every_s = every_s
        self._due = clock() + every_s
        self._workers: dict[str, Mapping[str, float]] = {}
        self._idle: dict[str, float] = {}  # worker -> since when it has nothing to do, and says nothing
        self._heard: dict[str, float] = {}  # worker -> when it last said something
        self._gone: set[str] = set()

    def heard(self, worker: str, tally: Mapping[str, float]) -> None:
        """A worker's own account, up to now."""
        if worker in self._gone:  # on its way when it was ended
            return
        self._workers[worker] = tally
        self._heard[worker] = self._clock()
        self._idle.pop(worker, None)

    def idle(self, worker: str) -> None:
        """Its trial ended: until it is heard of again it waits."""
        if worker in self._workers and worker not in self._gone:
            self._idle.setdefault(worker, self._clock())

    def gone(self, worker: str) -> None:
        """Its process ended, or is being ended. What it was at since it was last heard of is lost."""
        if worker not in self._workers or worker in self._gone:
            return
        since, kind = self._heard[worker], "lost"
        if worker in self._idle:
            since, kind = self._idle.pop(worker), "waiting"
        self._workers[worker] = self._and(worker, kind, since)
        self._gone.add(worker)

    def look(self) -> None:
        """Write them down if that is due; to be called every second or so."""
        if self._clock() >= self._due:
            self.keep()

    def keep(self) -> None:
        """Write them down."""
        begun = self._clock()
        workers = {
            worker: self._and(worker, "waiting", self._idle[worker]) if worker in self._idle else tally
            for worker, tally in self._workers.items()
        }
        self._write({"workers": workers, "driver": self._driver()})
        now = self._clock()
        self._due = now + max(self._every_s, 100 * (now - begun))

    def _and(self, worker: str, kind: str, since: float) -> dict[str, float]:
        """Its account, with the time since then."""
        tally = self._workers[worker]
        return {**tally, kind: tally.get(kind, 0.0) + self._clock() - since}
