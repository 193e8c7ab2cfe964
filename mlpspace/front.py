"""The Pareto front of a study: the non-dominated trials among those that were measured alike.

Two accuracies compare at one rung, with the same epochs, dataset, resolution and protocol; two throughputs on the same
device, with the same batch, precision, threads and protocol. Where a study holds several kinds, the commonest stands
and the others are left out, counted by reason. Counts (params, macs) always compare.

A network that was trained several times, with another seed each time, stands with the mean of its accuracies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlpspace import pareto
from mlpspace.front_probability import front_probabilities
from mlpspace.objectives import METRICS, Objective, corner, costs
from mlpspace.study import Record, Study, Trial


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of one network at one rung, over all its trainings there."""

    mean: float  # %
    error: float  # standard error of the mean, percentage points
    spread: float | None  # standard deviation between the seeds, percentage points; None for one training
    trainings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A trial that takes part, with the measurements it takes part with."""

    trial: Trial
    records: Mapping[str, Record]  # metric -> measurement; what is no objective is there if it was measured alike
    values: Mapping[str, float]  # metric -> number: of `records` (the mean, of `accuracy`), params and macs
    accuracy: Accuracy | None  # None: it was not trained, or not alike
    on_front: bool
    probability: float  # of being on the front, by the errors of all that take part

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy between seeds, percentage points; None where there is one training."""
        return self.accuracy.spread if self.accuracy else None


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
    entries: tuple[Entry, ...]  # all that take part, the best in the first objective first
    left_out: Mapping[str, int]  # reason -> trials that cannot take part, the commonest first
    hypervolume: float  # of the costs: %, and factors of ten where an objective is logarithmic
    rung: int | None  # None, as epochs, where no objective takes training
    epochs: int | None
    partial: bool  # no trial has ended at this rung: these trainings are cut short
    standing: tuple[Standing, ...]  # the rungs that were reached, the first first
    repeated: bool  # was any of the networks trained several times?

    @property
    def points(self) -> tuple[Entry, ...]:
        """Those on the front."""
        return tuple(entry for entry in self.entries if entry.on_front)

    @property
    def fixed_points_off(self) -> tuple[Entry, ...]:
        """The published networks that are not on the front."""
        return tuple(entry for entry in self.entries if entry.trial.label and not entry.on_front)

    def circumstances(self, metric: str) -> Record | None:
        """One of the measurements of `metric`: what they all share stands in it. None if there is none."""
        return next((entry.records[metric] for entry in self.entries if metric in entry.records), None)


def front(study: Study | Iterable[Trial], objectives: tuple[Objective, ...], *, rung: int | None = None) -> Front:
    """The front of a study, or of its trials.

    Args:
        objectives: those of the study's space.
        rung: at which accuracies are compared; None: the last that any trial has reached.

    A published network takes part like any other trial. Of two trials of one architecture with one recipe only the
    first does, since noise would let both stand; and two recipes of one architecture share its first throughput.
    """
    trials = study.trials(curves=False) if isinstance(study, Study) else list(study)
    feasible = [trial for trial in trials if trial.state != "infeasible"]
    infeasible = (trial for trial in trials if trial.state == "infeasible")
    left_out = Counter(f"infeasible: {trial.reason or 'no reason given'}" for trial in infeasible)
    if rung is None:
        rung = max((trial.rung for trial in feasible if trial.rung is not None), default=None)
    taking_part, why_not = _comparable(feasible, objectives, rung)
    left_out += why_not
    accuracies = [_accuracy(trial, records.get("accuracy")) for trial, records in taking_part]
    all_values = [
        _values(trial, records, accuracy) for (trial, records), accuracy in zip(taking_part, accuracies, strict=True)
    ]
    table = np.array([costs(objectives, values) for values in all_values]).reshape(-1, len(objectives))
    entries = [
        Entry(trial=trial, records=records, values=values, accuracy=accuracy, on_front=bool(on), probability=float(p))
        for (trial, records), values, accuracy, on, p in zip(
            taking_part,
            all_values,
            accuracies,
            pareto.pareto_front(table),
            _probabilities(objectives, [records for _, records in taking_part], all_values, accuracies),
            strict=True,
        )
    ]
    trained = any(METRICS[objective.metric].trained for objective in objectives)
    epochs = (entry.records["accuracy"].epochs for entry in entries if "accuracy" in entry.records)
    return Front(
        objectives=objectives,
        entries=tuple(entries[i] for i in np.lexsort(table.T[::-1])),
        left_out=dict(left_out.most_common()),
        hypervolume=pareto.hypervolume(table, corner(objectives)),
        rung=rung if trained else None,
        epochs=next(epochs, None) if trained else None,
        partial=trained and rung is not None and not any(t.state == "complete" and t.rung == rung for t in feasible),
        standing=_standing(feasible),
        repeated=any(accuracy is not None and accuracy.trainings > 1 for accuracy in accuracies),
    )


