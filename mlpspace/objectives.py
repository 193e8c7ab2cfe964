"""What a search is after: the objectives of a space file, and how a value becomes a cost.

Inside mlpspace everything is a cost, smaller is better; the sign flips here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that can be an objective or be required of a network."""

    goal: str  # what anyone wants of it: "maximize" or "minimize"
    unit: str
    trained: bool = False  # it takes training to know it
    measured: bool = False  # it takes a device to know it


METRICS: dict[str, Metric] = {
    "accuracy": Metric("maximize", "%", trained=True, measured=True),
    "throughput": Metric("maximize", "images/s", measured=True),
    "params": Metric("minimize", ""),
    "macs": Metric("minimize", ""),
    "peak_memory_mb": Metric("minimize", "MB", measured=True),
    "energy_mj": Metric("minimize", "mJ/image", measured=True),  # where the device counts it
}


@dataclass(frozen=True, slots=True)
class Objective:
    """One axis of the front.

    `worst` is that axis of the hypervolume's reference point, in the metric's own unit. With `scale` "log" the axis
    is measured in factors of ten.
    """

    metric: str  # a name of METRICS
    goal: str  # "maximize" or "minimize"
    worst: float
    scale: str = "linear"  # or "log"

    def cost(self, value: float) -> float:
        """`value` with smaller better, on the axis's scale. `worst` has a cost too: `objective.cost(worst)`."""
        if self.scale == "log":
            value = math.log10(value) if value > 0 else -math.inf
        return float(-value if self.goal == "maximize" else value)


@dataclass(frozen=True, slots=True)
class Deployment:
    """How networks are going to be used: throughput and memory are measured so."""

    batch: int = 64  # images at once
    precision: str | None = None  # "fp32" or "bf16"; None: `device.usual_precision`
    compile: bool = False  # by torch.compile
    device: str | None = None  # a word of its name, or "cpu"; None: the one that trains


def corner(objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The hypervolume's reference point, as costs."""
    return tuple(objective.cost(objective.worst) for objective in objectives)


def costs(objectives: Sequence[Objective], values: Mapping[str, float]) -> tuple[float, ...]:
    """The costs of one network, one for each objective, in their order."""
    return tuple(objective.cost(values[objective.metric]) for objective in objectives)
