"""A study whose tables are on a PostgreSQL server: a real one, which these tests start, stop and restart.

What a study keeps whichever way is claimed in test_study, test_ledger and test_optuna_tables, on both.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import test_ledger_columns
import test_search
from commands import mlpspace
from hand_made import COUNTS, an_assignment, measured
from stubs import SPACE, Session, evaluate

from mlpspace import driver, ledger_tables
from mlpspace.address import address_of
from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.ledger import Writer
from mlpspace.ledger_columns import Reader
from mlpspace.measurement import Progress
from mlpspace.study import Study, studies_near
from mlpspace.trial_columns import columns_of

if TYPE_CHECKING:
    from postgres_server import Server

TESTS = Path(__file__).parent


@pytest.fixture
def study(tmp_path: Path, server: Server) -> Study:
    return Study.create(tmp_path / "run1", space_text="", manifest={}, address=server.address())


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module; its patience is short."""
    from mlpspace import postgres

    monkeypatch.setattr(postgres, "PATIENCE", 20.0)
    return postgres


def begin(writer: Writer, number: int = 0, **told: Any) -> None:
    writer.begin(an_assignment(number), **COUNTS, origin="sampler", point={"depth": 2}, **told)  # type: ignore[arg-type]


def everything_at(server: Server, schema: str) -> str:
    """All rows of all tables of a schema, as text."""
    listed = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    names = [name for (name,) in server.do(listed, schema, database="team")]
    assert {"trial", "trials", "session", "mlpspace"} <= set(names)
    return "\n".join(repr(server.do(f"SELECT * FROM {schema}.{name}", database="team")) for name in names)


def schema_of(study: Study) -> str:
    return str(json.loads((study.folder / "storage.json").read_text())["schema"])


# --- where it is ----------------------------------------------------------------------------------------------------


def test_the_folder_keeps_the_address_and_the_server_the_tables(study: Study, server: Server) -> None:
    assert sorted(path.name for path in study.folder.iterdir()) == [
        "lock",
        "manifest.json",
        "space.yaml",
        "storage.json",
    ]
    told = json.loads((study.folder / "storage.json").read_text())
    schema = told.pop("schema")
    place = {"host": "127.0.0.1", "port": server.port, "database": "team", "user": "alice"}
    assert told == {"engine": "postgresql+psycopg", **place}
    found = server.do("SELECT version FROM " + schema + ".mlpspace", database="team")
    assert found == [(ledger_tables.VERSION,)]


