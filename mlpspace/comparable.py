"""Which trials of a study can be compared with each other, by which of their measurements, and why the others cannot.

Two accuracies compare at one rung, with the same epochs, dataset, resolution and protocol; two throughputs on the same
device, with the same batch, precision and protocol, and on a CPU the same threads. Where a study holds several kinds,
the commonest stands.

Shapes: n trials, R measurements, p trials that take part. A place that is -1 is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlpspace.objectives import METRICS, Objective
from mlpspace.trial import Record, standing
from mlpspace.trial_columns import Flags, Ints, TrialColumns, codes, first_of_each, last_of_each

MEASURED = tuple(metric for metric in METRICS if METRICS[metric].measured)

# what two measurements must share to be compared, with the words for one that differs; the first difference is told
_TRAINED_ALIKE = {
    "dataset": "trained on another dataset",
    "data": "trained on other images under the same dataset's name",
    "resolution": "trained at another resolution",
    "epochs": "trained for another number of epochs",
    "protocol": "accuracy measured by another protocol",
}
_TIMED_ALIKE = {
    "device": "measured on another device",
    "batch": "measured with another batch",
    "precision": "measured in another precision",
    "threads_that_count": "measured with another number of threads",
    "protocol": "throughput measured by another protocol",
}

Kind = tuple[object, ...]  # what measurements of one metric share that compare


def kind_of(record: Record) -> Kind:
    """Two measurements of one metric compare if this is the same."""
    return tuple(getattr(record, name) for name in _alike(record.metric))


def _alike(metric: str) -> dict[str, str]:
    return _TRAINED_ALIKE if METRICS[metric].trained else _TIMED_ALIKE


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """How far each trial has come."""

    accuracy: Ints  # (n,) its accuracy at the highest rung
    rung: Ints  # (n,) that rung

    @staticmethod
    def of(columns: TrialColumns) -> Reached:
        records = columns.records
        own = np.flatnonzero(_where(columns, metric="accuracy"))
        accuracy = np.full(len(columns), -1)
        last = own[last_of_each(records.of[own])]
        accuracy[records.of[last]] = last
        rungs = _with_none([kind.rung for kind in records.kinds])
        rung = np.full(len(columns), -1)
        rung[records.of[last]] = rungs[records.kind[last]]
        return Reached(accuracy, rung)


@dataclass(frozen=True, slots=True, eq=False)
class Comparable:
    """Who takes part, with what, and who does not."""

    trials: Ints  # (p,) in the order of the trials
    records: Mapping[str, Ints]  # metric -> (p,) the measurement it takes part with
    left_out: Counter[str]  # reason -> trials, in the order of their first coming


def comparable(
    columns: TrialColumns, feasible: Flags, reached: Reached, objectives: tuple[Objective, ...], rung: int | None
) -> Comparable:
    """The trials that can be compared at a rung.

    Of two trials of one architecture with one recipe only the first takes part, since noise would let both stand; and
    two recipes of one architecture share its first throughput.

    Args:
        feasible: (n,) which are asked.
        rung: at which accuracies are compared; None: there is none.
    """
    of, kind = columns.records.of, columns.records.kind
    architecture, _ = codes(columns.facts["architecture_id"])
    network, _ = codes(zip(architecture.tolist(), columns.facts["recipe_json"], strict=True))
    taken: dict[str, Ints] = {}  # metric -> (n,) the measurement a trial would take part with
    other: dict[str, Ints] = {}  # metric -> (n,) its last one, of whatever kind
    stands: dict[str, Kind] = {}
    for metric in MEASURED:
        trained = METRICS[metric].trained
        found = np.flatnonzero(_where(columns, metric=metric) & feasible[of])
        if trained:
            found = found[_with_none([each.rung for each in columns.records.kinds])[kind[found]] == _or_none(rung)]
        taken[metric], other[metric] = np.full(len(columns), -1), np.full(len(columns), -1)
        if not len(found):
            continue
        stands[metric] = _kind_that_stands(columns, found)
        last = found[last_of_each(of[found])]
        other[metric][of[last]] = last
        is_alike = np.array([kind_of(each) == stands[metric] for each in columns.records.kinds])
        alike = found[is_alike[kind[found]]]
        last = alike[last_of_each(of[alike])]
        if not trained:
            network_of = architecture[of[last]]
            taken[metric][of[last]] = last[first_of_each(network_of)[network_of]]
        else:
            taken[metric][of[last]] = last
    asked = [objective.metric for objective in objectives if objective.metric in MEASURED]
    complete = feasible.copy()
    for metric in asked:
        complete &= taken[metric] >= 0
    trials = np.flatnonzero(complete)
    trials = trials[first_of_each(network[trials])[network[trials]] == np.arange(len(trials))]
    takes_part = np.zeros(len(columns), dtype=bool)
    takes_part[trials] = True
    out = np.flatnonzero(feasible & ~takes_part)
    return Comparable(
        trials,
        {metric: places[trials] for metric, places in taken.items()},
        _left_out(
            columns,
            out,
            {metric: taken[metric][out] < 0 for metric in asked},
            {metric: other[metric][out] for metric in asked},
            reached,
            rung,
            stands,
        ),
    )


def _left_out(
    columns: TrialColumns,
    out: Ints,
    missing: Mapping[str, Flags],
    other: Mapping[str, Ints],
    reached: Reached,
    rung: int | None,
    stands: Mapping[str, Kind],
) -> Counter[str]:
    """Why trials do not take part.

    Args:
        out: (k,) these trials.
        missing: metric that is asked for -> (k,) whether they lack it.
        other: metric that is asked for -> (k,) their last measurement of it, of whatever kind.
    """
    kinds, kind = columns.records.kinds, columns.records.kind
    lacks, differs = (
        np.full(len(out), -1),
        np.full(len(out), -1),
    )  # the first metric; the kind of the first that differs
    for place, metric in reversed(list(enumerate(missing))):
        lacks[missing[metric]] = place
        has_other = missing[metric] & (other[metric] >= 0)
        differs[has_other] = kind[other[metric][has_other]]
    accuracy = reached.accuracy[out]
    ended = np.where(accuracy >= 0, kind[accuracy] if len(kind) else -1, -1)  # of what kind its last accuracy is
    of_all = (columns.facts["state"], columns.facts["reason"])
    state, why = ([values[place] for place in out.tolist()] for values in of_all)

    def reason(lacks: int, differs: int, ended: int, state: str, why: str | None) -> str:
        if lacks < 0:
            return "the same network and recipe as an earlier trial"
        if differs >= 0:
            return _difference(kinds[differs], stands[kinds[differs].metric])
        metric = tuple(missing)[lacks]
        if state == "running":
            return "not finished"
        last = kinds[ended] if ended >= 0 else None
        if METRICS[metric].trained and state in ("paused", "stopped"):
            return standing(state, last.rung if last else None, last.epochs if last else None, why)
        if METRICS[metric].trained:
            return "never trained" if last is None or last.rung is None else f"below rung {rung}"
        return f"no {metric} measured"

    told: Counter[str] = Counter()
    cases = zip(lacks.tolist(), differs.tolist(), ended.tolist(), state, why, strict=True)
    for case, trials in Counter(cases).items():  # few, however many the trials
        told[reason(*case)] += trials
    return told


def _difference(found: Record, stands: Kind) -> str:
    if found.disturbed:
        return f"{found.metric} measured while other programs used the {'CPU' if found.on_cpu else 'GPU'}"
    alike = zip(_alike(found.metric).values(), kind_of(found), stands, strict=True)
    return next(words for words, one, other in alike if one != other)


def _where(columns: TrialColumns, *, metric: str) -> Flags:
    """Which measurements are of a metric, and of no training anew: (R,)."""
    kinds = columns.records.kinds
    return np.array([each.metric == metric and each.repeat == 0 for each in kinds], dtype=bool)[columns.records.kind]


def _with_none(numbers: list[int | None]) -> Ints:
    return np.array([_or_none(number) for number in numbers], dtype=np.int64)


def _or_none(number: int | None) -> int:
    return -1 if number is None else number


def _kind_that_stands(columns: TrialColumns, found: Ints) -> Kind:
    """The kind that most trials have a measurement of; of two as common, the one of the newest trial.

    A disturbed one stands only where there is no other.

    Args:
        found: the measurements of one metric that are asked.
    """
    of, kind = columns.records.of[found], columns.records.kind[found]
    of_kind, kinds = codes(kind_of(each) for each in columns.records.kinds)
    calm = {each: not record.disturbed for each, record in zip(of_kind.tolist(), columns.records.kinds, strict=True)}
    numbers = np.array(columns.facts["number"], dtype=np.int64)
    best: tuple[tuple[bool, int, int], Kind] | None = None
    met = of_kind[kind]
    first = first_of_each(met)
    present = np.flatnonzero(first < len(met))
    for each in present[np.argsort(first[present])].tolist():  # as they came, where nothing tells them apart
        holders = of[met == each]
        holders = holders[last_of_each(holders)]
        key = calm[each], len(holders), int(numbers[holders].max())
        if best is None or key > best[0]:
            best = key, kinds[each]
    assert best is not None
    return best[1]
