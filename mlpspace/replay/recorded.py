"""A recorded study as a table: its networks that were trained to the end, with their curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlpspace.front import Entry, front
from mlpspace.objectives import METRICS, costs
from mlpspace.replay.listed import ListedTable
from mlpspace.replay.table import TableError
from mlpspace.space.space import Space
from mlpspace.study import Study, Trial

FEWEST = 3  # networks that a search can be replayed on


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial that the recorded study ended, with what was spent until then by all."""

    costs: tuple[float, ...] | None  # None: it never came to the last rung
    epochs: int
    hours: float  # of the clock


def of_study(study: Study, space: Space) -> ListedTable:
    """The networks of a study that were trained to the last rung and can be compared.

    Published networks outside the space are not among them: a sampler cannot come to them. As they are few out of a
    large space, what a sampler proposes becomes the nearest of them.

    Raises:
        TableError: there are too few, or their objectives take no training.
    """
    name = str(study.folder)
    if not any(METRICS[objective.metric].trained for objective in space.objectives):
        raise TableError(f"{name} trained nothing: its objectives take no training, so there is nothing to replay.")
    found = [entry for entry in _entries(study, space) if entry.trial.point is not None]
    if len(found) < FEWEST:
        raise TableError(f"{name} has {len(found)} networks that were trained to the end; a replay takes {FEWEST}.")
    epochs = space.fidelity.epochs
    curves = [_curve(entry, epochs) for entry in found]
    trained = tuple(epoch for epoch in range(1, epochs[-1] + 1) if all(epoch in curve for curve in curves))
    names = [dim.name for dim, _ in space.dimensions()]
    cheap = [objective.metric for objective in space.objectives if objective.metric != "accuracy"]
    return ListedTable(
        name,
        columns={name: [(entry.trial.point or {}).get(name) for entry in found] for name in names},
        known={metric: [entry.values[metric] for entry in found] for metric in {*cheap, "params", "macs"}},
        accuracy=np.array([[curve[epoch] for epoch in trained] for curve in curves]),
        trained_epochs=trained,
        objectives=space.objectives,
        epoch_seconds=[entry.trial.seconds / epochs[-1] for entry in found],
        nearest=True,
    )


def recorded(study: Study, space: Space) -> list[Ended]:
    """What the study itself found, in the order in which its trials ended."""
    found = {entry.trial.number: costs(space.objectives, entry.values) for entry in _entries(study, space)}
    told, epochs = [], 0
    ended = [trial for trial in study.trials() if trial.ended is not None]
    begun = min((trial.started for trial in ended), default=0.0)
    for trial in sorted(ended, key=lambda trial: trial.ended or 0.0):
        epochs += _trained(trial)
        told.append(Ended(found.get(trial.number), epochs, ((trial.ended or begun) - begun) / 3600))
    return told


def _entries(study: Study, space: Space) -> Sequence[Entry]:
    last = len(space.fidelity.epochs) - 1
    return [entry for entry in front(study, space.objectives, rung=last).entries if entry.trial.state == "complete"]


def _curve(entry: Entry, epochs: Sequence[int]) -> dict[int, float]:
    """Epoch -> accuracy; at the rungs as it was measured there, at the last as the front has it."""
    curve = {epoch: accuracy for epoch, _, accuracy in entry.trial.curve if accuracy is not None}
    for record in entry.trial.records:
        if record.metric == "accuracy" and not record.repeat and record.epochs is not None:
            curve[record.epochs] = record.value
    return curve | {epochs[-1]: entry.values["accuracy"]}


def _trained(trial: Trial) -> int:
    """Epochs."""
    measured = (record.epochs or 0 for record in trial.records if record.metric == "accuracy" and not record.repeat)
    return max((*(epoch for epoch, _, _ in trial.curve), *measured), default=0)
