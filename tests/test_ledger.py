"""What the ledger keeps of trials that are worked on in several legs or trained anew, and files of older versions."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hand_made import COUNTS, an_assignment, measured

from mlpspace import ledger_tables
from mlpspace.address import Address
from mlpspace.ledger import Writer
from mlpspace.measurement import Assignment, Progress
from mlpspace.study import Study
from mlpspace.trial import Trial, standing


@pytest.fixture
def study(tmp_path: Path, place: Address | None) -> Study:
    return Study.create(tmp_path / "run1", space_text="task: {classes: 10}\n", manifest={}, address=place)


class Clock:
    """Set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def begin(writer: Writer, number: int = 0, *, attempt: int = 1, **told: Any) -> None:
    writer.begin(an_assignment(number, attempt=attempt), **COUNTS, origin="sampler", point={"depth": 2}, **told)  # type: ignore[arg-type]


def train(writer: Writer, assignment: Assignment, *epochs: int, rung: int | None = None) -> None:
    for epoch in epochs:
        told = Progress(phase="training", epoch=epoch, epochs=18, loss=1 / epoch, accuracy=50.0 + epoch)
        writer.record_progress(assignment, told)
    if rung is not None:
        writer.record(assignment, measured("accuracy", 50.0 + epochs[-1], rung=rung, epochs=epochs[-1]))


def only(study: Study) -> Trial:
    (trial,) = study.trials()
    return trial


# --- legs -----------------------------------------------------------------------------------------------------------


def test_a_trial_that_is_promoted_goes_on_with_its_curve_its_start_and_its_reason(study: Study, clock: Clock) -> None:
    with study.writing("", clock=clock) as writer:
        clock.now = 100.0
        begin(writer, label="mixer_s16", why="random start")
        train(writer, an_assignment(0), 1, 2, rung=0)
        clock.now = 130.0
        writer.finish(0, "paused")
        trial = only(study)
        assert (trial.state, trial.rung, trial.ended, trial.seconds) == ("paused", 0, 130.0, 30.0)
        clock.now = 500.0
        begin(writer, epochs=2)
        trial = only(study)
        assert (trial.state, trial.ended, trial.started) == ("running", None, 100.0)
        train(writer, an_assignment(0), 3, 4, 5, 6, rung=1)
        clock.now = 560.0
        writer.finish(0, "complete")
    trial = only(study)
    assert (trial.why, trial.label, trial.attempt) == ("random start", "mixer_s16", 1)
    assert [epoch for epoch, _, _ in trial.curve] == [1, 2, 3, 4, 5, 6]
    assert (trial.state, trial.rung, trial.started, trial.ended) == ("complete", 1, 100.0, 560.0)
    assert trial.seconds == 30 + 60  # not what it waited


def test_time_that_was_lost_with_a_session_counts_as_no_work(study: Study, clock: Clock) -> None:
    with study.writing("", clock=clock) as writer:
        begin(writer)
    clock.now = 86_400.0
    with study.writing("", clock=clock) as writer:
        clock.now += 1
        writer.finish(0, "complete")
    assert (only(study).ended, only(study).seconds) == (86_401.0, 0.0)


def test_a_trial_that_is_given_out_again_starts_again(study: Study, clock: Clock) -> None:
    with study.writing("", clock=clock) as writer:
        begin(writer, why="random start")
        clock.now = 70.0
        begin(writer, attempt=2)
        clock.now = 90.0
        writer.finish(0, "complete")
    trial = only(study)
    assert (trial.started, trial.seconds, trial.attempt, trial.why) == (70.0, 20.0, 2, "random start")


def test_a_paused_trial_that_is_stopped_ended_when_it_was_paused(study: Study, clock: Clock) -> None:
    with study.writing("", clock=clock) as writer:
        begin(writer)
        train(writer, an_assignment(0), 1, 2, rung=0)
        clock.now = 40.0
        writer.finish(0, "paused")
        clock.now = 900.0
        writer.finish(0, "stopped", "cannot reach the front", "at 52.00 % after 2 epochs ...")
    trial = only(study)
    assert (trial.state, trial.ended, trial.seconds) == ("stopped", 40.0, 40.0)
    assert trial.standing == "stopped at rung 0, 2 epochs: cannot reach the front"


def test_what_was_trained_beyond_the_checkpoint_when_it_was_cut_off_is_told_anew(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer)
        train(writer, an_assignment(0), 1, 2, rung=0)
        train(writer, an_assignment(0), 3, 4, 5)
    with study.writing("") as writer:
        begin(writer, epochs=2)  # from its checkpoint
        assert [epoch for epoch, _, _ in only(study).curve] == [1, 2]
        train(writer, an_assignment(0), 3)
    assert [epoch for epoch, _, _ in only(study).curve] == [1, 2, 3]


