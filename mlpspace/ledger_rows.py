"""Rows of the ledger, checked where they are read: SQLite takes anything anywhere, and a study may be a stranger's.

Text comes out in characters that can be printed, on one line where the ledger writes one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlpspace.damaged_file import hint
from mlpspace.errors import StudyError, printable
from mlpspace.fields import OneOf, Real, Whole
from mlpspace.ledger_tables import ENDED, ORIGINS
from mlpspace.objectives import METRICS
from mlpspace.trial import Epoch, Record, Trial


@dataclass(frozen=True, slots=True)
class _Text:
    """Any text. Of one line, unless it has several `lines`."""

    lines: bool = False

    def complaint(self, value: object) -> str | None:
        return None if isinstance(value, str) else "is no text"


@dataclass(frozen=True, slots=True)
class _Loss:
    """Any number, as what diverges has no end."""

    def complaint(self, value: object) -> str | None:
        return None if isinstance(value, int | float) else "is no number"


@dataclass(frozen=True, slots=True)
class _Column:
    """What a column takes."""

    takes: Whole | Real | OneOf | _Text | _Loss
    or_null: bool = False
    known: set[object] = field(default_factory=set, compare=False, repr=False)  # some that were found to be right


_MOST_KNOWN = 1000  # of a column: most columns hold few values, and the others are not worth it

_COUNT = _Column(Whole(0))
_TEXT, _NUMBER, _NOTE = _Column(_Text()), _Column(Real(-1e300, 1e300)), _Column(_Text(), or_null=True)
_TIME = Real(-6e10, 2e11)  # seconds since 1970; a clock may be wrong by anything but that: no date is beyond

_TRIAL = {
    "number": _Column(Whole(0, 2**31 - 1)),
    "state": _Column(OneOf(("running", *ENDED))),
    "reason": _NOTE,
    "detail": _Column(_Text(lines=True), or_null=True),
    "attempt": _COUNT,
    "origin": _Column(OneOf(ORIGINS)),
    "label": _NOTE,
    "seed": _Column(Whole(0, 2**63 - 1)),
    "started": _Column(_TIME),
    "ended": _Column(_TIME, or_null=True),
    "why": _NOTE,
    "seconds": _Column(_TIME),
    "deaths": _COUNT,
    "gain": _Column(Real(-1e300, 1e300), or_null=True),
    "repeat_failed": _NOTE,
    "params": _COUNT,
    "macs": _COUNT,
    "tokens": _COUNT,
    "activations": _COUNT,
    "architecture_id": _TEXT,
    "architecture_json": _TEXT,
    "recipe_json": _TEXT,
    "point": _NOTE,
}
_MEASUREMENT = {
    "trial": _COUNT,
    "metric": _Column(OneOf(tuple(name for name, metric in METRICS.items() if metric.measured))),
    "value": _NUMBER,
    "low": _NUMBER,
    "high": _NUMBER,
    "seconds": _Column(_TIME),
    "protocol": _TEXT,
    "device": _TEXT,
    "batch": _COUNT,
    "precision": _TEXT,
    "threads": _Column(Whole(0, 65536)),
    "rung": _Column(Whole(0, 1_000_000), or_null=True),
    "epochs": _Column(Whole(0), or_null=True),
    "data": _NOTE,
    "micro_batch": _Column(Whole(0), or_null=True),
    "attempt": _COUNT,
    "dataset": _TEXT,
    "resolution": _COUNT,
    "seed": _Column(Whole(0, 2**63 - 1)),
    "repeat": _COUNT,
}
_VALUES = {"accuracy": Real(0.0, 100.0), "throughput": Real(0.0, above=True), "peak_memory_mb": Real(0.0)}
_PROGRESS = {
    "trial": _COUNT,
    "epoch": _COUNT,
    "loss": _Column(_Loss(), or_null=True),
    "accuracy": _Column(Real(0.0, 100.0), or_null=True),
}
_SESSION = {
    "number": _COUNT,
    "started": _Column(_TIME),
    "seen": _Column(_TIME),
    "host": _TEXT,
    "pid": _COUNT,
    "command": _TEXT,
    "total": _Column(Whole(0), or_null=True),
    "manifest": _NOTE,
}
_REFUSED = {"reason": _TEXT, "count": _COUNT}


def record(row: Mapping[Any, Any], source: str) -> tuple[int, Record]:
    """The trial that a row of `measurement` is of, and the measurement.

    Args:
        row: column -> what it holds.
        source: the file, as a message calls it.

    Raises:
        StudyError: this holds for all functions here: mlpspace would not have written the row; the text says which.
    """
    told = _checked(row, _MEASUREMENT, f"a measurement of trial {_short(row['trial'])}", source)
    complaint = _VALUES[told["metric"]].complaint(told["value"])
    if complaint:
        raise _strange(
            f"a measurement of trial {told['trial']}: {told['metric']} {told['value']!r} {complaint}", source
        )
    if METRICS[told["metric"]].trained and (told["rung"] is None or told["epochs"] is None):
        raise _strange(f"a measurement of trial {told['trial']}: {told['metric']} without a rung", source)
    return told.pop("trial"), Record(**told)


def epoch(row: Mapping[Any, Any], source: str) -> tuple[int, Epoch]:
    """The trial that a row of `progress` is of, and the epoch."""
    told = _checked(row, _PROGRESS, f"an epoch of trial {_short(row['trial'])}", source)
    return told["trial"], (told["epoch"], told["loss"], told["accuracy"])


def trials(
    rows: Sequence[Mapping[Any, Any]],
    records: Mapping[int, Sequence[Record]],
    curves: Mapping[int, Sequence[Epoch]],
    source: str,
) -> list[Trial]:
    """Rows of `trial` and `architecture` with what was measured of each, in their order."""
    found: dict[int, Trial] = {}
    for row in rows:
        what = f"trial {_short(row['number'])}"
        told = _checked(row, _TRIAL, what, source)
        number = told["number"]
        if number in found:
            raise _strange(f"{what} is there twice", source)
        told["point"] = None if told["point"] is None else _point(told["point"], what, source)
        told |= {"records": tuple(records.get(number, ())), "curve": tuple(curves.get(number, ()))}
        found[number] = Trial(**told, source=source)
    strays = sorted({*records, *curves} - found.keys())
    if strays:
        raise _strange(f"measurements of trial {strays[0]}, which is not there", source)
    return list(found.values())


def session(row: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """A row of `session`, its manifest read."""
    what = f"session {_short(row['number'])}"
    told = _checked(row, _SESSION, what, source)
    if told["manifest"] is not None:
        told["manifest"] = json_object(told["manifest"], f"{source}: the manifest of {what}")
    return told


def refused(rows: Sequence[tuple[Any, Any]], source: str) -> dict[str, int]:
    """Rows of `refused`: reason -> count."""
    told = (_checked({"reason": reason, "count": count}, _REFUSED, "refused draws", source) for reason, count in rows)
    return {row["reason"]: row["count"] for row in told}


def seconds(value: Any, source: str) -> float | None:
    """A time of the sessions; None where there was none."""
    return None if value is None else float(_checked({"seen": value}, _SESSION, "the sessions", source)["seen"])


def total(value: Any, source: str) -> int | None:
    """How many trials the latest session was after."""
    told: int | None = _checked({"total": value}, _SESSION, "the latest session", source)["total"]
    return told


def json_object(text: str, what: str) -> dict[str, Any]:
    """The object that a JSON text is.

    Args:
        what: as the message calls it.

    Raises:
        StudyError: it is none, or nests deeper than anything that mlpspace writes.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{what} is no JSON ({error}). It is left as it is.") from None
    if not isinstance(told, dict):
        raise StudyError(f"{what} is a JSON {type(told).__name__}, not an object. It is left as it is.")
    level: list[Any] = [told]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return told
    raise StudyError(f"{what} nests over {_DEEPEST} deep. It is left as it is.")


