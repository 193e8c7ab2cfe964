"""What a disk can do to a search: be full, lose the ledger's file, or damage it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from commands import mlpspace
from full_disk import files_of_at_most
from hand_made import COUNTS, an_assignment, measured
from stubs import Session, evaluate

from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.ledger import Writer
from mlpspace.study import Study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folder = tmp_path / "run1"
    with Session(folder, sampler="random", trials=8) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    return Study(folder)


def begin(writer: Writer, number: int) -> None:
    writer.begin(an_assignment(number), **COUNTS, origin="sampler", point={"depth": 2})  # type: ignore[arg-type]


def test_a_full_disk_ends_the_search_with_a_word_and_takes_nothing_that_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "run1"
    results = []
    with (
        pytest.raises(StudyError, match=r"study\.db cannot be written to \(.+\)\. What was written stays"),
        Session(folder, sampler="random", trials=40) as search,
        files_of_at_most(2_000_000),
    ):
        search._observe = results.append
        inline.run(search, device="cpu", evaluate=evaluate)
    assert results
    trials = Study(folder).trials()
    assert {result.number for result in results} <= {trial.number for trial in trials if trial.state == "complete"}
    with Session(folder, sampler="random", trials=40) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    assert [trial.state for trial in Study(folder).trials()] == ["complete"] * 40


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_ledger_that_is_deleted_under_a_search_is_saved_with_the_command_that_puts_it_back(
    study: Study, how: str
) -> None:
    before = len(study.trials())
    stranger = b"somebody's file"
    with pytest.raises(StudyError) as told, study.writing("") as writer:
        begin(writer, before)
        for name in ("study.db", "study.db-wal", "study.db-shm"):
            (study.folder / name).unlink(missing_ok=True)
        if how == "replaced":
            study.database.write_bytes(stranger)
        writer.record(an_assignment(before), measured("throughput", 100.0))
    assert f"{study.database} was deleted or replaced while the search ran." in str(told.value)
    saved = study.folder / "run1-rescued.db"
    assert f"To go on: mv {saved} {study.database}" in str(told.value)
    if how == "replaced":
        assert study.database.read_bytes() == stranger
    saved.rename(study.database)
    trials = Study(study.folder).trials()
    assert len(trials) == before + 1
    assert trials[-1].state == "running"


def test_of_a_folder_that_is_gone_the_ledger_is_saved_beside_it(study: Study) -> None:
    with (
        pytest.raises(StudyError, match=r"moved or deleted .* its ledger held is in .*/run1-rescued\.db"),
        study.writing("") as writer,
    ):
        shutil.rmtree(study.folder)
        begin(writer, 8)
    saved = study.folder.parent / "run1-rescued.db"
    assert sqlite3.connect(saved).execute("select count(*) from trial").fetchone() == (8,)


def damaged_in_the_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    page = 4096
    middle = len(data) // page // 2 * page
    data[middle : middle + page] = os.urandom(page)
    file.write_bytes(bytes(data))


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [damaged_in_the_middle, cut_in_half, emptied])
def test_a_damaged_ledger_is_left_as_it_is_with_a_clear_word(capsys, study: Study, damage) -> None:
    file = study.folder / "space.yaml"
    damage(study.database)
    found = study.database.read_bytes()
    for command in (
        ["search", file, "--study", study.folder, "--engine", "inline", "--trials", 20],
        ["pareto", study.folder],
    ):
        code, _, err = mlpspace(capsys, *command)
        assert "Traceback" not in err
        if command[0] == "search":
            assert code == 2
            assert str(study.database) in err
            assert "left as it is" in err
        else:  # a page that is not asked for may be any
            assert code in (0, 2)
    assert study.database.read_bytes() == found


@pytest.mark.parametrize("damage", [damaged_in_the_middle, cut_in_half])
def test_the_command_that_saves_what_can_be_read_is_told(capsys, study: Study, damage) -> None:
    damage(study.database)
    file = study.folder / "space.yaml"
    _, _, err = mlpspace(capsys, "search", file, "--study", study.folder, "--engine", "inline", "--trials", 20)
    assert f"\n  To save what can be read: mlpspace rescue {study.folder}\n" in err


def test_what_can_be_saved_of_a_damaged_ledger_is_told_as_a_command(capsys, study: Study) -> None:
    with sqlite3.connect(study.database) as connection:
        (page,) = connection.execute("select rootpage from sqlite_master where name = 'progress'").fetchone()
    data = bytearray(study.database.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    study.database.write_bytes(bytes(data))
    code, _, err = mlpspace(
        capsys, "search", study.folder / "space.yaml", "--study", study.folder, "--engine", "inline"
    )
    assert code == 2
    assert "left as it is" in err
    assert f"To save what can be read: mlpspace rescue {study.folder}" in err
