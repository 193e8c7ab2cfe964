"""The inline engine: everything in this process, one trial after the other. For tests, debugging, and no Ray."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mlpspace.deploy_device import measuring_device
from mlpspace.device import cores, resolve
from mlpspace.engines import EXIT_LOST
from mlpspace.engines.beside import beside
from mlpspace.engines.crash import BlackBox
from mlpspace.engines.worker import Worker
from mlpspace.measurement import Assignment, Evaluate, Event
from mlpspace.search import Search
from mlpspace.wall_time import DRIVER, PROCESS, WORKER, Tallies, spent

LOOK_S = 1.0  # between two looks at whether the trial hangs
STUCK_S = 10.0  # that Python may take to answer a signal, before the trial hangs in a library


class _Hung(BaseException):
    """The trial at work had its time; not an error of the network, which its worker would tell as one."""


def run(
    search: Search,
    *,
    device: str = "auto",
    interrupted: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda text: None,
    evaluate: Evaluate | None = None,
    black_box: Path | None = None,
    tallies: Tallies | None = None,
    measures_on: str | None = None,
) -> None:
    """Run a search until it is done or `interrupted` says so; then the trial at work stays unfinished in the ledger.

    A trial that hangs past its time limit is ended where Python gets the word. Where a library never returns there is
    no other way than to end the process: the trial is noted as infeasible, and the same command goes on.

    Args:
        evaluate: stands in for a worker, in tests.
        black_box: a file for who is at work, should the process crash; see `crash`.
        tallies: hear where the time went.
        measures_on: a name of the device that networks are going to run on; None: the one that trains.

    Raises:
        UserError: a device that was asked for is not here; later, a broken dataset and the like.
    """
    measuring_device(measures_on, resolve(device))  # before anything is trained: is there one?
    events_of = evaluate or Worker(device, cores(), measures_on=measures_on).events
    PROCESS.turn_to("reporting")
    with _watch(search, note), nullcontext() if black_box is None else BlackBox(black_box) as box:
        while not interrupted() and (assignment := _next(search)) is not None:
            number = assignment.trial
            if box is not None:
                box.note(number)
            try:
                with closing(events_of(assignment, search.measured_bounds(number))) as events:
                    if all(_report(search, number, event, tallies) and not interrupted() for event in events):
                        with spent("deciding"):
                            search.completed(number)
            except _Hung:
                if number in search.running:
                    search.hung(number)
            if box is not None:
                box.note(None)


def _next(search: Search) -> Assignment | None:
    with spent("deciding"):
        return search.next_assignment()


def _report(search: Search, number: int, event: Event, tallies: Tallies | None) -> bool:
    with spent("deciding"):
        goes_on = search.report(number, event)
        if tallies is not None:
            tallies.heard(f"pid {os.getpid()} on {socket.gethostname()}", _of_the_worker())
            tallies.look()
    return goes_on


def _of_the_worker() -> dict[str, float]:
    """Its part of the process's account: while the search takes its time, the worker waits."""
    told = PROCESS.tally()
    waited = sum(told.get(kind, 0.0) for kind in DRIVER if kind != "opening")
    return {kind: told[kind] for kind in WORKER if kind in told} | {"waiting": waited}


@contextmanager
def _watch(search: Search, note: Callable[[str], None]) -> Iterator[None]:
    """Looks at the trial at work from a thread, and wakes the main thread by a signal when its time is up."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if search.overdue():  # else it came to its end just now
            raise _Hung

    def look(ended: threading.Event) -> None:
        while not ended.wait(LOOK_S):
            overdue = search.overdue()
            if not overdue:
                continue
            signal.pthread_kill(main, signal.SIGUSR1)
            until = time.monotonic() + STUCK_S
            while search.overdue() == overdue and time.monotonic() < until:
                if ended.wait(LOOK_S):
                    return
            if search.overdue() == overdue:
                search.hung(overdue[0])
                note(
                    f"trial {overdue[0]} hangs in a library that does not let go of this process, which ends now."
                    " Nothing is lost:\n  the trial is noted as infeasible, and the same command goes on without it."
                )
                sys.stdout.flush()
                os._exit(EXIT_LOST)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with beside(look):
            yield
    finally:
        signal.signal(signal.SIGUSR1, before)
