"""The throughput of a network, measured by a fresh process: two such measurements share no process."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from mlpspace.architecture import Architecture
from mlpspace.fresh_process import answer, ask
from mlpspace.measurement import Measurement
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import deployed
from mlpspace.throughput import measure_throughput

PATIENCE_S = 600.0


def measured_by_a_fresh_process(
    architecture: Architecture,
    *,
    resolution: int,
    classes: int,
    deployment: Deployment,
    device: torch.device,
    quiet: QuietDevice,
    patience_s: float,
) -> Measurement:
    """Throughput as `measure_throughput` tells it.

    Raises:
        FreshProcessError: the process failed.
    """
    told = {
        "architecture": architecture.to_json(),
        "resolution": resolution,
        "classes": classes,
        "deployment": dataclasses.asdict(deployment),
        "device": str(device),
        "patience_s": patience_s,
    }
    with quiet.alone():
        return Measurement(**ask("mlpspace.remeasure", told, timeout_s=PATIENCE_S))


def _answer(told: dict[str, Any]) -> dict[str, Any]:
    network = deployed(Architecture.from_json(told["architecture"]), told["resolution"], told["classes"])
    # who asked keeps the device quiet, and has taken the locks of it
    with tempfile.TemporaryDirectory() as folder:
        found, *_ = measure_throughput(
            network,
            resolution=told["resolution"],
            deployment=Deployment(**told["deployment"]),
            device=torch.device(told["device"]),
            quiet=QuietDevice("asked", Path(folder)),
            patience_s=told["patience_s"],
        )
    return dataclasses.asdict(found)


if __name__ == "__main__":
    answer(_answer)
