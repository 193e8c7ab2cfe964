"""Where a server is: as it is typed, as a study's folder keeps it, and that a password stays out of sight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpspace.address import Address, address_of, new_schema, read_address, without_password, write_address
from mlpspace.errors import StudyError


@pytest.mark.parametrize(
    ("text", "host", "port", "database", "user", "password", "settings"),
    [
        ("postgresql+psycopg://", None, None, None, None, None, ()),
        ("postgresql+psycopg://db/team", "db", None, "team", None, None, ()),
        ("postgresql+psycopg://me@db.example.org:5433/team", "db.example.org", 5433, "team", "me", None, ()),
        ("postgresql+psycopg://me:secret@db/team", "db", None, "team", "me", "secret", ()),
        ("postgresql+psycopg://me:s%40%2F%3A@db/team", "db", None, "team", "me", "s@/:", ()),
        ("postgresql+psycopg://me:a@b/c?d@db/team", "db", None, "team", "me", "a@b/c?d", ()),  # written as it is
        ("postgresql+psycopg://me@[::1]:5432/team", "::1", 5432, "team", "me", None, ()),
        ("postgresql+psycopg:///team?host=/run/postgresql", "/run/postgresql", None, "team", None, None, ()),
        ("postgresql+psycopg://db/team?sslmode=require", "db", None, "team", None, None, (("sslmode", "require"),)),
        ("postgresql+psycopg:///?service=team", None, None, None, None, None, (("service", "team"),)),
    ],
)
def test_an_address_is_read_as_it_is_typed(
    text: str,
    host: str | None,
    port: int | None,
    database: str | None,
    user: str | None,
    password: str | None,
    settings: tuple[tuple[str, str], ...],
) -> None:
    found = address_of(text)
    assert (found.host, found.port, found.database, found.user) == (host, port, database, user)
    assert (found.password, found.settings) == (password, settings)
    assert password is None or password not in repr(found) + str(found)
    assert address_of(str(found)) == found  # all but the password


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("sqlite:///study.db", r'"sqlite://\.\.\." is not known\. Known: postgresql\+psycopg://USER@HOST/DATABASE'),
        ("postgresql://me:topsecret@db/team", r'"postgresql://\.\.\." is not known'),
        ("topsecret", "this is not known"),
        ("postgresql+psycopg://me:topsecret/team", "no address of a server"),  # the host was forgotten
        ("postgresql+psycopg://me:x@db:topsecret/team", "no address of a server"),
        ("postgresql+psycopg://db/team?password=topsecret", r"password cannot be set here\. .*PGPASSWORD"),
        ("postgresql+psycopg://db/team?passfile=topsecret", "passfile cannot be set here"),
        ("postgresql+psycopg://db/team?host=a&host=topsecret", "host cannot be set here"),
        ("postgresql+psycopg://db/team?options=-csearch_path%3Dtopsecret", "options cannot be set here"),
    ],
)
def test_what_is_no_address_is_told_without_what_may_be_a_password(text: str, word: str) -> None:
    with pytest.raises(StudyError, match=word) as caught:
        address_of(text)
    assert "topsecret" not in str(caught.value)


def test_a_folder_keeps_all_but_the_password(tmp_path: Path) -> None:
    path = tmp_path / "storage.json"
    address = address_of("postgresql+psycopg://me:topsecret@db:5433/team?sslmode=require")
    write_address(path, address, "mlpspace_run1_0a1b2c")
    assert read_address(path) == (address, "mlpspace_run1_0a1b2c")
    assert read_address(path)[0].password is None
    assert "topsecret" not in path.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"password": "x"},
        {"options": "-c x"},
        {"passfile": "/etc/shadow"},
        {"schema": "public"},
        {"schema": 'mlpspace_x"; drop'},
        {"schema": None},
        {"engine": "sqlite"},
        {"port": "5432"},
        {"port": True},
        {"port": 0},
        {"host": ["a", "b"]},
        {"sslmode": 1},
    ],
)
def test_a_folder_of_a_stranger_cannot_say_more_than_where_its_tables_are(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "storage.json"
    write_address(path, address_of("postgresql+psycopg://db/team"), "mlpspace_run1_0a1b2c")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StudyError, match="does not say where the study's tables are"):
        read_address(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0", '{"engine": "postgresql+psycopg"}'])
def test_a_file_that_is_no_address_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "storage.json").write_text(text)
    with pytest.raises(StudyError, match="does not say where"):
        read_address(tmp_path / "storage.json")


@pytest.mark.parametrize(
    ("said", "agrees"),
    [
        ("postgresql+psycopg://", True),
        ("postgresql+psycopg://db/team", True),
        ("postgresql+psycopg://other:secret@db:5432/team?sslmode=require", True),  # somebody else, the same place
        ("postgresql+psycopg://db2/team", False),
        ("postgresql+psycopg://db:5433/team", False),
        ("postgresql+psycopg://db/other", False),
        ("postgresql+psycopg:///?service=team", False),
    ],
)
def test_who_goes_to_the_same_place_means_the_same_study(said: str, agrees: bool) -> None:
    kept = Address(host="db", port=5432, database="team", user="me")
    assert address_of(said).agrees_with(kept) is agrees


@pytest.mark.parametrize("name", ["run1", "Über Nacht!", "a" * 200, "---", "1;drop schema public"])
def test_every_study_gets_a_schema_of_its_own_that_needs_no_quotes(tmp_path: Path, name: str) -> None:
    names = {new_schema(tmp_path / name) for _ in range(20)}
    assert len(names) == 20
    for each in names:
        assert each.startswith("mlpspace_")
        assert each.isascii()
        assert each.isidentifier()
        assert each == each.lower()
        assert len(each) <= 63  # PostgreSQL cuts off what is longer


SAFE = "postgresql+psycopg://me@db/team"


@pytest.mark.parametrize(
    ("words", "kept", "password"),
    [
        (["search", "a.yaml"], ["search", "a.yaml"], None),
        (["--storage", SAFE], ["--storage", SAFE], None),
        (["--storage", "postgresql+psycopg://me:s%40t@db/team"], ["--storage", SAFE], "s@t"),
        (["--storage=postgresql+psycopg://me:s@t@db/team", "--plain"], [f"--storage={SAFE}", "--plain"], "s@t"),
        (["--data", "x=http://me:secret@db/y"], ["--data", "x=http://me:secret@db/y"], None),  # nothing of ours
        (["--storage"], ["--storage"], None),
    ],
)
def test_a_command_is_told_without_its_password(words: list[str], kept: list[str], password: str | None) -> None:
    assert without_password(words) == (kept, password)
