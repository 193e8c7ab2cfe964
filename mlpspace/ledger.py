"""The ledger: our tables in a study's SQLite file, and the one writer who fills them.

Each method of `Writer` is one committed transaction, so that a process killed at any instant leaves a file that holds
every record whose call had returned and no half of any other. Optuna's tables live in the same file (`optuna_tables`).
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from mlpspace.errors import StudyError
from mlpspace.measurement import Assignment, Measurement, Progress

VERSION = 1  # of the tables below; stands in the file as `PRAGMA user_version`
STATES = ("running", "complete", "infeasible")
ORIGINS = ("fixed point", "sampler")

tables = sa.MetaData()

architecture = sa.Table(
    "architecture",
    tables,
    sa.Column("id", sa.Text, primary_key=True),  # Architecture.id
    sa.Column("json", sa.Text, nullable=False),
    sa.Column("params", sa.Integer, nullable=False),  # the counts are at the resolution of the study's task
    sa.Column("macs", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("activations", sa.Integer, nullable=False),
)

trial = sa.Table(
    "trial",
    tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # Optuna's number too
    sa.Column("architecture", sa.ForeignKey("architecture.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),  # the latest
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),  # a few words that are counted by
    sa.Column("detail", sa.Text),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("label", sa.Text),  # of a fixed point: its name and what was changed
    sa.Column("point", sa.Text),  # JSON; null for a fixed point outside the space
    sa.Column("recipe", sa.Text, nullable=False),  # JSON
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),  # of the latest attempt, seconds since 1970
    sa.Column("ended", sa.Float),
)

measurement = sa.Table(
    "measurement",
    tables,
    sa.Column("trial", sa.ForeignKey("trial.number"), nullable=False),
    sa.Column("architecture", sa.ForeignKey("architecture.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("rung", sa.Integer),  # null, as epochs, for what needs no training
    sa.Column("epochs", sa.Integer),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("data", sa.Text),  # fingerprint of its images; null for what needs no training
    sa.Column("resolution", sa.Integer, nullable=False),  # pixels
    sa.Column("recipe", sa.Text, nullable=False),  # JSON
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("batch", sa.Integer, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)
# null is unequal to null in SQLite, so a plain primary key would take the throughput of an attempt twice
sa.Index(
    "measurement_once",
    measurement.c.trial,
    measurement.c.attempt,
    measurement.c.metric,
    sa.func.coalesce(measurement.c.rung, sa.literal_column("-1")),
    unique=True,
)

progress = sa.Table(
    "progress",
    tables,
    sa.Column("trial", sa.ForeignKey("trial.number"), primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),  # finished ones
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float),  # %, validation split
)

refused = sa.Table(
    "refused",
    tables,
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),  # draws that were refused before they became trials
)

session = sa.Table(
    "session",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("started", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("seen", sa.Float, nullable=False),  # the last time anything was written, so a killed one counts too
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("total", sa.Integer),  # trials that it was after
)

TOTAL = sa.select(session.c.total).order_by(session.c.id.desc()).limit(1)
ELAPSED_SECONDS = sa.select(sa.func.coalesce(sa.func.sum(session.c.seen - session.c.started), 0.0))

LAST_SEEN = sa.select(sa.func.max(session.c.seen))


def set_pragmas(connection: sqlite3.Connection) -> None:
    """Readers never wait for the writer, and a commit costs no fsync: the file survives any kill of the process, and
    a power cut loses at most the last commits. Neither holds on a network file system, where WAL does not work."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def make(database: Path) -> None:
    """A new file with our tables, empty."""
    engine = writing_engine(database, mode="rwc")
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
    engine.dispose()


