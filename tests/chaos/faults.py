"""What is done to a driver or a worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from chaos.searches import Session


def _driver(number: signal.Signals) -> Callable[[Session], None]:
    return lambda session: session.process.send_signal(number)


def _group(number: signal.Signals) -> Callable[[Session], None]:
    """To all of the process group, as a terminal does: the processes that Ray started are in it too."""
    return lambda session: os.killpg(session.process.pid, number)


def _twice(session: Session) -> None:
    os.killpg(session.process.pid, signal.SIGINT)
    time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.killpg(session.process.pid, signal.SIGINT)


def _asleep(session: Session) -> None:
    """Stopped for a second, as by a laptop's lid; killed soon after it woke."""
    session.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    session.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    session.process.kill()


# with the seconds until the driver has to be gone
DRIVER_FAULTS: dict[str, tuple[Callable[[Session], None], float]] = {
    "kill -9": (_driver(signal.SIGKILL), 5),
    "kill -9 of the group": (_group(signal.SIGKILL), 5),
    "kill -9 after a sleep": (_asleep, 5),
    "kill": (_driver(signal.SIGTERM), 40),
    "terminal closed": (_group(signal.SIGHUP), 40),
    "Ctrl-C": (_group(signal.SIGINT), 40),
    "Ctrl-C twice": (_twice, 40),
}

WORKER_FAULTS = {"kill -9": signal.SIGKILL, "segfault": signal.SIGSEGV, "kill": signal.SIGTERM}
