"""The command line as a user meets it: what is printed, and with what it exits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from commands import mlpspace
from hand_made import COUNTS, an_assignment, measured
from stubs import SPACE, Session, evaluate, failing

from mlpspace import cli
from mlpspace.cli.json_text import json_text
from mlpspace.engines import inline
from mlpspace.study import Study

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study in studies/run1 of an otherwise empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE)
    with Session(Path("studies/run1")) as search:
        inline.run(search, device="cpu", evaluate=failing)
    return Path("studies/run1")


def test_the_front_is_shown_with_its_fixed_points_and_what_was_left_out(study, capsys):
    code, out, _ = mlpspace(capsys, "pareto", study)
    assert code == 0
    assert "Pareto front" in out
    assert "mixer_s16 (patch 16 -> " in out
    assert "out of memory" in out


def test_the_json_of_the_front_is_not_dominated_and_agrees_with_the_ledger(study, capsys):
    code, out, _ = mlpspace(capsys, "pareto", study, "--json")
    told = json.loads(out)
    assert code == 0
    assert {"front", "hypervolume", "rung", "left_out"} <= told.keys()
    keys = "trial id accuracy accuracy_se throughput throughput_low throughput_high params macs peak_memory_mb architecture fixed_point"
    assert all(set(keys.split()) <= point.keys() for point in told["front"])
    assert told["left_out"] == {"infeasible: out of memory": 4}
    rows = sqlite3.connect(study / "study.db").execute(
        "select trial, max(case metric when 'accuracy' then value end), max(case metric when 'throughput' then value end)"
        " from measurement group by trial"
    )
    values = {trial: (accuracy, speed) for trial, accuracy, speed in rows if accuracy is not None}
    front = {
        trial
        for trial, (a, t) in values.items()
        if not any(a2 >= a and t2 >= t and (a2, t2) != (a, t) for a2, t2 in values.values())
    }
    assert {point["trial"] for point in told["front"]} == front


def test_the_csv_has_one_row_a_network_of_the_front(study, capsys):
    _, out, _ = mlpspace(capsys, "pareto", study, "--csv")
    _, js, _ = mlpspace(capsys, "pareto", study, "--json")
    assert len(out.splitlines()) == 1 + len(json.loads(js)["front"])


def test_the_plot_is_a_png(study, capsys):
    code, _, _ = mlpspace(capsys, "pareto", study, "--plot", "front.png")
    assert code == 0
    assert Path("front.png").read_bytes().startswith(b"\x89PNG")


def test_a_shown_trial_can_be_pasted_into_a_space_file(study, capsys):
    code, out, _ = mlpspace(capsys, "show", study, 3)
    assert code == 0
    assert "trial3:" in out
    code, out, _ = mlpspace(capsys, "show", study, 3, "--json")
    assert json.loads(out)["trial"] == 3


def test_the_status_tells_how_many_trials_are_done(study, capsys):
    code, out, _ = mlpspace(capsys, "status", study)
    assert code == 0
    assert "12 of 12 trials done (8 complete, infeasible: 4 out of memory)" in out
    assert json.loads(mlpspace(capsys, "status", study, "--json")[1])["trials"] == 12


def test_the_same_command_returns_at_once_when_the_study_is_done_and_adds_nothing(study, capsys):
    before = (study / "study.db").read_bytes()
    code, out, _ = mlpspace(capsys, "search", "space.yaml")
    assert code == 0
    assert "all 12 trials are done; nothing was added" in out
    assert (study / "study.db").read_bytes() == before


def test_another_space_on_a_study_is_refused_with_the_difference_and_what_to_type(study, capsys):
    Path("other.yaml").write_text(SPACE.replace("depth: 1..4", "depth: 1..6"))
    code, _, err = mlpspace(capsys, "search", "other.yaml", "--study", study)
    assert code == 2
    assert "isotropic.depth was 1..4, is 1..6" in err
    assert "mlpspace search studies/run1/space.yaml --study studies/run1" in err
    assert "mlpspace search other.yaml --study studies/run2" in err


def test_every_mistake_of_a_file_is_printed_and_exits_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(SPACE.replace("dense", "dnse").replace("epochs: 2", "epochs: two"))
    for command in ("space", "search"):
        code, _, err = mlpspace(capsys, command, "bad.yaml")
        assert code == 2
        assert [line.split(": ")[0] for line in err.splitlines()] == ["bad.yaml:9", "bad.yaml:14"]
        assert "Traceback" not in err
    assert not Path("studies").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pareto", "studies/run9"], "no study at studies/run9. Studies here: studies/run1."),
        (["show", "studies/run1", "99"], "no trial 99 in studies/run1; it has 0 to 11."),
        (["search", "space.yaml", "--data", "cifar10=/nowhere"], "the space uses mnist5k, not cifar10"),
        (["search", "space.yaml", "--data", "cifar10"], "is not NAME=PATH"),
        (["search", "space.yaml", "--time-budget", "soon"], "is no duration; write 90s, 10m, 1h30m or 2d"),
        (["search", "space.yaml", "--trials", "0"], "0 is not in the range x>=1"),
        (["pareto", "studies/run1", "--json", "--csv"], "Use just one of --json and --csv."),
        (["pareto", "studies/run1", "--plot", "front.xyz"], "is no kind of picture"),
        (
            ["search", "space.yaml", "--device", "cuda:1"],
            "export CUDA_VISIBLE_DEVICES=1 and search with --device cuda, or with --engine inline",
        ),
        (["search", "nowhere.yaml"], "nowhere.yaml: no such file. Spaces here: space.yaml."),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_the_users_mistakes_exit_with_2_and_say_what_would_do(study, capsys, arguments, told):
    code, _, err = mlpspace(capsys, *arguments)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_a_study_without_results_exits_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Session(tmp_path / "studies/run1"):
        pass
    code, _, err = mlpspace(capsys, "pareto", "studies/run1")
    assert code == 1
    assert "No trial of studies/run1 has finished yet" in err


def test_a_space_that_no_draw_meets_exits_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("narrow.yaml").write_text(SPACE.replace("macs: ..4M", "macs: ..1K"))
    code, out, _ = mlpspace(capsys, "space", "narrow.yaml", "--draws", "50")
    assert code == 1
    assert "0 of 50 random draws meet the requirements" in out
    assert "The smallest of them needs" in out


def test_the_space_command_counts_points_by_the_formula(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE)
    code, out, _ = mlpspace(capsys, "space", "space.yaml", "--json")
    told = json.loads(out)
    assert code == 0
    # norms x patches x depths x (4 widths x (2 dense + 1 linear + 1 head) + the one width that 3 heads divide)
    assert told["points"] == 2 * 2 * 4 * (4 * 4 + 1)
    assert told["draws"] == 1000
    assert told["meeting"] + sum(told["refused"].values()) == 1000


@pytest.mark.parametrize("command", [[], ["search"], ["pareto"], ["show"], ["space"], ["status"]])
def test_every_command_has_help_that_teaches(capsys, command):
    code, out, _ = mlpspace(capsys, *command, "--help")
    assert code == 0
    assert "Usage: mlpspace" in out
    assert len(out.splitlines()) > 6


def test_python_dash_m_is_the_same_command():
    ran = subprocess.run([sys.executable, "-m", "mlpspace", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, "mlpspace, version 0.1.0\n")


def test_every_command_stands_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in cli.cli.commands if f"mlpspace {name}" not in readme]
    assert not missing


def test_a_study_that_goes_on_finishes_the_trials_that_are_left(study, capsys, monkeypatch):
    monkeypatch.setattr(
        "mlpspace.driver._engine",
        lambda search, *_: inline.run(search, device="cpu", evaluate=evaluate),
    )
    code, out, _ = mlpspace(capsys, "search", "space.yaml", "--trials", 15)
    assert code == 0
    assert "going on with studies/run1: 12 of 15 trials done" in out
    assert json.loads(mlpspace(capsys, "status", study, "--json")[1])["trials"] == 15


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(study, capsys, monkeypatch):
    def engine(search, options, interrupt, *_):
        inline.run(search, device="cpu", evaluate=evaluate, interrupted=lambda: len(search.results) >= 14)
        interrupt.seen = True

    monkeypatch.setattr("mlpspace.driver._engine", engine)
    code, out, _ = mlpspace(capsys, "search", "space.yaml", "--trials", 20)
    assert code == 130
    assert "Interrupted after 14 of 20 trials. To go on:\n  mlpspace search space.yaml --trials 20" in out
    assert "Pareto front" in out


def test_profile_tells_where_the_wall_time_went_also_after_an_interrupt_and_later(study, capsys, monkeypatch):
    def engine(search, options, interrupt, *rest):
        done = lambda: len(search.results) >= 14  # noqa: E731
        inline.run(search, device="cpu", evaluate=evaluate, interrupted=done, tallies=rest[-1])
        interrupt.seen = True

    monkeypatch.setattr("mlpspace.driver._engine", engine)
    code, out, _ = mlpspace(capsys, "search", "space.yaml", "--trials", 20, "--profile")
    assert code == 130
    assert "Wall time of the workers, 1 of 2 sessions: " in out
    told = json.loads(mlpspace(capsys, "status", study, "--profile", "--json")[1])
    (worker,) = told["workers"]
    assert worker["session"] == 2
    assert worker["seconds"]["waiting"] > 0
    assert told["driver"]["writing"] > 0
    assert mlpspace(capsys, "status", study, "--profile")[1] in out


@pytest.mark.parametrize("name", ["space.yaml", "manifest.json"])
def test_a_study_that_lacks_a_file_says_so(study, capsys, name):
    (study / name).unlink()
    code, _, err = mlpspace(capsys, "search", "space.yaml", "--study", study, "--trials", "13", "--engine", "inline")
    assert code == 2
    assert f"{name} cannot be read" in err


def test_fewer_trials_than_are_done_is_told_as_that(study, capsys):
    code, out, _ = mlpspace(capsys, "search", "space.yaml", "--study", study, "--trials", "3")
    assert code == 0
    assert "12 trials, 3 were asked for, are done; nothing was added. For more: --trials 24" in out


def test_a_time_budget_that_is_spent_starts_nothing_and_says_so(study, capsys):
    code, out, _ = mlpspace(
        capsys, "search", "space.yaml", "--study", study, "--trials", "20", "--time-budget", "0.01s", "--seed", "7"
    )
    assert code == 0
    assert "time budget reached" in out
    assert f"To go on: mlpspace search space.yaml --study {study} --trials 20 --seed 7" in out
    assert "starting the workers" not in out


RUNGS = SPACE.replace("epochs: 2", "rungs: {epochs: [2, 6, 18], keep: 1/3}")
CURVES = {  # trial -> accuracies at the rungs, state, reason
    0: ((50.0, 60.0, 70.0), "complete", None),
    1: ((55.0, 65.0, 75.0), "complete", None),
    2: ((52.0, 58.0), "paused", None),
    3: ((90.0,), "paused", None),  # beyond the front, if rungs were mixed
    4: ((20.0,), "stopped", "cannot reach the front"),
    5: ((), "stopped", "set aside before training"),
}


def written(folder: Path, curves: dict = CURVES, text: str = RUNGS) -> Path:
    """A study whose trials are as fast as their number is high."""
    made = Study.create(folder, space_text=text, manifest={})
    with made.writing("mlpspace search", total=24) as writer:
        for number, (accuracies, state, reason) in curves.items():
            assignment = an_assignment(number)
            why = f"random start {number}"
            writer.begin(assignment, **COUNTS, origin="sampler", point={}, why=why)
            writer.record(assignment, measured("throughput", 1000.0 + 100 * number))
            for rung, value in enumerate(accuracies):
                writer.record(assignment, measured("accuracy", value, rung=rung, epochs=(2, 6, 18)[rung]))
            writer.finish(number, state, reason)
    return folder


@pytest.fixture
def rungs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of three rungs in studies/run1."""
    monkeypatch.chdir(tmp_path)
    return written(Path("studies/run1"))


