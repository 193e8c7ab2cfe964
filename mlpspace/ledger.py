"""The ledger: our tables of a study, and the one writer who fills them.

Each method of `Writer` is one committed transaction, so that a process killed at any instant leaves tables that hold
every record whose call had returned and no half of any other. Where they are is `storage`'s business; Optuna's tables
stand beside them (`optuna_tables`).
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlpspace.errors import StudyError
from mlpspace.fingerprint import content_id
from mlpspace.ledger_tables import (
    ELAPSED_SECONDS,
    ENDED,
    ONCE,
    ORIGINS,
    architecture,
    bring_up_to_date,
    fingerprint,
    measurement,
    progress,
    refused,
    session,
    trial,
)
from mlpspace.measurement import Assignment, Measurement, Progress
from mlpspace.storage import Storage, Transactions
from mlpspace.study_folder import check_folder

LATER_S = 0.2  # what says nothing of a trial's end waits so long for others to be written with


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The exclusive right to write to the study in `folder`, until the block or the process ends.

    The lock is the kernel's (flock), so that one of a dead process is no lock; the file only says whose it is.

    Raises:
        StudyError: another process has it; the text names its host and pid.
    """
    import fcntl  # here, as a front can be read where there is no fcntl

    check_folder(folder)
    path = folder / "lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise StudyError(f"{folder} cannot be written to ({error.strerror}).") from None
    with file:
        for pause in (0.0, 0.02, 0.1, None):  # `driver_of` has it for an instant
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if pause is None:
                    owner = path.read_text().strip() or "another process"
                    raise StudyError(
                        f"{folder} is being searched by {owner}; one study has one driver.\n"
                        f"  To watch it:     mlpspace status {folder}\n"
                        f"  To search beside it: give another folder, --study {folder.parent / 'NAME'}"
                    ) from None
                time.sleep(pause)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def driver_of(folder: Path) -> str | None:
    """Who is writing to the study in `folder`, "pid 17 on laptop"; None if nobody is."""
    import fcntl

    try:
        with (folder / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except OSError:  # no lock file: nobody ever wrote from here
        pass
    return None


@contextmanager
def writing(
    folder: Path,
    storage: Storage,
    command: str,
    total: int | None,
    clock: Callable[[], float],
    manifest: Mapping[str, Any] | None = None,
) -> Iterator[Writer]:
    """The writer of the study in `folder`, and a new session of it."""
    with locked(folder), storage.writing(alone=True) as transactions:
        now = clock()
        row = {
            "started": now,
            "seen": now,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "command": _storable(command),
            "total": total,
            "manifest": None if manifest is None else json.dumps(dict(manifest)),
        }

        def begin(connection: sa.Connection) -> int:
            version = storage.check(connection)
            storage.check_whole(connection)
            bring_up_to_date(connection, version)
            storage.set_version(connection)
            key = connection.execute(sa.insert(session).values(row)).inserted_primary_key
            assert key is not None
            return int(key[0])

        session_id = transactions.run(begin)
        writer = Writer(transactions, storage, session_id=session_id, session_started=now, clock=clock)
        yield writer
        writer.heartbeat()


def _storable(text: str | None) -> str | None:
    """Without what no database takes as text: half of a character, and in PostgreSQL the character 0."""
    return None if text is None else text.replace("\0", "\ufffd").encode(errors="replace").decode()


@dataclass(frozen=True)
class _Upserts:
    """The statements that are no standard SQL."""

    add_architecture: sa.Insert
    begin: sa.Insert
    record: sa.Insert
    record_progress: sa.Insert
    refuse: sa.Insert
    add_fingerprint: sa.Insert


# written once for each of the two: SQLAlchemy then compiles each statement once, which is half of what a write costs
@functools.cache
def _upserts(insert: Callable[[sa.Table], Any]) -> _Upserts:
    stays = ("seconds", "deaths", "repeat_failed")  # of a trial that is begun again
    begin = insert(trial)
    begin = begin.on_conflict_do_update(
        index_elements=["number"],
        set_={column.name: begin.excluded[column.name] for column in trial.c if column.name not in stays}
        | {name: sa.func.coalesce(begin.excluded[name], trial.c[name]) for name in ("why", "label", "gain")}
        | {"started": sa.case((trial.c.seconds > 0, trial.c.started), else_=begin.excluded.started)},
    )
    return _Upserts(
        insert(architecture).on_conflict_do_nothing(),
        begin,
        _replacing(insert(measurement), list(ONCE.expressions)),
        _replacing(insert(progress), list(progress.primary_key)),
        _replacing(insert(refused), list(refused.primary_key)),
        insert(fingerprint).on_conflict_do_nothing(),
    )


def _replacing(insert: Any, key: list[Any]) -> sa.Insert:
    """The new row takes the place of the one with the same key."""
    columns = insert.table.c
    replaced: sa.Insert = insert.on_conflict_do_update(
        index_elements=key, set_={column.name: insert.excluded[column.name] for column in columns}
    )
    return replaced


_FORGET_BEYOND = sa.delete(progress).where(
    progress.c.trial == sa.bindparam("which"),
    progress.c.attempt == sa.bindparam("this_attempt"),
    progress.c.epoch > sa.bindparam("epochs"),
)
_FINISH = (
    sa.update(trial)
    .where(trial.c.number == sa.bindparam("which"))
    .values({name: sa.bindparam(name) for name in ("state", "reason", "detail")})
    .values(
        ended=sa.func.coalesce(trial.c.ended, sa.bindparam("now")),
        # a leg that an earlier session was cut off in ended nobody knows when: it counts nothing
        seconds=sa.func.coalesce(
            sa.bindparam("worked", type_=sa.Float),
            trial.c.seconds
            + sa.case(
                (
                    sa.and_(trial.c.ended.is_(None), trial.c.resumed >= sa.bindparam("session_started")),
                    sa.bindparam("now") - trial.c.resumed,
                ),
                else_=sa.literal_column("0.0"),
            ),
        ),
    )
)
_DEATHS = sa.select(trial.c.deaths).where(trial.c.number == sa.bindparam("which"))
_LOST = sa.update(trial).where(trial.c.number == sa.bindparam("which")).values(deaths=sa.bindparam("now_dead"))
_REPEAT_FAILED = (
    sa.update(trial).where(trial.c.number == sa.bindparam("which")).values(repeat_failed=sa.bindparam("why_not"))
)
_TRANSLATE = sa.update(trial).where(trial.c.number == sa.bindparam("which")).values(point=sa.bindparam("new_point"))
_REFUSED = sa.select(refused.c.reason, refused.c.count)
_SEEN = sa.update(session).where(session.c.id == sa.bindparam("which")).values(seen=sa.bindparam("seen"))
_WALL_TIME = sa.update(session).where(session.c.id == sa.bindparam("which")).values(wall_time=sa.bindparam("told"))


class Writer:
    """What a search may write. Every method is one committed transaction, and one that may be repeated: where the word
    that it is committed is lost on its way from a server, it is done again.

    `record_progress` and `refuse` are none of their own: they are in the next one, which comes within LATER_S where
    anything comes at all. A thousand workers tell of more epochs a second than commits are good for.
    """

    def __init__(
        self,
        transactions: Transactions,
        storage: Storage,
        *,
        session_id: int,
        session_started: float,
        clock: Callable[[], float],
    ) -> None:
        self.transactions = transactions
        self._upserts = _upserts(storage.insert)
        self._session_id = session_id
        self._fingerprints: set[str] = set()  # that are in the ledger
        self._session_started = session_started
        self._clock = clock
        self._later: list[tuple[sa.Executable, Mapping[str, Any]]] = []  # to be written with what comes next
        self._written = -math.inf  # when
        self._refused: dict[str, int] | None = None  # by reason, once that was asked

    def begin(
        self,
        assignment: Assignment,
        *,
        params: int,
        macs: int,
        tokens: int,
        activations: int,
        origin: str,
        label: str | None = None,
        point: Mapping[str, Any] | None = None,
        why: str | None = None,
        gain: float | None = None,
        epochs: int = 0,
    ) -> None:
        """A trial is given to a worker: for the first time, again, or to go on from a checkpoint after `epochs`.

        Then it runs again, with the attempt and seed of `assignment`. What is not said again (`label`, `why`, `gain`)
        stays, and so do the start and the seconds of the legs that ended. While the attempt is the same, its curve
        stays up to the checkpoint.
        """
        assert origin in ORIGINS, origin
        assert assignment.repeat == 0, "a training anew is no trial: there is nothing to begin"
        row = {
            "architecture": assignment.architecture.id,
            "attempt": assignment.attempt,
            "state": "running",
            "reason": None,
            "detail": None,
            "origin": origin,
            "label": label,
            "point": None if point is None else json.dumps(dict(point), sort_keys=True),
            "recipe": assignment.recipe.to_json(),
            "seed": assignment.seed,
            "ended": None,
            "why": why,
            "gain": gain,
        }
        network = {
            "id": assignment.architecture.id,
            "json": assignment.architecture.to_json(),
            "params": params,
            "macs": macs,
            "tokens": tokens,
            "activations": activations,
        }
        beyond = {"which": assignment.trial, "this_attempt": assignment.attempt, "epochs": epochs}
        now = self._clock()
        self._write(
            (self._upserts.add_architecture, network),
            (self._upserts.begin, row | {"number": assignment.trial, "started": now, "resumed": now}),
            (_FORGET_BEYOND, beyond),
            now=now,
            durable=False,  # nothing was done on it yet
        )

    def record(self, assignment: Assignment, measured: Measurement) -> None:
        """A measurement of the trial; the same one of the same attempt replaces itself. One that took training survives
        a power cut."""
        row = {f: getattr(measured, f) for f in Measurement.__dataclass_fields__}
        row |= {
            "trial": assignment.trial,
            "architecture": assignment.architecture.id,
            "attempt": assignment.attempt,
            "dataset": assignment.dataset,
            "resolution": assignment.resolution,
            "recipe": assignment.recipe.to_json(),
            "seed": assignment.seed,
            "repeat": assignment.repeat,
        }
        steps = [(self._upserts.record, row)]
        # one that was read from the ledger has the id of its circumstances in the place of them
        if measured.fingerprint is not None and measured.fingerprint.startswith("{"):
            row["fingerprint"] = content_id(measured.fingerprint)
            if row["fingerprint"] not in self._fingerprints:
                new = {"id": row["fingerprint"], "json": measured.fingerprint}
                steps.insert(0, (self._upserts.add_fingerprint, new))
        told = ((statement, {name: _known(value) for name, value in each.items()}) for statement, each in steps)
        self._write(*told, durable=measured.rung is not None)
        if measured.fingerprint is not None:
            self._fingerprints.add(row["fingerprint"])

    def record_progress(self, assignment: Assignment, told: Progress) -> None:
        """A finished epoch, for the trial's curve. Of a training anew nothing is kept: the curve is the trial's."""
        if not assignment.repeat:
            row = {
                "trial": assignment.trial,
                "attempt": assignment.attempt,
                "epoch": told.epoch,
                "loss": _known(told.loss),
                "accuracy": _known(told.accuracy),
            }
            self._later.append((self._upserts.record_progress, row))
        if not 0 <= self._clock() - self._written < LATER_S:
            self.heartbeat()

    def finish(
        self,
        number: int,
        state: str,
        reason: str | None = None,
        detail: str | None = None,
        *,
        seconds: float | None = None,
    ) -> None:
        """The trial ends, or waits at a rung: one of ENDED, with the reason that the front counts by.

        What is paused may be begun again, or be stopped: then it ended when it was paused. `seconds` is how long it was
        worked on in all; None: by the clock, since it was begun.
        """
        assert state in ENDED, state
        now = self._clock()
        row = {"state": state, "reason": _storable(reason), "detail": _storable(detail), "now": now, "which": number}
        row |= {"worked": seconds}
        (rows,) = self._write((_FINISH, row | {"session_started": self._session_started}), now=now)
        assert rows == 1, f"trial {number} was never begun"

    def lost(self, number: int) -> None:
        """The worker that had the trial died."""
        # and not one more than the row says: that may be said twice
        deaths = self.transactions.run(lambda told: told.scalar(_DEATHS, {"which": number}) or 0) + 1
        self._write((_LOST, {"which": number, "now_dead": deaths}))

    def translate(self, points: Mapping[int, Mapping[str, Any]]) -> None:
        """The points of trials, in the dimensions of a wider space; all of them or none."""
        rows = [
            {"which": number, "new_point": json.dumps(dict(point), sort_keys=True)} for number, point in points.items()
        ]
        self._write(*((_TRANSLATE, row) for row in rows))

    def repeat_failed(self, number: int, reason: str) -> None:
        """The trial could not be trained anew, and is not tried again."""
        self._write((_REPEAT_FAILED, {"which": number, "why_not": _storable(reason)}))

    def refuse(self, reason: str, count: int = 1) -> None:
        """So many draws were refused before they became trials."""
        if self._refused is None:
            self._refused = dict(self.transactions.run(lambda told: told.execute(_REFUSED).tuples().all()))
        self._refused[reason] = self._refused.get(reason, 0) + count
        self._later.append((self._upserts.refuse, {"reason": reason, "count": self._refused[reason]}))

    def keep_wall_time(self, told: Mapping[str, Any]) -> None:
        """Where the time of this session went so far: see `wall_time.Tallies`."""
        self._write((_WALL_TIME, {"which": self._session_id, "told": json.dumps(told)}), durable=False)

    def heartbeat(self) -> None:
        """Nothing to write, but the search lives: `elapsed_seconds` counts up to here."""
        self._write(durable=False)

    def sync(self) -> None:
        """All that was written so far survives a power cut too; else the last epochs of curves may not."""
        self._write()

    @property
    def elapsed_seconds(self) -> float:
        """Time that all sessions of this study have searched, up to the last write."""
        return self.transactions.run(lambda connection: float(connection.execute(ELAPSED_SECONDS).scalar_one()))

    def _write(
        self, *steps: tuple[sa.Executable, Mapping[str, Any]], now: float | None = None, durable: bool = True
    ) -> list[int]:
        """One transaction, as of `now`. Returns how many rows each step met."""
        at = self._clock() if now is None else now
        later = [
            (statement, [dict(row) for _, row in rows])
            for statement, rows in itertools.groupby(self._later, key=lambda step: step[0])
        ]

        def take(connection: sa.Connection) -> list[int]:
            connection.execute(_SEEN, {"which": self._session_id, "seen": at})
            for statement, rows in later:
                connection.execute(statement, rows)
            return [connection.execute(statement, row).rowcount for statement, row in steps]

        met = self.transactions.run(take, durable=durable)
        self._later.clear()
        self._written = at
        return met


def _known(value: Any) -> Any:
    """SQLite keeps what is no number as null, PostgreSQL as what is no number."""
    return None if isinstance(value, float) and math.isnan(value) else value
