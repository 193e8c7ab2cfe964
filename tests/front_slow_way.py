"""The rules of a front, told for one trial after the other: slow, and with nothing in common with `mlpspace.comparable`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpspace import pareto
from mlpspace.objectives import METRICS, Objective, corner, costs
from mlpspace.trial import Record, Trial

ALIKE = {
    "accuracy": {
        "dataset": "trained on another dataset",
        "data": "trained on other images under the same dataset's name",
        "resolution": "trained at another resolution",
        "epochs": "trained for another number of epochs",
        "protocol": "accuracy measured by another protocol",
    },
    "throughput": {
        "device": "measured on another device",
        "batch": "measured with another batch",
        "precision": "measured in another precision",
        "threads": "measured with another number of threads",
        "protocol": "throughput measured by another protocol",
    },
}
MEASURED = [metric for metric in METRICS if METRICS[metric].measured]


@dataclass
class SlowFront:
    """What a Front has, of what these rules decide."""

    numbers: list[int]  # the best in the first objective first
    records: list[dict[str, Record]]
    means: list[tuple[float, float, float | None, int] | None]  # accuracy: mean, error, spread, trainings
    on_front: list[bool]
    left_out: list[tuple[str, int]]
    hypervolume: float
    rung: int | None
    standing: list[tuple[int, int, int, int, int, int]]


def slow_front(trials: list[Trial], objectives: tuple[Objective, ...], rung: int | None) -> SlowFront:
    feasible = [trial for trial in trials if trial.state != "infeasible"]
    left_out = Counter(f"infeasible: {t.reason or 'no reason given'}" for t in trials if t.state == "infeasible")
    if rung is None:
        rung = max((trial.rung for trial in feasible if trial.rung is not None), default=None)
    stands = {metric: kind_that_stands(metric, feasible, rung) for metric in MEASURED}
    first_of_network: dict[tuple[str, str], Record] = {}
    seen, why_not = set(), Counter()
    taking_part: list[tuple[Trial, dict[str, Record]]] = []
    for trial in feasible:
        records = {}
        for metric in MEASURED:
            alike = [each for each in at_rung(trial, metric, rung) if kind(each) == stands[metric]]
            if alike and metric == "accuracy":
                records[metric] = alike[-1]
            elif alike:
                records[metric] = first_of_network.setdefault((trial.architecture_id, metric), alike[-1])
        missing = [o.metric for o in objectives if o.metric in MEASURED and o.metric not in records]
        network = (trial.architecture_id, trial.recipe_json)
        if missing:
            why_not[why_left_out(trial, missing, stands, rung)] += 1
        elif network in seen:
            why_not["the same network and recipe as an earlier trial"] += 1
        else:
            seen.add(network)
            taking_part.append((trial, records))
    left_out += why_not
    means = [mean(trial, records.get("accuracy")) for trial, records in taking_part]
    table = []
    for (trial, records), accuracy in zip(taking_part, means, strict=True):
        values: dict[str, float] = {metric: record.value for metric, record in records.items()}
        values |= {"params": trial.params, "macs": trial.macs} | ({"accuracy": accuracy[0]} if accuracy else {})
        table.append(costs(objectives, values))
    order = sorted(range(len(table)), key=lambda place: table[place])
    return SlowFront(
        [taking_part[place][0].number for place in order],
        [taking_part[place][1] for place in order],
        [means[place] for place in order],
        [not any(pareto.dominates(other, table[place]) for other in table) for place in order],
        left_out.most_common(),
        pareto.hypervolume(np.array(table).reshape(-1, len(objectives)), corner(objectives)),
        rung,
        standing(feasible),
    )


def kind(record: Record) -> tuple[Any, ...]:
    on_cpu = " core" in record.device  # the threads of a process that uses a GPU are of no account
    return tuple(0 if name == "threads" and not on_cpu else getattr(record, name) for name in words(record.metric))


def words(metric: str) -> dict[str, str]:
    return ALIKE["accuracy" if metric == "accuracy" else "throughput"]


def at_rung(trial: Trial, metric: str, rung: int | None) -> list[Record]:
    own = [record for record in trial.records if record.metric == metric and not record.repeat]
    return [record for record in own if metric != "accuracy" or record.rung == rung]


def kind_that_stands(metric: str, trials: list[Trial], rung: int | None) -> tuple[Any, ...] | None:
    """A calm one before a disturbed one, then the commonest, then that of the newest trial."""
    holders: dict[tuple[Any, ...], set[int]] = {}
    for trial in trials:
        for record in at_rung(trial, metric, rung):
            holders.setdefault(kind(record), set()).add(trial.number)

    def rank(each: tuple[Any, ...]) -> tuple[bool, int, int]:
        return not str(each[-1]).endswith("disturbed"), len(holders[each]), max(holders[each])

    return max(holders, key=rank) if holders else None


def why_left_out(trial: Trial, missing: list[str], stands: dict[str, Any], rung: int | None) -> str:
    for metric in missing:
        others = at_rung(trial, metric, rung)
        if others and others[-1].protocol.endswith("disturbed"):
            used = "CPU" if " core" in others[-1].device else "GPU"
            return f"{metric} measured while other programs used the {used}"
        if others:
            told = zip(words(metric).values(), kind(others[-1]), stands[metric], strict=True)
            return next(each for each, found, wanted in told if found != wanted)
    if trial.state == "running":
        return "not finished"
    if missing[0] != "accuracy":
        return f"no {missing[0]} measured"
    if trial.state in ("paused", "stopped"):
        return trial.standing
    return "never trained" if trial.rung is None else f"below rung {rung}"


def mean(trial: Trial, first: Record | None) -> tuple[float, float, float | None, int] | None:
    if first is None:
        return None
    again = [record for record in trial.repeats_at(first.rung) if kind(record) == kind(first)]
    values = [record.value for record in (first, *again)]
    spread = float(np.std(values, ddof=1)) if again else None
    error = max(spread or 0.0, (first.high - first.low) / 2)
    return float(np.mean(values)), error / len(values) ** 0.5, spread, len(values)


def standing(feasible: Iterable[Trial]) -> list[tuple[int, int, int, int, int, int]]:
    reached: dict[int, list[int]] = {}
    here: Counter[tuple[int | None, str]] = Counter()
    for trial in feasible:
        last = {record.rung: record.epochs for record in trial.records if record.rung is not None and not record.repeat}
        for rung, epochs in last.items():
            reached.setdefault(rung, []).append(epochs or 0)
        here[trial.rung, trial.state] += 1
    told = []
    for rung, epochs in sorted(reached.items()):
        paused, stopped, running = (here[rung, state] for state in ("paused", "stopped", "running"))
        told.append((rung, Counter(epochs).most_common(1)[0][0], len(epochs), paused, stopped, running))
    return told
