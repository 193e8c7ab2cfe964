"""Is Ray still there? Where its own processes die, it ends the driver too, at once or in a minute, without a word."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import ray._private.worker

from mlpspace.engines import EXIT_INTERRUPTED, EXIT_LOST
from mlpspace.engines.beside import beside

LOOK_S = 0.5
CALL_S = 5.0  # between two calls at a cluster's head
_NEEDED = {"gcs_server": "the head of its cluster", "raylet": "the head of its workers"}


def watched(
    address: str | None, note: Callable[[str], None], interrupted: Callable[[], bool] = lambda: False
) -> AbstractContextManager[None]:
    """Within it the end of Ray is told.

    Args:
        address: of a running cluster, whose head may come back; None: of the cluster that this process started, which
            ends with the first of its own processes, and this process with it.
        interrupted: whether somebody ends the search, by a signal that Ray's processes may have got as well.
    """
    return beside(partial(_own, note, interrupted) if address is None else partial(_anothers, note))


def _own(note: Callable[[str], None], interrupted: Callable[[], bool], ended: threading.Event) -> None:
    node: Any = getattr(ray._private.worker, "_global_node", None)
    while not ended.wait(LOOK_S):
        dead = _dead(node)
        if dead is None:
            continue
        ended.wait(LOOK_S)  # this process may be about to hear of the same signal
        why = "by the same signal" if interrupted() else "killed or for want of memory"
        with suppress(RuntimeError, OSError):
            note(
                f"Ray's {dead} ended, {why}: it is {_NEEDED[dead]}, and the search ends with"
                " it.\n  Nothing that was measured is lost: the same command goes on."
            )
            sys.stdout.flush()
        with suppress(Exception):  # whatever Ray makes of it, this process ends now
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        os._exit(EXIT_INTERRUPTED if interrupted() else EXIT_LOST)


def _dead(node: Any) -> str | None:
    started: dict[str, list[Any]] = getattr(node, "all_processes", None) or {}
    for name in _NEEDED:
        if any(info.process.poll() is not None for info in started.get(name, ())):
            return name
    return None


def _anothers(note: Callable[[str], None], ended: threading.Event) -> None:
    host, _, port = ray._private.worker.global_worker.gcs_client.address.rpartition(":")
    told = False
    while not ended.wait(CALL_S):
        try:
            socket.create_connection((host, int(port)), timeout=CALL_S).close()
            told = False
        except OSError as error:
            if not told and not ended.is_set():
                note(
                    f"The head of the Ray cluster, {host}:{port}, does not answer ({error.strerror or error}). Ray ends"
                    " the search if it\n  stays away for a minute. Nothing that was measured is lost: the same command"
                    " goes on."
                )
            told = True
