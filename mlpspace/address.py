"""Where a PostgreSQL server is: as a person types it, and as a study's folder keeps it, without the password."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlpspace.errors import StudyError

FILE = "storage.json"  # in a study's folder
ENGINE = "postgresql+psycopg"
SETTINGS = ("service", "sslmode", "sslrootcert", "channel_binding")  # of a connection; libpq knows what they mean
FORM = f"{ENGINE}://USER@HOST/DATABASE"

_PASSWORD = re.compile(r"^(\w+(?:\+\w+)?://[^/:@]*):(.*)@(.*)$", re.DOTALL)
_SCHEMA = re.compile(r"mlpspace_[a-z0-9_]{1,50}")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A database on a server. What is None is found as libpq finds it: PGHOST, PGUSER, ~/.pg_service.conf ..."""

    host: str | None = None  # or the folder of a Unix socket
    port: int | None = None
    database: str | None = None
    user: str | None = None
    settings: tuple[tuple[str, str], ...] = ()  # of SETTINGS
    password: str | None = field(default=None, repr=False, compare=False)  # never written; None: PGPASSWORD, ~/.pgpass

    def __str__(self) -> str:
        return self.url()

    def url(self, **more: str) -> str:
        """Without the password. `more` goes into its query."""
        import sqlalchemy as sa  # here: each command looks for a password in what was typed, few need more

        query, host = {**dict(self.settings), **more}, self.host
        if host is not None and host.startswith("/"):
            query, host = {"host": host, **query}, None
        url = sa.URL.create(ENGINE, username=self.user, host=host, port=self.port, database=self.database, query=query)
        return url.render_as_string()

    def agrees_with(self, kept: Address) -> bool:
        """Whether it may be the same database; whoever goes there."""
        own, theirs = dict(self.settings).get("service"), dict(kept.settings).get("service")
        mine = (self.host, self.port, self.database, own)
        return all(said in (None, known) for said, known in zip(mine, (*_place(kept), theirs), strict=True))

    def reached_by(self, said: Address) -> Address:
        """The same database, by the user, with the password and in the way that `said` tells."""
        return replace(
            self, user=said.user or self.user, password=said.password, settings=said.settings or self.settings
        )


def _place(address: Address) -> tuple[str | None, int | None, str | None]:
    return address.host, address.port, address.database


def address_of(text: str) -> Address:
    """What `--storage` says.

    Raises:
        StudyError: it is no address of a PostgreSQL server. The text holds nothing of what may be a password.
    """
    import sqlalchemy as sa

    text, password = _split(text)
    scheme = text.partition("://")[0] if "://" in text else None
    if scheme != ENGINE:
        found = f'"{scheme}://..." is' if scheme and re.fullmatch(r"[\w+]+", scheme) else "this is"
        raise StudyError(
            f"--storage: {found} not known. Known: {FORM}\n  Without --storage, a study's tables are in its folder."
        )
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise StudyError(f"--storage: this is no address of a server. It should look like {FORM}") from None
    query: dict[str, Any] = dict(url.query)
    unknown = sorted(name for name, value in query.items() if name not in ("host", *SETTINGS) or type(value) is not str)
    if unknown:
        secret = " A password stands before the @, or better in PGPASSWORD or ~/.pgpass." * ("password" in unknown)
        raise StudyError(f"--storage: {', '.join(unknown)} cannot be set here. Known: {', '.join(SETTINGS)}.{secret}")
    return Address(
        host=query.pop("host", url.host) or None,
        port=url.port,
        database=url.database or None,
        user=url.username or None,
        settings=tuple(sorted(query.items())),
        password=password,
    )


def _split(text: str) -> tuple[str, str | None]:
    """An address without its password, and the password. What is before the last @ is the user's, as `urllib` has it:
    so a password with an @ in it is one too."""
    found = _PASSWORD.match(text)
    return (text, None) if found is None else (f"{found[1]}@{found[3]}", unquote(found[2]) or None)


def without_password(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words of a command without the password in its `--storage`, and that password.

    Example:
        >>> without_password(["search", "a.yaml", "--storage", "postgresql+psycopg://me:secret@host/db"])
        (['search', 'a.yaml', '--storage', 'postgresql+psycopg://me@host/db'], 'secret')
    """
    kept, password = list(words), None
    for i, word in enumerate(words):
        option, sign, value = word.partition("=")
        if option == "--storage" and sign:
            value, found = _split(value)
            kept[i] = f"{option}={value}"
        elif i and words[i - 1] == "--storage":
            kept[i], found = _split(word)
        else:
            continue
        password = found or password
    return kept, password


# --- as a study's folder keeps it -------------------------------------------------------------------------------------


def new_schema(folder: Path) -> str:
    """A name for the tables of the study in `folder`: told by people, and like no other on the server."""
    name = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")[:40] or "study"
    return f"mlpspace_{name}_{secrets.token_hex(3)}"


def write_address(path: Path, address: Address, schema: str) -> None:
    """All but the password."""
    told: dict[str, Any] = {"engine": ENGINE, "host": address.host, "port": address.port}
    told |= {"database": address.database, "user": address.user, **dict(address.settings), "schema": schema}
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def read_address(path: Path) -> tuple[Address, str]:
    """What `write_address` wrote: the address and the schema.

    Raises:
        StudyError: it did not write this.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        words = ("host", "database", "user", *SETTINGS)
        known = isinstance(told, dict) and told.keys() <= {"engine", "port", "schema", *words}
        whole = known and told.get("engine") == ENGINE and _SCHEMA.fullmatch(str(told.get("schema"))) is not None
        whole = whole and all(isinstance(told.get(name), str | None) for name in words)
        port = told.get("port") if whole else None
        if not whole or not (port is None or (type(port) is int and 0 < port < 65536)):
            raise ValueError("it is not as mlpspace writes it")
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} does not say where the study's tables are ({error}).") from None
    return Address(
        host=told.get("host"),
        port=port,
        database=told.get("database"),
        user=told.get("user"),
        settings=tuple((name, told[name]) for name in sorted(SETTINGS) if told.get(name) is not None),
    ), told["schema"]
