"""The Pareto front of a study: the non-dominated trials among those that were measured alike (see `comparable`).

A network that was trained several times, with another seed each time, stands with the mean of its accuracies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mlpspace import pareto
from mlpspace.comparable import Comparable, Reached, comparable, kind_of
from mlpspace.entries import Accuracy, Compared, Entries, ReadTrials, standard_error
from mlpspace.entries import Entry as Entry
from mlpspace.front_probability import front_probabilities
from mlpspace.ledger_columns import Reader
from mlpspace.objectives import METRICS, Objective, corner
from mlpspace.study import Study
from mlpspace.trial import Record, Trial
from mlpspace.trial_columns import Flags, Floats, TrialColumns, columns_of, first_of_each, last_of_each


@dataclass(frozen=True, slots=True)
class Standing:
    """Who has reached a rung; infeasible trials are none of them."""

    rung: int
    epochs: int
    reached: int  # trials, those that went further too
    paused: int  # that stand here and may go on
    stopped: int  # that stand here and will not
    running: int  # that were here last


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The front of a study at one rung."""

    objectives: tuple[Objective, ...]
    entries: Entries  # all that take part, the best in the first objective first
    left_out: Mapping[str, int]  # reason -> trials that cannot take part, the commonest first
    hypervolume: float  # of the costs: %, and factors of ten where an objective is logarithmic
    rung: int | None  # None, as epochs, where no objective takes training
    epochs: int | None
    partial: bool  # no trial has ended at this rung: these trainings are cut short
    standing: tuple[Standing, ...]  # the rungs that were reached, the first first
    repeated: bool  # was any of the networks trained several times?
    columns: TrialColumns = field(repr=False, compare=False)  # of all trials, those that do not take part too

    @property
    def points(self) -> tuple[Entry, ...]:
        """Those on the front."""
        return self.entries.at(np.flatnonzero(self.entries.on_front).tolist())

    @property
    def fixed_points_off(self) -> tuple[Entry, ...]:
        """The published networks that are not on the front."""
        return self.entries.at(np.flatnonzero(~self.entries.on_front & self.entries.compared.labelled).tolist())

    def circumstances(self, metric: str) -> Record | None:
        """One of the measurements of `metric`: what they all share stands in it. None if there is none."""
        compared = self.entries.compared
        first = next((place for place in compared.records.get(metric, ()) if place >= 0), None)
        return None if first is None else compared.columns.records[first]


def front(study: Study | Iterable[Trial], objectives: tuple[Objective, ...], *, rung: int | None = None) -> Front:
    """The front of a study, or of its trials.

    Args:
        objectives: those of the study's space.
        rung: at which accuracies are compared; None: the last that any trial has reached.

    A published network takes part like any other trial.
    """
    if isinstance(study, Study):
        return study.at_one_instant(lambda reader: _of_study(study, reader, objectives, rung))
    trials = list(study)
    return _front(columns_of(trials), objectives, rung, lambda places: [trials[place] for place in places])


def _of_study(study: Study, reader: Reader, objectives: tuple[Objective, ...], rung: int | None) -> Front:
    columns = reader.columns()
    numbers = columns.facts["number"]
    found = _front(columns, objectives, rung, lambda places: study.trials([numbers[place] for place in places]))
    shown = np.flatnonzero(found.entries.on_front | found.entries.compared.labelled)
    found.entries.keep(lambda places: reader.trials([numbers[place] for place in places]), shown.tolist())
    return found


def _front(columns: TrialColumns, objectives: tuple[Objective, ...], rung: int | None, read: ReadTrials) -> Front:
    states, reasons = columns.facts["state"], columns.facts["reason"]
    feasible = np.array([state != "infeasible" for state in states], dtype=bool)
    infeasible = (reason for state, reason in zip(states, reasons, strict=True) if state == "infeasible")
    left_out = Counter(f"infeasible: {reason or 'no reason given'}" for reason in infeasible)
    reached = Reached.of(columns)
    if rung is None:
        rung = max(set(reached.rung[feasible].tolist()) - {-1}, default=None)
    found = comparable(columns, feasible, reached, objectives, rung)
    left_out.update(found.left_out)
    compared = Compared(columns, found.trials, found.records, _repeated(columns, found))
    table = _costs(objectives, compared)
    order = np.lexsort(table.T[::-1])
    trained = any(METRICS[objective.metric].trained for objective in objectives)
    accuracies = found.records["accuracy"]
    epochs = (columns.records.kinds[columns.records.kind[place]].epochs for place in accuracies if place >= 0)
    ended = {state for state, at in zip(states, reached.rung.tolist(), strict=True) if at == rung}
    return Front(
        objectives=objectives,
        entries=Entries(
            compared=compared.in_order(order),
            on_front=pareto.pareto_front(table)[order],
            probability=_probabilities(objectives, compared)[order],
            read=read,
        ),
        left_out=dict(left_out.most_common()),
        hypervolume=pareto.hypervolume(table, corner(objectives)),
        rung=rung if trained else None,
        epochs=next(epochs, None) if trained else None,
        partial=trained and rung is not None and "complete" not in ended,
        standing=_standing(columns, feasible, reached),
        repeated=bool(compared.repeated),
        columns=columns,
    )