def test_the_front_is_of_the_last_rung_and_tells_of_the_others(rungs, capsys):
    code, out, _ = mlpspace(capsys, "pareto", rungs)
    assert code == 0
    assert out.startswith("Pareto front: 1 of 2 networks")
    assert "Rungs: 5 trials reached 2 epochs, 3 reached 6, 2 reached 18; the front is of the last" in out
    assert "90.00" not in out
    assert "mlpspace pareto studies/run1 --rung 0" in out
    told = json.loads(mlpspace(capsys, "pareto", rungs, "--json")[1])
    assert ([each["trial"] for each in told["front"]], told["rung"], told["partial"]) == ([1], 2, False)


def test_partial_trainings_are_shown_only_where_they_are_asked_for(rungs, capsys):
    code, out, err = mlpspace(capsys, "pareto", rungs, "--rung", 0, "--plot", "partial.png")
    assert code == 0
    assert out.startswith("Front of PARTIAL trainings, rung 0: 2 of 5 networks")
    assert "90.00" in out
    assert "wrote partial.png" in err
    told = json.loads(mlpspace(capsys, "pareto", rungs, "--rung", 1, "--json")[1])
    assert ([each["trial"] for each in told["front"]], told["epochs"], told["partial"]) == ([1, 2], 6, True)
    rows = mlpspace(capsys, "pareto", rungs, "--rung", 1, "--csv")[1].splitlines()
    assert rows[0].endswith(",state,rung,epochs,disturbed")
    assert rows[2].endswith(",paused,1,6,False")
    assert mlpspace(capsys, "pareto", rungs, "--rung", 2)[1].startswith("Pareto front")


