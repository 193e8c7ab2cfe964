"""What a study's database holds, read with plain SQL from a copy, so that what a kill left lies there untouched."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Key: TypeAlias = "tuple[int, int, str, int | None, int]"  # trial, attempt, metric, rung, repeat


@dataclass(frozen=True, slots=True)
class Book:
    """All that counts, as of one instant. Trials are rows with their columns' names."""

    trials: Mapping[int, Mapping[str, Any]]  # with `id`, `json`, `params` and `macs` of the architecture
    measurements: Mapping[Key, Mapping[str, Any]]
    sessions: tuple[Mapping[str, Any], ...]
    optuna: Mapping[int, tuple[str, tuple[float, ...]]]  # number -> state, values

    def accuracies(self, number: int) -> dict[int, float]:
        """Rung -> accuracy of a trial's latest attempt."""
        attempt = self.trials[number]["attempt"]
        return {
            key[3]: row["value"]
            for key, row in self.measurements.items()
            if key[:3] == (number, attempt, "accuracy") and key[3] is not None and not key[4]
        }

    def reached(self, number: int) -> int:
        """Epochs of the highest rung that a trial's latest attempt was measured at; 0 for none."""
        attempt = self.trials[number]["attempt"]
        found = [
            row["epochs"]
            for key, row in self.measurements.items()
            if key[:3] == (number, attempt, "accuracy") and not key[4]
        ]
        return max(found, default=0)

    @property
    def by_seed(self) -> dict[int, int]:
        """Seed -> trial number."""
        return {row["seed"]: number for number, row in self.trials.items()}


EMPTY = Book({}, {}, (), {})


def read(database: Path) -> Book:
    """What `database` holds; EMPTY where it was not made yet. Nobody may be writing to it.

    Raises:
        AssertionError: SQLite finds it damaged.
    """
    if not database.exists():
        return EMPTY
    with tempfile.TemporaryDirectory() as folder:
        for end in ("", "-wal"):  # without -shm, as after a power cut: SQLite makes it anew from the log
            file = database.with_name(database.name + end)
            if file.exists():
                shutil.copy(file, folder)
        with closing(sqlite3.connect(Path(folder) / database.name)) as connection:
            return _checked(connection, database)


def read_live(database: Path) -> Book:
    """The same while its driver writes."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        connection.execute("BEGIN")  # all that follows is of one instant
        return _checked(connection, database)


def _checked(connection: sqlite3.Connection, database: Path) -> Book:
    connection.row_factory = sqlite3.Row
    found = [tuple(row) for row in connection.execute("PRAGMA integrity_check")]
    assert found == [("ok",)], f"{database}: integrity_check says {found}"
    broken = [tuple(row) for row in connection.execute("PRAGMA foreign_key_check")]
    assert not broken, f"{database}: foreign_key_check says {broken}"
    return _book(connection)


def _book(connection: sqlite3.Connection) -> Book:
    def rows(query: str) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.execute(query)]

    trials = rows("SELECT * FROM trial JOIN architecture ON trial.architecture = architecture.id ORDER BY number")
    measured = rows("SELECT * FROM measurement")
    keys = [(row["trial"], row["attempt"], row["metric"], row["rung"], row["repeat"]) for row in measured]
    assert len(set(keys)) == len(keys), "a measurement stands twice in the ledger"
    return Book(
        {row["number"]: row for row in trials},
        dict(zip(keys, measured, strict=True)),
        tuple(rows("SELECT * FROM session ORDER BY id")),
        _optuna(connection),
    )


def _optuna(connection: sqlite3.Connection) -> dict[int, tuple[str, tuple[float, ...]]]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'trial_values'").fetchone():
        return {}
    trials = connection.execute("SELECT trial_id, number, state FROM trials ORDER BY number").fetchall()
    assert [number for _, number, _ in trials] == list(range(len(trials))), "Optuna's numbers are not 0, 1, 2 ..."
    values = connection.execute("SELECT trial_id, value FROM trial_values ORDER BY trial_id, objective").fetchall()
    return {
        number: (state, tuple(value for owner, value in values if owner == trial_id))
        for trial_id, number, state in trials
    }
