"""Where a study's time went, as it is told; the shares are worked out by hand."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from stubs import Session as Searched
from stubs import evaluate

from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.session import Session
from mlpspace.study import Study
from mlpspace.wall_time import DRIVER, PROCESS, WORK, WORKER, Tallies
from mlpspace.wall_time_table import _HINTS, MOST_ROWS, spent_json, spent_of, spent_text

GOOD = {"training": 90.0, "measuring": 6.0, "building": 2.0, "waiting": 2.0, "paused": 50.0}
BAD = {"training": 40.0, "validating": 10.0, "measuring": 10.0, "starting": 30.0, "waiting": 9.0, "saving": 1.0}


def session(number: int, *workers: dict[str, float], noted: bool = True) -> Session:
    told = {"workers": {f"pid {i} on laptop": tally for i, tally in enumerate(workers)}, "driver": {"writing": 3.0}}
    return Session(
        number=number,
        started=0.0,
        seen=150.0,
        host="laptop",
        pid=1,
        command="mlpspace search a.yaml",
        total=24,
        wall_time=told if noted else None,
    )


def test_the_share_of_training_and_measuring_is_that_of_the_time_without_pauses() -> None:
    told = spent_json(spent_of([session(1, GOOD)]))
    assert told["training_and_measuring"] == 96 / 100
    assert told["workers"][0]["seconds"] == GOOD
    both = spent_json(spent_of([session(1, GOOD, BAD)]))
    assert both["training_and_measuring"] == (96 + 60) / (100 + 100)
    assert [row["training_and_measuring"] for row in both["workers"]] == [0.96, 0.6]
    assert both["all"]["training"] == 130.0


def test_the_driver_of_all_sessions_is_summed_up() -> None:
    assert spent_json(spent_of([session(1, GOOD), session(2, BAD)]))["driver"] == {"writing": 6.0}


def test_what_takes_more_than_a_twentieth_is_said_first_with_what_would_help() -> None:
    text = spent_text(spent_of([session(1, BAD)]))
    lines = text.splitlines()
    assert "60.0 % training and measuring" in lines[0]
    assert lines[1].startswith("  30.0 % starting (the process, imports, the device): ")
    assert lines[2].startswith("   9.0 % waiting ")
    assert "saving (" not in text.partition("\n\n")[0]  # a hundredth


def test_where_all_is_well_nothing_is_advised_and_pauses_are_told() -> None:
    head, table, _ = spent_text(spent_of([session(1, GOOD)])).split("\n\n")
    first, pauses = head.splitlines()
    assert first == "Wall time of the workers, 1 session: 96.0 % training and measuring, after 50 s of pauses"
    assert pauses == "  Pauses are the price of throughputs that tell of networks alone; the shares leave them out."
    assert "paused" in table.splitlines()[0]


def test_each_worker_has_its_row_in_columns_that_stand_below_each_other() -> None:
    text = spent_text(spent_of([session(1, GOOD, BAD), session(2, GOOD)]))
    rows = text.split("\n\n")[1].splitlines()
    assert len({len(row.rstrip()) for row in rows[:-1]}) == 1
    assert [row.split()[:2] for row in rows[1:4]] == [["1", "1"], ["1", "2"], ["2", "1"]]
    assert rows[4].split()[0] == "all"
    assert rows[3].split()[-2:] == ["150.0", "96.0"]


def test_a_thousand_workers_are_summed_up_but_for_the_last() -> None:
    text = spent_text(spent_of([session(1, *[GOOD] * 1000)]))
    rows = text.split("\n\n")[1].splitlines()
    assert len(rows) == MOST_ROWS + 3  # head, sum, percent
    assert rows[1].split()[:2] == [str(1000 - MOST_ROWS + 1), "others"]


def test_sessions_of_an_older_mlpspace_are_said_to_be_missing() -> None:
    assert "1 of 2 sessions" in spent_text(spent_of([session(1, noted=False), session(2, GOOD)]))
    assert "was not noted" in spent_text(spent_of([session(1, noted=False)]))
    assert "was not noted" in spent_text(spent_of([]))


def test_every_kind_that_may_be_too_much_has_a_word_of_advice() -> None:
    assert set(_HINTS) == set(WORKER) - {*WORK, "paused"}


def test_a_slow_disk_is_among_the_reasons_for_time_spent_on_data() -> None:
    told = spent_text(spent_of([session(1, {"training": 50.0, "data": 50.0})]))
    assert "50.0 % data " in told
    assert "disk is slow: MLPSPACE_CACHE=FOLDER on a quicker one, or --resident with more" in told


def test_the_time_of_what_hung_is_in_the_table() -> None:
    told = spent_text(spent_of([session(1, {"training": 50.0, "lost": 50.0})]))
    assert "50.0 % lost (in processes that hung or died, since they were last heard of): " in told
    assert "lost" in told.split("\n\n")[1].splitlines()[0]


# --- in the ledger ----------------------------------------------------------------------------------------------------


def test_the_account_of_a_session_is_in_the_ledger_while_it_runs_and_when_it_has_ended(tmp_path: Path) -> None:
    searched = Searched(tmp_path / "run1")
    with searched as search:
        PROCESS.begin("opening")
        tallies = Tallies(
            searched.writer.keep_wall_time, lambda: {"deciding": PROCESS.tally()["deciding"]}, every_s=0.0
        )
        inline.run(search, device="cpu", evaluate=evaluate, tallies=tallies)
        during = Study(tmp_path / "run1").sessions()[0].wall_time
        assert during is not None
        tallies.keep()
    (only,) = Study(tmp_path / "run1").sessions()
    assert only.wall_time is not None
    (worker,) = only.wall_time["workers"].values()
    assert set(worker) <= set(WORKER)
    assert worker["waiting"] > 0  # for the search, which has the same process
    assert set(only.wall_time["driver"]) <= set(DRIVER)
    assert only.wall_time["driver"]["deciding"] >= during["driver"]["deciding"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"workers": [], "driver": {}}',
        '{"workers": {"a": 3}, "driver": {}}',
        '{"workers": {"a": {"training": "long"}}, "driver": {}}',
        '{"workers": {"a": {"training": -1}}, "driver": {}}',
        '{"workers": {}, "driver": {"writing": NaN}}',
        '{"workers": {}, "driver": {"writing": true}}',
    ],
)
def test_what_is_no_account_is_refused_with_the_session_it_is_of(tmp_path: Path, text: str) -> None:
    searched = Searched(tmp_path / "run1")
    with searched:
        searched.writer.keep_wall_time({})
    with sqlite3.connect(tmp_path / "run1" / "study.db") as database:
        database.execute("update session set wall_time = ?", (text,))
    database.close()
    with pytest.raises(StudyError, match="the wall time of session 1"):
        Study(tmp_path / "run1").sessions()


def test_a_kind_that_a_newer_mlpspace_may_know_is_left_out() -> None:
    row = session(1, GOOD | {"dreaming": 7.0})
    assert "dreaming" not in json.dumps(spent_json(spent_of([row])))
