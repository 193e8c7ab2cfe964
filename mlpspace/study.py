"""A study: all trials of one space, on disk. Opening one only ever reads; `writing` gives the one writer.

A study is a folder: `space.yaml` as it was given, `manifest.json`, `study.db` (SQLite: our ledger and Optuna's tables).
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from mlpspace import ledger, ledger_tables
from mlpspace.errors import StudyError
from mlpspace.ledger import Writer
from mlpspace.trial import Epoch, Record, Trial

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_FILES = ("space.yaml", "manifest.json", "study.db")


class Study:
    """All trials of one space, on disk.

    Example:
        >>> study = Study("studies/run1")  # doctest: +SKIP
        >>> study.frame().sort_values("accuracy_percent")  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a study for reading. Nothing is created or written, also while a search writes to it.

        Raises:
            StudyError: there is none in `folder`, it is no study, or a newer mlpspace wrote it.
        """
        self.folder = Path(folder)
        self.database = self.folder / "study.db"
        if not self.database.is_file():
            raise _no_study_at(self.folder)
        self._read(lambda connection: ledger.check(connection, self.database))

    @classmethod
    def create(cls, folder: str | Path, *, space_text: str, manifest: Mapping[str, Any]) -> Study:
        """A new study without trials. One whose making was cut off is made anew.

        Raises:
            StudyError: `folder` already holds something, or cannot be made.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{folder} cannot be made ({error.strerror}).") from None
        with ledger.locked(folder):
            # study.db gets its name last, so a folder with it is whole and one without it was cut off
            unfinished = {"lock", "space.yaml", "manifest.json", "study.db.new", "study.db.new-wal", "study.db.new-shm"}
            held = sorted(path.name for path in folder.iterdir() if path.name not in unfinished)
            if held:
                raise StudyError(
                    f"{folder} already holds {', '.join(held[:3])}; a new study takes a folder of its own."
                )
            for name in unfinished - {"lock"}:
                (folder / name).unlink(missing_ok=True)
            (folder / "space.yaml").write_text(space_text, encoding="utf-8")
            (folder / "manifest.json").write_text(json.dumps(dict(manifest), indent=2) + "\n", encoding="utf-8")
            ledger.make(folder / "study.db.new")
            (folder / "study.db.new").rename(folder / "study.db")
        return cls(folder)

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
        with ledger.writing(self.folder, command, total, clock, manifest) as writer:
            yield writer

    @property
    def space_text(self) -> str:
        """The space file as it was given."""
        return self._text("space.yaml")

    @property
    def manifest(self) -> dict[str, Any]:
        """What was noted when the study was made: versions, machine, command."""
        try:
            told: dict[str, Any] = json.loads(self._text("manifest.json"))
        except ValueError as error:
            raise StudyError(
                f"{self.folder / 'manifest.json'} is no JSON ({error}). The trials are not harmed."
            ) from None
        return told

    def note_data(self, dataset: str, path: str) -> None:
        """The dataset lies elsewhere now: the next session looks there."""
        told = self.manifest | {"data": {dataset: path}}
        new = self.folder / "manifest.json.new"
        new.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        new.replace(self.folder / "manifest.json")

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(
                f"{self.folder / name} cannot be read ({error}). It was written when the study was made: put it back."
            ) from None

    @property
    def elapsed_seconds(self) -> float:
        """Time that all sessions have searched, up to the last write."""
        return self._read(lambda connection: float(connection.execute(ledger_tables.ELAPSED_SECONDS).scalar_one()))

    @property
    def last_seen(self) -> float | None:
        """When a search last wrote here, seconds since 1970; None if none ever did."""
        return self._read(lambda connection: connection.execute(ledger_tables.LAST_SEEN).scalar_one())

    @property
    def total(self) -> int | None:
        """How many trials the latest search was after; None if that is not known."""
        return self._read(lambda connection: connection.execute(ledger_tables.TOTAL).scalar_one_or_none())

    @property
    def driver(self) -> str | None:
        """Which process is searching here now, "pid 17 on laptop"; None if none is."""
        return ledger.driver_of(self.folder)

    @property
    def refused(self) -> dict[str, int]:
        """Reason -> draws that were refused before they became trials, the commonest first."""
        query = sa.select(ledger_tables.refused.c.reason, ledger_tables.refused.c.count).order_by(
            ledger_tables.refused.c.count.desc()
        )
        return self._read(lambda connection: dict(connection.execute(query).tuples().all()))

    def trials(self) -> list[Trial]:
        """All trials as of one instant, by number."""
        return self._read(lambda connection: _trials(connection, ledger.check(connection, self.database)))

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

    def frame(self) -> pd.DataFrame:
        """One row a trial, plain columns with their units in their names; `point.NAME` is what the sampler drew."""
        import pandas as pd

        rows = [_row(trial) for trial in self.trials()]
        return pd.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")

    def _read(self, query: Callable[[sa.Connection], T]) -> T:
        failure: sa.exc.DatabaseError | None = None
        for pause in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2):  # while a writer comes or goes: tens of milliseconds
            time.sleep(pause)
            before = self._at_rest()
            failure = None
            try:
                with _reader(self.database, at_work=before is None) as connection:
                    result = query(connection)
            except sa.exc.DatabaseError as error:  # its companion files are not all there yet, or no more
                failure = error
                continue
            except StudyError:
                if before is None or before == self._at_rest():
                    raise
                continue
            if before is None or before == self._at_rest():
                return result
        if failure is None:
            raise StudyError(f"{self.database} is being written to by ever new writers. Try again.")
        raise ledger.not_a_study(self.database, str(failure.orig)) from None

    def _at_rest(self) -> tuple[int, int] | None:
        """What changes whenever a writer has come and gone; None while one is at work, or was killed."""
        if self.database.with_name("study.db-wal").exists():
            return None
        now = self.database.stat()
        return now.st_mtime_ns, now.st_size


