"""One worker's process: keeps the device, the dataset and the warm libraries from trial to trial."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mlpspace.data import Dataset, load
from mlpspace.device import key, resolve
from mlpspace.evaluate import evaluate
from mlpspace.measurement import Assignment, Event, Measurement, Progress
from mlpspace.quiet import QuietDevice
from mlpspace.throughput import LESS_PATIENCE_S, OTHERS_PATIENCE_S

SPLIT_SEED = 0  # of the validation split: one split for all studies of a dataset, whatever their seed


@dataclass(slots=True)
class Worker:
    """Evaluates assignments on one device."""

    device_name: str  # "auto", "cpu", "cuda" or "cuda:1"
    threads: int  # of the CPU, for training; a throughput measurement takes all of the machine
    here: Callable[[str], str] = lambda path: path  # where a dataset lies on this node, if not where the driver has it
    _device: torch.device | None = None
    _quiet: QuietDevice | None = None
    _patience_s: float = OTHERS_PATIENCE_S
    _datasets: dict[tuple[object, ...], Dataset] = field(default_factory=dict)

    def events(self, assignment: Assignment, bounds: Mapping[str, tuple[float, float]]) -> Generator[Event, None, None]:
        """What happens to one trial, as it happens.

        Raises:
            UserError: the device or the dataset is not what was asked for; no trial can be evaluated here.
        """
        if self._device is None or self._quiet is None:
            torch.set_num_threads(self.threads)
            self._device = resolve(self.device_name)
            self._quiet = QuietDevice(key(self._device))
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # for whatever takes the current device without asking
        yield Progress(phase="data")
        dataset = self._dataset(assignment, self._device, self._quiet)
        for event in evaluate(
            assignment,
            dataset=dataset,
            device=self._device,
            quiet=self._quiet,
            require=bounds,
            patience_s=self._patience_s,
        ):
            if isinstance(event, Measurement) and event.metric == "throughput":
                self._patience_s = LESS_PATIENCE_S if event.disturbed else OTHERS_PATIENCE_S
            yield event

    def _dataset(self, assignment: Assignment, device: torch.device, quiet: QuietDevice) -> Dataset:
        asked: dict[str, Any] = {
            "resolution": assignment.resolution,
            "classes": assignment.classes,
            "images": assignment.images,
            "validation": assignment.validation,
        }
        asked_for = (assignment.dataset, assignment.data_path, *asked.values())
        if asked_for not in self._datasets:
            self._datasets.clear()  # one study has one dataset; never hold two on a device
            path = None if assignment.data_path is None else self.here(assignment.data_path)
            with quiet.busy():  # decoding takes a core that a neighbour may be measuring on
                loaded = load(assignment.dataset, path, **asked, seed=SPLIT_SEED)
                self._datasets[asked_for] = loaded.to(device)
        return self._datasets[asked_for]
