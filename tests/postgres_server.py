"""A PostgreSQL server of our own, from Debian's package, for as long as the tests run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from mlpspace.address import Address, address_of

PASSWORD = "s3cret-Pa:ss@w/rd?"  # with all that an address gives another meaning to
QUOTED = "s3cret-Pa%3Ass%40w%2Frd%3F"


def programs() -> Path | None:
    """The folder of initdb and postgres; None: there is no server here."""
    found = [Path(path).resolve().parent for name in ("initdb",) if (path := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # where Debian hides them
    return next((place for place in found if (place / "initdb").exists() and (place / "postgres").exists()), None)


def _somebody() -> dict[str, Any]:
    """Who may run a server: not root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise AssertionError("there is nobody but root")


class Server:
    """A server on a free port, with the user `alice`, her database `team` and a password."""

    def __init__(self, bin: Path) -> None:
        self._bin = bin
        self._as = _somebody()
        self.folder = Path(tempfile.mkdtemp(prefix="mlpspace-postgres-", dir="/tmp"))  # pytest's are closed to others
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        (self.folder / "password").write_text(PASSWORD)
        os.chmod(self.folder / "password", 0o644)
        quick = ["--no-sync", "--locale=C", "--encoding=UTF8", "--auth=scram-sha-256"]
        self._run("initdb", "-D", self._data, "-U", "admin", f"--pwfile={self.folder / 'password'}", *quick)
        (self.folder / "password").unlink()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.do(f"CREATE ROLE alice LOGIN PASSWORD '{PASSWORD}'")
        self.do("CREATE DATABASE team OWNER alice")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", **self._as)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Ready when it returns."""
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        settings |= {"fsync": "off", "log_statement": "all", "log_connections": "on"}  # so that it can be searched
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", self._data, *words], stdout=log, stderr=log, cwd="/", **self._as
            )
        for _ in range(600):
            try:
                self.connect("admin", "postgres").close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, self.log()
                time.sleep(0.05)
        raise AssertionError(self.log())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """As `systemctl stop` does it: the connections are cut."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)  # it need not put anything in order
        shutil.rmtree(self.folder)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def connect(self, user: str, database: str = "team") -> psycopg.Connection[Any]:
        told = {"host": "127.0.0.1", "port": self.port, "dbname": database, "user": user, "password": PASSWORD}
        return psycopg.connect(**told, autocommit=True)  # type: ignore[arg-type]

    def do(self, statement: str, *values: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect("admin", database) as connection:
            cursor = connection.execute(statement, values or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def url(self, user: str = "alice", database: str = "team", password: str = f":{QUOTED}") -> str:
        return f"postgresql+psycopg://{user}{password}@127.0.0.1:{self.port}/{database}"

    def address(self, **other: str) -> Address:
        return address_of(self.url(**other))