@contextmanager
def _reader(database: Path, *, at_work: bool) -> Iterator[sa.Connection]:
    """One snapshot of the file. Where no writer is at work the file is read as one that cannot change: SQLite would
    otherwise make its two companion files, which a reader may not in a read-only folder and should not in any."""

    def connect() -> sqlite3.Connection:
        mode = "mode=ro" if at_work else "mode=ro&immutable=1"
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?{mode}", uri=True, timeout=30)
        connection.isolation_level = None
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")  # what several queries see is one instant
        yield connection


def _trials(connection: sa.Connection, version: int) -> list[Trial]:
    """`version` of the tables, as of the same instant."""
    records: defaultdict[int, list[Record]] = defaultdict(list)
    columns = (*(name for name in Record.__dataclass_fields__), "trial")
    m = ledger_tables.measurement.c
    query = sa.select(*(ledger_tables.readable(m[name], version) for name in columns)).order_by(
        m.trial, m.rung, m.attempt
    )
    for *values, number in connection.execute(query):
        records[number].append(Record(**dict(zip(columns, values, strict=False))))

    curves: defaultdict[int, list[Epoch]] = defaultdict(list)
    p, t, a = ledger_tables.progress.c, ledger_tables.trial.c, ledger_tables.architecture.c
    # an epoch that was trained twice stands as it was trained last, and nothing of an attempt that went further
    query = sa.select(p.trial, p.epoch, p.loss, p.accuracy).where(p.trial == t.number, p.attempt == t.attempt)
    for number, *epoch in connection.execute(query.order_by(p.trial, p.epoch)):
        curves[number].append(tuple(epoch))

    both = sa.join(ledger_tables.trial, ledger_tables.architecture, t.architecture == a.id)
    names = (
        (
            "number",
            "state",
            "reason",
            "detail",
            "attempt",
            "origin",
            "label",
            "seed",
            "started",
            "ended",
            "why",
            "seconds",
            "deaths",
            "gain",
            "repeat_failed",
        ),
        ("params", "macs", "tokens", "activations"),
    )
    query = sa.select(
        *(ledger_tables.readable(t[name], version) for name in names[0]),
        *(a[name] for name in names[1]),
        a.id.label("architecture_id"),
        a.json.label("architecture_json"),
        t.recipe.label("recipe_json"),
        t.point,
    )
    trials = []
    for row in connection.execute(query.select_from(both).order_by(t.number)).mappings():
        point = row["point"]
        told = {
            **row,
            "point": None if point is None else json.loads(point),
            "records": tuple(records[row["number"]]),
            "curve": tuple(curves[row["number"]]),
        }
        trials.append(Trial(**told))
    return trials


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
    found = {
        database.parent for place in (folder.parent, folder, Path("studies")) for database in place.glob("*/study.db")
    }
    return sorted(found)


def _no_study_at(folder: Path) -> StudyError:
    near = studies_near(folder)
    if near:
        return StudyError(f"no study at {folder}. Studies here: {', '.join(map(str, near))}.")
    return StudyError(f"no study at {folder}, and none near it.\n  To make one: mlpspace search spaces/hybrid.yaml")
