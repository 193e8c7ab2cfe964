"""Ray's own processes are killed under a search: it ends with a word, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlpspace.engines import EXIT_INTERRUPTED, EXIT_LOST
from mlpspace.storage import holds_study
from mlpspace.study import Study

pytestmark = pytest.mark.ray

SPACE = Path(__file__).parents[1] / "spaces" / "smoke.yaml"
COMMAND = [sys.executable, "-m", "mlpspace", "search", str(SPACE), "--study", "run1", "--workers", "1", "--plain"]


def child(parent: int, name: str) -> int:
    """The process of that name that `parent` started."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                told, _, rest = (folder / "stat").read_text().partition(")")
            except OSError:
                continue
            if name in told and int(rest.split()[1]) == parent:
                return int(folder.name)
    raise AssertionError(f"no {name} of process {parent}")


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_search_ends_with_a_word_and_the_same_command_goes_on(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        search = subprocess.Popen([*COMMAND, "--trials", "60"], cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    until = time.monotonic() + 120
    while "[ 1/60]" not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        assert search.poll() is None, log.read_text()
        time.sleep(0.1)
    os.kill(child(search.pid, name), signal.SIGKILL)
    assert search.wait(50) == EXIT_LOST  # Ray itself would take a minute where the head is gone
    told = log.read_text()
    assert f"Ray's {name} ended" in told
    assert "the same command goes on" in told
    assert "Traceback" not in told
    before = {trial.number: trial.records for trial in Study(tmp_path / "run1").trials() if trial.state == "complete"}
    assert before
    done = subprocess.run(
        [*COMMAND, "--trials", str(len(before) + 1)], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    after = {trial.number: trial.records for trial in Study(tmp_path / "run1").trials()}
    assert {number: after[number] for number in before} == before


def test_a_signal_to_all_processes_of_a_search_interrupts_it_and_is_no_loss_of_ray(tmp_path: Path) -> None:
    """As `timeout` and batch systems send it: Ray's processes get it too, and are the first to end."""
    log = tmp_path / "log"
    with log.open("w") as file:
        search = subprocess.Popen(
            [*COMMAND, "--trials", "60"],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + 120
    while not holds_study(tmp_path / "run1") or not Study(tmp_path / "run1").trials():  # none is at a worker yet
        assert time.monotonic() < until, log.read_text()
        assert search.poll() is None, log.read_text()
        time.sleep(0.1)
    os.killpg(search.pid, signal.SIGTERM)
    assert search.wait(50) == EXIT_INTERRUPTED, log.read_text()
    assert "lost" in log.read_text()
    assert "want of memory" not in log.read_text()
