"""Where a study's tables are: in its folder, as one SQLite file, or on a PostgreSQL server that a team shares.

The tables are the same (`ledger_tables`, and Optuna's beside them). What differs between the two, how to open, lock,
check and repeat, stands behind `Storage`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from mlpspace.address import FILE, Address, new_schema, read_address, write_address
from mlpspace.errors import StudyError
from mlpspace.sqlite_file import SqliteFile

T = TypeVar("T")

UNFINISHED = (
    *(f"study.db.new{end}" for end in ("", "-wal", "-shm", "-journal")),
    f"{FILE}.new",
)  # of a study that is being made


class Transactions(Protocol):
    """A study's tables, open for writing."""

    note: Callable[[str], None]  # hears of what is amiss and may mend

    @property
    def engine(self) -> sa.Engine: ...

    def run(self, do: Callable[[sa.Connection], T], *, durable: bool = True) -> T:
        """What `do` does is one transaction. It may be called again, also after a commit whose word did not come
        through: what it writes twice must be what it writes once.

        Args:
            durable: it survives a power cut; else the last moments before one may be missing, and nothing else.

        Raises:
            StudyError: it cannot be written; what was written before stays.
        """
        ...


class Storage(Protocol):
    """Where a study's tables are."""

    @property
    def name(self) -> str:
        """As a message calls it."""
        ...

    @property
    def insert(self) -> Callable[[sa.Table], Any]:
        """INSERT with ON CONFLICT, which is no standard SQL."""
        ...

    @property
    def optuna_url(self) -> str:
        """For optuna-dashboard and `optuna.load_study`; without a password."""
        ...

    def make(self) -> None:
        """Our tables, empty. What is there already stays."""
        ...

    def check(self, connection: sa.Connection) -> int:
        """Our tables are there, and in a version that we read. Returns the version.

        Raises:
            StudyError: they are not; nothing was changed.
        """
        ...

    def check_whole(self, connection: sa.Connection) -> None:
        """Before anything is written.

        Raises:
            StudyError: they are damaged; nothing was changed.
        """
        ...

    def set_version(self, connection: sa.Connection) -> None:
        """They are of the newest version now."""
        ...

    def read(self, query: Callable[[sa.Connection], T]) -> T:
        """What `query` sees is one instant. Nothing is made or written.

        Raises:
            StudyError: they cannot be read.
        """
        ...

    def writing(self, *, alone: bool = False) -> AbstractContextManager[Transactions]:
        """
        Args:
            alone: as the study's one driver.

        Raises:
            StudyError: they cannot be opened, or another driver is at work.
        """
        ...

    def driver(self) -> str | None:
        """Who else is writing, "pid 17 on laptop", as far as this place can tell."""
        ...

    def for_optuna(self) -> dict[str, Any]:
        """The arguments of `optuna.storages.RDBStorage`."""
        ...

    def telling(self) -> AbstractContextManager[None]:
        """Within it, an error of the database becomes a StudyError."""
        ...

    def not_a_study(self, why: str = "") -> StudyError:
        """The error for tables that cannot be read."""
        ...


def make_storage(folder: Path, address: Address | None) -> None:
    """The tables of a new study in `folder`, empty. What says where they are comes last, so that it says it rightly.

    Args:
        address: of the server that shall hold them; None: they are in the folder.
    """
    left = folder / f"{FILE}.new"
    if address is None:
        for name in UNFINISHED:
            (folder / name).unlink(missing_ok=True)
        new = SqliteFile(folder / "study.db.new")
        new.make()
        new.path.rename(folder / "study.db")
        return
    from mlpspace.postgres import PostgresSchema

    schema = _begun(left, address) or new_schema(folder)
    write_address(left, address, schema)
    made = PostgresSchema(address, schema)
    made.make()
    write_address(left, made.found(), schema)
    left.rename(folder / FILE)


def _begun(left: Path, address: Address) -> str | None:
    """The schema that was being made at `address` when that was cut off: there is no use for a second one."""
    try:
        kept, schema = read_address(left)
    except StudyError:
        return None
    return schema if address.agrees_with(kept) else None


def storage_of(folder: Path, address: Address | None = None) -> Storage | None:
    """Where the study in `folder` has its tables; None: there is no study.

    Args:
        address: what was said of the server: the user and the password are taken from here.

    Raises:
        StudyError: the study's tables are not at `address`, or the folder does not say rightly where they are.
    """
    if (folder / FILE).is_file():
        from mlpspace.postgres import PostgresSchema

        kept, schema = read_address(folder / FILE)
        if address is not None and not address.agrees_with(kept):
            raise StudyError(f"{folder} has its tables at {kept}, not at {address}.")
        return PostgresSchema(kept if address is None else kept.reached_by(address), schema)
    if (folder / "study.db").is_file():
        if address is not None:
            raise StudyError(
                f"{folder} has its tables in {folder / 'study.db'}, not at {address}.\n"
                "  To go on with it, leave out --storage; to start anew, give another folder: --study NAME"
            )
        return SqliteFile(folder / "study.db")
    return None


def on_a_server(folder: Path) -> bool:
    return (folder / FILE).is_file()


def is_at(folder: Path, address: Address | None) -> bool:
    """Whether the study in `folder` may be meant by somebody who says `address`; None: who says nothing."""
    if address is None:
        return True
    return on_a_server(folder) and address.agrees_with(read_address(folder / FILE)[0])


def holds_study(folder: Path) -> bool:
    """Whether a study was made in `folder`, judged by its files alone."""
    return (folder / "study.db").is_file() or (folder / FILE).is_file()


def studies_in(place: Path) -> list[Path]:
    """The study folders in `place`, by name."""
    return sorted({found.parent for name in ("study.db", FILE) for found in place.glob(f"*/{name}")})
