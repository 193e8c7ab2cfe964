"""One worker's process: keeps the device, the dataset and the warm libraries from trial to trial."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from mlpspace.data import Dataset, loading
from mlpspace.deploy_device import DeviceMissing, measuring_device
from mlpspace.device import resolve
from mlpspace.evaluate import evaluate
from mlpspace.fresh_process import fresh_processes
from mlpspace.measurement import Assignment, Event, Measurement, Progress
from mlpspace.quiet import QuietDevice, quiet_on
from mlpspace.timing import LESS_PATIENCE_S, OTHERS_PATIENCE_S
from mlpspace.wall_time import spent

SIGN_OF_LIFE_S = 2.0
COMPILE_THREADS, MOST_COMPILE_THREADS = "TORCHINDUCTOR_COMPILE_THREADS", 32  # torch's name for it, and its own most
SPLIT_SEED = 0  # of the validation split: one split for all studies of a dataset, whatever their seed


@dataclass(slots=True)
class Worker:
    """Evaluates assignments on one device."""

    device_name: str  # "auto", "cpu", "cuda" or "cuda:1"
    threads: int  # of the CPU, for training; a throughput measurement takes all of the machine
    here: Callable[[str], str] = lambda path: path  # where a dataset lies on this node, if not where the driver has it
    measures_on: str | None = None  # a name of the device that networks are going to run on; None: the one that trains
    shared: bool = False  # other workers train on the device too
    _device: torch.device | None = None
    _measured_on: torch.device | None = None
    _quiet: QuietDevice | None = None
    _patience_s: float = OTHERS_PATIENCE_S
    _datasets: dict[tuple[object, ...], Dataset] = field(default_factory=dict)

    def events(self, assignment: Assignment, bounds: Mapping[str, tuple[float, float]]) -> Generator[Event, None, None]:
        """What happens to one trial, as it happens.

        Raises:
            DeviceMissing: it is to be measured on a device that is not here; what needs no more measuring can be
                trained all the same.
            UserError: the device or the dataset is not what was asked for; no trial can be evaluated here.
        """
        if self._device is None or self._quiet is None:
            with spent("starting"):
                torch.set_num_threads(self.threads)
                # else torch.compile starts a process for each core of the machine, up to 32, in every worker
                os.environ.setdefault(COMPILE_THREADS, str(min(self.threads, MOST_COMPILE_THREADS)))
                self._device = resolve(self.device_name)
                with suppress(DeviceMissing):
                    self._measured_on = measuring_device(self.measures_on, self._device)
                self._quiet = quiet_on(self._device, self._measured_on)
                if self._device.type == "cuda":
                    torch.cuda.set_device(self._device)  # for whatever takes the current device without asking
        if assignment.deployment is not None and self._measured_on is None:
            self._measured_on = measuring_device(self.measures_on, self._device)  # to say why there is none
        dataset = None
        if not assignment.measure_only:
            yield Progress(phase="data")
            with spent("data"):
                dataset = yield from self._dataset(assignment, self._device, self._quiet)
        with spent("building"):  # but for what `evaluate` counts as something else
            for event in evaluate(
                assignment,
                dataset=dataset,
                device=self._device,
                quiet=self._quiet,
                measured_on=self._measured_on,
                afresh=_afresh(assignment, self._measured_on or self._device),
                require=bounds,
                patience_s=self._patience_s,
                shared=self.shared,
            ):
                if isinstance(event, Measurement) and event.metric == "throughput":
                    self._patience_s = LESS_PATIENCE_S if event.disturbed else OTHERS_PATIENCE_S
                yield event

    def _dataset(
        self, assignment: Assignment, device: torch.device, quiet: QuietDevice
    ) -> Generator[Progress, None, Dataset]:
        """The dataset on the device; decoding one may take hours, so a sign of life comes every few seconds."""
        asked: dict[str, Any] = {
            "resolution": assignment.resolution,
            "classes": assignment.classes,
            "images": assignment.images,
            "validation": assignment.validation,
            "resident": assignment.resident,
        }
        asked_for = (assignment.dataset, assignment.data_path, *asked.values())
        if asked_for not in self._datasets:
            self._datasets.clear()  # one study has one dataset; never hold two on a device
            path = None if assignment.data_path is None else self.here(assignment.data_path)
            told = time.monotonic()
            # decoding takes cores that a neighbour may want to measure on
            coming = loading(assignment.dataset, path, **asked, seed=SPLIT_SEED, device=device, busy=quiet.busy)
            with closing(coming):
                while True:
                    try:
                        share = next(coming)
                    except StopIteration as end:
                        self._datasets[asked_for] = end.value
                        break
                    if time.monotonic() - told > SIGN_OF_LIFE_S:
                        yield Progress(phase="data", share=share)
                        told = time.monotonic()
        return self._datasets[asked_for]


def _afresh(assignment: Assignment, device: torch.device) -> bool:
    """Whether a fork measures a network: see `fresh_measurement`.

    Not on a GPU, where it would take seconds to begin; nor what is to be compiled, which takes a fork longer than the
    neighbours should pause. Where there is no Linux, a process that has imported such libraries must not be forked.
    """
    compiles = assignment.deployment is not None and assignment.deployment.compile
    return device.type == "cpu" and not compiles and sys.platform == "linux" and fresh_processes() > 1