@pytest.mark.parametrize("rung", [3, -1])
def test_a_rung_that_is_none_is_told_with_those_that_are(rungs, capsys, rung):
    code, _, err = mlpspace(capsys, "pareto", rungs, "--rung", rung)
    assert code == 2
    assert f"studies/run1 has no rung {rung}. Its rungs: 0 (2 epochs), 1 (6 epochs), 2 (18 epochs)." in err
    assert f"mlpspace pareto studies/run1 --rung {2 if rung == 3 else 0}" in err


def test_a_rung_that_no_trial_has_reached_has_no_front_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = written(Path("studies/run1"), {0: CURVES[3]})
    code, out, err = mlpspace(capsys, "pareto", folder, "--rung", 2)
    assert (code, out) == (1, "")
    assert "No trial of studies/run1 has reached rung 2 yet" in err
    code, out, _ = mlpspace(capsys, "pareto", folder)
    assert code == 0
    assert "No trial has been trained to the end yet." in out


def test_a_front_of_what_takes_no_training_has_no_rungs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = SPACE.replace("accuracy: {goal: maximize, worst: 10}", "params: {goal: minimize, worst: 10M}")
    code, _, err = mlpspace(capsys, "pareto", written(Path("studies/run1"), text=text), "--rung", 0)
    assert code == 2
    assert "studies/run1 has no rungs: its objectives take no training" in err


