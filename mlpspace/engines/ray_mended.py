"""What Ray 2.60 does in the driver that harms a search, put right. A Ray that does it no more is left alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray._private.worker
from ray.tune.execution.tune_controller import TuneController


def mend() -> None:
    """For the life of this process; twice does no harm."""
    _let_workers_start()
    _let_go_of_ended_trials()
    _say_no_word_of_raylets()


@contextmanager
def own_signals() -> Iterator[None]:
    """`ray.init` takes SIGTERM for itself, and answers it with a traceback; here the driver's own answer stays.

    And what it starts ignores SIGHUP: where the terminal is closed, the driver must still have somebody to end with.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    closed = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, closed)


def _let_workers_start() -> None:
    """With `reuse_actors` Tune gives a trial whose worker is starting to any worker that is free, and ends the one that
    starts. Where a trial takes less time than a worker's start, a worker that died would never be replaced: the search
    would go on with one worker less for good.
    """
    reuse: Any = getattr(TuneController, "_maybe_reuse_cached_actor", None)
    if reuse is None or hasattr(reuse, "mended"):
        return

    def unless_its_own_starts(self: Any, trial: Any) -> bool:
        actor = self._trial_to_actor.get(trial)
        if actor is not None and self._actor_manager.is_actor_started(actor):
            return (
                False  # it has its share of a node, and will be there in a moment; what waits for one may be replaced
            )
        return bool(reuse(self, trial))

    unless_its_own_starts.mended = True  # type: ignore[attr-defined]  # by it a second call knows
    TuneController._maybe_reuse_cached_actor = unless_its_own_starts


def _let_go_of_ended_trials() -> None:
    """Tune holds every trial to the end of the search, some 50 kB each, and looks through all of them at each step."""
    add: Any = getattr(TuneController, "add_trial", None)
    if add is None or hasattr(add, "mended"):
        return

    def instead_of_those_that_ended(self: Any, trial: Any) -> None:
        add(self, trial)
        ended = [each for each in self._trials if each.is_finished() and each not in self._trial_to_actor]
        callbacks = getattr(getattr(self, "_callbacks", None), "_callbacks", ())
        for holder in (self, *callbacks):
            for held in vars(holder).values():
                if isinstance(held, (list, set, dict)):
                    _take_out(ended, held)

    instead_of_those_that_ended.mended = True  # type: ignore[attr-defined]  # by it a second call knows
    TuneController.add_trial = instead_of_those_that_ended


def _take_out(ended: Sequence[Any], held: list[Any] | set[Any] | dict[Any, Any]) -> None:
    for trial in ended:
        if isinstance(held, dict):
            held.pop(trial, None)
        elif trial in held:
            held.remove(trial)


def _say_no_word_of_raylets() -> None:
    """Ray writes pages to stdout for each worker that dies, also with `log_to_driver=False`; the search has said it."""
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
