"""The ledger: our tables in a study's SQLite file, and the one writer who fills them.

Each method of `Writer` is one committed transaction, so that a process killed at any instant leaves a file that holds
every record whose call had returned and no half of any other. Optuna's tables live in the same file (`optuna_tables`).
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from mlpspace.errors import StudyError
from mlpspace.ledger_tables import (
    ELAPSED_SECONDS,
    ENDED,
    ORIGINS,
    VERSION,
    architecture,
    bring_up_to_date,
    measurement,
    progress,
    refused,
    session,
    tables,
    trial,
)
from mlpspace.measurement import Assignment, Measurement, Progress


def set_pragmas(connection: sqlite3.Connection) -> None:
    """Readers never wait for the writer, and the file survives any kill of the process. Neither holds on a network file
    system, where WAL does not work."""
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def make(database: Path) -> None:
    """A new file with our tables, empty."""
    engine = writing_engine(database, mode="rwc")
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
    engine.dispose()


def check(connection: sa.Connection, database: Path) -> int:
    """Our tables are there, and in a version that we read. Returns the version.

    Raises:
        StudyError: they are not; nothing was changed.
    """
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if not sa.inspect(connection).has_table("trial") or version < 1:
        raise not_a_study(database)
    if version > VERSION:
        raise StudyError(
            f"{database} was written by a newer mlpspace (its tables are version {version}, this one reads up to"
            f" {VERSION}). It is left as it is.\n  To read it: pip install --upgrade mlpspace"
        )
    return int(version)


def _check_pages(connection: sa.Connection, database: Path) -> None:
    """To write to a damaged file damages it further. Takes some 5 ms for 10 MB.

    Raises:
        StudyError: SQLite finds the file damaged; nothing was changed.
    """
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found == "ok":
        return
    saved = database.with_name("recovered.db")
    raise StudyError(
        f"{database} is damaged ({str(found).splitlines()[-1]}); it is left as it is.\n"
        f"  To save what can be read: sqlite3 {shlex.quote(str(database))} .recover | sqlite3 {shlex.quote(str(saved))}"
    )


def not_a_study(database: Path, why: str = "") -> StudyError:
    """The error for a file that SQLite or we cannot read."""
    return StudyError(
        f"{database} is not a study database{f' or is damaged ({why})' if why else ''}; it is left as it is."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The exclusive right to write to the study in `folder`, until the block or the process ends.

    The lock is the kernel's (flock), so that one of a dead process is no lock; the file only says whose it is.

    Raises:
        StudyError: another process has it; the text names its host and pid.
    """
    import fcntl  # here, as a front can be read where there is no fcntl

    path = folder / "lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise StudyError(f"{folder} cannot be written to ({error.strerror}).") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text().strip() or "another process"
            raise StudyError(
                f"{folder} is being searched by {owner}; one study has one driver.\n"
                f"  To watch it:     mlpspace status {folder}\n"
                f"  To search beside it: give another folder, --study {folder.parent / 'NAME'}"
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def driver_of(folder: Path) -> str | None:
    """Who is writing to the study in `folder`, "pid 17 on laptop"; None if nobody is."""
    import fcntl

    try:
        with (folder / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except OSError:  # no lock file: nobody ever wrote from here
        pass
    return None


@contextmanager
def writing(
    folder: Path,
    command: str,
    total: int | None,
    clock: Callable[[], float],
    manifest: Mapping[str, Any] | None = None,
) -> Iterator[Writer]:
    """The writer of the study in `folder`, and a new session of it."""
    with locked(folder):
        database = folder / "study.db"
        engine = writing_engine(database)
        try:
            with _transaction(engine, database) as connection:
                check(connection, database)
                _check_pages(connection, database)
                bring_up_to_date(connection)
                now = clock()
                row = {
                    "started": now,
                    "seen": now,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "command": command,
                    "total": total,
                    "manifest": None if manifest is None else json.dumps(dict(manifest)),
                }
                key = connection.execute(sa.insert(session).values(row)).inserted_primary_key
                assert key is not None
            writer = Writer(engine, database, session_id=key[0], session_started=now, clock=clock)
            yield writer
            writer.heartbeat()
        finally:
            engine.dispose()


# written once: SQLAlchemy then compiles each of them once, which is half of what a write costs
_ADD_ARCHITECTURE = insert(architecture).on_conflict_do_nothing()
_STAYS = ("seconds", "deaths", "repeat_failed")  # of a trial that is begun again
_BEGIN = insert(trial)
_BEGIN = _BEGIN.on_conflict_do_update(
    index_elements=["number"],
    set_={column.name: _BEGIN.excluded[column.name] for column in trial.c if column.name not in _STAYS}
    | {name: sa.func.coalesce(_BEGIN.excluded[name], trial.c[name]) for name in ("why", "label", "gain")}
    | {"started": sa.case((trial.c.seconds > 0, trial.c.started), else_=_BEGIN.excluded.started)},
)
_RECORD = insert(measurement).prefix_with("OR REPLACE")
_RECORD_PROGRESS = insert(progress).prefix_with("OR REPLACE")
_FORGET_BEYOND = sa.delete(progress).where(
    progress.c.trial == sa.bindparam("which"),
    progress.c.attempt == sa.bindparam("this_attempt"),
    progress.c.epoch > sa.bindparam("epochs"),
)
_FINISH = (
    sa.update(trial)
    .where(trial.c.number == sa.bindparam("which"))
    .values({name: sa.bindparam(name) for name in ("state", "reason", "detail")})
    .values(
        ended=sa.func.coalesce(trial.c.ended, sa.bindparam("now")),
        # a leg that an earlier session was cut off in ended nobody knows when: it counts nothing
        seconds=trial.c.seconds
        + sa.case(
            (
                sa.and_(trial.c.ended.is_(None), trial.c.resumed >= sa.bindparam("session_started")),
                sa.bindparam("now") - trial.c.resumed,
            ),
            else_=sa.literal_column("0.0"),
        ),
    )
)
_LOST = sa.update(trial).where(trial.c.number == sa.bindparam("which")).values(deaths=trial.c.deaths + 1)
_REPEAT_FAILED = (
    sa.update(trial).where(trial.c.number == sa.bindparam("which")).values(repeat_failed=sa.bindparam("reason"))
)
_SEEN = sa.update(session).where(session.c.id == sa.bindparam("which")).values(seen=sa.bindparam("seen"))


class Writer:
    """What a search may write. Every method is one committed transaction."""

    def __init__(
        self,
        engine: sa.Engine,
        database: Path,
        *,
        session_id: int,
        session_started: float,
        clock: Callable[[], float],
    ) -> None:
        self.database = database
        self._engine = engine
        self._hasty = engine.execution_options(durable=False)  # no fsync a commit
        self._file = _identity(database)
        self._session_id = session_id
        self._session_started = session_started
        self._clock = clock

    def begin(
        self,
        assignment: Assignment,
        *,
        params: int,
        macs: int,
        tokens: int,
        activations: int,
        origin: str,
        label: str | None = None,
        point: Mapping[str, Any] | None = None,
        why: str | None = None,
        gain: float | None = None,
        epochs: int = 0,
    ) -> None:
        """A trial is given to a worker: for the first time, again, or to go on from a checkpoint after `epochs`.

        Then it runs again, with the attempt and seed of `assignment`. What is not said again (`label`, `why`, `gain`)
        stays, and so do the start and the seconds of the legs that ended. While the attempt is the same, its curve
        stays up to the checkpoint.
        """
        assert origin in ORIGINS, origin
        assert assignment.repeat == 0, "a training anew is no trial: there is nothing to begin"
        row = {
            "architecture": assignment.architecture.id,
            "attempt": assignment.attempt,
            "state": "running",
            "reason": None,
            "detail": None,
            "origin": origin,
            "label": label,
            "point": None if point is None else json.dumps(dict(point), sort_keys=True),
            "recipe": assignment.recipe.to_json(),
            "seed": assignment.seed,
            "ended": None,
            "why": why,
            "gain": gain,
        }
        network = {
            "id": assignment.architecture.id,
            "json": assignment.architecture.to_json(),
            "params": params,
            "macs": macs,
            "tokens": tokens,
            "activations": activations,
        }
        with self._write() as (connection, now):
            connection.execute(_ADD_ARCHITECTURE, network)
            connection.execute(_BEGIN, row | {"number": assignment.trial, "started": now, "resumed": now})
            beyond = {"which": assignment.trial, "this_attempt": assignment.attempt, "epochs": epochs}
            connection.execute(_FORGET_BEYOND, beyond)

    def record(self, assignment: Assignment, measured: Measurement) -> None:
        """A measurement of the trial; the same one of the same attempt replaces itself."""
        row = {f: getattr(measured, f) for f in Measurement.__dataclass_fields__}
        row |= {
            "trial": assignment.trial,
            "architecture": assignment.architecture.id,
            "attempt": assignment.attempt,
            "dataset": assignment.dataset,
            "resolution": assignment.resolution,
            "recipe": assignment.recipe.to_json(),
            "seed": assignment.seed,
            "repeat": assignment.repeat,
        }
        with self._write() as (connection, _):
            connection.execute(_RECORD, row)

    def record_progress(self, assignment: Assignment, told: Progress) -> None:
        """A finished epoch, for the trial's curve. Of a training anew nothing is kept: the curve is the trial's."""
        if assignment.repeat:
            self.heartbeat()
            return
        row = {
            "trial": assignment.trial,
            "attempt": assignment.attempt,
            "epoch": told.epoch,
            "loss": told.loss,
            "accuracy": told.accuracy,
        }
        with self._write(durable=False) as (connection, _):
            connection.execute(_RECORD_PROGRESS, row)

    def finish(self, number: int, state: str, reason: str | None = None, detail: str | None = None) -> None:
        """The trial ends, or waits at a rung: one of ENDED, with the reason that the front counts by.

        What is paused may be begun again, or be stopped: then it ended when it was paused.
        """
        assert state in ENDED, state
        with self._write() as (connection, now):
            row = {"state": state, "reason": reason, "detail": detail, "now": now, "which": number}
            done = connection.execute(_FINISH, row | {"session_started": self._session_started})
            assert done.rowcount == 1, f"trial {number} was never begun"

    def lost(self, number: int) -> None:
        """The worker that had the trial died."""
        with self._write() as (connection, _):
            connection.execute(_LOST, {"which": number})

    def repeat_failed(self, number: int, reason: str) -> None:
        """The trial could not be trained anew, and is not tried again."""
        with self._write() as (connection, _):
            connection.execute(_REPEAT_FAILED, {"which": number, "reason": reason})

    def refuse(self, reason: str, count: int = 1) -> None:
        """So many draws were refused before they became trials."""
        add = insert(refused).values(reason=reason, count=count)
        with self._write() as (connection, _):
            connection.execute(
                add.on_conflict_do_update(index_elements=["reason"], set_={"count": refused.c.count + count})
            )

    def heartbeat(self) -> None:
        """Nothing to write, but the search lives: `elapsed_seconds` counts up to here."""
        with self._write(durable=False):
            pass

    def sync(self) -> None:
        """All that was written so far survives a power cut too; else the last epochs of curves may not."""
        with self._write():
            pass

    @property
    def elapsed_seconds(self) -> float:
        """Time that all sessions of this study have searched, up to the last write."""
        with _transaction(self._engine, self.database) as connection:
            return float(connection.execute(ELAPSED_SECONDS).scalar_one())

    @contextmanager
    def _write(self, *, durable: bool = True) -> Iterator[tuple[sa.Connection, float]]:
        engine = self._engine if durable else self._hasty
        self._check_in_place()
        with _transaction(engine, self.database) as connection:
            now = self._clock()
            connection.execute(_SEEN, {"which": self._session_id, "seen": now})
            yield connection, now

    def _check_in_place(self) -> None:
        """SQLite would go on writing to a file that has no name any more, and all of it would be lost at the end.

        Raises:
            StudyError: the file was deleted or replaced; what it held is kept under another name.
        """
        if _identity(self.database) == self._file:
            return
        kept = _rescue(self._engine, self.database)
        mend = shlex.join(["mv", str(kept), str(self.database)])
        raise StudyError(
            f"{self.database} was deleted or replaced while the search ran. All that it held is in {kept}.\n"
            f"  To go on: {mend}\n"
            "  and then the same command again. If the folder is gone, put back its space.yaml and manifest.json too."
        )


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _rescue(engine: sa.Engine, database: Path) -> Path:
    """A copy of what an open connection still sees of a file whose name is gone."""
    places = [database.parent, database.parent.parent, Path.cwd()]
    folder = next(place for place in places if place.is_dir())
    taken = {path.name for path in folder.iterdir()}
    names = (f"{database.parent.name}-rescued{f'-{n}' if n else ''}.db" for n in itertools.count())
    kept = folder / next(name for name in names if name not in taken)
    held = engine.raw_connection()
    try:
        with closing(sqlite3.connect(kept)) as copy:
            held.driver_connection.backup(copy)  # type: ignore[union-attr]
    finally:
        held.close()
    return kept


@contextmanager
def _transaction(engine: sa.Engine, database: Path) -> Iterator[sa.Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    except sa.exc.OperationalError as error:  # a full disk, a folder turned read-only, a lock held for half a minute
        raise StudyError(
            f"{database} cannot be written to ({error.orig}). What was written stays; mend and go on."
        ) from None
    except sa.exc.IntegrityError:
        raise  # ours: a record of a trial that was never begun
    except sa.exc.DatabaseError as error:
        raise not_a_study(database, str(error.orig)) from None


def writing_engine(database: Path, mode: str = "rw") -> sa.Engine:
    """An engine for the one writer: its transactions take the write lock at once."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode={mode}", uri=True, check_same_thread=False)
        # without an isolation level the driver starts no transaction of its own, and the BEGIN below takes the write
        # lock at once instead of failing to upgrade to it later
        connection.isolation_level = None
        set_pragmas(connection)
        return connection

    def begin(connection: sa.Connection) -> None:
        # in WAL mode FULL is one fsync a commit: what was said to be measured survives a power cut; NORMAL is none
        durable = connection.get_execution_options().get("durable", True)
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool, pool_size=1)
    sa.event.listen(engine, "begin", begin)
    return engine