@pytest.mark.parametrize(
    ("state", "rung", "epochs", "reason", "text"),
    [
        ("running", None, None, None, "running"),
        ("complete", 2, 18, None, "complete"),
        ("paused", 0, 1, None, "paused at rung 0, 1 epoch"),
        ("paused", 1, 6, None, "paused at rung 1, 6 epochs"),
        ("stopped", 1, 6, "cannot reach the front", "stopped at rung 1, 6 epochs: cannot reach the front"),
        ("stopped", None, None, "set aside before training", "set aside before training"),
        ("infeasible", 0, 2, "out of memory", "infeasible: out of memory"),
    ],
)
def test_where_a_trial_stands_is_said_in_words(
    state: str, rung: int | None, epochs: int | None, reason: str | None, text: str
) -> None:
    assert standing(state, rung, epochs, reason) == text


# --- trainings anew -------------------------------------------------------------------------------------------------


def test_trainings_anew_stand_beside_the_trials_own_and_leave_its_value_and_curve_alone(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer)
        train(writer, an_assignment(0), 1, 2, rung=0)
        train(writer, an_assignment(0), 3, 4, 5, 6, rung=1)
        writer.finish(0, "complete")
        before = only(study)
        for k, value in ((2, 58.0), (1, 57.0)):
            again = dataclasses.replace(an_assignment(0), repeat=k, seed=100 + k)
            train(writer, again, 1, 2, rung=0)
            writer.record(again, measured("accuracy", value, rung=1, epochs=6))
    trial = only(study)
    assert (trial.state, trial.value("accuracy"), trial.curve) == ("complete", 56.0, before.curve)
    assert [(record.repeat, record.value, record.seed) for record in trial.repeats] == [(1, 57.0, 101), (2, 58.0, 102)]
    assert [record.value for record in trial.repeats_at(0)] == [52.0, 52.0]
    row = study.frame().loc[0]
    assert (row["state"], row["rung"], row["epochs"], row["trainings"]) == ("complete", 1, 6, 3)
    assert (row["accuracy_percent"], row["accuracy_percent_mean"], row["accuracy_percent_spread"]) == (56.0, 57.0, 1.0)


def test_a_training_anew_is_no_trial(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer)
        with pytest.raises(AssertionError, match="no trial"):
            writer.begin(dataclasses.replace(an_assignment(0), repeat=1), **COUNTS, origin="sampler")


def test_a_micro_batch_is_kept(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer)
        accuracy = measured("accuracy", 50.0, rung=0, epochs=2)
        writer.record(an_assignment(0), dataclasses.replace(accuracy, micro_batch=16))
        writer.record(an_assignment(0), measured("throughput", 1000.0))
    found = only(study).measurements
    assert (found["accuracy"].micro_batch, found["throughput"].micro_batch) == (16, None)


def test_a_frame_tells_why_and_where_each_trial_stands(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0, why="mutation of trial 3")
        train(writer, an_assignment(0), 1, 2, rung=0)
        writer.finish(0, "paused")
        begin(writer, 1)
        writer.finish(1, "stopped", "set aside before training", "too slow")
    frame = study.frame()
    assert frame.loc[0, "why"] == "mutation of trial 3"
    assert frame["why"].isna().tolist() == [False, True]
    assert frame["state"].tolist() == ["paused", "stopped"]
    assert frame["rung"].isna().tolist() == [False, True]
    assert frame["trainings"].tolist() == [1, 0]


# --- files of older versions ----------------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE architecture (id TEXT NOT NULL, json TEXT NOT NULL, params INTEGER NOT NULL, macs INTEGER NOT NULL,
  tokens INTEGER NOT NULL, activations INTEGER NOT NULL, PRIMARY KEY (id));
CREATE TABLE refused (reason TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (reason));
CREATE TABLE session (id INTEGER NOT NULL, started FLOAT NOT NULL, seen FLOAT NOT NULL, host TEXT NOT NULL,
  pid INTEGER NOT NULL, command TEXT NOT NULL, total INTEGER, PRIMARY KEY (id));
CREATE TABLE trial (number INTEGER NOT NULL, architecture TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
  reason TEXT, detail TEXT, origin TEXT NOT NULL, label TEXT, point TEXT, recipe TEXT NOT NULL, seed INTEGER NOT NULL,
  started FLOAT NOT NULL, ended FLOAT, PRIMARY KEY (number), FOREIGN KEY(architecture) REFERENCES architecture (id));
