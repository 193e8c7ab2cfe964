"""What is read all at once is what reading one row after the other gives, and what fits neither is told alike."""

from __future__ import annotations

import dataclasses
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hand_made import COUNTS, an_assignment, measured

from mlpspace.errors import StudyError
from mlpspace.ledger_columns import Reader
from mlpspace.measurement import Progress
from mlpspace.study import Study
from mlpspace.trial import Trial
from mlpspace.trial_columns import FACTS, TrialColumns, columns_of

NUMBER = 40


def filled(study: Study) -> Study:
    """With trials of two devices, three rungs, several attempts and trainings anew, written in the order of chance."""
    rng = random.Random(0)
    with study.writing("", total=NUMBER) as writer:
        for number in range(NUMBER):
            point = rng.choice([{"width": 8 + number, "mixer": "dense"}, {}, None])
            label = rng.choice([None, "mixer_s16\x1b[2J", "ResMLP\u202e"])
            attempt = rng.choice([1, 1, 2])
            for again in range(1, attempt + 1):
                given = an_assignment(number, attempt=again, width=8 + number % 30)
                told = {"origin": "sampler", "label": label, "point": point, "why": rng.choice([None, "gain 0.1"])}
                writer.begin(given, **COUNTS, **told)
                steps = [("throughput", None, 0), ("peak_memory_mb", None, 0)]
                steps += [("accuracy", rung, 0) for rung in range(rng.randrange(4))]
                steps += [("accuracy", 0, repeat) for repeat in range(rng.choice([0, 0, 3]))]
                for metric, rung, repeat in rng.sample(steps, len(steps)):
                    one = measured(metric, rng.uniform(1, 90), rung=rung, epochs=None if rung is None else 6)
                    device, micro_batch = rng.choice(["cpu", "h100"]), rng.choice([None, None, 16])
                    one = dataclasses.replace(one, device=device, micro_batch=micro_batch)
                    writer.record(dataclasses.replace(given, repeat=repeat), one)
                for epoch in range(1, rng.randrange(1, 5)):
                    loss, accuracy = rng.choice([1.0, float("inf"), None]), rng.choice([None, 50.0])
                    writer.record_progress(given, Progress(phase="training", epoch=epoch, loss=loss, accuracy=accuracy))
            state = rng.choice(["complete", "paused", "stopped", "infeasible", None])
            if state:
                writer.finish(number, state, rng.choice([None, "error"]), rng.choice([None, "two\nlines\x07"]))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return filled(Study.create(tmp_path_factory.mktemp("studies") / "run1", space_text="", manifest={}))


def by_rows(study: Study) -> list[Trial]:
    return study.at_one_instant(lambda reader: reader._by_rows(None, curves=True))


def told(columns: TrialColumns) -> tuple[object, ...]:
    records = columns.records
    facts = {name: list(columns.facts[name]) for name in FACTS}
    return facts, records.of.tolist(), records.all(), [records[place] for place in range(len(records.of))]


def test_trials_that_are_read_at_once_are_those_that_are_read_row_by_row(study: Study) -> None:
    found, slow = study.trials(), by_rows(study)
    assert found == slow
    assert [vars(trial) for trial in found] == [vars(trial) for trial in slow]
    assert study.trials(curves=False) == [dataclasses.replace(trial, curve=()) for trial in slow]


def test_columns_hold_what_the_trials_hold(study: Study) -> None:
    found = study.at_one_instant(Reader.columns)
    assert told(found) == told(columns_of(study.trials()))
    assert len(found) == NUMBER


def test_nothing_was_read_row_by_row(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the two above would compare a thing with itself."""
    monkeypatch.setattr("mlpspace.ledger_columns.ledger_rows.record", None)
    assert len(study.trials()) == len(study.at_one_instant(Reader.columns)) == NUMBER


@pytest.mark.parametrize("few", [0, 10, 500])
def test_some_trials_are_read_as_all_are(study: Study, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpspace.ledger_columns._FEW", few)
    all_of_them = study.trials()
    assert study.trials([7, 3, 31]) == [all_of_them[number] for number in (3, 7, 31)]
    assert study.trials([]) == []
    assert study.trials(range(NUMBER)) == all_of_them


def test_a_study_without_trials_has_columns_without_rows(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "run1", space_text="", manifest={})
    columns = study.at_one_instant(Reader.columns)
    assert (len(columns), columns.records.all(), study.trials()) == (0, [], [])


@pytest.mark.parametrize(
    "spoiled",
    [
        "update measurement set device = 'CPU' where rowid % 2",
        "update measurement set value = 1e301 where rowid = 9",
        "update measurement set value = 3 where rowid = 9",
        "update measurement set seed = -1 where rowid = 9",
        "update measurement set trial = 99 where rowid = 9",
        "update measurement set epochs = null where metric = 'accuracy'",
        "update measurement set rung = 'last' where rowid = 9",
        "update measurement set metric = x'ff' where rowid = 9",
        "update measurement set value = -value where metric = 'throughput'",
        "update measurement set value = 101 where metric = 'accuracy'",
        "update trial set seconds = 'long' where number = 5",
        "update trial set gain = 9e999 where number = 5",
        "update trial set label = x'00' where number = 5",
        "update trial set detail = 5 where number = 5",
        "update trial set point = '{\"a\": [1]}' where number = 5",
        'update trial set point = \'{"\\u001b": "\\u202e"}\' where number = 5',
        "update progress set loss = 'none' where epoch = 1",
        "update progress set trial = 99, attempt = 1 where epoch = 1 and trial = 3",
        "update architecture set tokens = -1",
        "delete from architecture where rowid = 3",
    ],
)
def test_what_does_not_fit_is_told_as_row_by_row(study: Study, tmp_path: Path, spoiled: str) -> None:
    folder = tmp_path / "run1"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / "space.yaml").write_text("")
    with closing(sqlite3.connect(study.database)) as whole, closing(sqlite3.connect(folder / "study.db")) as connection:
        whole.backup(connection)
        connection.execute("pragma foreign_keys=off")
        connection.execute("pragma writable_schema=on")  # else SQLite would not take it
        connection.execute("update sqlite_master set sql = replace(sql, 'NOT NULL', '') where type = 'table'")
        connection.execute(spoiled)
        connection.commit()
    copy = Study(folder)
    try:
        expected: object = by_rows(copy)
    except StudyError as error:
        expected = str(error)
    try:
        found: object = copy.trials()
    except StudyError as error:
        found = str(error)
    assert found == expected


def test_texts_that_only_the_table_takes_for_equal_are_told_apart(study: Study, tmp_path: Path) -> None:
    """A column may be declared to compare without looking at capitals: its distinct values are not all there are."""
    folder = tmp_path / "run1"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / "space.yaml").write_text("")
    with closing(sqlite3.connect(study.database)) as whole, closing(sqlite3.connect(folder / "study.db")) as connection:
        whole.backup(connection)
        connection.execute("pragma writable_schema=on")
        connection.execute(
            "update sqlite_master set sql = replace(sql, 'device TEXT', 'device TEXT COLLATE NOCASE')"
            " where name = 'measurement'"
        )
        connection.commit()
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        connection.execute("update measurement set device = 'CPU' where device = 'cpu' and rowid % 2")
        connection.commit()
    assert {record.device for trial in Study(folder).trials() for record in trial.records} == {"cpu", "CPU", "h100"}
    assert Study(folder).trials() == by_rows(Study(folder))
