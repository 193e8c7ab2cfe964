"""Whose a process is: ours, or somebody else's. Linux tells in /proc; elsewhere all others are somebody else's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")


def ours(shared: Path) -> Callable[[int], bool]:
    """Tells by its pid whether a process is one of ours.

    Ours are this process, those that it comes from or that come from it, and those that have `shared` open: the file
    by which our workers keep a device quiet (`quiet.QuietDevice`) is open in each of them, whoever started it.
    """

    def is_ours(pid: int) -> bool:
        return os.getpid() in lineage(pid) or pid in lineage(os.getpid()) or has_open(pid, shared)

    return is_ours


def others_share(file: Path) -> bool:
    """Whether another process has a file open."""
    try:
        pids = [int(each.name) for each in PROC.iterdir() if each.name.isdecimal()]
    except OSError:
        return False
    return any(has_open(pid, file) for pid in pids if pid != os.getpid())


def lineage(pid: int) -> tuple[int, ...]:
    """A process, its parent, and so on; without those that cannot be seen."""
    found: list[int] = []
    while pid > 0:
        try:
            told = (PROC / str(pid) / "stat").read_text()
        except OSError:  # it has ended, or is none of this container's
            break
        found.append(pid)
        pid = int(told.rpartition(")")[2].split()[1])  # (proc_pid_stat(5): the name may hold blanks and brackets)
    return tuple(found)


def has_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open; False for the process of another user, which does not tell."""
    try:
        wanted = file.stat()
        handles = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False
    for handle in handles:
        try:
            found = handle.stat()  # of what it points to
        except OSError:  # closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
