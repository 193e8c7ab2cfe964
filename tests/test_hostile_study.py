"""A study folder from a stranger, or from a broken disk: read, or refused with a word; nothing of it runs, nothing changes."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import mlpspace
from guard import ending, tame
from hand_made import an_assignment
from stubs import SPACE, Session, evaluate, failing

from mlpspace.checkpoints import Checkpoints
from mlpspace.engines import inline
from mlpspace.engines.worker import Worker
from mlpspace.errors import StudyError, UserError
from mlpspace.measurement import Failure

Capture = pytest.CaptureFixture[str]

READING = (
    ("pareto", "STUDY"),
    ("pareto", "STUDY", "--json"),
    ("pareto", "STUDY", "--csv"),
    ("pareto", "STUDY", "--rung", "0"),
    ("show", "STUDY", "0"),
    ("show", "STUDY", "3", "--json"),
    ("status", "STUDY"),
    ("status", "STUDY", "--json"),
    ("status", "STUDY", "--profile"),
    ("manifest", "STUDY"),
)
FEW = (("pareto", "STUDY"), ("show", "STUDY", "3"), ("status", "STUDY", "--json"))
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.txt\r\n\x00"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of 12 trials."""
    folder = tmp_path_factory.mktemp("whole") / "run1"
    with Session(folder) as search:
        inline.run(search, device="cpu", evaluate=failing)
    return folder


