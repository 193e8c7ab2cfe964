"""The line that a search prints for each trial."""

from __future__ import annotations

from typing import Any

import pytest

from mlpspace.live import PlainView, result_line
from mlpspace.results import Result

VALUES = {"throughput": 7481.0, "accuracy": 57.1}


def line(**changes: Any) -> str:
    told: dict[str, Any] = {"values": VALUES, "costs": None, "reason": None, "detail": None, "seconds": 30.0, **changes}
    result = Result(5, "patch 4, 4x48 dense", None, **told)
    front = [result] if result.costs else []
    return result_line(result, 24, front, ["accuracy", "throughput"], 3)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"costs": (-57.1, -3.9), "rung": 2, "epochs": 18}, "5  +       57.10 %  7,481 images/s    30 s  patch 4"),
        ({"state": "paused", "rung": 1, "epochs": 6}, "57.10 %  7,481 images/s    30 s  paused at 6 epochs  patch 4"),
        ({"state": "paused", "rung": 0, "epochs": 1}, "paused at 1 epoch  patch 4"),
        (
            {"state": "stopped", "rung": 0, "epochs": 2, "reason": "cannot reach the front", "detail": "at 5 % ..."},
            "30 s  stopped at 2 epochs, cannot reach the front  patch 4",
        ),
        (
            {"state": "stopped", "reason": "set aside before training", "values": {"throughput": 7481.0}},
            "-  7,481 images/s    30 s  set aside before training  patch 4",
        ),
        (
            {"state": "infeasible", "reason": "out of memory", "detail": "tried 9 GB\nand more", "values": {}},
            "infeasible, out of memory: tried 9 GB  patch 4",
        ),
        ({"costs": (-57.1, -3.9), "repeat": 2}, "30 s  mean of 3 trainings  patch 4"),
        ({"costs": (-57.1, -3.9), "repeat": 1, "reason": "time limit"}, "training anew failed, time limit  patch 4"),
    ],
)
def test_a_line_says_how_a_trial_ended(changes: dict[str, Any], text: str) -> None:
    found = line(**changes)
    assert found.startswith("[ 3/24] trial 5")
    assert text in found
    assert "\n" not in found


def test_a_clock_that_is_calibrated_is_no_long_silence() -> None:
    said: list[str] = []
    view = PlainView(said.append)
    for phase in ("data", "calibrating", "training"):
        view.begun(phase)
    (line,) = said
    assert "calibrating the clock: once a machine" in line
