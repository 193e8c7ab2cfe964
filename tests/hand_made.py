"""Trials, measurements and assignments made by hand, for the tests of the study, the front and its rendering."""

from __future__ import annotations

import itertools
from typing import Any

from mlpspace.architecture import Architecture, Patches, Stage
from mlpspace.measurement import Assignment, Measurement
from mlpspace.objectives import Deployment, Objective
from mlpspace.recipe import Recipe
from mlpspace.study import Record, Trial

ACCURACY = Objective("accuracy", "maximize", worst=10.0)
THROUGHPUT = Objective("throughput", "maximize", worst=100.0, scale="log")
PARAMS = Objective("params", "minimize", worst=10e6)
BOTH = (ACCURACY, THROUGHPUT)

COUNTS = {"params": 1000, "macs": 2000, "tokens": 64, "activations": 3000}
ALIKE: dict[str, Any] = {
    "seconds": 1.0,
    "precision": "fp32",
    "attempt": 1,
    "dataset": "digits",
    "resolution": 32,
    "seed": 0,
}
numbers = itertools.count()


def accuracy(value: float, rung: int = 0, **other: Any) -> Record:
    told: dict[str, Any] = {
        "protocol": "proxy 1",
        "device": "Xeon, 2 cores",
        "batch": 64,
        "threads": 2,
        "rung": rung,
        "epochs": 6 * (rung + 1),
    }
    told |= {"low": value - 1, "high": value + 1}
    return Record(metric="accuracy", value=value, **{**ALIKE, **told, **other})


def throughput(value: float, **other: Any) -> Record:
    told = {"protocol": "median 1", "device": "Xeon, 2 cores", "batch": 64, "threads": 2}
    return Record(metric="throughput", value=value, low=value - 5, high=value + 5, **{**ALIKE, **told, **other})


def a_trial(*records: Record, width: int | None = None, **other: Any) -> Trial:
    number = next(numbers)
    network = Architecture(stem=Patches(patch=4), stages=(Stage(depth=2, width=width or 8 + number),))
    told: dict[str, Any] = {
        "number": number,
        "architecture_id": network.id,
        "architecture_json": network.to_json(),
        "params": 1000,
        "macs": 2000,
        "tokens": 64,
        "activations": 3000,
        "origin": "sampler",
        "label": None,
        "state": "complete",
        "reason": None,
        "detail": None,
        "attempt": 1,
        "point": {},
        "recipe_json": Recipe().to_json(),
        "seed": 0,
        "started": 0.0,
        "ended": 1.0,
        "records": records,
        "curve": (),
    }
    return Trial(**{**told, **other})


def an_assignment(number: int, *, attempt: int = 1, width: int | None = None) -> Assignment:
    return Assignment(
        trial=number,
        attempt=attempt,
        architecture=Architecture(stem=Patches(patch=4), stages=(Stage(depth=2, width=width or 8 + number),)),
        recipe=Recipe(),
        resolution=32,
        classes=10,
        dataset="digits",
        data_path=None,
        images=None,
        validation=0.2,
        epochs=(6,),
        seed=number,
        deployment=Deployment(),
    )


def measured(metric: str, value: float, *, rung: int | None = None, epochs: int | None = None) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        low=value - 1,
        high=value + 1,
        seconds=0.5,
        protocol="median 1",
        device="Xeon, 2 cores",
        batch=64,
        precision="fp32",
        threads=2,
        rung=rung,
        epochs=epochs,
    )