@pytest.fixture
def study(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be spoiled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlpspace.sqlite_file.time", SimpleNamespace(sleep=lambda seconds: None))  # nobody is writing
    Path("space.yaml").write_text(SPACE)
    return Path(shutil.copytree(whole, Path("studies/run1")))


@contextmanager
def tables(study: Path) -> Iterator[sqlite3.Connection]:
    """Its file, which takes anything anywhere."""
    with closing(sqlite3.connect(study / "study.db")) as connection:
        connection.execute("pragma writable_schema=on")
        connection.execute("update sqlite_master set sql = replace(sql, 'NOT NULL', '') where type = 'table'")
        connection.commit()
    with closing(sqlite3.connect(study / "study.db")) as connection:
        connection.execute("pragma ignore_check_constraints=on")
        yield connection
        connection.commit()


def spoil(study: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    with tables(study) as connection:
        for statement in statements:
            connection.execute(statement, values)


def look(capsys: Capture, study: Path, *commands: tuple[str, ...]) -> list[str]:
    """What reading commands say of it, each of which ends well or with a word, and leaves the file as it is."""
    before = (study / "study.db").read_bytes() if (study / "study.db").is_file() else b""
    told = []
    for command in commands or READING:
        with ending():
            code, out, err = mlpspace(capsys, *(study if word == "STUDY" else word for word in command))
        assert code in (0, 1, 2), command
        assert (code == 2) <= bool(err.strip()), command
        assert tame(out + err), command
        assert "Traceback" not in err
        told.append(err if code == 2 else out)
    assert not before or (study / "study.db").read_bytes() == before
    return told


def refused(capsys: Capture, study: Path, *commands: tuple[str, ...]) -> str:
    """What all reading commands say of a study that they refuse, in the same words."""
    words = set(look(capsys, study, *commands))
    assert len(words) == 1, words
    return words.pop()


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("measurement.value", "fast", "a measurement of trial 0: value 'fast' is not a number (it takes a number from"),
        ("measurement.value", None, "a measurement of trial 0: value None is not a number"),
        ("measurement.value", float("inf"), "a measurement of trial 0: value inf is not a number"),
        ("measurement.value", b"\xff", "a measurement of trial 0: value b'\\xff' is not a number"),
        ("measurement.value", -1.0, "throughput -1.0 is not a number above 0"),
        ("measurement.high", 1e400, "high inf is not a number"),
        ("measurement.metric", "speed", "metric 'speed' is not one of accuracy, throughput, peak_memory_mb"),
        ("measurement.metric", "params", "metric 'params' is not one of"),
        ("measurement.threads", 10**9, "threads 1000000000 is not a whole number from 0 to 65536"),
        ("measurement.rung", "last", "rung 'last' is not a whole number"),
        ("measurement.epochs", 1.5, "epochs 1.5 is not a whole number"),
        ("measurement.device", 7, None),  # a column of texts takes it as one
        ("measurement.trial", 99, "measurements of trial 99, which is not there"),
        ("trial.state", "finished", "trial 0: state 'finished' is not one of running, complete, paused, stopped"),
        ("trial.state", None, "trial 0: state None is not one of"),
        ("trial.origin", "heaven", "origin 'heaven' is not one of fixed point, sampler"),
        ("trial.number", 2**62, "number 4611686018427387904 is not a whole number from 0 to 2147483647"),
        ("trial.number", -1, "number -1 is not a whole number from 0"),
        ("trial.number", 40, "of trial 0, which is not there"),
        ("trial.architecture", "nobody", "trial 0: params None is not a whole number"),
        ("trial.started", "today", "started 'today' is not a number"),
        ("trial.ended", 1e300, "ended 1e+300 is not a number from"),
        ("trial.seed", 2**63 - 1, None),
        ("trial.seed", -1, "seed -1 is not a whole number from 0"),
        ("trial.point", "[1]", "the point of trial 0 is a JSON list, not an object"),
        ("trial.point", "{oh", "the point of trial 0 is no JSON"),
        ("trial.point", "[" * 100_000, "the point of trial 0 is no JSON"),
        ("trial.point", '{"a": ' * 100 + "1" + "}" * 100, "the point of trial 0 nests over 20 deep"),
        ("trial.point", '{"width": [1, 2]}', "in its point, 'width' is a list"),
        ("architecture.params", "many", "params 'many' is not a whole number"),
        ("architecture.macs", -(2**63), "macs -9223372036854775808 is not a whole number from 0"),
    ],
)
def test_a_row_that_mlpspace_would_not_write_is_refused(
    study: Path, capsys: Capture, column: str, value: object, says: str | None
) -> None:
    table, name = column.split(".")
    spoil(study, f"update {table} set {name} = ? where rowid = (select min(rowid) from {table})", values=(value,))
    if says is None:
        look(capsys, study)
        return
    told = refused(capsys, study, *FEW)
    assert told.startswith(f"{study / 'study.db'}")
    assert says in told
    assert "It is left as it is." in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "architecture.stages: at least one stage is needed"),
        ("[]", "architecture: expected an object, found list"),
        ("no json", "not an architecture: Expecting value"),
        ("[" * 100_000, "not an architecture: "),
        ("9" * 10_000, "not an architecture: "),
        (
            '{"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 1, "width": 1e400}]}',
            "Stage.width: inf is not",
        ),
        (
            '{"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 1, "width": 1000000000000}]}',
            "from 1 to 65536",
        ),
        ('{"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 1000000000, "width": 8}]}', "from 1 to 1000"),
        ('{"stem": {"kind": "os.system", "patch": 4}, "stages": [{}]}', 'stem: kind "os.system" is not known'),
        ('{"stem": {"kind": "\\u001b[2J"}, "stages": [{}]}', 'stem: kind "\\x1b[2J" is not known'),
        ('{"stem": {"kind": "\\ud800"}, "stages": [{}]}', 'stem: kind "\\ud800" is not known'),
        ('{"stem": {"kind": "patches", "patch": 4}, "stages": [' + "{}," * 5000 + "{}]}", "5,001 are too many"),
        ('{"stem": {"kind": "patches", "patch": 4, "__class__": 1}, "stages": [{}]}', '"__class__" is not known'),
    ],
)
def test_an_architecture_that_is_none_is_refused_where_it_is_shown(
    study: Path, capsys: Capture, text: str, says: str
) -> None:
    spoil(study, "update architecture set json = ?", values=(text,))
    told = refused(capsys, study, ("show", "STUDY", "3"), ("show", "STUDY", "3", "--json"))
    assert told.startswith(f"{study / 'study.db'}: the architecture of trial 3 cannot be read (")
    assert says in told
    assert len(told) < 2000
    assert "cannot be read" in refused(capsys, study, ("pareto", "STUDY"), ("pareto", "STUDY", "--csv"))


