"""One worker's process: keeps the device, the dataset and the warm libraries from trial to trial."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mlpspace import device
from mlpspace.data import Dataset, load
from mlpspace.evaluate import evaluate
from mlpspace.measurement import Assignment, Event, Progress
from mlpspace.quiet import QuietDevice

SPLIT_SEED = 0  # of the validation split: one split for all studies of a dataset, whatever their seed


@dataclass(slots=True)
class Worker:
    """Evaluates assignments on one device."""

    device_name: str  # "auto", "cpu", "cuda" or "cuda:1"
    threads: int  # of the CPU, for training; a throughput measurement takes all of the machine
    _device: torch.device | None = None
    _quiet: QuietDevice | None = None
    _datasets: dict[tuple[object, ...], Dataset] = field(default_factory=dict)

    def events(self, assignment: Assignment, bounds: Mapping[str, tuple[float, float]]) -> Generator[Event, None, None]:
        """What happens to one trial, as it happens.

        Raises:
            UserError: the device or the dataset is not what was asked for; no trial can be evaluated here.
        """
        if self._device is None or self._quiet is None:
            torch.set_num_threads(self.threads)
            self._device = device.resolve(self.device_name)
            self._quiet = QuietDevice(device.key(self._device))
        yield Progress(phase="data")
        dataset = self._dataset(assignment)
        yield from evaluate(assignment, dataset=dataset, device=self._device, quiet=self._quiet, require=bounds)

    def _dataset(self, assignment: Assignment) -> Dataset:
        asked: dict[str, Any] = {
            "resolution": assignment.resolution,
            "classes": assignment.classes,
            "images": assignment.images,
            "validation": assignment.validation,
        }
        key = (assignment.dataset, assignment.data_path, *asked.values())
        if key not in self._datasets:
            assert self._device is not None
            self._datasets.clear()  # one study has one dataset; never hold two on a device
            loaded = load(assignment.dataset, assignment.data_path, **asked, seed=SPLIT_SEED)
            self._datasets[key] = loaded.to(self._device)
        return self._datasets[key]