def _standing(feasible: list[Trial]) -> tuple[Standing, ...]:
    reached: Counter[int] = Counter()
    epochs: defaultdict[int, Counter[int]] = defaultdict(Counter)
    states: Counter[tuple[int | None, str]] = Counter()
    for trial in feasible:
        at = {record.rung: record.epochs for record in trial.records if record.rung is not None and not record.repeat}
        reached.update(at.keys())
        for rung, number in at.items():
            epochs[rung][number or 0] += 1
        states[trial.rung, trial.state] += 1
    return tuple(
        Standing(
            rung,
            epochs[rung].most_common(1)[0][0],
            reached[rung],
            *(states[rung, state] for state in ("paused", "stopped", "running")),
        )
        for rung in sorted(reached)
    )


# --- accuracies and their errors ------------------------------------------------------------------------------------


def standard_error(accuracy: Record) -> float:
    """Of an accuracy, in percentage points: its bounds stand one to either side."""
    return (accuracy.high - accuracy.low) / 2


def _accuracy(trial: Trial, first: Record | None) -> Accuracy | None:
    """Over the trial's own training and those anew that are comparable with it.

    The error of the mean of k trainings is the larger of two, divided by the square root of k. The spread between
    the seeds holds what a seed changes and what the validation images add, as far as that differs from training to
    training; but two or three seeds may agree by chance, so that the binomial error of one training stands below
    it. What the images add alike to all trainings of all networks is in neither: between networks it cancels.
    """
    if first is None:
        return None
    again = [record for record in trial.repeats_at(first.rung) if _kind(record) == _kind(first)]
    values = np.array([record.value for record in (first, *again)])
    spread = float(np.std(values, ddof=1)) if again else None
    error = max(spread or 0.0, standard_error(first)) / len(values) ** 0.5
    return Accuracy(float(np.mean(values)), error, spread, len(values))


_Z95 = 1.96  # of a normal distribution, 95 % lie within so many standard deviations


def _probabilities(
    objectives: tuple[Objective, ...],
    all_records: Sequence[Mapping[str, Record]],
    all_values: Sequence[Mapping[str, float]],
    accuracies: Sequence[Accuracy | None],
) -> np.ndarray:
    """Of being on the front. Accuracy is normal with its standard error, throughput log-normal with its 95 % interval,
    all else exact."""
    shape = len(all_values), len(objectives)
    centers, errors, sources = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for j, objective in enumerate(objectives):
        sign = -1.0 if objective.goal == "maximize" else 1.0
        measured: dict[int, int] = {}
        for i, (records, values, accuracy) in enumerate(zip(all_records, all_values, accuracies, strict=True)):
            record = records.get(objective.metric)
            sources[i, j] = i
            centers[i, j] = sign * values[objective.metric]
            if objective.metric == "accuracy" and accuracy is not None:
                errors[i, j] = accuracy.error
            elif objective.metric == "throughput" and record is not None:
                sources[i, j] = measured.setdefault(id(record), i)  # two recipes of one network share one
                centers[i, j] = sign * np.log(record.value)
                errors[i, j] = (record.high - record.low) / (2 * _Z95 * record.value)  # of the logarithm
    return front_probabilities(centers, errors, sources)