@pytest.mark.parametrize("text", ["{}", "[]", "null", "no json", "[" * 100_000, '{"lr": "fast", "augmentation": {}}'])
def test_a_recipe_that_is_none_is_refused_where_it_is_shown(study: Path, capsys: Capture, text: str) -> None:
    spoil(study, "update trial set recipe = ?", values=(text,))
    told = refused(capsys, study, ("show", "STUDY", "3", "--json"))
    assert told.startswith(f"{study / 'study.db'}: the recipe of trial 3 cannot be read (")


def test_the_widest_network_that_can_be_said_is_shown_without_being_built(study: Path, capsys: Capture) -> None:
    stage = '{"depth": 1000, "width": 65536}'
    text = f'{{"stem": {{"kind": "patches", "patch": 1}}, "stages": [{", ".join([stage] * 100)}]}}'
    spoil(study, "update architecture set json = ?", values=(text,))
    shown = look(capsys, study, ("show", "STUDY", "3"))[0]
    assert "1000x65536" in shown


TEXTS = (
    *("trial.label", "trial.reason", "trial.detail", "trial.why", "trial.architecture", "trial.recipe", "trial.point"),
    *("trial.repeat_failed", "trial.state", "trial.origin", "architecture.json"),
    *("measurement.device", "measurement.dataset", "measurement.protocol", "measurement.precision", "measurement.data"),
    *("measurement.metric", "measurement.recipe", "session.host", "session.command", "session.manifest"),
    "session.wall_time",
)


@pytest.mark.parametrize("column", TEXTS)
def test_no_text_of_a_study_drives_the_terminal(study: Path, capsys: Capture, column: str) -> None:
    table, name = column.split(".")
    spoil(study, f"update {table} set {name} = ? where rowid = 1", values=(ESCAPES,))
    look(capsys, study, *READING, ("search", "space.yaml", "--study", "STUDY"))  # looks through what is said


def test_reasons_and_labels_are_told_with_their_escapes_written_out(study: Path, capsys: Capture) -> None:
    spoil(study, "update trial set reason = ? where state = 'infeasible'", values=(ESCAPES,))
    spoil(study, "update trial set label = ? where number = 0", values=(f"mixer{ESCAPES}",))
    spoil(study, "insert into refused values (?, 3)", values=(ESCAPES,))
    written_out = r"\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.txt\r\n\x00"
    assert written_out in look(capsys, study, ("status", "STUDY"))[0]
    assert f"mixer{written_out}" in look(capsys, study, ("show", "STUDY", "0"))[0]


def test_a_folder_whose_name_holds_escapes_is_told_with_them_written_out(study: Path, capsys: Capture) -> None:
    study.rename(study.parent / ESCAPES.replace("\0", ""))
    code, out, err = mlpspace(capsys, "pareto", study)
    assert code == 2
    assert "Studies here: studies/\\x1b[2J" in err
    assert tame(out + err)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from trial where number in (3, 5)",
        "delete from architecture where id = (select architecture from trial where number = 3)",
        "delete from measurement",
        "delete from progress",
        "delete from session",
        "delete from trial",
        "drop table progress",
        "drop table measurement",
        "drop table session",
        "drop table trial",
        "alter table trial drop column seed",
        "alter table trial rename to trail",
        "create table extra (a)",
        "pragma user_version = 0",
        "pragma user_version = -1",
        "pragma user_version = 1",
        "pragma user_version = 2000000000",
        "update session set seen = 'never'",
        "update session set seen = x'ff'",
        "update session set started = 9e999",
        "update session set total = 'all'",
        "insert into refused values ('params', 'many')",
        "insert into refused values (x'ff', 1)",
        "update progress set loss = 9e999",
        "update progress set accuracy = 1e300",
        "update progress set epoch = 'last' where epoch = 2",
        "update measurement set low = 9e300, high = -9e300",
        "update trial set state = 'running'",
        "update trial set seconds = -1e9",
        "update trial set ended = null",
        "update architecture set params = 0, macs = 0, tokens = 0, activations = 0",
        "update architecture set params = 9223372036854775807",
    ],
)
def test_rows_and_tables_that_are_missing_or_odd_are_read_or_refused(
    study: Path, capsys: Capture, statement: str
) -> None:
    spoil(study, statement)
    look(capsys, study, *FEW, ("manifest", "STUDY"))


