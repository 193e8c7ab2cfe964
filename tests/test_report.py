"""What people and programs are shown, of hand-made fronts."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import BOTH, COUNTS, PARAMS, a_trial, accuracy, an_assignment, measured, throughput

from mlpspace.architecture import Architecture, from_dict
from mlpspace.front import Front, front
from mlpspace.measurement import Progress
from mlpspace.report import (
    count,
    duration,
    front_csv,
    front_json,
    front_table,
    trial_json,
    trial_text,
)
from mlpspace.status import status, status_text
from mlpspace.study import Record, Study
from mlpspace.trial import Trial


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (1234, "1.23k"),
        (45_600_000, "45.6M"),
        (9_996_000, "10.0M"),
        (18_528_264, "18.5M"),
        (999_600_000, "1.00G"),
        (120_989_911_040, "121G"),
    ],
)
def test_counts_have_three_digits_and_a_unit(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (307, "5 min 07 s"), (11_520, "3 h 12 min")],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def memory(value: float) -> Record:
    told = throughput(value)
    return Record(**{**{name: getattr(told, name) for name in Record.__dataclass_fields__}, "metric": "peak_memory_mb"})


@pytest.fixture
def found() -> Front:
    label = "mixer_s16 (patch 16 -> 4)"
    trials = [
        a_trial(accuracy(95.25), throughput(512.0), memory(80.5), params=1_234_567, macs=45_600_000, width=96),
        a_trial(accuracy(90.0), throughput(12_345.0), memory(9.0), label=label, origin="fixed point"),
        a_trial(accuracy(50.0), throughput(400.0), memory(9.0), label="resmlp_s12", origin="fixed point"),
        a_trial(accuracy(40.0), throughput(300.0), memory(9.0)),
        a_trial(state="infeasible", reason="out of memory"),
    ]
    return front(trials, BOTH)


def test_the_table_says_everything_once(found: Front) -> None:
    text = front_table(found, width=200, validation_images=1000)
    lines = text.splitlines()
    assert lines[0] == "Pareto front: 2 of 4 networks"
    heading, best, fixed = lines[2:5]
    for words in ("trial", "accuracy %", "± se", "images/s", "95 % interval", "params", "MACs", "memory MB", "network"):
        assert words in heading
    assert best.split()[1:8] == ["95.25", "1.00", "512", "507..517", "1.23M", "45.6M", "80.5"]
    assert best.endswith("patch 4, 2x96 dense r0.5 mlp r4 layer")
    assert fixed.startswith("*")
    assert "12,345" in fixed
    assert "mixer_s16 (patch 16 -> 4): patch 4, " in fixed
    assert lines[6] == "Fixed points off the front"
    assert "resmlp_s12: patch 4" in lines[9]
    assert "* a published network, measured like any trial" in lines
    assert "     1  infeasible: out of memory" in lines
    assert f"Hypervolume {found.hypervolume:.4g} (to the corner accuracy 10 %, throughput 100 images/s, log10)" in lines
    assert "Accuracy: rung 0, 6 epochs of digits at 32 px, 1,000 validation images; ± one standard error" in lines
    assert "Throughput: Xeon, 2 cores, 2 threads, batch 64, fp32, deployed form" in lines


def test_numbers_stand_under_their_headings(found: Front) -> None:
    lines = front_table(found, width=200).splitlines()
    for heading, row in ((lines[2], lines[3]), (lines[2], lines[4]), (lines[8], lines[9])):
        for words in ("accuracy %", "images/s", "params", "MACs", "memory MB"):
            end = heading.index(words) + len(words)
            assert row[end - 1] != " "
            assert row[end] == " "
        assert row[heading.index("network") - 1] == " "
        assert row[heading.index("network")] != " "


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_of_the_table_is_wider_than_the_terminal_where_the_numbers_fit(found: Front, width: int) -> None:
    numbers = 80  # what the columns of numbers take at most
    lines = [line for line in front_table(found, width=width).splitlines() if "Accuracy" not in line]
    assert max(len(line) for line in lines if "Hypervolume" not in line) <= max(width, numbers)
    assert "patch 4, 2x96" in " ".join(" ".join(lines).split())


def test_a_column_nobody_has_a_number_for_is_left_away() -> None:
    found = front([a_trial(accuracy(90.0))], (BOTH[0], PARAMS))
    text = front_table(found)
    assert "images/s" not in text
    assert "memory" not in text


def test_an_empty_front_says_why() -> None:
    text = front_table(front([a_trial(state="infeasible", reason="not a number")], BOTH))
    assert text.startswith("Nothing to show yet")
    assert "1  infeasible: not a number" in text


def test_the_json_has_the_promised_keys_and_values(found: Front) -> None:
    told = json.loads(json.dumps(front_json(found)))
    assert told.keys() >= {"front", "hypervolume", "rung", "left_out"}
    best, fixed = told["front"]
    network = found.points[0].trial
    assert best == {
        "trial": network.number,
        "id": network.architecture_id,
        "accuracy": 95.25,
        "accuracy_se": 1.0,
        "accuracy_spread": None,
        "trainings": 1,
        "probability": 1.0,
        "throughput": 512.0,
        "throughput_low": 507.0,
        "throughput_high": 517.0,
        "params": 1_234_567,
        "macs": 45_600_000,
        "peak_memory_mb": 80.5,
        "architecture": "patch 4, 2x96 dense r0.5 mlp r4 layer",
        "fixed_point": None,
        "state": "complete",
        "rung": 0,
        "epochs": 6,
        "disturbed": False,
    }
    assert fixed["fixed_point"] == "mixer_s16 (patch 16 -> 4)"
    assert told["left_out"] == {"infeasible: out of memory": 1}
    assert (told["rung"], told["epochs"], told["hypervolume"]) == (0, 6, found.hypervolume)
    assert told["partial"] is False
    assert told["standing"] == [{"rung": 0, "epochs": 6, "reached": 4, "paused": 0, "stopped": 0, "running": 0}]
    assert [each["fixed_point"] for each in told["fixed_points_off_front"]] == ["resmlp_s12"]


def test_the_csv_holds_the_same_rows(found: Front) -> None:
    rows = list(csv.DictReader(io.StringIO(front_csv(found))))
    told = front_json(found)["front"]
    assert [set(row) for row in rows] == [set(each) for each in told]
    assert [float(row["accuracy"]) for row in rows] == [95.25, 90.0]
    assert [row["architecture"] for row in rows] == [each["architecture"] for each in told]
    assert [row["fixed_point"] for row in rows] == ["", "mixer_s16 (patch 16 -> 4)"]


def test_what_was_not_measured_is_null(found: Front) -> None:
    (told,) = front_json(front([a_trial(accuracy(90.0))], (BOTH[0], PARAMS)))["front"]
    assert (told["throughput"], told["throughput_low"], told["peak_memory_mb"]) == (None, None, None)


def test_a_trial_shows_its_network_its_counts_and_its_curve() -> None:
    trial = a_trial(accuracy(91.0), throughput(1234.0), curve=((1, 2.25, 40.0), (2, 1.5, None)), width=96, attempt=2)
    lines = trial_text(trial, yaml="trial0:\n  patch: 4").splitlines()
    assert lines[0] == f"trial {trial.number}  complete, attempt 2  (sampler, id {trial.architecture_id})"
    assert "  patch 4, 2x96 dense r0.5 mlp r4 layer" in lines
    assert "  1.00k params, 2.00k MACs, 64 tokens, 3.00k activations" in lines
    assert lines[lines.index("trial0:") + 1] == "  patch: 4"
    assert any("1,234" in line and "images/s" in line and "Xeon, 2 cores, batch 64" in line for line in lines)
    assert any("91.00" in line and "rung 0, 6 epochs of digits" in line for line in lines)
    assert [line.split() for line in lines[-2:]] == [["1", "2.2500", "40.00"], ["2", "1.5000", "-"]]


def test_a_failed_trial_shows_why() -> None:
    text = trial_text(a_trial(state="infeasible", reason="out of memory", detail="tried to allocate 9 GB"))
    assert "infeasible: out of memory" in text
    assert "tried to allocate 9 GB" in text


def test_a_trial_as_json_gives_its_architecture_back() -> None:
    trial = a_trial(accuracy(91.0), curve=((1, 2.25, 40.0),))
    told = json.loads(json.dumps(trial_json(trial)))
    assert from_dict(told["architecture"]) == trial.architecture
    assert told["measurements"][0]["value"] == 91.0
    assert told["curve"] == [{"epoch": 1, "loss": 2.25, "accuracy": 40.0}]


def test_the_status_of_a_search_at_work(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "run1", space_text="", manifest={})
    readings = iter(range(100, 200))
    with study.writing("", total=24, clock=lambda: float(next(readings))) as writer:
        for number in range(3):
            writer.begin(an_assignment(number), **COUNTS, origin="sampler", point={})
        for metric, rung in (("accuracy", 0), ("throughput", None)):
            writer.record(an_assignment(0), measured(metric, 90.0, rung=rung, epochs=None if rung is None else 6))
        writer.finish(0, "complete")
        writer.finish(1, "infeasible", "out of memory")
        writer.refuse("params ..10M", 7)
        writer.record_progress(
            an_assignment(2), Progress(phase="training", epoch=3, epochs=6, loss=1.0, accuracy=85.25)
        )
        told = status(study, front(study, BOTH), now=200.0)
    assert json.loads(json.dumps(told)) == told
    assert (told["trials"], told["total"], told["complete"], told["front"]) == (2, 24, 1, 1)
    lines = status_text(told).splitlines()
    assert lines[0] == f"{study.folder}: 2 of 24 trials done (1 complete, infeasible: 1 out of memory)"
    assert "running   trial 2, epoch 3, 85.25 %  patch 4, 2x10 dense" in lines[1]
    assert "7 draws" in lines[2]
    assert "front     1 network, hypervolume" in lines[3]
    assert lines[4] == "  time      9 s searched, last written 1 min 31 s ago"
    assert not any("rung" in line for line in lines)  # there is just one
    assert lines[5] == f"  driver    pid {os.getpid()} on {socket.gethostname()}"
    lines = status_text(status(study, front(study, BOTH), now=200.0)).splitlines()
    assert "cut off   trial 2" in lines[1]
    assert f"none at work. To go on: mlpspace search {study.folder}/space.yaml --study {study.folder}" in lines[5]


def test_rendering_loads_no_slow_library(tmp_path: Path) -> None:
    Study.create(tmp_path / "run1", space_text="", manifest={})
    program = """
