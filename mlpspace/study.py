"""A study: all trials of one space, on disk. Opening one only ever reads; `writing` gives the one writer.

A study is a folder: `space.yaml` as it was given, `manifest.json`, and `study.db` (SQLite: our ledger and Optuna's
tables) or `storage.json`, which says on which server these tables are.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from mlpspace import ledger, ledger_rows, ledger_tables
from mlpspace.address import Address
from mlpspace.errors import StudyError
from mlpspace.ledger import Writer
from mlpspace.ledger_columns import Reader
from mlpspace.session import Session
from mlpspace.sqlite_file import SqliteFile
from mlpspace.storage import UNFINISHED, Storage, make_storage, storage_of, studies_in
from mlpspace.study_folder import check_folder, read_text
from mlpspace.trial import SET_ASIDE
from mlpspace.trial import Record as Record
from mlpspace.trial import Trial as Trial

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_UNFINISHED = {"lock", "space.yaml", "manifest.json", *UNFINISHED}


class Study:
    """All trials of one space, on disk.

    Example:
        >>> study = Study("studies/run1")  # doctest: +SKIP
        >>> study.frame().sort_values("accuracy_percent")  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, *, address: Address | None = None) -> None:
        """Open a study for reading. Nothing is created or written, also while a search writes to it.

        Args:
            address: of a study on a server, for the user and the password to go there with; else they are found as
                PostgreSQL's own tools find them.

        Raises:
            StudyError: there is none in `folder`, it is no study, or a newer mlpspace wrote it.
        """
        self.folder = Path(folder)
        check_folder(self.folder)
        storage = storage_of(self.folder, address)
        if storage is None:
            raise no_study_at(self.folder)
        self.storage: Storage = storage
        self._read(storage.check)

    @property
    def database(self) -> Path:
        """The SQLite file, where the tables are in one."""
        assert isinstance(self.storage, SqliteFile), f"the tables are at {self.storage.name}"
        return self.storage.path

    @classmethod
    def create(
        cls, folder: str | Path, *, space_text: str, manifest: Mapping[str, Any], address: Address | None = None
    ) -> Study:
        """A new study without trials. One whose making was cut off is made anew.

        Args:
            address: of the server that shall hold its tables; None: they are in the folder.

        Raises:
            StudyError: `folder` already holds something, or the study cannot be made there.
        """
        folder = Path(folder)
        found = folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{folder} cannot be made ({error.strerror}).") from None
        with ledger.locked(folder):
            # what says where the tables are gets its name last: a folder with it is whole, one without it was cut off
            held = sorted(path.name for path in folder.iterdir() if path.name not in _UNFINISHED)
            if held:
                raise StudyError(
                    f"{folder} already holds {', '.join(held[:3])}; a new study takes a folder of its own."
                )
            (folder / "space.yaml").write_text(space_text, encoding="utf-8")
            (folder / "manifest.json").write_text(json.dumps(dict(manifest), indent=2) + "\n", encoding="utf-8")
            try:
                make_storage(folder, address)
            except StudyError:  # the server is not there, or not for us: no half of a study is left to be asked about
                for name in _UNFINISHED:
                    (folder / name).unlink(missing_ok=True)
                if not found:
                    folder.rmdir()
                raise
        return cls(folder, address=address)

    @contextmanager
    def writing(
        self,
        command: str,
        *,
        total: int | None = None,
        clock: Callable[[], float] = time.time,
        manifest: Mapping[str, Any] | None = None,
    ) -> Iterator[Writer]:
        """The one writer of this study, until the block ends. For the record: `command` is what was typed, `total` how
        many trials that is after, `manifest` the versions and the machine.

        Raises:
            StudyError: another process is writing; the text names its host and pid.
        """
        with ledger.writing(self.folder, self.storage, command, total, clock, manifest) as writer:
            yield writer

    @property
    def space_text(self) -> str:
        """The space file as it was given."""
        return read_text(self.folder / "space.yaml")

    @property
    def manifest(self) -> dict[str, Any]:
        """What was noted when the study was made: versions, machine, command."""
        path = self.folder / "manifest.json"
        return ledger_rows.json_object(read_text(path), str(path))

    def note_data(self, dataset: str, path: str) -> None:
        """The dataset lies elsewhere now: the next session looks there."""
        told = self.manifest | {"data": {dataset: path}}
        new = self.folder / "manifest.json.new"
        new.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        new.replace(self.folder / "manifest.json")

    @property
    def elapsed_seconds(self) -> float:
        """Time that all sessions have searched, up to the last write."""
        return self._read(lambda connection: self._seconds(connection, ledger_tables.ELAPSED_SECONDS)) or 0.0

    @property
    def last_seen(self) -> float | None:
        """When a search last wrote here, seconds since 1970; None if none ever did."""
        return self._read(lambda connection: self._seconds(connection, ledger_tables.LAST_SEEN))

    def _seconds(self, connection: sa.Connection, query: sa.Select[Any]) -> float | None:
        return ledger_rows.seconds(connection.execute(query).scalar_one(), self.storage.name)

    @property
    def total(self) -> int | None:
        """How many trials the latest search was after; None if that is not known."""
        return self._read(
            lambda connection: ledger_rows.total(
                connection.execute(ledger_tables.TOTAL).scalar_one_or_none(), self.storage.name
            )
        )

    @property
    def driver(self) -> str | None:
        """Which process is searching here now, "pid 17 on laptop"; None if none is."""
        return ledger.driver_of(self.folder) or self.storage.driver()

    @property
    def refused(self) -> dict[str, int]:
        """Reason -> draws that were refused before they became trials, the commonest first."""
        query = sa.select(ledger_tables.refused.c.reason, ledger_tables.refused.c.count).order_by(
            ledger_tables.refused.c.count.desc(), ledger_tables.refused.c.reason
        )
        rows = self._read(lambda connection: connection.execute(query).tuples().all())
        return ledger_rows.refused(rows, self.storage.name)

    @property
    def counts(self) -> Counter[str]:
        """State -> how many trials; those that were set aside before training are left out."""
        trial = ledger_tables.trial.c
        counted = trial.reason.is_distinct_from(SET_ASIDE)
        query = sa.select(trial.state, sa.func.count()).where(counted).group_by(trial.state)
        rows = self._read(lambda connection: connection.execute(query).tuples().all())
        return Counter(ledger_rows.counts(rows, self.storage.name))

    def sessions(self) -> list[Session]:
        """The searches of this study, the first first."""
        read = self._read(lambda connection: _sessions(connection, self.storage.check(connection)))
        return [Session(**ledger_rows.session(row, self.storage.name)) for row in read]

    def trials(self, numbers: Collection[int] | None = None, *, curves: bool = True) -> list[Trial]:
        """All trials as of one instant, by number, or those of some numbers; without `curves` theirs are empty."""
        return self.at_one_instant(lambda reader: reader.trials(numbers, curves=curves))

    def trial(self, number: int) -> Trial:
        """One trial.

        Raises:
            StudyError: there is none of that number.
        """
        trials = self.trials()
        for trial in trials:
            if trial.number == number:
                return trial
        span = f"it has {trials[0].number} to {trials[-1].number}" if trials else "it has none yet"
        raise StudyError(f"no trial {number} in {self.folder}; {span}.")

    def at_one_instant(self, look: Callable[[Reader], T]) -> T:
        """What `look` finds in the trials: all that it reads is of one instant. It may be called again."""
        with _uncollected():
            return self._read(
                lambda connection: look(Reader(connection, self.storage.check(connection), self.storage.name))
            )

    def frame(self) -> pd.DataFrame:
        """One row a trial, plain columns with their units in their names; `point.NAME` is what the sampler drew."""
        import pandas as pd

        rows = [_row(trial) for trial in self.trials()]
        return pd.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")

    def _read(self, query: Callable[[sa.Connection], T]) -> T:
        return self.storage.read(query)


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is read stays, and Python's collector would look through ever more of it in vain: a fifth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _sessions(connection: sa.Connection, version: int) -> list[dict[str, Any]]:
    s = ledger_tables.session.c
    columns = (s.id.label("number"), s.started, s.seen, s.host, s.pid, s.command, s.total)
    noted = (ledger_tables.readable(column, version) for column in (s.manifest, s.wall_time))
    query = sa.select(*columns, *noted).order_by(s.id)
    return list(_rows(connection, query))


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
    """Column -> what it holds, row by row."""
    result = connection.execute(query)
    names = list(result.keys())
    return (dict(zip(names, row, strict=True)) for row in result)