def test_a_trial_that_is_there_twice_is_refused(study: Path, capsys: Capture) -> None:
    spoil(
        study,
        "create table t as select * from trial",
        "drop table trial",
        "alter table t rename to trial",
        "insert into trial select * from trial where number = 3",
    )
    assert "trial 3 is there twice" in refused(capsys, study, *READING[:8])


# --- what would run while others read -----------------------------------------------------------------------------------


ENDLESS = "with recursive n(i) as (values (0) union all select i + 1 from n) select i from n"


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (
            ["drop table refused", f"create view refused as select 'x' as reason, i as count from ({ENDLESS})"],
            'view "refused"',
        ),
        (["alter table trial rename to t", "create view trial as select * from t"], 'view "trial"'),
        ([f"create view harmless as {ENDLESS}"], 'view "harmless"'),
        (["create trigger tick after insert on session begin delete from trial; end"], 'trigger "tick"'),
        (["create virtual table notes using fts5(a)"], 'virtual table "notes"'),
        (
            [
                "drop table refused",
                "create table refused (reason text primary key, count as (length(printf('%.*c', 100000000, reason))))",
                "insert into refused (reason) values ('x')",
            ],
            'computed column "count"',
        ),
    ],
    ids=["endless view", "view for a table", "view beside", "trigger", "virtual table", "computed column"],
)
def test_tables_that_would_run_something_are_refused(
    study: Path, capsys: Capture, statements: list[str], says: str
) -> None:
    spoil(study, *statements)
    commands = (*READING, ("search", "space.yaml", "--study", "STUDY", "--trials", "20", "--engine", "inline"))
    told = refused(capsys, study, *commands)
    assert f"has a {says}, which mlpspace and Optuna never make" in told


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100_000, b"SQLite format 3\0", b"no database at all", pickle.dumps([1]), b"\x1b[2J" * 100],
    ids=["empty", "zeros", "head", "text", "pickle", "escapes"],
)
def test_a_file_that_is_no_database_is_refused(study: Path, capsys: Capture, data: bytes) -> None:
    (study / "study.db").write_bytes(data)
    told = refused(capsys, study)
    assert told.startswith(f"{study / 'study.db'} is not a study database")


@pytest.mark.parametrize("spoiled_files", [30, pytest.param(1000, marks=pytest.mark.fuzz)])
def test_a_spoiled_database_is_read_or_refused(study: Path, capsys: Capture, spoiled_files: int) -> None:
    rng = random.Random(0)
    file = study / "study.db"
    database = file.read_bytes()
    for _ in range(spoiled_files):
        spoiled = bytearray(database)
        for _ in range(rng.choice((1, 3, 30))):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        if rng.random() < 0.2:
            del spoiled[rng.randrange(len(spoiled)) :]
        file.write_bytes(spoiled)
        look(capsys, study, ("pareto", "STUDY"), ("status", "STUDY"), ("show", "STUDY", "3"), ("manifest", "STUDY"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "is a JSON list, not an object"),
        ("null", "is a JSON NoneType, not an object"),
        ("{oh", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"a": ' * 500 + "1" + "}" * 500, "nests over 20 deep"),
        ('{"data": [1]}', None),
        ('{"data": {"mnist5k": 7}}', None),
        ('{"data": "mnist5k"}', None),
        ('{"command": "\\u001b[2J", "packages": {"torch": [[]]}, "machine": 7, "git": "x"}', None),
    ],
)
def test_a_manifest_that_is_none_is_refused_where_it_is_needed(
    study: Path, capsys: Capture, text: str, says: str | None
) -> None:
    (study / "manifest.json").write_text(text)
    manifest, *_ = look(capsys, study, ("manifest", "STUDY"), *READING)
    search = ("search", "space.yaml", "--study", "STUDY", "--trials", "13", "--engine", "inline")
    for told in (manifest, *look(capsys, study, search)) if says else ():
        assert told.startswith(str(study / "manifest.json"))
        assert says in told


