"""What a search of the smoke space wrote, checked from outside: sqlite3, JSON and Optuna, nothing of mlpspace.

Run from the folder the search ran in: python check_smoke.py SPACE STUDY FRONT_JSON
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import yaml

TABLES = ("trial", "architecture", "measurement", "refused", "trials", "trial_values", "trial_params")  # ours, Optuna's


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def counts(database: Path) -> dict[str, int]:
    return {table: rows(database, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


def check_trials(database: Path, asked: int, names: list[str]) -> None:
    """As many trials as asked, the fixed points first, all of them measured."""
    trials = rows(database, "SELECT number, state, reason, origin, label FROM trial ORDER BY number")
    assert [number for number, *_ in trials] == list(range(asked)), trials
    assert all(state == "complete" for _, state, *_ in trials), trials
    for (_, _, _, origin, label), name in zip(trials, names, strict=False):
        assert origin == "fixed point", trials
        assert name in label, f"{label} does not name {name}"
    alike = "trial, metric, rung, repeat"  # a repeat: its throughput measured again on purpose
    once = f"SELECT {alike}, count(*) FROM measurement GROUP BY {alike} HAVING count(*) > 1"
    assert rows(database, once) == [], "something was measured twice"


def values(database: Path) -> dict[int, dict[str, float]]:
    """Trial -> metric -> value, the counts too."""
    found: dict[int, dict[str, float]] = {}
    for number, params, macs in rows(
        database, "SELECT number, params, macs FROM trial JOIN architecture ON architecture = id"
    ):
        found[number] = {"params": params, "macs": macs}
    for number, metric, value in rows(
        database, "SELECT trial, metric, value FROM measurement WHERE repeat = 0 ORDER BY rung"
    ):
        found[number][metric] = value
    return found


def check_front(database: Path, told: dict[str, Any]) -> None:
    """The front that was told is the one that the raw numbers give by comparing every pair."""
    measured = values(database)
    loud = rows(database, "SELECT trial FROM measurement WHERE protocol LIKE '%disturbed' AND repeat = 0")
    if len(loud) < len(measured):  # what other programs disturbed compares with nothing else
        for (number,) in loud:
            del measured[number]

    def dominates(one: int, other: int) -> bool:
        a, b = measured[one], measured[other]
        at_least = a["accuracy"] >= b["accuracy"] and a["throughput"] >= b["throughput"]
        return at_least and (a["accuracy"] > b["accuracy"] or a["throughput"] > b["throughput"])

    expected = {one for one in measured if not any(dominates(other, one) for other in measured)}
    front = told["front"]
    assert expected, "the front is empty"
    assert {row["trial"] for row in front} == expected, (sorted(expected), front)
    for row in front:
        for metric in ("accuracy", "throughput", "params", "macs"):
            assert abs(row[metric] - measured[row["trial"]][metric]) <= 1e-6 * abs(row[metric]), (metric, row)
        assert row["throughput_low"] <= row["throughput"] <= row["throughput_high"], row
        assert 0 < row["accuracy_se"] < 2, row  # percentage points, at most 1.6 with 1,000 images
        assert row["architecture"], row
    assert told["hypervolume"] > 0, told


def check_optuna(database: Path, asked: int) -> None:
    """Optuna reads the same file, and knows as many trials with the same two values."""
    storage = f"sqlite:///{database}"
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) <= asked, complete
    assert all(len(trial.values) == len(study.directions) == 2 for trial in complete), complete
    assert any(trial.params for trial in complete), "no trial of Optuna's has a parameter"


def check_second_run(space: Path, database: Path) -> None:
    """The same command again adds nothing."""
    before = counts(database)
    done = subprocess.run(["mlpspace", "search", str(space)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert counts(database) == before, (before, counts(database))
    assert [path.name for path in Path("studies").iterdir()] == ["run1"], "another study was made"


def check_exit_codes(space: Path) -> None:
    """A broken space file ends with 2, and one line for each mistake."""
    text = space.read_text().replace("depth: 1..2", "depht: 1..2", 1).replace("[concat, sum]", "[concat, summ]")
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "broken.yaml")
        broken.write_text(text)
        done = subprocess.run(["mlpspace", "search", str(broken)], capture_output=True, text=True, timeout=60)
        lines = text.splitlines()
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        for word in ("depht", "summ"):
            line = next(number for number, line in enumerate(lines, 1) if word in line)
            assert f"broken.yaml:{line}:" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
    done = subprocess.run(["mlpspace", "pareto", "studies/nowhere"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr


def main() -> None:
    space, study, front = map(Path, sys.argv[1:])
    written = yaml.safe_load(space.read_text())
    asked, names = written["search"]["trials"], written["fixed_points"]["names"]
    database = study / "study.db"
    told = json.loads(front.read_text())

    check_trials(database, asked, names)
    check_front(database, told)
    check_optuna(database, asked)
    check_second_run(space, database)
    check_exit_codes(space)
    print(
        f"{asked} trials, a front of {len(told['front'])}, hypervolume {told['hypervolume']:.4g}: all as it should be"
    )


if __name__ == "__main__":
    main()
