"""A device kept quiet while it is measured, among processes that share it.

Files of a folder on the node, locked with flock(2), which a dead process cannot keep:

    room        held shared by each process at work, alone by the one that measures
    turnstile   passed on the way in by those at work, held by the one that measures while it waits and measures
    short       held by the one that lacks memory to measure: those who come to the turnstile give back what they can

Without the turnstile trainers that come back at once would keep the room shared for ever.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from mlpspace.device import cores, key
from mlpspace.errors import UserError
from mlpspace.wall_time import spent

PROC_STAT = Path("/proc/stat")
GIVE_BACK_S = 0.5  # from the word that memory is short until those at work are kept out


def node_folder() -> Path:
    """The folder that all of this user's processes on this node share, and no one else.

    Raises:
        UserError: somebody else made it, or put something else in its place.
    """
    folder = Path(tempfile.gettempdir()) / f"mlpspace-{os.getuid()}"
    with suppress(FileExistsError):  # no folder: told below
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{folder} is no folder of yours. Remove it, or name another place: export TMPDIR=FOLDER")
    return folder


class QuietDevice:
    """The right to use a device (`device.key`), among all processes of a node.

    For one thread of one process. It does not survive a fork: a child would share its parent's locks.
    """

    def __init__(self, device_key: str, folder: Path | None = None) -> None:
        folder = folder or node_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._turnstile = open(folder / f"{device_key}.turnstile", "w")  # noqa: SIM115 -- held as long as the object
        self._room = open(folder / f"{device_key}.room", "w")  # noqa: SIM115
        self._short = open(folder / f"{device_key}.short", "w")  # noqa: SIM115
        self.file = folder / f"{device_key}.room"  # open in each process that shares the device with care

    @contextmanager
    def busy(self) -> Iterator[float]:
        """Held while the device works, by many at once; gives the seconds it waited for a measurement to end.

        Wait for the device's last kernel before leaving, or it still runs while another measures.
        """
        asked = time.perf_counter()
        try:
            with spent("paused"):
                if self._is_short:
                    _give_back()
                fcntl.flock(self._turnstile, fcntl.LOCK_SH)
                fcntl.flock(self._room, fcntl.LOCK_SH)
                fcntl.flock(self._turnstile, fcntl.LOCK_UN)
            yield time.perf_counter() - asked
        finally:  # both, as an interrupt may come between any two; to unlock what is not locked does no harm
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)
            fcntl.flock(self._room, fcntl.LOCK_UN)

    @contextmanager
    def alone(self) -> Iterator[float]:
        """Held while the device is measured, by one at a time, once all who are busy have left.

        Gives the seconds waited. Not within `busy`: nobody would ever be alone.
        """
        asked = time.perf_counter()
        try:
            with spent("paused"):
                fcntl.flock(self._turnstile, fcntl.LOCK_EX)
                fcntl.flock(self._room, fcntl.LOCK_EX)
            yield time.perf_counter() - asked
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    @contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """Held around `alone` where there was not enough memory on a GPU: those who pause for it give back all that
        their allocator keeps for later. What they hold stays theirs: weights, optimizers, images, CUDA graphs.
        """
        with open(self._short.name, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with self.busy():
                pass  # those who wait for a measurement that is going on were not told yet
            time.sleep(GIVE_BACK_S)
            yield

    @property
    def _is_short(self) -> bool:
        try:
            fcntl.flock(self._short, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._short, fcntl.LOCK_UN)
        return False


def _give_back() -> None:
    """What this process keeps of all GPUs and does not use."""
    if torch.cuda.is_initialized():
        with suppress(torch.AcceleratorError):  # a device is lost, which is told elsewhere
            torch.cuda.empty_cache()


class QuietBeside(QuietDevice):
    """The same right for a worker that trains on one device and measures on another, or beside such a measurement.

    Its training is busy on both: what a GPU computes is given to it by the CPU that another process may be timing.
    """

    def __init__(self, measured_key: str, own_key: str, folder: Path | None = None) -> None:
        super().__init__(measured_key, folder)
        self._own = QuietDevice(own_key, folder)

    @contextmanager
    def busy(self) -> Iterator[float]:
        """See `QuietDevice.busy`; the own device always comes first, so that no two wait for each other."""
        with self._own.busy() as first, super().busy() as second:
            yield first + second


def quiet_on(device: torch.device, measured_on: torch.device | None = None) -> QuietDevice:
    """The right for what trains on `device` and measures on another, if there is one."""
    if measured_on is None or key(measured_on) == key(device):
        return QuietDevice(key(device))
    return QuietBeside(key(measured_on), key(device))


class OtherPrograms:
    """What all other processes take of the cores that this one needs. Linux tells; elsewhere nothing is seen.

    In a container that may use fewer cores than it sees, what others do on those it can spare disturbs nothing.
    """

    def __init__(self) -> None:
        self._last = self._now()
        self._spare = len(os.sched_getaffinity(0)) - cores() if hasattr(os, "sched_getaffinity") else 0

    def cores_used(self) -> float:
        """How many of those cores they kept busy since the last call, on average; right to some 0.1 over 0.2 s."""
        before, self._last = self._last, self._now()
        busy, own, wall = (now - then for now, then in zip(self._last, before, strict=True))
        return max(0.0, (busy - own) / wall - self._spare)

    def _now(self) -> tuple[float, float, float]:
        """Seconds that these cores have been busy, that this process took, and that passed."""
        if not PROC_STAT.exists():
            return 0.0, 0.0, time.perf_counter()
        ours = os.sched_getaffinity(0)
        rows = [line.split() for line in PROC_STAT.read_text().splitlines()]
        # user, nice, system, idle, iowait, irq, softirq, steal: all but the two that are idle (proc_stat(5))
        busy = [sum(map(int, row[1:4] + row[6:9])) for row in rows if row[0] in {f"cpu{number}" for number in ours}]
        return sum(busy) / os.sysconf("SC_CLK_TCK"), time.process_time(), time.perf_counter()
