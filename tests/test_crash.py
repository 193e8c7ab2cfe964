"""A trial that takes the process down with it that trains it, and with it the search."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlpspace.engines import crash
from mlpspace.study import Study

# the command line, with stand-ins for the workers: the one of trial 2 crashes as a library would
SEARCH = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import stubs
from mlpspace.engines import inline

class Worker:
    def __init__(self, *_, **__): pass
    def events(self, assignment, bounds):
        if assignment.{key} == {value}:
            os.kill(os.getpid(), signal.{signal})
        yield from stubs.evaluate(assignment, bounds)

inline.Worker = Worker
from mlpspace.cli import main
main()
"""

SPACE = (Path(__file__).parents[1] / "spaces" / "smoke.yaml").read_text()


def search(folder: Path, *, key: str = "trial", value: int = 2, by: str = "SIGSEGV") -> tuple[int, str]:
    text = SEARCH.format(tests=str(Path(__file__).parent), key=key, value=value, signal=by)
    words = ["search", "space.yaml", "--study", "run1", "--engine", "inline", "--plain", "--trials", "5"]
    words += ["--sampler", "random"]
    done = subprocess.run([sys.executable, "-c", text, *words], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_trial_that_crashes_three_times_is_infeasible_and_the_others_are_searched(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    for session in range(3):
        code, told = search(tmp_path)
        assert code == -signal.SIGSEGV
        if session:
            assert "trial 2 ended the last session: the process crashed: Segmentation fault at File" in told
            assert "it is trained again" in told
    code, told = search(tmp_path)
    assert code == 0, told
    assert "after 3 times it is infeasible" in told
    trials = Study(tmp_path / "run1").trials()
    assert [trial.state for trial in trials] == ["complete"] * 2 + ["infeasible"] + ["complete"] * 2
    assert trials[2].reason == "worker died"
    assert trials[2].detail is not None
    assert "Segmentation fault" in trials[2].detail
    assert not (tmp_path / "run1" / "at-work").exists()


@pytest.mark.slow
def test_a_training_anew_that_crashes_is_not_begun_again(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("  epochs: 2\n", "  epochs: 2\n  repeats_on_front: 1\n"))
    crashes = 0
    while search(tmp_path, key="repeat", value=1)[0] == -signal.SIGSEGV:  # once for each on the front
        crashes += 1
        assert crashes <= 5
    failed = [trial.repeat_failed for trial in Study(tmp_path / "run1").trials()]
    assert failed.count("worker died") == crashes > 0
    assert {trial.state for trial in Study(tmp_path / "run1").trials()} == {"complete"}


def test_a_kill_is_nobodys_doing(tmp_path: Path) -> None:
    file = tmp_path / "at-work"
    box = crash.BlackBox(file)
    with box:
        box.note(1)
        box.note(17)
        left = file.read_bytes()
    assert not file.exists()
    file.write_bytes(left)
    assert crash.take(file) is None
    assert not file.exists()
    assert crash.take(file) is None


def test_what_the_kernel_ended_for_want_of_memory_is_told_by_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(crash, "_COUNTS", counts)
    file = tmp_path / "at-work"
    counts.write_text("pgmajfault 9\noom_kill 3\n")
    box = crash.BlackBox(file)
    with box:
        box.note(17)
        left = file.read_bytes()
    file.write_bytes(left)
    counts.write_text("pgmajfault 9\noom_kill 4\n")
    assert crash.take(file) == (17, "the kernel ran out of memory and ended the process")


def test_counts_of_another_start_of_the_machine_say_nothing(tmp_path: Path) -> None:
    file = tmp_path / "at-work"
    file.write_text(json.dumps({"trial": 17, "boot": "another", "out_of_memory": -1}) + "\n")
    assert crash.take(file) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "17", '{"trial": "17"}\nFatal', '{"trial": true}\nFatal', "[" * 90_000, '{"trial": 1}' * 9000, "\0"],
)
def test_a_strangers_file_is_cleared_away(tmp_path: Path, text: str) -> None:
    file = tmp_path / "at-work"
    file.write_text(text)
    assert crash.take(file) is None
    assert not os.path.lexists(file)