import sys
from mlpspace.front import front
from mlpspace.objectives import Objective
from mlpspace.report import front_csv, front_json, front_table
from mlpspace.study import Study

found = front(Study(sys.argv[1]), (Objective("accuracy", "maximize", 10.0),))
front_table(found), front_json(found), front_csv(found)
print(*[name for name in ("torch", "ray", "optuna", "pandas", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "run1"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_architectures_are_parsed_only_where_they_are_shown(found: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    original = Architecture.from_json
    monkeypatch.setattr(Architecture, "from_json", staticmethod(lambda text: parsed.append(text) or original(text)))
    front_json(found)
    assert len(parsed) == 3  # two on the front and a fixed point off it, of five trials


def test_throughputs_that_other_programs_slowed_down_come_with_a_warning():
    calm, loud = (front([a_trial(accuracy(80.0), throughput(1e3, protocol=p))], BOTH) for p in ("v1", "v1, disturbed"))
    assert "Other programs used it" not in front_table(calm)
    assert "Other programs used it during all of these measurements" in front_table(loud)


# --- rungs, repeats, reasons ----------------------------------------------------------------------------------------


def rungs() -> list[Trial]:
    return [
        a_trial(accuracy(70.0), accuracy(80.0, rung=1), accuracy(90.0, rung=2), throughput(1000.0)),
        a_trial(accuracy(75.0), accuracy(79.0, rung=1), throughput(900.0), state="paused"),
        a_trial(accuracy(60.0), throughput(2000.0), state="paused"),
        a_trial(accuracy(30.0), throughput(100.0), state="stopped", reason="cannot reach the front"),
        a_trial(throughput(90.0), state="stopped", reason="set aside before training"),
    ]


def test_the_table_tells_how_many_trials_reached_which_rung() -> None:
    lines = front_table(front(rungs(), BOTH)).splitlines()
    assert lines[0] == "Pareto front: 1 of 1 network"
    assert "Rungs: 4 trials reached 6 epochs, 2 reached 12, 1 reached 18; the front is of the last" in lines
    for left_out in (
        "paused at rung 1, 12 epochs",
        "paused at rung 0, 6 epochs",
        "stopped at rung 0, 6 epochs: cannot reach the front",
        "set aside before training",
    ):
        assert f"     1  {left_out}" in lines


def test_partial_trainings_cannot_be_taken_for_full_ones() -> None:
    lines = front_table(front(rungs(), BOTH, rung=0)).splitlines()
    assert lines[0] == "Front of PARTIAL trainings, rung 0: 3 of 4 networks"
    assert "after 6 epochs, before the end of training" in lines[1]
    assert not any(line.startswith("Pareto front") or "to the end yet" in line for line in lines)
    rungs_line = next(line for line in lines if line.startswith("Rungs"))
    assert rungs_line.endswith("; this front is of rung 0, 6 epochs")
    unfinished = front_table(front(rungs()[1:], BOTH)).splitlines()
    assert unfinished[0] == "Front of PARTIAL trainings, rung 1: 1 of 1 network"
    assert unfinished[1] == "No trial has been trained to the end yet."
    told = front_json(front(rungs(), BOTH, rung=0))
    assert told["partial"] is True
    assert {(each["rung"], each["epochs"]) for each in told["front"]} == {(0, 6)}
    assert {each["state"] for each in told["front"]} == {"complete", "paused"}


def test_a_study_of_one_rung_says_nothing_of_rungs(found: Front) -> None:
    text = front_table(found)
    assert "Rungs:" not in text
    assert "P(front)" not in text
    assert "seeds" not in text


def test_repeats_show_as_mean_error_spread_and_probability() -> None:
    trained = [accuracy(value, repeat=k) for k, value in enumerate((92.0, 86.0, 89.0))]
    found = front([a_trial(*trained, throughput(1000.0)), a_trial(accuracy(80.0), throughput(20_000.0))], BOTH)
    lines = front_table(found, width=200).splitlines()
    for words in ("accuracy %", "± se", "spread", "seeds", "P(front) %"):
        assert words in lines[2]
    assert lines[3].split()[1:6] == ["89.00", "1.73", "3.00", "3", "100"]
    assert lines[4].split()[1:6] == ["80.00", "1.00", "-", "1", "100"]
    best, other = front_json(found)["front"]
    assert (best["accuracy"], best["accuracy_spread"], best["trainings"]) == (89.0, 3.0, 3)
    assert best["accuracy_se"] == pytest.approx(3 / 3**0.5)
    assert (other["accuracy_spread"], other["trainings"], other["probability"]) == (None, 1, 1.0)
    rows = list(csv.DictReader(io.StringIO(front_csv(found))))
    assert [(row["accuracy_spread"], row["trainings"], row["probability"]) for row in rows] == [
        ("3.0", "3", "1.0"),
        ("", "1", "1.0"),
    ]


def test_a_trial_shows_why_it_was_chosen_where_it_stands_and_its_repeats() -> None:
    why = "expected gain 0.012: accuracy 57.1 ± 1.8 %, throughput 12,000 images/s; mutation of trial 12"
    paused = a_trial(accuracy(70.0), accuracy(75.0, rung=1), state="paused", why=why)
    lines = trial_text(paused).splitlines()
    assert lines[0].startswith(f"trial {paused.number}  paused at rung 1, 12 epochs  (sampler, id ")
    assert f"  why: {why}" in lines
    told = trial_json(paused)
    assert (told["why"], told["state"], told["rung"], told["seconds"]) == (why, "paused", 1, 0.0)
    again = a_trial(*(accuracy(value, repeat=k, seed=k) for k, value in enumerate((92.0, 86.0, 89.0))))
    lines = trial_text(again).splitlines()
    assert sum("trained again with seed" in line for line in lines) == 2
    assert "  accuracy over 3 seeds: mean 89.00 %, spread 3.00" in lines
    assert [each["repeat"] for each in trial_json(again)["measurements"]] == [0, 1, 2]
    assert "why" not in trial_text(again)


def test_a_batch_that_did_not_fit_is_shown() -> None:
    trial = a_trial(accuracy(70.0, micro_batch=16))
    assert "16 images at a time to fit the memory" in trial_text(trial)


def test_the_status_tells_of_rungs_and_of_what_waits_there(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "run1", space_text="", manifest={})
    with study.writing("", total=24) as writer:
        for number, (values, state) in enumerate(
            [
                ((70.0, 80.0), "complete"),
                ((75.0,), "paused"),
                ((60.0,), "paused"),
                ((30.0,), "stopped"),
                ((), "stopped"),
            ]
        ):
            writer.begin(an_assignment(number), **COUNTS, origin="sampler", point={})  # type: ignore[arg-type]
            writer.record(an_assignment(number), measured("throughput", 1000.0))
            for rung, value in enumerate(values):
                writer.record(an_assignment(number), measured("accuracy", value, rung=rung, epochs=6 * (rung + 1)))
            writer.finish(number, state, None if values else "set aside before training")
        told = status(study, front(study, BOTH))
    assert json.loads(json.dumps(told)) == told
    assert (told["trials"], told["complete"], told["paused"], told["stopped"], told["set_aside"]) == (4, 1, 2, 1, 1)
    assert [each["reached"] for each in told["standing"]] == [4, 1]
    lines = status_text(told).splitlines()
    assert lines[0] == f"{study.folder}: 4 of 24 trials done (1 complete, 2 paused, 1 stopped)"
    assert lines[1] == "  rung 0    4 reached 6 epochs, 2 paused, 1 stopped there"
    assert lines[2] == "  rung 1    1 reached 12 epochs"
    assert lines[3] == "  set aside 1 network, after the throughput was measured: none was trained"
