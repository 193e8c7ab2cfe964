"""Whose a process is: real processes, and a /proc of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpspace import processes

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")

WAIT = "import sys; file = open(sys.argv[1]) if sys.argv[1:] else None; print(flush=True); sys.stdin.read()"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    file = tmp_path / "device.turnstile"
    file.touch()
    return file


def waiting(*arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", WAIT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def child() -> Iterator[int]:
    process = waiting()
    yield process.pid
    process.communicate()


@pytest.fixture
def worker(shared: Path) -> Iterator[int]:
    process = waiting(str(shared))
    yield process.pid
    process.communicate()


def test_this_process_its_child_and_its_parent_are_ours(child: int, shared: Path) -> None:
    is_ours = processes.ours(shared)
    assert is_ours(os.getpid())
    assert is_ours(child)
    assert is_ours(os.getppid())


def test_a_process_has_a_file_open_or_not(child: int, worker: int, shared: Path) -> None:
    assert processes.has_open(worker, shared)
    assert not processes.has_open(child, shared)
    assert not processes.has_open(worker, shared.with_name("not there"))


def test_another_process_shares_a_file_once_it_has_it_open(shared: Path) -> None:
    with shared.open():  # this one is none
        assert not processes.others_share(shared)
        process = waiting(str(shared))
        assert processes.others_share(shared)
        process.communicate()
        assert not processes.others_share(shared)


def stranger(proc: Path, pid: int, parent: int, name: str = "python") -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """init 1, a shell 10 of which come this process and a neighbour 20; 30 comes from 20."""
    for pid, parent in ((1, 0), (10, 1), (os.getpid(), 10), (20, 10), (30, 20)):
        stranger(tmp_path / "proc", pid, parent)
    monkeypatch.setattr(processes, "PROC", tmp_path / "proc")
    return tmp_path / "proc"


def test_a_neighbour_is_somebody_elses_until_it_shares_the_file(proc: Path, shared: Path) -> None:
    is_ours = processes.ours(shared)
    assert is_ours(10)
    assert not is_ours(20)
    assert not is_ours(30)
    (proc / "30" / "fd" / "3").symlink_to(shared)
    (proc / "20" / "fd" / "3").symlink_to(shared.with_name("closed meanwhile"))
    assert is_ours(30)
    assert not is_ours(20)


def test_a_process_that_cannot_be_seen_is_somebody_elses(proc: Path, shared: Path) -> None:
    assert processes.lineage(4_000_000) == ()
    assert not processes.ours(shared)(4_000_000)


def test_a_name_with_brackets_and_blanks_does_not_hide_the_parent(proc: Path) -> None:
    stranger(proc, 40, 30, name="a (b) S 1")
    assert processes.lineage(40) == (40, 30, 20, 10, 1)