CREATE TABLE measurement (trial INTEGER NOT NULL, architecture TEXT NOT NULL, attempt INTEGER NOT NULL,
  metric TEXT NOT NULL, rung INTEGER, epochs INTEGER, dataset TEXT NOT NULL, data TEXT, resolution INTEGER NOT NULL,
  recipe TEXT NOT NULL, seed INTEGER NOT NULL, protocol TEXT NOT NULL, device TEXT NOT NULL, batch INTEGER NOT NULL,
  precision TEXT NOT NULL, threads INTEGER NOT NULL, value FLOAT NOT NULL, low FLOAT NOT NULL, high FLOAT NOT NULL,
  seconds FLOAT NOT NULL, FOREIGN KEY(trial) REFERENCES trial (number),
  FOREIGN KEY(architecture) REFERENCES architecture (id));
CREATE UNIQUE INDEX measurement_once ON measurement (trial, attempt, metric, coalesce(rung, -1));
CREATE TABLE progress (trial INTEGER NOT NULL, attempt INTEGER NOT NULL, epoch INTEGER NOT NULL, loss FLOAT,
  accuracy FLOAT, PRIMARY KEY (trial, attempt, epoch), FOREIGN KEY(trial) REFERENCES trial (number));
PRAGMA user_version = 1;
"""  # as that version made them


@pytest.fixture
def old(tmp_path: Path) -> Study:
    """A study of version 1: a complete trial and one that was cut off."""
    folder = tmp_path / "old"
    folder.mkdir()
    database = sqlite3.connect(folder / "study.db")
    database.executescript(VERSION_1)
    for number, ended in ((0, 150.0), (1, None)):
        assignment = an_assignment(number)
        network, recipe = assignment.architecture, assignment.recipe.to_json()
        database.execute("insert into architecture values (?,?,1000,2000,64,3000)", (network.id, network.to_json()))
        state = "running" if ended is None else "complete"
        told = (number, network.id, 1, state, None, None, "sampler", None, "{}", recipe, 7, 100.0, ended)
        database.execute(f"insert into trial values ({','.join('?' * 13)})", told)
        alike = ("digits", None, 32, recipe, 7, "proxy 1", "cpu", 64, "fp32", 2, 90.0 + number, 89.0, 91.0, 5.0)
        row = (number, network.id, 1, "accuracy", 0, 6, *alike)
        database.execute(f"insert into measurement values ({','.join('?' * 20)})", row)
    database.commit()
    database.close()
    (folder / "space.yaml").write_text("")
    return Study(folder)


def facts(trial: Trial) -> tuple[object, ...]:
    known = (trial.number, trial.state, trial.value("accuracy"), trial.rung, trial.started, trial.ended, trial.seconds)
    return (*known, trial.why, [(record.repeat, record.micro_batch) for record in trial.records])


AS_READ = [
    (0, "complete", 90.0, 0, 100.0, 150.0, 50.0, None, [(0, None)]),
    (1, "running", 91.0, 0, 100.0, None, 0.0, None, [(0, None)]),
]


def test_a_study_of_version_1_is_read_as_it_is(old: Study) -> None:
    before = old.database.read_bytes()
    assert [facts(trial) for trial in old.trials()] == AS_READ
    assert old.database.read_bytes() == before


def test_a_writer_brings_a_study_of_version_1_up_to_date_and_loses_nothing(old: Study) -> None:
    """Also for a reader that opened it before."""
    with old.writing("") as writer:
        assert [facts(trial) for trial in old.trials()] == AS_READ
        again = dataclasses.replace(an_assignment(0), repeat=1)
        for _ in range(2):
            writer.record(again, measured("accuracy", 95.0, rung=0, epochs=6))
        begin(writer, 2, why="random start")
    trials = Study(old.folder).trials()
    assert [record.value for record in trials[0].repeats] == [95.0]
    assert (trials[0].value("accuracy"), trials[2].why) == (90.0, "random start")


def schema(database: Path) -> set[tuple[object, ...]]:
    connection = sqlite3.connect(database)
    names = [name for (name,) in connection.execute("select name from sqlite_master where sql is not null")]
    columns = [row[1:] for name in names for row in connection.execute(f"pragma table_info({name})")]
    return {*columns, *(row[:2] for row in connection.execute("pragma index_xinfo(measurement_once)"))}


def test_a_study_that_was_brought_up_to_date_is_like_a_new_one(old: Study, tmp_path: Path) -> None:
    study = Study.create(tmp_path / "new", space_text="", manifest={})
    with old.writing(""):
        pass
    assert schema(old.database) == schema(study.database)
    versions = [sqlite3.connect(each.database).execute("pragma user_version").fetchone() for each in (old, study)]
    assert versions == [(ledger_tables.VERSION,)] * 2


def test_a_study_is_brought_up_to_date_whole_or_not_at_all(old: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ledger_tables.ONCE, "create", fail)
        with pytest.raises(KeyboardInterrupt):
            old.writing("").__enter__()
    assert sqlite3.connect(old.database).execute("pragma user_version").fetchone() == (1,)
    assert [facts(trial) for trial in old.trials()] == AS_READ
    with old.writing(""):
        assert [facts(trial) for trial in old.trials()] == AS_READ
