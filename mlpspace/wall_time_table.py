"""Where the wall time of a study went, as text for people and as plain values for programs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlpspace.report import duration
from mlpspace.session import Session
from mlpspace.wall_time import DRIVER, WORK, WORKER

ENOUGH = 0.95  # of a worker's time, pauses left out, is to be what a search is for
MOST_ROWS = 24  # of workers; the others are summed up

_HEADS = {"training": "train", "validating": "validate", "measuring": "measure", "compiling": "compile"}
_HEADS |= {"building": "build", "saving": "save", "reporting": "report", "waiting": "wait", "starting": "start"}
_SMALL = 0.005  # a kind that takes less of the whole is worth no sentence
_HINTS = {
    "compiling": "longer trainings share it out",
    "data": "the dataset is read once by each worker: longer searches, or fewer workers on a machine. Images that stay"
    " in a file are waited for where the disk is slow: MLPSPACE_CACHE=FOLDER on a quicker one, or --resident with more",
    "building": "longer trainings share it out",
    "saving": "--checkpoint-every with a longer time, or fewer rungs",
    "reporting": "epochs that take a second or more are told less often",
    "waiting": "the driver was not ready, or at the end nothing was left to do: see its line; longer trainings, or"
    " fewer workers",
    "starting": "each worker starts once a session: longer sessions",
    "lost": "mlpspace status tells how many; a shorter fidelity: {timeout: ...} ends sooner what hangs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The time of one worker, or of several."""

    name: str
    session: int | None  # None: of several
    seconds: Mapping[str, float]  # kind -> seconds

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def share(self) -> float | None:
        """Of its time, pauses left out, that went into training and measuring; None where there was none."""
        awake = self.total - self.seconds.get("paused", 0.0)
        return sum(self.seconds.get(kind, 0.0) for kind in WORK) / awake if awake > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Where the time of a study went, as far as its sessions noted it."""

    sessions: int
    noted: int  # of them; those before mlpspace 0.4 noted nothing
    workers: tuple[Row, ...]
    all: Row
    driver: Row


def spent_of(sessions: Sequence[Session]) -> Spent:
    """The accounts of all sessions of a study."""
    workers: list[Row] = []
    driver: Counter[str] = Counter()
    noted = [each for each in sessions if each.wall_time is not None]
    for each in noted:
        assert each.wall_time is not None
        for number, tally in enumerate(each.wall_time["workers"].values(), start=1):
            workers.append(Row(name=f"{number}", session=each.number, seconds=_known(tally, WORKER)))
        driver.update(_known(each.wall_time["driver"], DRIVER))
    return Spent(
        sessions=len(sessions),
        noted=len(noted),
        workers=tuple(workers),
        all=_sum("all", workers),
        driver=Row(name="driver", session=None, seconds=dict(driver)),
    )


def _known(tally: Mapping[str, float], kinds: Mapping[str, str]) -> dict[str, float]:
    return {kind: float(tally[kind]) for kind in kinds if kind in tally}


def _sum(name: str, rows: Sequence[Row]) -> Row:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.seconds)
    return Row(name=name, session=None, seconds={kind: total[kind] for kind in WORKER if kind in total})


def spent_json(told: Spent) -> dict[str, Any]:
    """For programs: seconds by kind."""
    return {
        "sessions": told.sessions,
        "sessions_noted": told.noted,
        "training_and_measuring": told.all.share,
        "workers": [dataclasses.asdict(row) | {"training_and_measuring": row.share} for row in told.workers],
        "all": dict(told.all.seconds),
        "driver": dict(told.driver.seconds),
    }


def spent_text(told: Spent) -> str:
    """For people: what is to be known first, then a row for each worker."""
    share = told.all.share
    if share is None:
        return "Where the time went was not noted: no worker was heard of, or an older mlpspace searched."
    of = f"{told.noted} of {told.sessions} sessions" if told.noted != told.sessions else _sessions(told.sessions)
    lines = [
        f"Wall time of the workers, {of}: {100 * share:.1f} % training and measuring"
        + (f", after {duration(told.all.seconds['paused'])} of pauses" if told.all.seconds.get("paused", 0) > 1 else "")
    ]
    lines += _sentences(told) if share < ENOUGH else []
    if told.all.seconds.get("paused", 0.0) > (1 - ENOUGH) * told.all.total:
        lines.append("  Pauses are the price of throughputs that tell of networks alone; the shares leave them out.")
    return "\n".join([*lines, "", *_table(told), "", *_driver(told)])


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number} sessions"


def _sentences(told: Spent) -> list[str]:
    """What the rest is, the largest first, with what would help."""
    awake = told.all.total - told.all.seconds.get("paused", 0.0)
    rest = {
        kind: seconds / awake for kind, seconds in told.all.seconds.items() if kind not in WORK and kind != "paused"
    }
    found = []
    for kind, part in sorted(rest.items(), key=lambda each: -each[1]):
        if part >= max(_SMALL, (1 - ENOUGH) / len(rest)):
            found.append(f"  {100 * part:4.1f} % {kind} ({WORKER[kind]}): {_HINTS[kind]}")
    return found


def _table(told: Spent) -> list[str]:
    """Seconds of each worker by kind, and the sum in percent."""
    kinds = [kind for kind in WORKER if told.all.seconds.get(kind, 0.0) > 0]
    rows = list(told.workers)
    if len(rows) > MOST_ROWS:  # the latest are looked at
        left = len(rows) - MOST_ROWS + 1
        rows = [_sum(f"{left} others", rows[:left]), *rows[left:]]
    several = told.noted > 1
    head = [*(["session"] if several else []), "worker", *(_HEADS.get(kind, kind) for kind in kinds), "sum s", "% work"]
    cells = [
        [
            *([str(row.session or "")] if several else []),
            row.name,
            *(f"{row.seconds.get(kind, 0.0):,.1f}" for kind in kinds),
            f"{row.total:,.1f}",
            "-" if row.share is None else f"{100 * row.share:.1f}",
        ]
        for row in [*rows, told.all]
    ]
    percent = [f"{100 * told.all.seconds[kind] / told.all.total:.1f}" for kind in kinds]
    cells.append([*([""] if several else []), "% of all", *percent, "100.0", ""])
    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
    return [
        "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in [head, *cells]
    ]


def _driver(told: Spent) -> list[str]:
    parts = ", ".join(
        f"{kind} {told.driver.seconds[kind]:,.1f} s ({what})"
        for kind, what in DRIVER.items()
        if told.driver.seconds.get(kind, 0.0) > 0
    )
    waited = told.all.seconds.get("waiting", 0.0) + told.all.seconds.get("reporting", 0.0)
    return [f"  driver  {parts}", f"          the workers waited for it {waited:,.1f} s in all, waiting and reporting"]
