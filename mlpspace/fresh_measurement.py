"""The throughput of a network, measured by a process that did nothing before.

What a process did shows in what it measures: after three trainings in it five networks of `spaces/hybrid.yaml` had 0 to
6.6 % fewer images/s on a CPU than before (mean of 4 processes, 2-core Xeon VM, torch 2.13, 2026-11-22). It was the
same for none of them, so that no reference network tells.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlpspace.architecture import Architecture
from mlpspace.calibration import Calibration, calibrated
from mlpspace.device import describe
from mlpspace.errors import DeviceLost, UserError
from mlpspace.failure import failure_of
from mlpspace.fork_server import ForkServer, NoAnswer
from mlpspace.fresh_process import FreshProcessError, answer, ask
from mlpspace.measurement import Failure, Measurement
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import deployed
from mlpspace.runtime import selected
from mlpspace.throughput import measure_throughput

PATIENCE_S = 600.0
TRIES = 2  # of a process that dies: the system may have taken it for another one's memory

_forks = ForkServer("mlpspace.fresh_measurement", "measure")


class NotMeasured(Exception):
    """Of a network that cannot be measured."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be measured, and how."""

    architecture: Architecture
    resolution: int
    classes: int
    deployment: Deployment
    device: torch.device
    patience_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture.to_json(),
            "resolution": self.resolution,
            "classes": self.classes,
            "deployment": dataclasses.asdict(self.deployment),
            "device": str(self.device),
            "patience_s": self.patience_s,
        }


def measured_by_a_fork(asked: Asked, quiet: QuietDevice) -> tuple[Measurement, ...]:
    """All that `measure_throughput` tells, of a network on a CPU. It takes hardly longer than in this process.

    Raises:
        NotMeasured: it cannot be built, or does not fit into memory, or takes too long.
        DeviceLost: processes that measure do not start here, or die: as if this one had died.
        UserError: nothing can be measured here.
    """
    told = _with_calibration(asked, quiet)
    died = ""
    for _ in range(TRIES):
        try:
            with quiet.busy():
                _forks.start()
            with quiet.alone():
                return _taken(_in_a_folder(told, quiet, _by_a_fork))
        except FreshProcessError as error:
            died = str(error)
    raise DeviceLost(
        f"{TRIES} processes that were to measure a network on {describe(asked.device)} failed: {died}\n"
        "  To measure in the workers themselves: export MLPSPACE_CALIBRATION=1"
    )


def measured_by_a_fresh_process(asked: Asked, quiet: QuietDevice) -> Measurement:
    """Throughput as `measure_throughput` tells it, by a process that shares nothing with others: the memory of two
    forks begins at the same addresses.

    Raises:
        FreshProcessError: the process failed, or one of those that calibrate the machine.
    """
    try:
        told = _with_calibration(asked, quiet)
    except UserError as error:
        raise FreshProcessError(str(error)) from error
    with quiet.alone():
        found = _in_a_folder(told, quiet, _by_a_fresh_process)
    if "measurements" not in found:
        raise FreshProcessError(found.get("wrong") or found["failure"]["detail"])
    return Measurement(**found["measurements"][0])


def measured_while_others_give_way(asked: Asked, quiet: QuietDevice) -> tuple[Measurement, ...]:
    """All that `measure_throughput` tells, of a network that found not enough memory on a GPU that others share.

    They pause and give back what they can, from before anything of the network is on the GPU until nothing is.

    Raises:
        NotMeasured: it does not fit even so, or its process ends.
        UserError: nothing can be measured here.
    """
    told = _with_calibration(asked, quiet)
    try:
        with quiet.short_of_memory(), quiet.alone():
            return _taken(_in_a_folder(told, quiet, _by_a_fresh_process))
    except FreshProcessError as error:
        raise NotMeasured(Failure("error", f"the process that was to measure it failed: {error}")) from error


def _with_calibration(asked: Asked, quiet: QuietDevice) -> dict[str, Any]:
    """What is asked, with what is known of the machine. Before the device is taken alone: whoever calibrates holds the
    lock of that and waits for the device, so that the two would wait for each other.
    """
    known = calibrated(asked.device, asked.resolution, asked.deployment, quiet)
    return asked.to_json() | {"calibration": dataclasses.asdict(known)}


def _by_a_fork(told: dict[str, Any]) -> Any:
    try:
        return _forks.ask(told, timeout_s=PATIENCE_S)
    except NoAnswer as error:
        raise NotMeasured(Failure("error", f"the process that measures it gave {error}")) from error


def _by_a_fresh_process(told: dict[str, Any]) -> Any:
    return ask("mlpspace.fresh_measurement", told, timeout_s=PATIENCE_S)


def _in_a_folder(told: dict[str, Any], quiet: QuietDevice, ask: Callable[[dict[str, Any]], Any]) -> Any:
    """What is answered by a process that has a folder of its own, which is gone then, however that process ends."""
    with tempfile.TemporaryDirectory() as folder:
        return ask(told | {"folder": folder, "shared": str(quiet.file)})


def _taken(found: dict[str, Any]) -> tuple[Measurement, ...]:
    """What `measure` answered."""
    if "wrong" in found:
        raise UserError(found["wrong"])
    if "failure" in found:
        raise NotMeasured(Failure(**found["failure"]))
    return tuple(Measurement(**each) for each in found["measurements"])


def measure(told: dict[str, Any]) -> dict[str, Any]:
    """What a process answers: "measurements", or "failure" of this network, or what is "wrong" with all of them."""
    try:
        return {"measurements": [dataclasses.asdict(each) for each in _measured(told)]}
    except UserError as error:
        return {"wrong": str(error)}
    except Exception as error:
        return {"failure": dataclasses.asdict(failure_of(error))}


class _QuietAlready(QuietDevice):
    """The right to a device that the one who asked keeps quiet, and has taken the locks of: these are nobody else's."""

    def __init__(self, folder: Path, shared: Path) -> None:
        super().__init__("asked", folder)
        self.file = shared  # by which it knows those of ours who have paused


def _measured(told: dict[str, Any]) -> tuple[Measurement, ...]:
    device = torch.device(told["device"])
    network = deployed(Architecture.from_json(told["architecture"]), told["resolution"], told["classes"])
    with selected(device):
        return measure_throughput(
            network,
            resolution=told["resolution"],
            deployment=Deployment(**told["deployment"]),
            device=device,
            quiet=_QuietAlready(Path(told["folder"]), Path(told["shared"])),
            calibration=Calibration(**told["calibration"]),
            patience_s=told["patience_s"],
        )


if __name__ == "__main__":
    answer(measure)
