"""A server of forks: whose answers they are, and what becomes of one that gives none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until

from mlpspace.fork_server import ForkServer
from mlpspace.fresh_process import FreshProcessError, environment


@pytest.fixture
def obey() -> Iterator[Callable[..., str]]:
    server = ForkServer("forked", "obey")
    yield lambda told, timeout_s=20.0: server.ask(told, timeout_s=timeout_s)
    server.close()


def is_written(file: Path) -> bool:
    return file.exists() and file.read_text() != ""


def runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_each_question_is_answered_by_a_process_in_which_nothing_was_asked_before() -> None:
    server = ForkServer("forked", "times")
    answers = [server.ask(number, timeout_s=20) for number in range(4)]
    told, processes, parents, asked = zip(*answers, strict=True)
    assert told == (0, 1, 2, 3)
    assert asked == (1, 1, 1, 1)
    assert len({os.getpid(), *processes}) == 5
    assert len(set(parents)) == 1
    assert runs(parents[0])
    server.close()
    assert not runs(parents[0])
    assert server.ask(4, timeout_s=20)[0] == 4  # by another server


@pytest.mark.parametrize(("told", "why"), [("die", "died of SIGKILL"), ("fail", "ZeroDivisionError: in a fork")])
def test_one_that_does_not_answer_is_told_with_its_last_words_and_the_next_one_answers(
    obey: Callable[..., str], told: str, why: str
) -> None:
    for _ in range(2):
        with pytest.raises(FreshProcessError, match=why):
            obey(told)
        assert obey("speak") == "speak"


def test_what_a_library_prints_is_no_answer(obey: Callable[..., str]) -> None:
    assert obey("print") == "print"
    assert obey("speak") == "speak"


def test_one_that_takes_too_long_is_ended_and_its_answer_is_nobodys(obey: Callable[..., str], tmp_path: Path) -> None:
    obey("speak")
    with pytest.raises(FreshProcessError, match="no answer within"):
        obey(f"sleep 60 {tmp_path / 'pid'}", timeout_s=1.0)
    assert obey("speak") == "speak"
    until(lambda: not runs(int((tmp_path / "pid").read_text())))


def test_a_module_that_cannot_be_imported_is_told_at_once() -> None:
    with pytest.raises(FreshProcessError, match="No module named 'nowhere'"):
        ForkServer("nowhere", "answer").start()


def test_the_last_words_are_those_of_the_one_that_died(obey: Callable[..., str]) -> None:
    assert obey("warn") == "warn"
    with pytest.raises(FreshProcessError) as told:
        obey("die")
    assert str(told.value) == "it died of SIGKILL."


def test_an_owner_is_told_at_once_when_the_server_is_killed_and_no_child_of_it_is_left(tmp_path: Path) -> None:
    server = ForkServer("forked", "obey")
    pid = tmp_path / "pid"
    server.start()
    assert server._server is not None
    killer = threading.Thread(target=lambda: (until(lambda: is_written(pid)), server._server.kill()))
    killer.start()
    with pytest.raises(FreshProcessError, match="it died of SIGKILL"):
        server.ask(f"sleep 60 {pid}", timeout_s=50)
    killer.join()
    until(lambda: not runs(int(pid.read_text())))
    assert server.ask("speak", timeout_s=20) == "speak"
    server.close()


def test_where_no_process_can_be_made_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(FreshProcessError, match="Resource temporarily unavailable"):
        ForkServer("forked", "obey").start()


def test_with_whoever_asks_all_of_them_end_however_that_ends(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    asks = (
        f"from mlpspace.fork_server import ForkServer; ForkServer('forked', 'obey').ask('sleep 60 {pid}', timeout_s=60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", asks], env=environment())
    until(lambda: is_written(pid))
    child = int(pid.read_text())
    server = int(
        next(line for line in Path(f"/proc/{child}/status").read_text().splitlines() if "PPid" in line).split()[1]
    )
    assert runs(child)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    until(lambda: not runs(child) and not runs(server))
