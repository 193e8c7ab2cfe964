"""What goes from the search to a worker (Assignment) and what comes back (Measurement, Progress, Failure)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mlpspace.architecture import Architecture
from mlpspace.objectives import Deployment
from mlpspace.recipe import Recipe

THROUGHPUT_PROTOCOL = "deployed-eval-v2"  # see `throughput.measure_throughput`
COMPILED = ", compiled"  # by torch.compile: compares with what was compiled too
DISTURBED = ", disturbed"  # other programs never left the device alone: compares with nothing

Z95 = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One trial as a worker needs it: plain values, nothing of the study."""

    trial: int
    attempt: int  # 1 for the first; a trial that was cut off is handed out again
    architecture: Architecture
    recipe: Recipe
    resolution: int  # pixels
    classes: int
    dataset: str
    data_path: str | None  # where it lives; None for the embedded ones
    images: int | None  # so many training images, stratified; None: all
    validation: float  # share of the training set that is held out
    epochs: tuple[int, ...]  # the rungs, rising; training ends with the last
    seed: int
    deployment: Deployment | None  # how throughput is measured; None: it is not measured
    measure_only: bool = False  # throughput and memory; another worker trains it
    timeout_s: float | None = None  # wall time that the training may take in all; None: no limit
    checkpoint_s: float = 15.0  # wall time between two checkpoints, about
    resident: int | None = None  # bytes of images that may lie on the device; None: a quarter of its free memory
    repeat: int = 0  # 0: the trial itself; k: its k-th training anew, with another seed, or its k-th measuring
    remeasure: bool = False  # throughput alone, by a fresh process
    state: bytes | None = field(default=None, repr=False, compare=False)  # to go on from: see `Checkpoint`


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its circumstances; what the front may compare hangs on them.

    `metric` is one of accuracy (%, validation split), throughput (images/s, deployed form), peak_memory_mb, energy_mj
    (an image's).
    `low` and `high` bound it: one standard error either side for accuracy, the 95 % interval of the median for
    throughput. `rung` counts from 0; `rung` and `epochs` are None for what needs no training.
    """

    metric: str
    value: float
    low: float
    high: float
    seconds: float  # what it took to get it
    protocol: str  # names the way it was measured; two protocols do not compare
    device: str
    batch: int
    precision: str  # "fp32", "bf16"
    threads: int
    rung: int | None = None
    epochs: int | None = None
    data: str | None = None  # fingerprint of the images it was trained and validated on
    micro_batch: int | None = None  # images at once where the batch did not fit and gradients were added up
    reference: float | None = None  # of a throughput: images/s of the reference network that it is scaled to
    runtime: str | None = None  # of a throughput: "plain" or "cuda graph"
    fingerprint: str | None = None  # JSON of `fingerprint.Fingerprint`: the device's clocks, driver, libraries

    @property
    def disturbed(self) -> bool:
        """Whether other programs used the device meanwhile: the value is off by an unknown factor."""
        return self.protocol.endswith(DISTURBED)

    @property
    def on_cpu(self) -> bool:
        """Whether its device is a CPU: `device.describe` tells the cores of these, and of nothing else."""
        return self.device.endswith((" core", " cores"))

    @property
    def threads_that_count(self) -> int | None:
        """Those that a speed hangs on; None on a GPU, which one thread feeds, however many its process may have."""
        return self.threads if self.on_cpu else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A sign of life between measurements: shown, never stored."""

    phase: str  # "data", "throughput", "calibrating", "training"
    epoch: int = 0  # finished ones
    epochs: int = 0
    loss: float | None = None
    accuracy: float | None = None  # %, validation split
    share: float | None = None  # of a dataset that is being decoded: how much of it is, 0 to 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after so many epochs, from which any worker can go on.

    It comes just before a rung's measurement, and now and then on the way. That of the last rung holds the network's
    weights alone: nothing goes on from there.
    """

    epochs: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial ended without its last measurement. The reason is a word the front counts by, `detail` says more."""

    reason: str  # "out of memory", "not a number", "divergent loss", "time limit", "broken requirement", "error"
    detail: str


Event: TypeAlias = Measurement | Progress | Checkpoint | Failure
Evaluate: TypeAlias = Callable[[Assignment, Mapping[str, tuple[float, float]]], Generator[Event, None, None]]
"""What a worker does: an assignment, and closed bounds on what is measured -> what happens, as it happens."""