def check(connection: sa.Connection, database: Path) -> None:
    """Our tables are there, and in a version that we read.

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
def writing(folder: Path, command: str, total: int | None, clock: Callable[[], float]) -> Iterator[Writer]:
    """The writer of the study in `folder`, and a new session of it."""
    with locked(folder):
        database = folder / "study.db"
        engine = writing_engine(database)
        try:
            with _transaction(engine, database) as connection:
                check(connection, database)
                now = clock()
                row = {
                    "started": now,
                    "seen": now,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "command": command,
                    "total": total,
                }
                key = connection.execute(sa.insert(session).values(row)).inserted_primary_key
                assert key is not None
            writer = Writer(engine, database, session_id=key[0], clock=clock)
            yield writer
            writer.heartbeat()
        finally:
            engine.dispose()


# written once: SQLAlchemy then compiles each of them once, which is half of what a write costs
_ADD_ARCHITECTURE = insert(architecture).on_conflict_do_nothing()
_BEGIN = insert(trial)
_BEGIN = _BEGIN.on_conflict_do_update(
    index_elements=["number"], set_={column.name: _BEGIN.excluded[column.name] for column in trial.c}
)
_RECORD = insert(measurement).prefix_with("OR REPLACE")
_RECORD_PROGRESS = insert(progress).prefix_with("OR REPLACE")
_FINISH = (
    sa.update(trial)
    .where(trial.c.number == sa.bindparam("which"))
    .values({name: sa.bindparam(name) for name in ("state", "reason", "detail", "ended")})
)
_SEEN = sa.update(session).where(session.c.id == sa.bindparam("which")).values(seen=sa.bindparam("seen"))


class Writer:
    """What a search may write. Every method is one committed transaction."""

    def __init__(self, engine: sa.Engine, database: Path, *, session_id: int, clock: Callable[[], float]) -> None:
        self.database = database
        self._engine = engine
        self._session_id = session_id
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
    ) -> None:
        """A trial is given to a worker, or given again: then its attempt, seed and start are the new ones."""
        assert origin in ORIGINS, origin
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
            connection.execute(_BEGIN, row | {"number": assignment.trial, "started": now})

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
        }
        with self._write() as (connection, _):
            connection.execute(_RECORD, row)

    def record_progress(self, assignment: Assignment, told: Progress) -> None:
        """A finished epoch, for the trial's curve."""
        row = {
            "trial": assignment.trial,
            "attempt": assignment.attempt,
            "epoch": told.epoch,
            "loss": told.loss,
            "accuracy": told.accuracy,
        }
        with self._write() as (connection, _):
            connection.execute(_RECORD_PROGRESS, row)

    def finish(self, number: int, state: str, reason: str | None = None, detail: str | None = None) -> None:
        """The trial ends: "complete", or "infeasible" with the reason that the front counts by."""
        assert state in STATES, state
        with self._write() as (connection, now):
            ended = None if state == "running" else now
            row = {"state": state, "reason": reason, "detail": detail, "ended": ended}
            done = connection.execute(_FINISH, row | {"which": number})
            assert done.rowcount == 1, f"trial {number} was never begun"

    def refuse(self, reason: str, count: int = 1) -> None:
        """So many draws were refused before they became trials."""
        add = insert(refused).values(reason=reason, count=count)
        with self._write() as (connection, _):
            connection.execute(
                add.on_conflict_do_update(index_elements=["reason"], set_={"count": refused.c.count + count})
            )

    def heartbeat(self) -> None:
        """Nothing to write, but the search lives: `elapsed_seconds` counts up to here."""
        with self._write():
            pass

    @property
    def elapsed_seconds(self) -> float:
        """Time that all sessions of this study have searched, up to the last write."""
        with _transaction(self._engine, self.database) as connection:
            return float(connection.execute(ELAPSED_SECONDS).scalar_one())

    @contextmanager
    def _write(self) -> Iterator[tuple[sa.Connection, float]]:
        with _transaction(self._engine, self.database) as connection:
            now = self._clock()
            connection.execute(_SEEN, {"which": self._session_id, "seen": now})
            yield connection, now


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

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool, pool_size=1)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine
