"""The ledger's trials, read all at once and checked as each row would be.

Whole columns are checked together, and of what many measurements share (device, batch, dataset, ...) the database tells
each combination once. Where anything does not fit, the rows are read one after the other, and the first that does not
is told: so `_by_rows` is what all of this means, and the rest is its speed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from mlpspace import ledger_rows, ledger_tables
from mlpspace.ledger_tables import readable
from mlpspace.objectives import METRICS
from mlpspace.trial import Epoch, Record, Trial
from mlpspace.trial_columns import OWN, SHARED, Ints, RecordColumns, TrialColumns, columns_of, last_of_each, own_array

_M, _P = ledger_tables.measurement.c, ledger_tables.progress.c
_T, _A = ledger_tables.trial.c, ledger_tables.architecture.c

_OF_TRIAL = (
    *("number", "state", "reason", "attempt", "origin", "label", "seed", "started", "ended", "seconds"),
    *("deaths", "gain", "repeat_failed"),
)
_LONG = ("detail", "why")  # with the point and the architecture longer than all else of a trial
_COUNTS = ("params", "macs", "tokens", "activations")
_FEW = 500  # trials that are asked for by number
_AT_ONCE = 500  # rows that are taken out together: what a core keeps at hand


@dataclass(frozen=True, slots=True)
class Reader:
    """The trials as of one instant.

    Raises:
        StudyError: all functions raise it where there is a row that mlpspace would not have written.
    """

    connection: sa.Connection
    version: int  # of the tables
    source: str  # the study, as a message calls it

    def columns(self) -> TrialColumns:
        """What a front asks of all trials. Their curves and what is long about them stay unread."""
        records = self._records()
        facts = None if records is None else self._facts(long=False)
        if records is None or facts is None or not _all_there(records.of, facts["number"]):
            return columns_of(self._by_rows(None, curves=False))
        places = np.searchsorted(facts["number"], records.of)
        return TrialColumns(facts, RecordColumns(places, records.kind, records.kinds, records.own))

    def trials(self, numbers: Collection[int] | None = None, *, curves: bool = True) -> list[Trial]:
        """All by number, or those of some numbers; without `curves` theirs are empty."""
        if numbers is None:
            found = self._all(curves=curves)
            return self._by_rows(None, curves=curves) if found is None else found
        if len(numbers) <= _FEW:
            return self._by_rows(numbers, curves=curves)
        asked = set(numbers)
        return [trial for trial in self.trials(curves=curves) if trial.number in asked]

    # --- all at once; None: something does not fit --------------------------------------------------------------------

    def _all(self, *, curves: bool) -> list[Trial] | None:
        records = self._records()
        trained = None if records is None else self._curves() if curves else _Curves(np.zeros(0, dtype=np.int64), [])
        facts = None if trained is None else self._facts(long=True)
        if records is None or trained is None or facts is None:
            return None
        numbers = facts["number"]
        if not (_all_there(records.of, numbers) and _all_there(trained.of, numbers)):
            return None
        facts |= {
            "point": [
                ledger_rows.point(text, number, self.source)
                for text, number in zip(facts["point"], numbers, strict=True)
            ],
            "records": _grouped(records.all(), records.of, numbers),
            "curve": _grouped(trained.epochs, trained.of, numbers),
        }
        names, made = (*facts, "source"), []
        for row in zip(*facts.values(), strict=True):
            trial = Trial.__new__(Trial)  # as Trial(...) would, in a quarter of the time
            trial.__dict__.update(zip(names, (*row, self.source), strict=True))
            made.append(trial)
        return made

    def _records(self) -> RecordColumns | None:
        """All measurements; `of` are the numbers of their trials."""
        rows = list(_rows(self.connection, sa.select(*self._measured(SHARED)).distinct()))
        try:  # the order of one trial's measurements
            rows.sort(key=lambda row: row["repeat"])
            rows.sort(key=lambda row: row["metric"], reverse=True)
            rows.sort(key=lambda row: (-1 if row["rung"] is None else row["rung"], row["attempt"]))
        except TypeError:  # there is a text for a number
            return None
        kinds = _kinds(rows)
        if kinds is None:
            return None
        names = _telling_apart(rows)
        which = {tuple(row[name] for name in names): place for place, row in enumerate(rows)}
        parts: dict[str, list[np.ndarray]] = {name: [own_array(name, ())] for name in ("trial", "kind", *OWN)}
        query = sa.select(*self._measured(("trial", *OWN, *names)))
        for columns in _columns(self.connection, query):
            shared = zip(*(columns.pop(name) for name in names), strict=True)
            numbers = ledger_rows.fit(columns, "measurement")
            if numbers is None:
                return None
            try:
                parts["kind"].append(np.array([which[each] for each in shared], dtype=np.int64))
            except KeyError:  # texts that are equal to the table and are not
                return None
            for name, array in numbers.items():
                parts[name].append(array)
        own = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        all_of, all_kind = own.pop("trial"), own.pop("kind")
        if not names:
            all_kind = np.zeros(len(all_of), dtype=np.int64)
        for metric in {each.metric for each in kinds}:
            of_metric = np.array([each.metric == metric for each in kinds])
            if not ledger_rows.values_fit(metric, own["value"][of_metric[all_kind]]):
                return None
        order = np.argsort(all_of * len(kinds) + all_kind, kind="stable")
        return RecordColumns(all_of[order], all_kind[order], kinds, {name: each[order] for name, each in own.items()})

    def _facts(self, *, long: bool) -> dict[str, list[Any]] | None:
        """Field of a trial -> of each, by number; `long`: also what is long about them."""
        told = self._texts_and_numbers(sa.select(*self._of_trial(long=long)).order_by(_T.number))
        networks = self._texts_and_numbers(sa.select(*_of_network(long=long)))  # quicker by itself than joined
        if told is None or networks is None:
            return None
        places = {network: place for place, network in enumerate(networks["architecture_id"])}
        at = [places.get(network, -1) for network in told["architecture_id"]]
        rising = np.diff(np.array(told["number"], dtype=np.int64)) > 0
        if len(places) < len(networks["architecture_id"]) or -1 in at or not rising.all():
            return None
        return told | {name: [values[place] for place in at] for name, values in networks.items()}

    def _texts_and_numbers(self, query: sa.Select[Any]) -> dict[str, list[Any]] | None:
        told: dict[str, list[Any]] = {name: [] for name in query.selected_columns.keys()}  # noqa: SIM118
        for columns in _columns(self.connection, query):
            if ledger_rows.fit(columns, "trial") is None:
                return None
            for name, values in ledger_rows.texts_printable(columns, "trial").items():
                told[name] += values
        return told

    def _curves(self) -> _Curves | None:
        of, epochs = [np.zeros(0, dtype=np.int64)], list[Epoch]()
        for columns in _columns(self.connection, _EPOCHS):
            numbers = ledger_rows.fit(columns, "progress")
            if numbers is None:
                return None
            of.append(numbers["trial"])
            epochs.extend(zip(columns["epoch"], columns["loss"], columns["accuracy"], strict=True))
        return _Curves(np.concatenate(of), epochs)

    # --- row by row ---------------------------------------------------------------------------------------------------

    def _by_rows(self, numbers: Collection[int] | None, *, curves: bool) -> list[Trial]:
        def asked(query: sa.Select[Any], column: sa.Column[Any]) -> Iterator[dict[str, Any]]:
            return _rows(self.connection, query if numbers is None else query.where(column.in_(sorted(numbers))))

        records: defaultdict[int, list[Record]] = defaultdict(list)
        columns = {column.name: column for column in self._measured(("trial", *SHARED, *OWN))}
        ordered = (_M.trial, sa.func.coalesce(_M.rung, -1), _M.attempt, _M.metric.desc(), columns["repeat"])
        for row in asked(sa.select(*columns.values()).order_by(*ordered), _M.trial):
            number, record = ledger_rows.record(row, self.source)
            records[number].append(record)
        trained: defaultdict[int, list[Epoch]] = defaultdict(list)
        for row in asked(_EPOCHS, _P.trial) if curves else ():
            number, epoch = ledger_rows.epoch(row, self.source)
            trained[number].append(epoch)
        own = [column for column in self._of_trial(long=True) if column.name != "architecture_id"]
        both = sa.outerjoin(ledger_tables.trial, ledger_tables.architecture, _T.architecture == _A.id)
        rows = asked(sa.select(*own, *_of_network(long=True)).select_from(both).order_by(_T.number), _T.number)
        return ledger_rows.trials(list(rows), records, trained, self.source)

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _measured(self, names: Sequence[str]) -> list[sa.ColumnElement[Any]]:
        return [readable(_M[name], self.version) for name in names]

    def _of_trial(self, *, long: bool) -> list[sa.ColumnElement[Any]]:
        columns = [readable(_T[name], self.version) for name in (*_OF_TRIAL, *(_LONG if long else ()))]
        columns += [_T.architecture.label("architecture_id"), _T.recipe.label("recipe_json")]
        return [*columns, _T.point] if long else columns


def _of_network(*, long: bool) -> list[sa.ColumnElement[Any]]:
    columns: list[sa.ColumnElement[Any]] = [*(_A[name] for name in _COUNTS), _A.id.label("architecture_id")]
    columns += [_A.json.label("architecture_json")] if long else []
    return columns


# an epoch that was trained twice stands as it was trained last, and nothing of an attempt that went further
_EPOCHS = (
    sa.select(_P.trial, _P.epoch, _P.loss, _P.accuracy)
    .where(_P.trial == _T.number, _P.attempt == _T.attempt)
    .order_by(_P.trial, _P.epoch)
)


@dataclass(frozen=True, slots=True)
class _Curves:
    of: Ints  # the number of its trial, of each epoch; rising
    epochs: list[Epoch]


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
    """Column -> what it holds, row by row."""
    result = connection.execute(query)
    names = list(result.keys())
    return (dict(zip(names, row, strict=True)) for row in result)


def _columns(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[dict[str, Sequence[Any]]]:
    """Column -> what it holds, of many rows at a time."""
    result = connection.execute(query)
    names, cursor = list(result.keys()), result.cursor
    assert cursor is not None
    errors = connection.dialect.loaded_dbapi.Error
    try:  # by the driver itself: SQLAlchemy would make an object of its own of each row
        while rows := cursor.fetchmany(_AT_ONCE):
            yield dict(zip(names, zip(*rows, strict=True), strict=True))
    except errors as error:
        raise sa.exc.DBAPIError.instance(str(query), None, error, errors) from None


def _kinds(rows: Sequence[Mapping[str, Any]]) -> tuple[Record, ...] | None:
    """What measurements share, as measurements whose own part is of no account; None: something does not fit."""
    columns = {name: [row[name] for row in rows] for name in SHARED}
    if ledger_rows.fit(columns, "measurement") is None:
        return None
    told = ledger_rows.texts_printable(columns, "measurement")
    own: dict[str, Any] = {"value": 0.0, "low": 0.0, "high": 0.0, "seconds": 0.0, "seed": 0}
    kinds = tuple(Record(**dict(zip(told, row, strict=True)), **own) for row in zip(*told.values(), strict=True))
    ranked = (kind.rung is not None and kind.epochs is not None for kind in kinds if METRICS[kind.metric].trained)
    return kinds if all(ranked) else None


def _telling_apart(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Few columns that tell all rows apart: mostly metric and rung do, and to take out the others, again and again the
    same, would be half of the time of reading."""
    names: list[str] = []
    groups = 1
    while groups < len(rows):
        counts = {name: len({tuple(row[each] for each in (*names, name)) for row in rows}) for name in SHARED}
        best = max(SHARED, key=counts.__getitem__)
        if counts[best] == groups:  # no one column helps, so take them all
            return SHARED
        names.append(best)
        groups = counts[best]
    return tuple(names)


def _all_there(of: Ints, numbers: Sequence[int]) -> bool:
    """Whether the trial of each is there; `of` is rising."""
    return bool(np.isin(of[last_of_each(of)], np.array(numbers, dtype=np.int64)).all())


def _grouped(items: Sequence[Any], of: Ints, numbers: Sequence[int]) -> list[tuple[Any, ...]]:
    """What belongs to each trial; `of` is rising."""
    starts, ends = (np.searchsorted(of, numbers, side=side).tolist() for side in ("left", "right"))
    return [tuple(items[start:end]) for start, end in zip(starts, ends, strict=True)]