@pytest.mark.parametrize("place", ['{"mine": 7}', '["mine"]', '"mine"', '{"mine": null}', '{"mine": {"a": 1}}'])
def test_a_place_of_the_data_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE.replace("mnist5k", "mine"))
    with Session(Path("studies/run1"), text=Path("space.yaml").read_text(), trials=3) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    (tmp_path / "studies/run1/manifest.json").write_text(f'{{"data": {place}}}')
    for command in (("search", "space.yaml", "--study", "STUDY", "--engine", "inline"), ("replay-trial", "STUDY", "0")):
        told = look(capsys, Path("studies/run1"), command)[0]
        assert "--data mine=PATH" in told or "manifest.json" in told


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b"&a [*a]", b"width: !!python/object/apply:os.mkdir [done]"])
def test_a_space_that_is_none_is_refused(study: Path, capsys: Capture, data: bytes) -> None:
    (study / "space.yaml").write_bytes(data)
    told = refused(capsys, study, *READING[:4], *READING[6:8])
    assert told.startswith(str(study / "space.yaml"))
    assert not Path("done").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"engine": "sqlite", "schema": "mlpspace_a_1"}',
        '{"engine": "postgresql+psycopg", "schema": "public"}',
        '{"engine": "postgresql+psycopg", "schema": "mlpspace_a; drop schema public"}',
        '{"engine": "postgresql+psycopg", "schema": "mlpspace_a_1", "host": ["a"]}',
        '{"engine": "postgresql+psycopg", "schema": "mlpspace_a_1", "port": true}',
        '{"engine": "postgresql+psycopg", "schema": "mlpspace_a_1", "password": "a"}',
        '{"engine": "postgresql+psycopg", "schema": "mlpspace_a_1", "passfile": "/etc/passwd"}',
    ],
)
def test_a_storage_that_is_none_is_refused(study: Path, capsys: Capture, text: str) -> None:
    (study / "storage.json").write_text(text)
    told = refused(capsys, study, *FEW, ("search", "space.yaml", "--study", "STUDY", "--engine", "inline"))
    assert told.startswith(f"{study / 'storage.json'} does not say where the study's tables are (")


def somebodys_file(study: Path) -> Path:
    file = Path("precious.txt").absolute()
    file.write_text("precious")
    return file


def a_linked_database(study: Path) -> None:
    shutil.copytree(study, study.parent / "run2")
    (study / "study.db").unlink()
    (study / "study.db").symlink_to((study.parent / "run2/study.db").absolute())


def a_linked_file(name: str) -> Callable[[Path], None]:
    def link(study: Path) -> None:
        (study / name).unlink(missing_ok=True)
        (study / name).symlink_to(somebodys_file(study))

    link.__name__ = f"a linked {name}"
    return link


def a_linked_folder(name: str) -> Callable[[Path], None]:
    def link(study: Path) -> None:
        shutil.rmtree(study / name, ignore_errors=True)
        precious = somebodys_file(study).parent / "precious"
        precious.mkdir()
        for inner in ("17-epoch1-00000000.pt", "3.pt", "half.part"):
            (precious / inner).write_text("precious")
        (study / name).symlink_to(precious)

    link.__name__ = f"a linked folder {name}"
    return link


def a_linked_checkpoint(study: Path) -> None:
    (study / "checkpoints").mkdir(exist_ok=True)
    (study / "checkpoints" / "0-epoch1-00000000.part").symlink_to(somebodys_file(study))


def a_pipe(name: str) -> Callable[[Path], None]:
    def pipe(study: Path) -> None:
        (study / name).unlink(missing_ok=True)
        os.mkfifo(study / name)

    pipe.__name__ = f"a pipe {name}"
    return pipe


@pytest.mark.parametrize(
    "make",
    [
        a_linked_database,
        *map(
            a_linked_file, ("lock", "space.yaml", "manifest.json", "manifest.json.new", "study.db-wal", "study.db-shm")
        ),
        *map(a_linked_file, ("study.db-journal", "storage.json")),
        *map(a_linked_folder, ("checkpoints", "weights")),
        a_linked_checkpoint,
        *map(
            a_pipe, ("lock", "space.yaml", "manifest.json", "study.db", "study.db-wal", "study.db-shm", "storage.json")
        ),
    ],
    ids=lambda make: make.__name__,
)
def test_a_way_out_of_the_folder_is_refused_and_not_gone(
    study: Path, capsys: Capture, make: Callable[[Path], None]
) -> None:
    make(study)
    elsewhere = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and study not in path.parents}
    commands = (*READING, ("search", "space.yaml", "--study", "STUDY", "--trials", "14", "--engine", "inline"))
    told = refused(capsys, study, *commands)
    assert "a study's folder holds files of its own alone. Nothing was touched." in told
    assert {path: path.read_bytes() for path in elsewhere} == elsewhere