_UNITS = {"accuracy": "accuracy_percent", "throughput": "throughput_images_per_s", "peak_memory_mb": "peak_memory_mb"}


def _row(trial: Trial) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial": trial.number,
        "id": trial.architecture_id,
        "architecture": trial.architecture.describe(),
        "origin": trial.origin,
        "label": trial.label,
        "state": trial.state,
        "reason": trial.reason,
        "why": trial.why,
        "attempt": trial.attempt,
        "params": trial.params,
        "macs": trial.macs,
        "tokens": trial.tokens,
        "activations": trial.activations,
    }
    for metric, name in _UNITS.items():
        record = trial.measurements.get(metric)
        row[name] = record and record.value
        row[f"{name}_low"] = record and record.low
        row[f"{name}_high"] = record and record.high
    accuracy = trial.measurements.get("accuracy")
    row["rung"] = accuracy and accuracy.rung
    row["epochs"] = accuracy and accuracy.epochs
    trainings = [record.value for record in (accuracy, *trial.repeats) if record]
    row["trainings"] = len(trainings)
    row["accuracy_percent_mean"] = statistics.fmean(trainings) if trainings else None
    row["accuracy_percent_spread"] = statistics.stdev(trainings) if len(trainings) > 1 else None
    row["seconds"] = None if trial.ended is None else trial.seconds
    return row | {f"point.{name}": value for name, value in (trial.point or {}).items()}


def studies_near(folder: Path) -> list[Path]:
    """Study folders beside `folder`, in it and in `studies`, by name: what somebody may have meant."""
    return sorted({found for place in (folder.parent, folder, Path("studies")) for found in studies_in(place)})


def no_study_at(folder: Path) -> StudyError:
    """The error for a folder that holds none, with those near it."""
    near = studies_near(folder)
    if near:
        return StudyError(f"no study at {folder}. Studies here: {', '.join(map(str, near))}.")
    return StudyError(f"no study at {folder}, and none near it.\n  To make one: mlpspace search spaces/hybrid.yaml")
