"""What networks take on this machine: params, MACs, throughput, peak memory, a row for each."""

from __future__ import annotations

import dataclasses
import gc
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mlpspace.comparators import Comparator
from mlpspace.counts import counted, profile
from mlpspace.device import cores, describe, dtype_of, free_memory_bytes, key, usual_precision
from mlpspace.failure import failure_of
from mlpspace.fresh_process import fresh_processes
from mlpspace.measurement import Failure, Measurement
from mlpspace.memory import free
from mlpspace.nets import build, deploy
from mlpspace.objectives import Deployment
from mlpspace.peak_memory import peak_bytes
from mlpspace.quiet import QuietDevice
from mlpspace.runtime import selected
from mlpspace.subjects import Subject
from mlpspace.throughput import measure_throughput
from mlpspace.timing import LESS_PATIENCE_S, OTHERS_PATIENCE_S

ROUNDS = 3  # through all networks, so that a drift of the machine hits them alike
LONG_S = 20.0  # a measurement that takes longer has seen the drift itself, and is not made again


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network on one device; `reason` says why a measurement is missing."""

    subject: Subject
    params: int
    macs: int
    batch: int
    precision: str
    device: str
    threads: int
    measured: tuple[tuple[Measurement, Measurement], ...] = ()  # throughput and peak memory, of each round
    reason: str | None = None

    @property
    def disturbed(self) -> bool:
        """Whether other programs used the device in every round: the throughput tells of them, too."""
        return bool(self.measured) and all(speed.disturbed for speed, _ in self.measured)

    @property
    def throughput(self) -> tuple[float, float, float] | None:
        """Images/s: median of the rounds, lowest and highest end of their 95 % intervals; disturbed rounds are left
        out where there are others."""
        speeds = [speed for speed, _ in self.measured if self.disturbed or not speed.disturbed]
        if not speeds:
            return None
        middle = statistics.median(speed.value for speed in speeds)
        return middle, min(speed.low for speed in speeds), max(speed.high for speed in speeds)

    @property
    def peak_memory_mb(self) -> float | None:
        return self.measured[0][1].value if self.measured else None


def profiled(
    subjects: Sequence[Subject], *, batch: int, device: torch.device, precision: str | None = None
) -> Iterator[tuple[int, Row]]:
    """Measure each subject in turn, in several rounds; gives (its index, its row so far) once it is counted and
    after each measurement.

    A network is built for its measurement and gone after it, so that the largest alone has to fit. The weights are
    random, as neither speed nor memory hangs on them. What goes wrong with a network becomes the reason in its row.

    Args:
        precision: "fp32" or "bf16"; None: `device.usual_precision`.
    """
    fresh_processes()  # a setting that is none is told first, and not of each network
    quiet = QuietDevice(key(device))
    precision = precision or usual_precision(device)
    patience_s = OTHERS_PATIENCE_S
    rows: dict[int, Row] = {}
    for _ in range(ROUNDS):
        for index, subject in enumerate(subjects):
            if index not in rows:
                with quiet.busy():
                    rows[index] = _counted(subject, batch, device, precision)
                yield index, rows[index]
            row = rows[index]
            if row.reason or any(speed.seconds > LONG_S and not speed.disturbed for speed, _ in row.measured):
                continue
            found = _measured(row, device, quiet, patience_s)
            if isinstance(found, Failure):
                rows[index] = dataclasses.replace(row, reason=f"{found.reason}: {found.detail}")
            else:
                patience_s = LESS_PATIENCE_S if found[0].disturbed else OTHERS_PATIENCE_S
                rows[index] = dataclasses.replace(row, measured=(*row.measured, found), threads=found[0].threads)
            yield index, rows[index]


def _counted(subject: Subject, batch: int, device: torch.device, precision: str) -> Row:
    """The row as it is before anything is measured."""
    if isinstance(subject.network, Comparator):
        with torch.device("meta"):
            network = build(subject.network, subject.resolution, subject.classes)
        params, macs = counted(network, subject.resolution)
    else:
        counts = profile(subject.network, subject.resolution, subject.classes)
        params, macs = counts.params, counts.macs
    return Row(
        subject=subject,
        params=params,
        macs=macs,
        batch=batch,
        precision=precision,
        device=describe(device),
        threads=cores() if device.type == "cpu" else 1,
    )


def _measured(
    row: Row, device: torch.device, quiet: QuietDevice, patience_s: float
) -> tuple[Measurement, Measurement] | Failure:
    """Throughput and peak memory, once."""
    try:
        with quiet.busy():
            lacking = _lacking(row) if device.type == "cpu" else None
        with selected(device):
            return Failure("out of memory", lacking) if lacking else _throughput(row, device, quiet, patience_s)
    except Exception as error:
        failure = failure_of(error)
    finally:  # the error with its frames, and the network in them, is gone by now
        gc.collect()
        free(device)
    return failure


def _throughput(
    row: Row, device: torch.device, quiet: QuietDevice, patience_s: float
) -> tuple[Measurement, Measurement]:
    with quiet.busy():
        network = _deployed(row.subject)
    speed, memory, *_ = measure_throughput(
        network,
        resolution=row.subject.resolution,
        deployment=Deployment(batch=row.batch, precision=row.precision),
        device=device,
        quiet=quiet,
        patience_s=patience_s,
    )
    return speed, memory


def _deployed(subject: Subject) -> nn.Module:
    """The network in the form that is measured: a comparator as timm builds it, ours deployed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = build(subject.network, subject.resolution, subject.classes).eval()
    return network if isinstance(subject.network, Comparator) else deploy(network)


def _lacking(row: Row) -> str | None:
    """What of the main memory is missing for a measurement; None if it is enough, or if nobody knows."""
    free_bytes = free_memory_bytes()
    if free_bytes is None:
        return None
    side = row.subject.resolution
    with torch.device("meta"):
        network = _deployed(row.subject).to(dtype_of(row.precision))
        images = torch.empty(row.batch, 3, side, side, dtype=dtype_of(row.precision))
    needed = max(peak_bytes(network, images), 2 * 4 * row.params)  # a network is folded as a copy, in float32
    if needed <= free_bytes:
        return None
    return f"batch {row.batch} takes {needed / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} GB are free"
