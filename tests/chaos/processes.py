"""The processes of one search, told from all others of the machine by a mark in their environment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "CHAOS_MARK"


@dataclass(frozen=True, slots=True)
class Process:
    """One that lives now, and is no zombie."""

    pid: int
    parent: int
    command: str

    @property
    def is_worker(self) -> bool:
        """Of Ray, and training; one that starts or waits for work is none yet."""
        return self.command.startswith(("ray::RayWorker", "ray::ResourceTrainable"))

    def kill(self) -> None:
        """kill -9, where it still lives."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def marked(mark: str) -> list[Process]:
    """All processes that were started with CHAOS_MARK=mark, or by one of them.

    Ray writes its workers' titles over what the kernel shows of their environment, so their open files count as well:
    the log of each lies in a folder that has the mark in its name.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            process = _process(folder)
            if process is not None and _has_mark(folder, mark, process.command):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def workers(mark: str) -> list[Process]:
    """Those of them that are Ray's workers and train."""
    return [process for process in marked(mark) if process.is_worker]


def until_gone(those: Sequence[Process], patience_s: float) -> tuple[float, list[Process]]:
    """How long they still lived, in seconds, and those that live after `patience_s`."""
    begun = time.monotonic()
    while True:
        left = [process for process in those if _process(Path(f"/proc/{process.pid}")) is not None]
        seconds = time.monotonic() - begun
        if not left or seconds > patience_s:
            return seconds, left
        time.sleep(0.1)


def _process(folder: Path) -> Process | None:
    try:
        # pid (name) state parent ...; the name may hold spaces and brackets
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return None if state in "ZX" else Process(int(folder.name), int(parent), words)


def _has_mark(folder: Path, mark: str, command: str) -> bool:
    try:
        if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes() or mark in command:
            return True
        return any(mark in os.readlink(file) for file in (folder / "fd").iterdir())
    except OSError:  # another user's, or gone meanwhile
        return False
