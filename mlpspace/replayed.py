"""Searches replayed on one table, beside each other and beside the search that recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlpspace import sampling
from mlpspace.engines.replay import run
from mlpspace.objectives import corner
from mlpspace.pareto import hypervolume
from mlpspace.replay.recorded import Ended
from mlpspace.replay.table import TableDomain, best_volume

SHARES = (0.1, 0.25, 0.5, 1.0)  # of the epochs that training every network to the end takes


@dataclass(frozen=True, slots=True)
class Line:
    """One way of searching; medians over the seeds."""

    label: str
    volumes: tuple[float, ...]  # at each of SHARES, of the volume of the table's front
    trials: int  # begun
    trained: int  # to the end
    epochs: int  # in all
    hours: float  # simulated; of the recorded study those of the clock


def compare(
    domain: TableDomain,
    samplers: Sequence[str],
    own: Sequence[Ended],
    *,
    trials: int,
    workers: int,
    seeds: int,
) -> list[Line]:
    """A line for the recorded study, where there is one, then one for each sampler."""
    marks = [share * trials * domain.epochs[-1] for share in SHARES]
    worst, full = corner(domain.objectives), best_volume(domain.table)
    found = [_recorded(own, marks, worst, full)] if own else []
    for name in samplers:
        runs = [
            run(domain, partial(sampling.make, name), trials=trials, seed=seed, workers=workers)
            for seed in range(seeds)
        ]
        volumes = np.array([[each.volume(worst, epochs=mark) / full for mark in marks] for each in runs])
        found.append(
            Line(
                name,
                tuple(np.median(volumes, axis=0).tolist()),
                round(np.median([each.begun for each in runs])),
                round(np.median([len(each.trained) for each in runs])),
                round(np.median([each.epochs for each in runs])),
                float(np.median([each.seconds for each in runs])) / 3600,
            )
        )
    return found


def _recorded(own: Sequence[Ended], marks: Sequence[float], worst: Sequence[float], full: float) -> Line:
    volumes = []
    for mark in marks:
        costs = [each.costs for each in own if each.costs is not None and each.epochs <= mark]
        volumes.append(hypervolume(costs, worst) / full if costs else 0.0)
    trained = sum(each.costs is not None for each in own)
    return Line("recorded", tuple(volumes), len(own), trained, own[-1].epochs, own[-1].hours)


def text(domain: TableDomain, lines: Sequence[Line], *, trials: int, workers: int, seeds: int) -> str:
    """As a person reads it."""
    table = domain.table
    rungs = f"rungs at {', '.join(map(str, domain.epochs))} epochs" if len(domain.epochs) > 1 else "no rungs"
    told = [
        f"{table.name}: {table.size:,.0f} networks, {len(table.front()):,} on their front; {rungs}, "
        f"{workers} worker{'s' * (workers > 1)}, {seeds} seed{'s' * (seeds > 1)}",
        "",
    ]
    marks = [f"{share * trials * domain.epochs[-1]:,.0f}" for share in SHARES]
    wide = max(len("sampler"), *(len(line.label) for line in lines))
    told.append(f"{'':{wide}}  share of the front's volume after so many epochs")
    head = "".join(f"{mark:>9}" for mark in marks)
    told.append(f"{'sampler':{wide}}  {head}   trials  trained   epochs    hours")
    for line in lines:
        cells = "".join(f"{volume:9.3f}" for volume in line.volumes)
        told.append(f"{line.label:{wide}}  {cells}{line.trials:9,}{line.trained:9,}{line.epochs:9,}{line.hours:9.2f}")
    return "\n".join(told)


def as_json(domain: TableDomain, lines: Sequence[Line], *, trials: int) -> dict[str, Any]:
    """For programs."""
    marks = [round(share * trials * domain.epochs[-1]) for share in SHARES]
    return {
        "table": domain.table.name,
        "networks": domain.table.size,
        "rungs": list(domain.epochs),
        "samplers": [
            {
                "sampler": line.label,
                "volume": {str(mark): volume for mark, volume in zip(marks, line.volumes, strict=True)},
                "trials": line.trials,
                "trained": line.trained,
                "epochs": line.epochs,
                "hours": line.hours,
            }
            for line in lines
        ],
    }