def _comparable(
    feasible: list[Trial], objectives: tuple[Objective, ...], rung: int | None
) -> tuple[list[tuple[Trial, dict[str, Record]]], Counter[str]]:
    """The trials that can be compared, each with the measurements that it takes part with; why the others cannot."""
    kinds = {metric: _kind_that_stands(metric, feasible, rung) for metric in METRICS if METRICS[metric].measured}
    of_architecture: dict[tuple[str, str], Record] = {}
    seen: set[tuple[str, str]] = set()
    left_out: Counter[str] = Counter()
    taking_part: list[tuple[Trial, dict[str, Record]]] = []
    for trial in feasible:
        records = {}
        for metric, kind in kinds.items():
            alike = [record for record in _at_rung(trial, metric, rung) if _kind(record) == kind]
            if alike and METRICS[metric].trained:
                records[metric] = alike[-1]
            elif alike:
                records[metric] = of_architecture.setdefault((trial.architecture_id, metric), alike[-1])
        reason = _why_left_out(trial, objectives, records, kinds, rung)
        network = (trial.architecture_id, trial.recipe_json)
        if reason is None and network in seen:
            reason = "the same network and recipe as an earlier trial"
        if reason is None:
            seen.add(network)
            taking_part.append((trial, records))
        else:
            left_out[reason] += 1
    return taking_part, left_out


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
    "threads": "measured with another number of threads",
    "protocol": "throughput measured by another protocol",
}

Kind = dict[str, object]


def _alike(metric: str) -> dict[str, str]:
    return _TRAINED_ALIKE if METRICS[metric].trained else _TIMED_ALIKE


def _kind(record: Record) -> Kind:
    return {name: getattr(record, name) for name in _alike(record.metric)}


def _at_rung(trial: Trial, metric: str, rung: int | None) -> list[Record]:
    trained = METRICS[metric].trained
    own = (record for record in trial.records if record.metric == metric and record.repeat == 0)
    return [record for record in own if not trained or record.rung == rung]


def _kind_that_stands(metric: str, trials: list[Trial], rung: int | None) -> Kind | None:
    """The kind that most trials have a measurement of; of two as common, the one of the newest trial.

    A disturbed one stands only where there is no other.
    """
    holders: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    calm: dict[tuple[object, ...], bool] = {}
    for trial in trials:
        for record in _at_rung(trial, metric, rung):
            kind = tuple(_kind(record).values())
            calm[kind] = not record.disturbed
            if trial.number not in holders[kind][-1:]:
                holders[kind].append(trial.number)
    if not holders:
        return None
    commonest = max(holders, key=lambda kind: (calm[kind], len(holders[kind]), max(holders[kind])))
    return dict(zip(_alike(metric), commonest, strict=True))


def _why_left_out(
    trial: Trial,
    objectives: tuple[Objective, ...],
    records: Mapping[str, Record],
    kinds: Mapping[str, Kind | None],
    rung: int | None,
) -> str | None:
    missing = [o.metric for o in objectives if METRICS[o.metric].measured and o.metric not in records]
    for metric in missing:
        others = _at_rung(trial, metric, rung)
        kind = kinds[metric]
        if others and kind is not None:
            found = _kind(others[-1])
            if others[-1].disturbed:
                return "throughput measured while other programs used the CPU"
            return next(words for name, words in _alike(metric).items() if found[name] != kind[name])
    if not missing:
        return None
    if trial.state == "running":
        return "not finished"
    if METRICS[missing[0]].trained and trial.state in ("paused", "stopped"):
        return trial.standing
    if METRICS[missing[0]].trained:
        return "never trained" if trial.rung is None else f"below rung {rung}"
    return f"no {missing[0]} measured"


def _values(trial: Trial, records: Mapping[str, Record], accuracy: Accuracy | None) -> dict[str, float]:
    counts = {"params": float(trial.params), "macs": float(trial.macs)}
    measured = {metric: record.value for metric, record in records.items()}
    return counts | measured | ({"accuracy": accuracy.mean} if accuracy else {})
