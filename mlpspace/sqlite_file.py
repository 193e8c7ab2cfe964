"""A study's tables in its folder, as one SQLite file."""

from __future__ import annotations

import itertools
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from mlpspace.damaged_file import hint
from mlpspace.errors import StudyError
from mlpspace.ledger_tables import VERSION, refuse_newer, tables

T = TypeVar("T")

BUSY_S = 30.0  # that a lock of somebody else's is waited for


class SqliteFile:
    """A study's tables in `path`; see `storage.Storage`."""

    insert = staticmethod(insert)

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def optuna_url(self) -> str:
        return f"sqlite:///{self.path}"

    def for_optuna(self) -> dict[str, Any]:
        return {"url": self.optuna_url}

    def make(self) -> None:
        engine = _writing_engine(self.path, mode="rwc")
        with engine.begin() as connection:
            tables.create_all(connection)
            self.set_version(connection)
        engine.dispose()

    def set_version(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")

    def check(self, connection: sa.Connection) -> int:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if not sa.inspect(connection).has_table("trial") or version < 1:
            raise self.not_a_study()
        refuse_newer(version, self.name)
        strange = connection.exec_driver_sql(_STRANGE).first()
        if strange is not None:
            raise self.not_a_study(f"it has a {strange[0]}, which mlpspace and Optuna never make")
        return int(version)

    def check_whole(self, connection: sa.Connection) -> None:
        """To write to a damaged file damages it further. Takes some 5 ms for 10 MB."""
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found == "ok":
            return
        raise StudyError(
            f"{self.path} is damaged ({str(found).splitlines()[-1]}); it is left as it is.{hint(self.name)}"
        )

    def not_a_study(self, why: str = "") -> StudyError:
        """The error for a file that SQLite or we cannot read."""
        return StudyError(
            f"{self.path} is not a study database{f' or is damaged ({why})' if why else ''}; it is left as it is."
            f"{hint(self.name)}"
        )

    def driver(self) -> str | None:
        """The folder's lock tells all that there is to tell."""
        return None

    @contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:  # a full disk, a folder turned read-only, a lock that somebody holds
            raise StudyError(
                f"{self.path} cannot be written to ({error.orig}). What was written stays; mend and go on."
            ) from None
        except sa.exc.IntegrityError:
            raise  # ours: a record of a trial that was never begun
        except sa.exc.DatabaseError as error:
            raise self.not_a_study(str(error.orig)) from None

    # --- reading ---

    def read(self, query: Callable[[sa.Connection], T]) -> T:
        failure: str | None = None
        for pause in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2):  # while a writer comes or goes: tens of milliseconds
            time.sleep(pause)
            before = self._at_rest()
            failure = None
            try:
                with _reader(self.path, at_work=before is None) as connection:
                    result = query(connection)
            except sa.exc.DatabaseError as error:  # its companion files are not all there yet, or no more
                failure = str(error.orig)
                continue
            except UnicodeDecodeError as error:  # a damaged name, of which SQLite would tell
                failure = str(error)
                continue
            except StudyError:
                if before is None or before == self._at_rest():
                    raise
                continue
            if before is None or before == self._at_rest():
                return result
        if failure is None:
            raise StudyError(f"{self.path} is being written to by ever new writers. Try again.")
        raise self.not_a_study(failure) from None

    def _at_rest(self) -> tuple[int, int] | None:
        """What changes whenever a writer has come and gone; None while one is at work, or was killed."""
        if self.path.with_name("study.db-wal").exists():
            return None
        try:
            now = self.path.stat()
        except FileNotFoundError:
            raise StudyError(f"{self.path} is not there any more.") from None
        return now.st_mtime_ns, now.st_size

    # --- writing ---

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[SqliteTransactions]:
        """That a driver is alone is the folder's lock's business."""
        opened = SqliteTransactions(self)
        try:
            yield opened
        finally:
            opened.close()


