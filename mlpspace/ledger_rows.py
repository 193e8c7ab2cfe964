"""Rows of the ledger, checked where they are read: SQLite takes anything anywhere, and a study may be a stranger's.

Text comes out in characters that can be printed, on one line where the ledger writes one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
_SPENT = Real(0.0, 1e12)
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
    "reference": _Column(Real(0.0, above=True), or_null=True),
    "runtime": _NOTE,
    "fingerprint": _NOTE,
    "attempt": _COUNT,
    "dataset": _TEXT,
    "resolution": _COUNT,
    "seed": _Column(Whole(0, 2**63 - 1)),
    "repeat": _COUNT,
}
_VALUES = {
    "accuracy": Real(0.0, 100.0),
    "throughput": Real(0.0, above=True),
    "peak_memory_mb": Real(0.0),
    "energy_mj": Real(0.0),
}
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
    "wall_time": _NOTE,
}
_REFUSED = {"reason": _TEXT, "count": _COUNT}
_STATES = {"state": _TRIAL["state"], "count": _COUNT}
_TABLES = {"trial": _TRIAL, "measurement": _MEASUREMENT, "progress": _PROGRESS}


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
        told["point"] = point(told["point"], number, source)
        told |= {"records": tuple(records.get(number, ())), "curve": tuple(curves.get(number, ()))}
        found[number] = Trial(**told, source=source)
    strays = sorted({*records, *curves} - found.keys())
    if strays:
        raise _strange(f"measurements of trial {strays[0]}, which is not there", source)
    return list(found.values())


def fit(columns: Mapping[str, Sequence[Any]], table: str) -> dict[str, np.ndarray] | None:
    """Whether `record`, `epoch` or `trials` would take all rows of whole columns of their table, as far as a column
    alone can tell, at a tenth of the time. None: not; else those that are numbers, as such, NaN for what is none."""
    told = {}
    for name, values in columns.items():
        column = _TABLES[table][name]
        if isinstance(column.takes, Whole | Real | _Loss):
            numbers = _numbers(column, values)
            if numbers is None:
                return None
            told[name] = numbers
        elif not _words_fit(column, values):
            return None
    return told


def texts_printable(columns: Mapping[str, Sequence[Any]], table: str) -> dict[str, list[Any]]:
    """Columns that fit, their texts in characters that can be printed."""
    told = {}
    for name, values in columns.items():
        takes = _TABLES[table][name].takes
        told[name] = _printable(values, lines=takes.lines) if isinstance(takes, _Text) else list(values)
    return told


def values_fit(metric: str, values: np.ndarray) -> bool:
    """Whether all of these are values of that metric."""
    return not len(values) or not any(_VALUES[metric].complaint(float(end)) for end in (values.min(), values.max()))


def _numbers(column: _Column, values: Sequence[Any]) -> np.ndarray | None:
    kinds = set(map(type, values))
    has_none = column.or_null and type(None) in kinds
    if has_none:
        kinds.remove(type(None))
    whole = isinstance(column.takes, Whole)
    if not kinds <= ({int} if whole else {int, float}):
        return None
    told = np.array(values, dtype=np.int64 if whole and not has_none else np.float64)
    known = told[~np.isnan(told)] if has_none else told
    if len(known) and not isinstance(column.takes, _Loss):
        # it takes a range, so that all do if both ends do; and NaN comes out as both
        ends = known.min(), known.max()
        if any(column.takes.complaint(int(end) if whole else end.item()) for end in ends):
            return None
    return told


def _words_fit(column: _Column, values: Sequence[Any]) -> bool:
    kinds = set(map(type, values)) - ({type(None)} if column.or_null else set())
    if isinstance(column.takes, OneOf):
        return kinds <= {str} and set(values) - {None} <= set(column.takes.words)
    return kinds <= {str}


def _printable(values: Sequence[Any], *, lines: bool) -> list[Any]:
    told = list(values)
    joined = "".join(filter(None, told))
    if not joined:
        return told
    if joined.isascii():
        characters = np.frombuffer(joined.encode("ascii"), dtype=np.uint8)
        if characters.min() >= ord(" ") and characters.max() <= ord("~"):  # nearly always
            return told
    return [text if text is None or text.isprintable() else _written_out(text, lines=lines) for text in told]


def _written_out(text: str, *, lines: bool) -> str:
    return printable(text) if lines else printable(text).replace("\n", "\\n")


def session(row: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """A row of `session`, its manifest read."""
    what = f"session {_short(row['number'])}"
    told = _checked(row, _SESSION, what, source)
    if told["manifest"] is not None:
        told["manifest"] = json_object(told["manifest"], f"{source}: the manifest of {what}")
    if told["wall_time"] is not None:
        told["wall_time"] = _wall_time(told["wall_time"], what, source)
    return told


def _wall_time(text: str, what: str, source: str) -> dict[str, Any]:
    """{"workers": {name: {kind: seconds}}, "driver": {kind: seconds}}."""
    told = json_object(text, f"{source}: the wall time of {what}")
    workers, driver = told.get("workers"), told.get("driver")
    accounts = [driver, *workers.values()] if isinstance(workers, dict) else [None]
    for account in accounts:
        if not isinstance(account, dict) or any(map(_SPENT.complaint, account.values())):
            raise _strange(f"the wall time of {what}: {_short(account)} is no account of seconds", source)
    return told


def refused(rows: Sequence[tuple[Any, Any]], source: str) -> dict[str, int]:
    """Rows of `refused`: reason -> count."""
    told = (_checked({"reason": reason, "count": count}, _REFUSED, "refused draws", source) for reason, count in rows)
    return {row["reason"]: row["count"] for row in told}


def counts(rows: Sequence[tuple[Any, Any]], source: str) -> dict[str, int]:
    """State -> how many trials have it."""
    told = (_checked({"state": state, "count": count}, _STATES, "the trials", source) for state, count in rows)
    return {row["state"]: row["count"] for row in told}


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
    if _NESTED.isdisjoint(map(type, told.values())):  # nearly always
        return told
    level: list[Any] = [told]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return told
    raise StudyError(f"{what} nests over {_DEEPEST} deep. It is left as it is.")


_DEEPEST = 20
_NESTED = {dict, list}
_JSON = json.JSONDecoder()


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
            value = _written_out(value, lines=column.takes.lines)
        elif is_plain and len(column.known) < _MOST_KNOWN:
            column.known.add(value)
        told[name] = value
    return told


def point(text: str | None, number: int, source: str) -> dict[str, Any] | None:
    """What the sampler drew for a trial; None: nothing, it is a fixed point outside the space.

    Args:
        text: of the ledger, in characters that can be printed.
    """
    if text is None:
        return None
    try:
        told, end = _JSON.raw_decode(text)
    except (ValueError, RecursionError):
        told, end = None, 0
    plain = type(told) is dict and _NESTED.isdisjoint(map(type, told.values()))
    if plain and end == len(text) and "\\" not in text:  # nearly always; what is not escaped can be printed
        return dict(told)
    what = f"trial {number}"
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