def _costs(objectives: tuple[Objective, ...], compared: Compared) -> Floats:
    """(p, objectives)"""
    table = [
        [objective.cost(value) for value in compared.values(objective.metric).tolist()] for objective in objectives
    ]
    return np.array(table).T.reshape(-1, len(objectives))


def _standing(columns: TrialColumns, feasible: Flags, reached: Reached) -> tuple[Standing, ...]:
    records = columns.records
    rungs = [-1 if kind.rung is None or kind.repeat else kind.rung for kind in records.kinds]
    rung = np.array(rungs, dtype=np.int64)[records.kind]
    there = np.flatnonzero((rung >= 0) & feasible[records.of])
    there = there[np.lexsort((rung[there], records.of[there]))]
    once = there[last_of_each(records.of[there] * (1 + max(rungs, default=0)) + rung[there])]
    states = columns.facts["state"]
    of_rung = Counter((at, states[place]) for place, at in enumerate(reached.rung.tolist()) if feasible[place])
    epochs = [kind.epochs or 0 for kind in records.kinds]
    told = []
    for each in np.unique(rung[once]).tolist():
        kinds = records.kind[once[rung[once] == each]].tolist()
        commonest = Counter(epochs[kind] for kind in kinds).most_common(1)[0][0]
        here = (of_rung[each, state] for state in ("paused", "stopped", "running"))
        told.append(Standing(each, commonest, len(kinds), *here))
    return tuple(told)


# --- accuracies and their errors ------------------------------------------------------------------------------------


def _repeated(columns: TrialColumns, found: Comparable) -> dict[int, Accuracy]:
    """Place among those that take part -> its accuracy over all trainings, where there are several that compare.

    The error of the mean of k trainings is the larger of two, divided by the square root of k. The spread between
    the seeds holds what a seed changes and what the validation images add, as far as that differs from training to
    training; but two or three seeds may agree by chance, so that the binomial error of one training stands below
    it. What the images add alike to all trainings of all networks is in neither: between networks it cancels.
    """
    records = columns.records
    firsts = {int(trial): at for at, trial in enumerate(found.trials) if found.records["accuracy"][at] >= 0}
    is_repeat = np.array([bool(kind.repeat) and kind.metric == "accuracy" for kind in records.kinds], dtype=bool)
    latest: dict[int, dict[int, int]] = {}  # place among those that take part -> repeat -> its measurement
    for place in np.flatnonzero(is_repeat[records.kind]).tolist() if is_repeat.any() else ():
        at = firsts.get(int(records.of[place]))
        kind = records.kinds[records.kind[place]]
        if at is not None and kind.rung == records[int(found.records["accuracy"][at])].rung:
            latest.setdefault(at, {})[kind.repeat] = place
    told = {}
    for at, repeats in latest.items():
        first = records[int(found.records["accuracy"][at])]
        all_again = (records[repeats[repeat]] for repeat in sorted(repeats))
        again = [record for record in all_again if kind_of(record) == kind_of(first)]
        if again:
            values = np.array([record.value for record in (first, *again)])
            spread = float(np.std(values, ddof=1))
            error = max(spread, float(standard_error(first.low, first.high))) / len(values) ** 0.5
            told[at] = Accuracy(float(np.mean(values)), error, spread, len(values))
    return told


_Z95 = 1.96  # of a normal distribution, 95 % lie within so many standard deviations


def _probabilities(objectives: tuple[Objective, ...], compared: Compared) -> Floats:
    """Of being on the front. Accuracy is normal with its standard error, throughput log-normal with its 95 % interval,
    all else exact."""
    shape = len(compared), len(objectives)
    centers, errors = np.zeros(shape), np.zeros(shape)
    sources = np.repeat(np.arange(len(compared))[:, None], len(objectives), axis=1)
    for j, objective in enumerate(objectives):
        sign = -1.0 if objective.goal == "maximize" else 1.0
        values = compared.values(objective.metric)
        centers[:, j] = sign * values
        if objective.metric == "accuracy":
            errors[:, j] = compared.errors()
        elif objective.metric == "throughput":
            record = compared.records["throughput"]
            sources[:, j] = first_of_each(record)[record]  # two recipes of one network share one
            low, high = compared.bounds("throughput")
            centers[:, j] = sign * np.log(values)
            errors[:, j] = (high - low) / (2 * _Z95 * values)  # of the logarithm
    return front_probabilities(centers, errors, sources)