def test_what_is_not_said_is_found_as_libpq_finds_it_and_kept(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgres_server import PASSWORD

    with monkeypatch.context() as patched:
        for name, value in (("HOST", "127.0.0.1"), ("PORT", server.port), ("DATABASE", "team"), ("USER", "alice")):
            patched.setenv(f"PG{name}", str(value))
        patched.setenv("PGPASSWORD", PASSWORD)
        Study.create(tmp_path / "run1", space_text="", manifest={}, address=address_of("postgresql+psycopg://"))
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{server.port}:team:alice:{PASSWORD.replace(':', chr(92) + ':')}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("PGUSER", "alice")
    assert Study(tmp_path / "run1").trials() == []


def test_studies_of_one_database_do_not_meet(tmp_path: Path, server: Server) -> None:
    studies = [
        Study.create(tmp_path / where / "run1", space_text="", manifest={}, address=server.address())
        for where in ("mine", "yours")
    ]
    with studies[0].writing("") as first, studies[1].writing("") as second:  # at once
        begin(first, 0)
        begin(second, 0)
        begin(second, 1)
    assert [len(study.trials()) for study in studies] == [1, 2]


def test_a_study_whose_making_was_cut_off_is_made_anew_in_the_same_schema(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            Study.create(tmp_path / "cut_off", space_text="", manifest={}, address=server.address())
    assert not (tmp_path / "cut_off" / "storage.json").exists()
    study = Study.create(tmp_path / "cut_off", space_text="", manifest={}, address=server.address())
    made = server.do("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'mlpspace_cut_off%%'", database="team")
    assert made == [(schema_of(study),)]
    assert study.trials() == []


def test_a_study_on_a_server_is_named_where_studies_are_named(study: Study) -> None:
    assert studies_near(study.folder.parent / "run7") == [study.folder]


# --- one driver, wherever it runs -----------------------------------------------------------------------------------


def a_copy(study: Study, server: Server, name: str = "copy") -> Study:
    """The same study from another machine, which has no folder with this one in common."""
    shutil.copytree(study.folder, study.folder.parent / name)
    return Study(study.folder.parent / name, address=server.address())


def test_a_driver_elsewhere_is_refused_with_the_name_of_the_first(study: Study, server: Server) -> None:
    copy = a_copy(study, server)
    me = f"pid {os.getpid()} on {socket.gethostname()}"
    with study.writing("") as writer:
        with pytest.raises(StudyError, match=f"is being searched by {me}; one study has one driver"):
            copy.writing("").__enter__()
        assert copy.driver == me
        begin(writer)
    assert copy.driver is None
    with copy.writing("") as writer:
        begin(writer, 1)
    assert len(study.trials()) == 2


WRITER = """
import sys, time
from hand_made import COUNTS, an_assignment
from mlpspace.study import Study

with Study(sys.argv[1]).writing("writer") as writer:
    writer.begin(an_assignment(0), **COUNTS, origin="sampler", point={})
    print("begun", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_dead_driver_is_no_lock(study: Study, server: Server) -> None:
    from postgres_server import PASSWORD

    copy = a_copy(study, server)
    command = [sys.executable, "-c", WRITER, str(copy.folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=TESTS, env={**os.environ, "PGPASSWORD": PASSWORD}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    with pytest.raises(StudyError, match=f"pid {process.pid} on"):
        study.writing("").__enter__()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with study.writing("") as writer:  # at once
        begin(writer, 1)
    assert len(study.trials()) == 2


def test_another_driver_that_came_while_the_server_was_away_is_not_disturbed(
    study: Study, server: Server, postgres: Any
) -> None:
    copy = a_copy(study, server)
    with pytest.raises(StudyError, match="one study has one driver"), study.writing("") as writer:
        begin(writer)
        cut_off(server)
        for _ in range(100):
            if copy.storage.driver() is None:
                break
            time.sleep(0.05)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "getpid", lambda: 1)  # another process
            with copy.writing("") as other:
                begin(other, 1)
                begin(writer, 2)
    assert [trial.number for trial in study.trials()] == [0, 1]


def test_a_writer_waits_until_the_server_has_seen_that_its_connection_is_gone(
    study: Study, server: Server, postgres: Any
) -> None:
    """A network that fails in silence: to the server the old connection is alive, and has the lock."""
    notes: list[str] = []
    with study.writing("") as writer:
        writer.transactions.note = notes.append
        begin(writer)
        alike = study.storage.connect(application_name=f"mlpspace, pid {os.getpid()} on {socket.gethostname()}")  # type: ignore[attr-defined]
        cut_off(server, but=alike.info.backend_pid)
        alike.execute("SELECT pg_advisory_lock(%s)", [study.storage.lock_key])  # type: ignore[attr-defined]
        alike.commit()
        seen = threading.Timer(3.0, alike.close)
        seen.start()
        begin(writer, 1)
        seen.join()
    assert len(study.trials()) == 2
    assert not notes or "it holds the study for a connection that is no more" in notes[0]


def cut_off(server: Server, but: int = 0) -> None:
    """Every connection to the studies ends, as when a network fails."""
    server.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'team' AND pid <> %s", but)


# --- a server that goes and comes -----------------------------------------------------------------------------------


def test_a_writer_waits_for_a_server_that_is_started_again(study: Study, server: Server, postgres: Any) -> None:
    notes: list[str] = []
    with study.writing("") as writer:
        writer.transactions.note = notes.append
        begin(writer)
        server.stop()
        again = threading.Timer(1.0, server.start)
        again.start()
        begin(writer, 1)
        again.join()
        writer.finish(1, "complete")
    assert [trial.state for trial in study.trials()] == ["running", "complete"]
    assert len(notes) == 2
    assert f"127.0.0.1:{server.port}/team" in notes[0]
    assert "Trying again for 20 s" in notes[0]
    assert notes[1].endswith("is back; nothing was lost.")


def test_a_writer_whose_connection_was_cut_goes_on_at_once(study: Study, server: Server, postgres: Any) -> None:
    notes: list[str] = []
    with study.writing("") as writer:
        writer.transactions.note = notes.append
        for number in range(5):
            begin(writer, number)
            cut_off(server)
    assert len(study.trials()) == 5


def test_a_server_that_stays_away_ends_the_search_with_a_word_and_loses_nothing(
    study: Study, server: Server, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE", 0.5)
    try:
        word = r"(?s)did not come back within 0 s: .*the same command goes on"
        with pytest.raises(StudyError, match=word), study.writing("") as writer:
            begin(writer)
            server.stop()
            begin(writer, 1)
        with pytest.raises(StudyError, match="cannot be reached: connection to server"):
            study.trials()
    finally:
        server.start()
    with study.writing("") as writer:
        begin(writer, 1)
    assert [trial.number for trial in study.trials()] == [0, 1]


class Deaf:
    """The server commits, and the word of it is lost with the connection: of every transaction, the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlpspace import postgres

        self.armed = False
        self.lost = 0
        self._again = False
        once = postgres.PostgresTransactions._once

        def lose(transactions: Any, do: Any, engine: Any) -> Any:
            found = once(transactions, do, engine)
            if self.armed and not self._again:
                self._again = True
                self.lost += 1
                transactions.engine.dispose()
                raise postgres._Away("server closed the connection unexpectedly")
            self._again = False
            return found

        monkeypatch.setattr(postgres.PostgresTransactions, "_once", lose)


def test_a_commit_whose_word_is_lost_is_made_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    commit, cut = psycopg.Connection.commit, [True]

    def lose(connection: Any) -> None:
        commit(connection)
        if cut.pop() if cut else False:
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    with study.writing("") as writer:
        begin(writer)
        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Connection, "commit", lose)
            writer.refuse("macs ..1M")  # its look-up
            cut.append(True)
            writer.finish(0, "complete")
    assert cut == []
    assert (study.trials()[0].state, study.refused) == ("complete", {"macs ..1M": 1})


CALLS: list[Callable[[Writer], None]] = [
    lambda writer: begin(writer, 1, why="random start"),
    lambda writer: writer.record(an_assignment(0), measured("throughput", 7.0)),
    lambda writer: writer.record(an_assignment(0), measured("accuracy", 7.0, rung=0, epochs=2)),
    lambda writer: writer.record_progress(an_assignment(0), Progress(phase="training", epoch=1, loss=1.0)),
    lambda writer: writer.lost(0),
    lambda writer: writer.lost(0),
    lambda writer: writer.refuse("macs ..1M", 3),
    lambda writer: writer.refuse("macs ..1M", 4),
    lambda writer: writer.repeat_failed(0, "out of memory"),
    lambda writer: writer.finish(0, "paused"),
    lambda writer: begin(writer, 0, epochs=2),
    lambda writer: writer.finish(0, "complete"),
    lambda writer: writer.heartbeat(),
    lambda writer: writer.sync(),
]


def what_they_leave(study: Study, deaf: Deaf | None) -> tuple[object, ...]:
    now = 0.0

    def clock() -> float:
        return now

    with study.writing("", clock=clock) as writer:
        begin(writer)
        for call in CALLS:
            now += 10.0
            if deaf is not None:
                deaf.armed = True
            call(writer)
        if deaf is not None:
            deaf.armed = False
    return study.trials(), study.refused, study.elapsed_seconds


def test_what_is_said_twice_counts_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record, with its first commit's word lost, leaves what it leaves undisturbed, in a file too."""
    deaf = Deaf(monkeypatch)
    in_a_file = Study.create(tmp_path / "file", space_text="", manifest={})
    studies = [Study.create(tmp_path / n, space_text="", manifest={}, address=server.address()) for n in ("a", "b")]
    expected = what_they_leave(in_a_file, None)
    assert what_they_leave(studies[0], None) == expected
    assert what_they_leave(studies[1], deaf) == expected
    # deaths are looked up before they are counted up, refusals once; and these are written with what comes next
    assert deaf.lost == len(CALLS) + 2 + 1 - 2
    assert [trial.deaths for trial in expected[0]] == [2, 0]  # type: ignore[attr-defined]
    assert expected[1] == {"macs ..1M": 7}


def test_optunas_tables_too_are_written_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = Deaf(monkeypatch)
    monkeypatch.setattr(Study, "create", on(server))
    with Session(tmp_path / "run1", trials=5) as search:
        deaf.armed = True
        while (assignment := search.next_assignment()) is not None:
            for event in evaluate(assignment, {}):
                search.report(assignment.trial, event)
            search.completed(assignment.trial)
    optuna = pytest.importorskip("optuna")
    study = Study(tmp_path / "run1", address=server.address())
    loaded = optuna.load_study(study_name="run1", storage=optuna.storages.RDBStorage(**study.storage.for_optuna()))
    told = [trial.values for trial in loaded.trials]
    assert told == [[trial.value("accuracy"), trial.value("throughput")] for trial in study.trials()]
    assert len(told) == 5
    assert deaf.lost > 20


def test_a_server_is_read_all_at_once_as_it_is_row_by_row(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = test_ledger_columns.by_rows(test_ledger_columns.filled(study))
    columns = test_ledger_columns.told(columns_of(slow))
    monkeypatch.setattr("mlpspace.ledger_columns.ledger_rows.record", None)  # it would be used row by row
    assert study.trials() == slow
    assert test_ledger_columns.told(study.at_one_instant(Reader.columns)) == columns


# --- searches -------------------------------------------------------------------------------------------------------


def on(server: Server) -> Any:
    """`Study.create` that puts every new study on the server."""
    create = Study.create.__func__  # type: ignore[attr-defined]

    def put(folder: Path, **told: Any) -> Study:
        return create(Study, folder, **told | {"address": server.address()})  # type: ignore[no-any-return]

    return put


CLAIMS = (  # those that write, are cut off and read again
    test_search.test_refused_draws_are_counted_and_take_no_number,
    test_search.test_failures_become_infeasible_trials_with_their_reason_and_the_search_goes_on,
    test_search.test_going_on_repeats_nothing_and_gives_unfinished_trials_out_again,
    test_search.test_a_trial_whose_last_word_was_cut_off_counts_as_complete,
    test_search.test_a_worker_that_dies_is_replaced_twice_then_its_trial_is_infeasible,
    test_search.test_the_time_budget_is_a_total_and_leaves_the_cut_trial_unfinished,
    test_search.test_what_a_worker_says_of_a_trial_that_is_over_is_not_recorded,
    test_search.test_published_networks_that_become_one_are_one_fixed_point,
)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__.removeprefix("test_"))
def test_a_search_on_a_server_does_what_it_does_in_a_file(
    claim: Callable[[Path], None], tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgres_server import PASSWORD

    monkeypatch.setattr(Study, "create", on(server))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    claim(tmp_path)
    assert not list(tmp_path.rglob("study.db"))


def test_a_search_goes_on_through_a_restart_of_the_server(
    tmp_path: Path, server: Server, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(tmp_path / "file") as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    monkeypatch.setattr(Study, "create", on(server))

    def restarting(assignment: Any, bounds: Any) -> Iterator[Any]:
        for n, event in enumerate(evaluate(assignment, bounds)):
            if (assignment.trial, n) in ((2, 1), (5, 5)):
                server.stop()
                server.start()
            yield event

    with Session(tmp_path / "server") as search:
        inline.run(search, device="cpu", evaluate=restarting)
    studies = Study(tmp_path / "file"), Study(tmp_path / "server", address=server.address())
    found = [[(t.architecture_id, t.state, t.value("accuracy"), t.curve) for t in study.trials()] for study in studies]
    assert found[0] == found[1]


# --- what a person sees ---------------------------------------------------------------------------------------------


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands are typed here; workers train nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(SPACE)

    def engine(search: Any, *_: Any) -> None:
        inline.run(search, device="cpu", evaluate=evaluate)

    monkeypatch.setattr(driver, "_engine", engine)
    for name in ("PGPASSWORD", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_same_command_goes_on_and_the_front_is_found_from_the_folder(
    typed: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgres_server import PASSWORD

    command = ("search", "a.yaml", "--engine", "inline", "--plain", "--storage", server.url())
    code, out, err = mlpspace(capsys, *command, "--trials", 5)
    assert (code, err) == (0, "")
    assert "new study studies/run1, its tables at postgresql+psycopg://alice@127.0.0.1" in out
    assert "The password is kept nowhere." in out
    code, out, _ = mlpspace(capsys, *command, "--trials", 8)
    assert "going on with studies/run1: 5 of 8 trials done" in out
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    code, out, _ = mlpspace(capsys, "search", "a.yaml", "--engine", "inline", "--plain", "--trials", 9)  # no --storage
    assert "going on with studies/run1: 8 of 9 trials done" in out
    code, out, _ = mlpspace(capsys, "pareto", "studies/run1")
    assert (code, "Pareto front" in out) == (0, True)
    code, out, _ = mlpspace(capsys, "status", "studies/run1")
    assert "9 of 9 trials done" in out
    assert mlpspace(capsys, "show", "studies/run1", 0)[0] == 0


def test_a_password_is_written_nowhere(
    typed: Path, server: Server, capsys: pytest.CaptureFixture[str], postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgres_server import PASSWORD, QUOTED

    command = ("search", "a.yaml", "--engine", "inline", "--plain", "--storage", server.url())
    said = [mlpspace(capsys, *command, "--trials", 4)]
    said += [mlpspace(capsys, "search", "a.yaml", "--storage", server.url(database="nothing_there"))]
    server.stop()
    said += [mlpspace(capsys, *command)]
    server.start()
    study = Study("studies/run1", address=server.address())
    places = {str(path): path.read_bytes().decode(errors="replace") for path in typed.rglob("*") if path.is_file()}
    places |= {"the server": everything_at(server, schema_of(study)), "said": repr(said), "error": repr(study.storage)}
    created = f"CREATE ROLE alice LOGIN PASSWORD '{PASSWORD}'"
    places["the server's log"] = server.log().replace(created, "")
    assert [code for code, _, _ in said] == [0, 2, 2]
    for name, text in places.items():
        assert PASSWORD not in text, name
        assert QUOTED not in text, name
    assert "***" in places["the server"] or "alice@" in places["the server"]  # the command, but for the password


def test_another_study_of_the_same_space_is_begun_where_another_place_is_said(
    typed: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ("search", "a.yaml", "--engine", "inline", "--plain", "--trials", 3)
    assert "new study studies/run1" in mlpspace(capsys, *plain)[1]
    assert "new study studies/run2, its tables at" in mlpspace(capsys, *plain, "--storage", server.url())[1]
    code, _, err = mlpspace(capsys, *plain, "--storage", server.url(), "--study", "studies/run1")
    assert code == 2
    assert "studies/run1 has its tables in studies/run1/study.db, not at postgresql+psycopg://alice@127.0.0.1" in err
    other = server.url().replace("/team", "/other")
    code, _, err = mlpspace(capsys, *plain, "--storage", other, "--study", "studies/run2")
    assert code == 2
    assert "studies/run2 has its tables at postgresql+psycopg://alice@127.0.0.1" in err


def test_a_server_that_is_away_is_no_reason_to_begin_anew(
    typed: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("search", "a.yaml", "--engine", "inline", "--plain", "--storage", server.url())
    mlpspace(capsys, *command, "--trials", 3)
    server.stop()
    try:
        for words in (command, command[:5]):
            code, _, err = mlpspace(capsys, *words, "--trials", 5)
            assert code == 2
            assert "cannot be reached: " in err or "no password supplied" in err
    finally:
        server.start()
    assert [path.name for path in (typed / "studies").iterdir()] == ["run1"]


def test_where_a_study_cannot_be_made_no_half_of_it_is_left(
    typed: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    for url, word in (
        (server.url(password=":wrong"), r"password authentication failed for user"),
        (server.url(password=""), "Set PGPASSWORD, or add a line to ~/.pgpass"),
        (server.url(database="nothing_there"), 'database "nothing_there" does not exist'),
        ("postgresql+psycopg://alice@127.0.0.1:1/team", "cannot be reached: .*Connection refused"),
        ("postgresql+psycopg:///team?host=/nowhere", "No such file or directory"),
    ):
        code, _, err = mlpspace(capsys, "search", "a.yaml", "--storage", url)
        assert code == 2
        assert word.split(".*")[-1] in err
        assert "wrong" not in err
        assert not list((typed / "studies").glob("*"))


def test_who_may_not_make_a_schema_is_told_what_to_ask_for(tmp_path: Path, server: Server) -> None:
    from postgres_server import PASSWORD

    server.do(f"CREATE ROLE bob LOGIN PASSWORD '{PASSWORD}'")
    study = Study.create(tmp_path / "run1", space_text="", manifest={}, address=server.address())
    with pytest.raises(StudyError, match=r"permission denied.*\n.*GRANT CREATE ON DATABASE team TO bob"):
        Study.create(tmp_path / "run2", space_text="", manifest={}, address=server.address(user="bob"))
    with pytest.raises(StudyError, match=r"(?s)permission denied for schema .*GRANT ALL ON SCHEMA mlpspace_run1"):
        Study(study.folder, address=server.address(user="bob"))
    server.do(f"GRANT USAGE ON SCHEMA {schema_of(study)} TO bob", database="team")
    with pytest.raises(StudyError, match=r"(?s)permission denied for table .*GRANT ALL ON ALL TABLES IN SCHEMA"):
        Study(study.folder, address=server.address(user="bob"))
    for what in ("SCHEMA", "ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA"):
        server.do(f"GRANT ALL ON {what} {schema_of(study)} TO bob", database="team")
    with Study(study.folder, address=server.address(user="bob")).writing("") as writer:
        begin(writer)
    assert len(study.trials()) == 1


def test_a_schema_that_is_gone_is_told(study: Study, server: Server) -> None:
    server.do(f"DROP SCHEMA {schema_of(study)} CASCADE", database="team")
    with pytest.raises(StudyError, match=r"has no schema mlpspace_run1_\w+: the study was deleted there"):
        Study(study.folder, address=server.address())
    server.do(f"CREATE SCHEMA {schema_of(study)} AUTHORIZATION alice", database="team")
    with pytest.raises(StudyError, match="is not a study"):
        Study(study.folder, address=server.address())


def test_a_database_that_cannot_hold_every_character_is_refused(tmp_path: Path, server: Server) -> None:
    server.do("CREATE DATABASE latin OWNER alice ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StudyError, match="cannot hold every character"):
        Study.create(tmp_path / "run1", space_text="", manifest={}, address=server.address(database="latin"))


def test_a_study_of_a_newer_mlpspace_is_refused(study: Study, server: Server) -> None:
    server.do(f"UPDATE {schema_of(study)}.mlpspace SET version = 99", database="team")
    for use in (lambda: Study(study.folder, address=server.address()), lambda: study.writing("").__enter__()):
        with pytest.raises(StudyError, match=r"newer mlpspace \(its tables are version 99.*\n.*pip install --upgrade"):
            use()


def test_a_study_of_an_older_version_is_read_as_it_is_and_brought_up_to_date_by_a_writer(
    study: Study, server: Server
) -> None:
    with study.writing("") as writer:
        begin(writer, why="random start")
    new = columns(study)
    before = study.trials()
    third = ("trial.deaths", "trial.gain", "trial.repeat_failed", "session.manifest")
    timed = ("measurement.reference", "measurement.runtime", "measurement.fingerprint")
    server.do(f"DROP TABLE {schema_of(study)}.fingerprint", database="team")
    for name in (*third, "session.wall_time", *timed):
        table, _, column = name.partition(".")
        server.do(f"ALTER TABLE {schema_of(study)}.{table} DROP COLUMN {column}", database="team")
    server.do(f"UPDATE {schema_of(study)}.mlpspace SET version = 2", database="team")
    assert study.trials() == before
    with study.writing("") as writer:
        writer.lost(0)
    assert study.trials()[0].deaths == 1
    assert columns(study) == new


def columns(study: Study) -> set[tuple[object, ...]]:
    query = "select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns"
    mine = f" where table_schema = '{schema_of(study)}'"
    return study.storage.read(lambda connection: {tuple(row) for row in connection.execute(sa.text(query + mine))})


def test_without_psycopg_the_way_to_it_is_told(study: Study, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "psycopg":
            raise ImportError("No module named 'psycopg'")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StudyError, match=r"No module named 'psycopg'.*\n.*pip install 'mlpspace\[postgres\]'"):
        Study(study.folder, address=server.address())


def test_what_no_database_takes_as_text_is_no_reason_to_stop(study: Study, tmp_path: Path) -> None:
    for each in (study, Study.create(tmp_path / "file", space_text="", manifest={})):
        with each.writing("mlpspace search caf\udce9.yaml") as writer:
            begin(writer)
            writer.finish(0, "infeasible", "diverged", "loss \0 \ud800 ±")
        assert each.trials()[0].detail == "loss \ufffd ? ±"


def test_optuna_dashboard_finds_its_tables_by_an_address_alone(
    study: Study, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgres_server import PASSWORD

    optuna = pytest.importorskip("optuna")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    storage = optuna.storages.RDBStorage(study.storage.optuna_url)
    optuna.create_study(study_name="run1", storage=storage)
    found = server.do(f"SELECT study_name FROM {schema_of(study)}.studies", database="team")
    assert found == [("run1",)]


# --- a real command -------------------------------------------------------------------------------------------------


@pytest.mark.chaos
def test_a_command_hides_its_password_from_who_looks_at_processes_and_is_killed_and_goes_on(
    tmp_path: Path, server: Server
) -> None:
    from postgres_server import PASSWORD, QUOTED

    text = SPACE.replace("dataset: mnist5k, epochs: 2", "dataset: digits, epochs: 1")
    (tmp_path / "a.yaml").write_text(text)
    words = ["-m", "mlpspace", "search", "a.yaml", "--engine", "inline", "--plain", "--trials", "4"]
    command = [sys.executable, *words, "--storage", server.url()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("new study studies/run1, its tables at")
    for file in ("cmdline", "environ"):
        shown = Path(f"/proc/{process.pid}/{file}").read_text()
        assert QUOTED not in shown
        assert file == "environ" or PASSWORD not in shown  # which root and the user alone may read
    for line in process.stdout:
        if line.startswith("[1/4]"):
            break
    process.kill()
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on with studies/run1: " in done.stdout
    study = Study(tmp_path / "studies" / "run1", address=server.address())
    assert [trial.state for trial in study.trials()] == ["complete"] * 4
    assert PASSWORD not in done.stdout + done.stderr