@pytest.mark.parametrize("name", ["lock", "space.yaml", "manifest.json", "study.db.new", "manifest.json.new"])
def test_no_study_is_made_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE)
    precious = somebodys_file(tmp_path)
    Path("new").mkdir()
    Path("new", name).symlink_to(precious)
    with ending():
        code, _, err = mlpspace(capsys, "search", "space.yaml", "--study", "new", "--engine", "inline")
    assert code == 2
    assert f"new/{name} is a link to" in err
    assert precious.read_text() == "precious"


def test_a_link_to_the_whole_folder_is_no_way_out(study: Path, capsys: Capture) -> None:
    Path("linked").symlink_to(study)
    assert "Pareto front" in look(capsys, Path("linked"), ("pareto", "STUDY"))[0]


# --- going on with it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point",
    [
        '{"foo": 1}',
        '{"isotropic.depth": "a"}',
        '{"isotropic.depth": 99}',
        '{"norm": true}',
        '{"isotropic.depth": 1e308}',
    ],
)
def test_a_trial_that_was_not_drawn_from_the_space_is_refused(study: Path, point: str) -> None:
    spoil(study, "update trial set point = ? where number = 5", values=(point,))
    before = rows(study)
    with pytest.raises(StudyError, match=r"study.db: trial 5 has .*, which is no value of its space"), Session(study):
        pass
    assert rows(study) == before


def test_a_measurement_at_a_rung_that_the_space_does_not_have_is_refused(study: Path) -> None:
    spoil(study, "update measurement set rung = 7 where trial = 4 and metric = 'accuracy'")
    before = rows(study)
    with (
        pytest.raises(StudyError, match=r"study.db: trial 4 has rung 7, which its space does not have"),
        Session(study),
    ):
        pass
    assert rows(study) == before


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("study_directions", "direction"),
        ("study_system_attributes", "value_json"),
        ("trial_user_attributes", "value_json"),
        ("alembic_version", "version_num"),
        ("studies", "study_name"),
        ("trials", "state"),
        ("trials", "number"),
        ("version_info", "schema_version"),
    ],
)
@pytest.mark.parametrize("value", ["\x1b[2J", None, "[" * 50_000])
def test_tables_of_optuna_that_were_spoiled_are_mended_or_refused(
    study: Path, table: str, column: str, value: object
) -> None:
    spoil(study, f"update or ignore {table} set {column} = ?", values=(value,))
    before = rows(study)
    with suppress(UserError), ending(), Session(study, trials=12) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    assert rows(study) == before  # of the ledger nothing is lost


def rows(study: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(study / "study.db")) as connection:
        names = ("trial", "architecture", "measurement", "progress", "refused")
        return {name: connection.execute(f"select * from {name} order by 1").fetchall() for name in names}


class Touch:
    """Pickled, it makes a folder where it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("done",)


def saved(told: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(told, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "state",
    [
        pickle.dumps(Touch(), 2),
        saved(Touch()),
        saved({"past": Touch()}),
        saved({"past": {}}),
        b"",
        b"PK\x03\x04",
        bytes(100),
    ],
    ids=["pickle", "code", "code inside", "half", "empty", "zip", "zeros"],
)
def test_a_checkpoint_from_a_stranger_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: bytes
) -> None:
    """It is a failure of its trial, whose reason says so; the search goes on."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / f"3-epoch1-{zlib.crc32(state):08x}.pt").write_bytes(state)
    kept = Checkpoints(folder).get(3)
    assert kept is not None
    assignment = an_assignment(3)
    worker = Worker("cpu", 1)
    started = dataclasses.replace(assignment, state=kept.state, epochs=(2,), deployment=None)
    events = list(worker.events(started, {}))
    assert isinstance(events[-1], Failure)
    assert events[-1].reason == "error"
    assert tame(events[-1].detail)
    assert not Path("done").exists()
