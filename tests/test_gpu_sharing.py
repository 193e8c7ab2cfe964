"""How many trainings share a GPU, by what so many of them trained together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("speeds", "count"),
    [
        ({1: 100.0, 2: 160.0, 4: 170.0}, 2),  # a sixteenth more is not worth twice the memory
        ({1: 100.0, 2: 105.0, 4: 108.0}, 1),
        ({1: 100.0, 2: 105.0, 4: 140.0}, 4),  # two do not pay, four do
        ({1: 100.0, 2: 190.0, 4: 380.0}, 4),
        ({1: 100.0, 2: 60.0, 4: 20.0}, 1),
        ({1: 100.0}, 1),
    ],
)
def test_more_at_once_only_where_it_is_worth_their_memory(
    speeds: dict[int, float], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_sharing

    assert gpu_sharing.at_once(speeds) == count
    assert gpu_sharing.at_once(dict(reversed(speeds.items()))) == count


@pytest.mark.slow
def test_a_group_trains_at_the_same_time_and_says_what_to_type() -> None:
    """On the CPU, where it is no advice: the processes, their start and the table are the same."""
    asked = ["--device", "cpu", "--width", "8", "--batch", "16", "--at-once", "1", "--at-once", "2"]
    command = [sys.executable, str(BENCHMARKS / "gpu_sharing.py"), *asked, "--seconds", "0.2", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("1", "2")] == ["1", "2"]
    assert "for such networks: --gpus-per-worker" in done.stdout