class SqliteTransactions:
    """The file, open for writing; see `storage.Transactions`."""

    def __init__(self, file: SqliteFile) -> None:
        self.note: Callable[[str], None] = lambda text: None  # nothing that is amiss with a file mends by itself
        self.engine = _writing_engine(file.path)
        self._held: sa.Connection | None = None  # to ask the engine for one costs as much as to write a row
        self._file = file
        self._identity = _identity(file.path)

    def run(self, do: Callable[[sa.Connection], T], *, durable: bool = True) -> T:
        self._check_in_place()
        with self._file.telling():
            connection = self._held = self._held or self.engine.connect()
            # in WAL mode FULL is one fsync a commit: what was said to be measured survives a power cut; NORMAL is none
            _raw(connection).execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            with connection.begin():
                return do(connection)

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
        self.engine.dispose()

    def _check_in_place(self) -> None:
        """SQLite would go on writing to a file that has no name any more, and all of it would be lost at the end.

        Raises:
            StudyError: the file was deleted or replaced; what it held is kept under another name.
        """
        path = self._file.path
        if _identity(path) == self._identity:
            return
        connection = self._held = self._held or self.engine.connect()
        kept = _rescue(connection, path)
        if not path.parent.exists():
            raise StudyError(
                f"{path.parent} was moved or deleted while the search ran. All that its ledger held is in {kept}.\n"
                "  Moved: the same command goes on with --study and the new place.\n"
                f"  Deleted: make it anew, with its space.yaml and manifest.json and with that file as {path.name}."
            )
        raise StudyError(
            f"{path} was deleted or replaced while the search ran. All that it held is in {kept}.\n"
            f"  To go on: {shlex.join(['mv', str(kept), str(path)])}\n"
            "  and then the same command again."
        )


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _rescue(connection: sa.Connection, database: Path) -> Path:
    """A copy of what an open connection still sees of a file whose name is gone."""
    places = [database.parent, database.parent.parent, Path.cwd()]
    folder = next(place for place in places if place.is_dir())
    taken = {path.name for path in folder.iterdir()}
    names = (f"{database.parent.name}-rescued{f'-{n}' if n else ''}.db" for n in itertools.count())
    kept = folder / next(name for name in names if name not in taken)
    with closing(sqlite3.connect(kept)) as copy:
        _raw(connection).backup(copy)
    return kept


# What may run while others read or write: a view in place of a table, a trigger, a column that is computed.
_STRANGE = """
    SELECT type || ' "' || name || '"' FROM sqlite_master WHERE type IN ('view', 'trigger')
    UNION ALL SELECT 'virtual table "' || name || '"' FROM sqlite_master WHERE sql LIKE 'create virtual%'
    UNION ALL SELECT 'computed column "' || c.name || '"' FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS c
        WHERE m.type = 'table' AND c.hidden != 0
    LIMIT 1
"""


# --- connections ------------------------------------------------------------------------------------------------------


def _set_pragmas(connection: sqlite3.Connection) -> None:
    """Readers never wait for the writer, and the file survives any kill of the process. Neither holds on a network file
    system, where WAL does not work."""
    for pragma in ("trusted_schema=OFF", "journal_mode=WAL", f"busy_timeout={1000 * BUSY_S:.0f}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _writing_engine(database: Path, mode: str = "rw") -> sa.Engine:
    """An engine for the one writer: its transactions take the write lock at once."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode={mode}", uri=True, check_same_thread=False)
        # without an isolation level the driver starts no transaction of its own, and the BEGIN below takes the write
        # lock at once instead of failing to upgrade to it later
        connection.isolation_level = None
        _set_pragmas(connection)
        return connection

    def begin(connection: sa.Connection) -> None:
        try:
            _raw(connection).execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:  # as if SQLAlchemy had been asked, which takes longer than the write itself
            raise sa.exc.DBAPIError.instance("BEGIN IMMEDIATE", None, error, sqlite3.Error) from None

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool, pool_size=1)
    sa.event.listen(engine, "begin", begin)
    return engine


def _raw(connection: sa.Connection) -> sqlite3.Connection:
    """The connection that SQLAlchemy's is made of."""
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


@contextmanager
def _reader(database: Path, *, at_work: bool) -> Iterator[sa.Connection]:
    """One snapshot of the file. Where no writer is at work the file is read as one that cannot change: SQLite would
    otherwise make its two companion files, which a reader may not in a read-only folder and should not in any."""

    def connect() -> sqlite3.Connection:
        mode = "mode=ro" if at_work else "mode=ro&immutable=1"
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?{mode}", uri=True, timeout=BUSY_S)
        connection.isolation_level = None
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")  # what several queries see is one instant
        yield connection
