"""A study's tables on a PostgreSQL server: in a schema of their own, so that many studies share a database.

The driver writes through one connection, and that connection holds the study's lock (an advisory one): it cannot be
written to by who has lost the lock, and a dead driver's lock goes with its connection.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from mlpspace.address import Address
from mlpspace.errors import StudyError
from mlpspace.ledger_tables import VERSION, refuse_newer, tables

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

PATIENCE = 60.0  # seconds that a server may be away

# a server or a network that is gone without a word is found out within a minute, on both sides
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

_CALLED = "mlpspace, "  # and then who it is: so a driver's connection is called
_HOLDER = sa.text(  # the two halves of the lock's key are told apart there
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
    " AND (CAST(classid AS bigint) << 32) + CAST(objid AS bigint) = :key"
    " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

_version = sa.Table("mlpspace", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))  # one row


class _Away(Exception):
    """The server does not answer, or has not yet noticed that our last connection is gone."""


class PostgresSchema:
    """A study's tables in `schema` of the database at `address`; see `storage.Storage`."""

    insert = staticmethod(insert)

    def __init__(self, address: Address, schema: str) -> None:
        """
        Raises:
            StudyError: there is no psycopg to go there with.
        """
        _psycopg()
        self.address = address
        self.schema = schema
        self._reading = self.engine(self.connect, poolclass=sa.pool.NullPool)

    @property
    def name(self) -> str:
        return f"{self.address} (schema {self.schema})"

    @property
    def optuna_url(self) -> str:
        return self.address.url(options=f"-csearch_path={self.schema}")

    def for_optuna(self) -> dict[str, Any]:
        return {"url": "postgresql+psycopg://", "engine_kwargs": {"creator": self.connect}}

    # --- making and checking ---

    def make(self) -> None:
        with self.telling(), self._reading.begin() as connection:
            if connection.scalar(sa.text("SHOW server_encoding")) != "UTF8":
                raise StudyError(
                    f"{self.address} cannot hold every character. Make another database:"
                    " CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
                )
            connection.execute(sa.schema.CreateSchema(self.schema, if_not_exists=True))
            tables.create_all(connection)
            _version.create(connection, checkfirst=True)
            if connection.scalar(sa.select(_version.c.version)) is None:
                connection.execute(sa.insert(_version).values(version=VERSION))

    def found(self) -> Address:
        """The address with what libpq found out: it may find something else from another terminal."""
        if dict(self.address.settings).get("service"):
            return self.address  # that is told in a file of its own
        with self.telling(), self._reading.connect() as connection:
            raw: Any = connection.connection.driver_connection
            known = raw.info
            return replace(
                self.address,
                host=self.address.host or known.host,
                port=self.address.port or known.port,
                database=self.address.database or known.dbname,
            )

    def check(self, connection: sa.Connection) -> int:
        if connection.scalar(sa.text("SELECT to_regclass('mlpspace')")) is None:
            raise self._nothing_there(connection)
        version = connection.scalar(sa.select(_version.c.version))
        if version is None:
            raise self.not_a_study("its version is missing")
        refuse_newer(version, self.name)
        return int(version)

    def _nothing_there(self, connection: sa.Connection) -> StudyError:
        """Why our tables are not to be seen."""
        there = sa.text("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema")
        allowed = connection.scalar(there, {"schema": self.schema})
        if allowed is None:
            return StudyError(
                f"{self.address} has no schema {self.schema}: the study was deleted there, or this is another server."
            )
        return self.not_a_study() if allowed else self._forbidden(f"permission denied for schema {self.schema}")

    def check_whole(self, connection: sa.Connection) -> None:
        """A server looks after its files itself."""

    def set_version(self, connection: sa.Connection) -> None:
        connection.execute(sa.update(_version).values(version=VERSION))

    # --- errors ---

    @contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise  # ours: a record of a trial that was never begun
        except sa.exc.DBAPIError as error:
            raise self.told(error) from None

    def told(self, error: sa.exc.DBAPIError) -> StudyError:
        """The error for what the server, or libpq, says."""
        import psycopg

        theirs = error.orig
        said = _said(theirs)
        state = getattr(theirs, "sqlstate", None)
        if state == "42501":
            return self._forbidden(said)
        if state in ("42P01", "3F000", "42703"):  # a table, schema or column is not there
            return self.not_a_study(said)
        pgconn = getattr(theirs, "pgconn", None)
        if pgconn is not None and state is None and (pgconn.needs_password or pgconn.used_password):
            place = ":".join(str(part or "*") for part in (self.address.host, self.address.port, self.address.database))
            return StudyError(
                f"{self.address}: {said}\n"
                "  The study's folder keeps no password. Set PGPASSWORD, or add a line to ~/.pgpass (chmod 600):\n"
                f"  {place}:{self.address.user or 'USER'}:PASSWORD"
            )
        if state is None and isinstance(theirs, psycopg.OperationalError):
            return StudyError(f"{self.address} cannot be reached: {said}")
        return StudyError(f"{self.name} cannot be used ({said}). What was written stays; mend and go on.")

    def not_a_study(self, why: str = "") -> StudyError:
        return StudyError(f"{self.name} is not a study{f' or is damaged ({why})' if why else ''}; it is left as it is.")

    def _forbidden(self, said: str) -> StudyError:
        user, schema = self.address.user or "USER", self.schema
        if "database" in said:
            needed = f"GRANT CREATE ON DATABASE {self.address.database or 'DATABASE'} TO {user}"
            return StudyError(f"{self.address}: {said}.\n  Who owns the database may type: {needed}")
        return StudyError(
            f"{self.name}: {said}.\n  Who owns the study may type:\n"
            f"  GRANT ALL ON SCHEMA {schema} TO {user};\n"
            f"  GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {user};\n"
            f"  GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {user};"
        )

    # --- reading ---

    def read(self, query: Callable[[sa.Connection], T]) -> T:
        snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self.telling(), self._reading.connect().execution_options(**snapshot) as connection:
            return query(connection)

    def driver(self) -> str | None:
        holder = self.holder()
        return None if holder is None else _driver(holder)

    def holder(self) -> str | None:
        """What the connection that has the study's lock is called."""
        return self.read(lambda connection: connection.scalar(_HOLDER, {"key": self.lock_key}))

    # --- writing ---

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[PostgresTransactions]:
        opened = PostgresTransactions(self, alone=alone)
        try:
            yield opened
        finally:
            opened.engine.dispose()

    @functools.cached_property
    def lock_key(self) -> int:
        """Of the advisory lock: 64 bits that no other study of the database has."""
        digest = hashlib.sha256(f"mlpspace {self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    # --- connections ---

    def connect(self, **more: Any) -> psycopg.Connection[Any]:
        """A connection that sees our schema and no other."""
        address = self.address
        alive = " ".join(f"-c tcp_{name}={value}" for name, value in _ALIVE.items())
        told: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "dbname": address.database,
            "user": address.user,
            "password": address.password,
            **dict(address.settings),
            **_proof_only(),
            "options": f"-c search_path={self.schema} {alive}",
            "client_encoding": "utf8",
            "connect_timeout": 10,
            "tcp_user_timeout": 60_000,  # ms
            "application_name": "mlpspace",
            **_ALIVE,
            **more,
        }
        return _psycopg().connect(**{name: value for name, value in told.items() if value is not None})

    def engine(self, connect: Callable[[], Any], **more: Any) -> sa.Engine:
        return sa.create_engine("postgresql+psycopg://", creator=connect, **more)