_DEEPEST = 20


def _checked(row: Mapping[Any, Any], columns: Mapping[str, _Column], what: str, source: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in row.items():
        column = columns[name]
        if value is None and column.or_null:
            told[name] = None
            continue
        is_plain = type(value) is str or type(value) is int  # of which one is equal to nothing but itself
        if is_plain and value in column.known:
            told[name] = value
            continue
        complaint = column.takes.complaint(value)
        if complaint:
            raise _strange(f"{what}: {name} {_short(value)} {complaint}", source)
        if isinstance(column.takes, _Text) and not value.isprintable():
            value = printable(value) if column.takes.lines else printable(value).replace("\n", "\\n")
        elif is_plain and len(column.known) < _MOST_KNOWN:
            column.known.add(value)
        told[name] = value
    return told


def _point(text: str, what: str, source: str) -> dict[str, Any]:
    told = json_object(text, f"{source}: the point of {what}")
    for name, value in told.items():
        if isinstance(value, dict | list):
            raise _strange(f"{what}: in its point, {_short(name)} is a {type(value).__name__}", source)
    return {printable(name): printable(value) if isinstance(value, str) else value for name, value in told.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _strange(what: str, source: str) -> StudyError:
    return StudyError(
        f"{source} is damaged, or was not written by mlpspace: {what}. It is left as it is.{hint(source)}"
    )
