"""How many workers a cluster holds, and what each of them gets. Knows no Ray: nodes are what Ray says of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from mlpspace.errors import UserError


class EngineError(UserError):
    """Ray cannot do what was asked; the text says what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked for; None: what suits the machines."""

    workers: int | None = None
    gpus_per_worker: float | None = None
    address: str | None = None  # of a running cluster; None starts Ray here
    device: str = "auto"
    data_path: str | None = None  # the dataset's on this machine; None: an embedded one
    measures_on: str | None = None  # a name of the device that networks are going to run on; None: the one that trains


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What each worker gets."""

    workers: int
    cpus: float
    gpus: float
    threads: int  # of torch
    device: str
    slots: int  # workers that would find room

    @property
    def shared(self) -> bool:
        """Whether several workers may have one device."""
        return self.gpus < 1


def plan(wanted: Wanted, nodes: list[dict[str, float]]) -> Resources:
    """What each worker gets on nodes with these resources (Ray's "CPU" and "GPU").

    By default one worker per GPU where there are any, else one per core and at most 8 a node; a node's cores are
    shared out among its workers.

    Raises:
        EngineError: no node can hold a worker; it would be waited for without end.
    """
    on_gpus = wanted.device != "cpu" and (
        wanted.device.startswith("cuda") or any(node.get("GPU", 0) > 0 for node in nodes)
    )
    gpus = wanted.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if on_gpus else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise EngineError(f"--gpus-per-worker {gpus:g}: above 1 it is a whole number.")
    slots = [int(node.get("GPU", 0) / gpus) if gpus else min(int(node.get("CPU", 0)), 8) for node in nodes]
    if not any(slots):
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise EngineError(
            f"No node can hold a worker with {gpus:g} GPUs. Nodes have: {have}.\n"
            "  Lower --gpus-per-worker, or search with --device cpu."
        )
    workers = wanted.workers or sum(slots)
    holding = [node for node, slot in zip(nodes, slots, strict=True) if slot]
    cores = min(node.get("CPU", 1) for node in holding)
    share = cores / math.ceil(workers / len(holding))
    cpus = float(int(share)) if share > 1 else math.floor(1000 * share) / 1000  # Ray takes fractions below 1 only
    return Resources(
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        threads=max(1, int(cpus)),
        device=wanted.device if gpus or wanted.device != "auto" else "cpu",
        slots=_slots(nodes, cpus, gpus),
    )


def widened(resources: Resources, wanted: Wanted, nodes: list[dict[str, float]]) -> Resources:
    """The same share for each worker on other nodes than before: as many workers as find room, if nobody said how many.

    0 where no node is left that holds one: they are waited for.
    """
    slots = _slots(nodes, resources.cpus, resources.gpus)
    return dataclasses.replace(resources, workers=wanted.workers or slots, slots=slots)


def holds(node: dict[str, float], resources: Resources) -> bool:
    """Whether a worker finds room on a node."""
    return _slots([node], resources.cpus, resources.gpus) > 0


def _slots(nodes: list[dict[str, float]], cpus: float, gpus: float) -> int:
    """How many workers of that share find room."""
    rooms = [int(node.get("CPU", 0) / cpus + 1e-9) for node in nodes]
    if gpus:
        rooms = [min(room, int(node.get("GPU", 0) / gpus + 1e-9)) for room, node in zip(rooms, nodes, strict=True)]
    return sum(rooms)