def _proof_only() -> dict[str, str]:
    """A server gets a proof that one knows the password, and never the password itself or its MD5: where to connect
    stands in a study's folder, which may be a stranger's. PGREQUIREAUTH says otherwise; libpq before 16 knows neither.
    """
    if "PGREQUIREAUTH" in os.environ or _psycopg().pq.version() < 160000:
        return {}
    return {"require_auth": "scram-sha-256,gss,sspi,none"}


class PostgresTransactions:
    """The tables, open for writing through one connection; see `storage.Transactions`."""

    def __init__(self, schema: PostgresSchema, *, alone: bool) -> None:
        """
        Raises:
            StudyError: the server is not there, or another driver is at work.
        """
        self.note: Callable[[str], None] = lambda text: None
        self._schema = schema
        self._alone = alone
        self._opened = False
        self._me = f"{_CALLED}pid {os.getpid()} on {socket.gethostname()}".encode("ascii", "replace").decode()[:63]
        self.engine = schema.engine(self._connect, poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=0)
        self._hasty = self.engine.execution_options(durable=False)
        sa.event.listen(self.engine, "begin", _begin)
        with schema.telling(), self.engine.connect():
            self._opened = True

    def run(self, do: Callable[[sa.Connection], T], *, durable: bool = True) -> T:
        failures = 0
        began = 0.0
        while True:
            try:
                found = self._once(do, self.engine if durable else self._hasty)
            except _Away as away:
                failures += 1
                now = time.monotonic()
                if failures == 1:  # it may have been back for long
                    began = now
                    continue
                if now - began >= PATIENCE:
                    raise StudyError(
                        f"{self._schema.address} did not come back within {PATIENCE:.0f} s: {away}.\n"
                        "  Nothing that was said to be measured is lost: when it is back, the same command goes on."
                    ) from None
                if failures == 2:
                    self.note(f"{self._schema.address}: {away}. Trying again for {PATIENCE:.0f} s.")
                time.sleep(min(2.0, 0.2 * failures))
            else:
                if failures > 1:
                    self.note(f"{self._schema.address} is back; nothing was lost.")
                return found

    def _once(self, do: Callable[[sa.Connection], T], engine: sa.Engine) -> T:
        """
        Raises:
            _Away: it may be done, or not.
        """
        try:
            connection = engine.connect()
        except sa.exc.OperationalError as error:
            raise _Away(_said(error.orig)) from None
        with self._schema.telling(), connection:
            try:
                with connection.begin():
                    return do(connection)
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise _Away(_said(error.orig)) from None
                raise

    def _connect(self) -> psycopg.Connection[Any]:
        """The driver's connection takes the lock before anything else, also when it comes again."""
        connection = self._schema.connect(application_name=self._me)
        if not self._alone:
            return connection
        for pause in (0.0, 0.05, 0.2, 0.5, 1.0):  # a driver that was killed just now: the server is about to see it
            time.sleep(pause)
            taken = connection.execute("SELECT pg_try_advisory_lock(%s)", [self._schema.lock_key]).fetchone()
            connection.commit()
            if taken == (True,):
                return connection
        connection.close()
        try:
            holder = self._schema.holder()
        except StudyError as error:  # it is gone again
            raise (_Away(str(error)) if self._opened else error) from None
        if self._opened and holder in (None, self._me):
            raise _Away("it holds the study for a connection that is no more")
        raise StudyError(
            f"{self._schema.name} is being searched by {_driver(holder)}; one study has one driver.\n"
            "  To search beside it: give another folder, --study NAME"
        )


def _begin(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")  # else a commit waits for the disk


def _driver(holder: str | None) -> str:
    return (holder or "").removeprefix(_CALLED) or "another process"


def _said(error: BaseException | None) -> str:
    """What libpq or the server says, in one line."""
    return re.sub(r"^connection (failed|is bad): ", "", "; ".join(line.strip() for line in str(error).splitlines()))


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise StudyError(
            f"The study's tables are on a PostgreSQL server, and psycopg cannot be loaded ({_said(error)}).\n"
            "  Try: pip install 'mlpspace[postgres]'"
        ) from None
    return psycopg