def test_a_shown_trial_tells_why_it_was_chosen_and_where_it_stands(rungs, capsys):
    out = mlpspace(capsys, "show", rungs, 2)[1]
    assert out.startswith("trial 2  paused at rung 1, 6 epochs")
    assert "why: random start 2" in out
    assert mlpspace(capsys, "show", rungs, 5)[1].startswith("trial 5  set aside before training")
    assert json.loads(mlpspace(capsys, "show", rungs, 2, "--json")[1])["why"] == "random start 2"


def test_the_status_counts_what_waits_and_what_was_stopped(rungs, capsys):
    out = mlpspace(capsys, "status", rungs)[1]
    assert "5 of 24 trials done (2 complete, 2 paused, 1 stopped)" in out
    assert "rung 0    5 reached 2 epochs, 1 paused, 1 stopped there" in out
    told = json.loads(mlpspace(capsys, "status", rungs, "--json")[1])
    assert (told["paused"], told["stopped"], told["set_aside"]) == (2, 1, 1)


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_json_has_no_word_for_what_is_no_number(loss: float) -> None:
    told = json_text({"curve": [{"loss": loss, "epoch": 1}], "pair": (loss, 2.5), "name": "Infinity"})
    assert json.loads(told, parse_constant=lambda name: pytest.fail(name)) == {
        "curve": [{"loss": None, "epoch": 1}],
        "pair": [None, 2.5],
        "name": "Infinity",
    }
