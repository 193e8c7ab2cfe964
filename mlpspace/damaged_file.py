"""The rows of a damaged SQLite file, as far as SQLite itself can read them.

A table of SQLite is a tree of pages with the rows in its leaves, and any page can be read as the root of a table. So
the file's copy gets a first page of ours, which knows one table with its root at page 2, and the page that is to be
read is put there. The tables' own roots give all that hangs on them; where a tree is broken, each leaf of the file by
itself gives the rest. What the file says of its own tables is asked for their roots alone, and nothing of it is run.

Layout of pages and file: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import shlex
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from mlpspace.ledger_tables import VERSION, readable

HEAD = b"SQLite format 3\0"  # how every file begins
_SLOT = 2  # the page that is read as a table's root
_LEAF = 0x0D  # the first byte of a leaf with rows
_PAGE_BYTES = 4096  # SQLite's default since 2016, where the file does not say

Rows = dict[int, dict[str, Any]]  # rowid -> column -> what it holds, unchecked


def hint(source: str) -> str:
    """What to type where the database `source` is damaged, as one more line of a message; nothing where that is no file
    of SQLite's."""
    try:
        with open(source, "rb") as file:
            if file.read(len(HEAD)) != HEAD:
                return ""
    except OSError:
        return ""
    return f"\n  To save what can be read: {shlex.join(['mlpspace', 'rescue', str(Path(source).parent)])}"


class DamagedFile:
    """A copy of a database, made to be read page by page.

    Args:
        file: the database; with its write-ahead log, if there is one. Neither is touched.
        folder: for the copy.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self._copy = folder / "damaged.db"
        shutil.copyfile(file, self._copy)
        log = file.with_name(f"{file.name}-wal")
        if log.is_file():
            shutil.copyfile(log, folder / "damaged.db-wal")
        self._roots, self.whole = _roots(self._copy)  # whole: as far as SQLite itself can tell
        with open(self._copy, "r+b") as opened:
            head = opened.read(100)
            self.has_head = head.startswith(HEAD)
            told = int.from_bytes(head[16:18], "big")
            sizes = {1 if power == 16 else 2**power: 2**power for power in range(10, 17)}
            self._page_bytes = sizes.get(told, _PAGE_BYTES) if self.has_head else _PAGE_BYTES
            self._pages = max(_SLOT, -(-self._copy.stat().st_size // self._page_bytes))
            opened.truncate(self._pages * self._page_bytes)
            opened.seek((_SLOT - 1) * self._page_bytes)
            self._at_slot = opened.read(self._page_bytes)
        told = int.from_bytes(head[60:64], "big") if self.has_head else 0
        self.version = told or VERSION  # of the ledger's tables

    def in_tree(self, table: sa.Table) -> tuple[Rows, bool]:
        """The rows that hang on the table's root, and whether those are all: from both sides, up to what is broken."""
        root = self._roots.get(table.name)
        if root is None or not _SLOT <= root <= self._pages:
            return {}, False
        self._know(table)
        self._put(root)
        rows, whole = self._scan(table)
        if not whole:
            rows = self._scan(table, descending=True)[0] | rows
        return rows, whole

    def in_leaves(self, table: sa.Table) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of all leaves of the file, each leaf read as if it were the table's: those of others make no sense
        in it. A leaf that the file uses no more may hold a row as it once was."""
        self._know(table)
        for page in range(_SLOT, self._pages + 1):
            if self._page(page)[0] == _LEAF:
                self._put(page)
                yield from self._scan(table)[0].items()

    def _page(self, number: int) -> bytes:
        if number == _SLOT:
            return self._at_slot
        with open(self._copy, "rb") as opened:
            opened.seek((number - 1) * self._page_bytes)
            return opened.read(self._page_bytes)

    def _put(self, page: int) -> None:
        self._write(_SLOT, self._page(page))

    def _know(self, table: sa.Table) -> None:
        """The first page becomes that of a file that holds `table`, in the columns of now: a row of an older version
        is shorter, and SQLite puts defaults for what is not there."""
        beside = self._copy.with_name("table.db")
        with closing(sqlite3.connect(beside)) as connection:
            connection.execute(f"PRAGMA page_size={self._page_bytes}")
            columns = ", ".join(_definition(column) for column in table.columns)
            connection.execute(f'CREATE TABLE "{table.name}" ({columns})')
            root = connection.execute("SELECT rootpage FROM sqlite_master").fetchone()[0]
        assert root == _SLOT
        page = bytearray(beside.read_bytes()[: self._page_bytes])
        beside.unlink()
        page[28:32] = bytes(4)  # how many pages there are is seen from the file's size
        self._write(1, bytes(page))

    def _write(self, number: int, page: bytes) -> None:
        with open(self._copy, "r+b") as opened:
            opened.seek((number - 1) * self._page_bytes)
            opened.write(page)

    def _scan(self, table: sa.Table, *, descending: bool = False) -> tuple[Rows, bool]:
        """The rows of the page at the slot and of what hangs on it, and whether no damage was met."""
        columns = [readable(column, self.version) for column in table.columns]
        query = sa.select(sa.literal_column("rowid"), *columns).select_from(table)
        query = query.order_by(sa.text(f"rowid {'DESC' if descending else 'ASC'}"))
        text = str(query.compile(dialect=sqlite.dialect()))
        rows: Rows = {}
        names = [column.name for column in table.columns]
        uri = f"{self._copy.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            # what is no text comes out as something that no check lets pass, and not as an error amid the rows
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            try:
                for rowid, *values in connection.execute(text):
                    if rowid in rows:  # pages that hang on each other in a circle would give rows for ever
                        return rows, False
                    rows[rowid] = dict(zip(names, values, strict=True))
            except sqlite3.Error:
                return rows, False
        return rows, True


def _roots(copy: Path) -> tuple[Mapping[str, int], bool]:
    """Table -> its root page, as far as the file tells, and whether it is whole. What its log holds is put into it."""
    found: dict[str, int] = {}
    whole = False
    with suppress(sqlite3.Error), closing(sqlite3.connect(copy)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA writable_schema=ON")  # else SQLite reads nothing of a file that was cut off
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for name, root in connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"):
            if isinstance(name, str) and isinstance(root, int):
                found[name] = root
        whole = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    return found, whole


def _definition(column: sa.Column[Any]) -> str:
    """What the reading of a row depends on; SQLite keeps 2.0 as 2 in a column that it knows to be REAL."""
    is_rowid = len(column.table.primary_key) == 1 and column.primary_key and isinstance(column.type, sa.Integer)
    kind = "INTEGER PRIMARY KEY" if is_rowid else "REAL" if isinstance(column.type, sa.Float) else ""
    default = column.server_default
    told = f" DEFAULT {default.arg}" if isinstance(default, sa.DefaultClause) else ""
    return f'"{column.name}" {kind}{told}'
