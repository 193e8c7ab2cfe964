"""How fast the reference network is on this machine, and how much a quotient of speeds varies from process to process.

Two processes that time the same two networks do not find the same quotient: memory lies elsewhere, threads on other
cores, libraries chose other kernels. One process cannot see that of itself. So a machine is calibrated by several fresh
processes, once for each way of deployment, and what they found is kept on the node.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlpspace.data.cache import folder
from mlpspace.device import cores, describe, dtype_of, usual_precision
from mlpspace.errors import UserError
from mlpspace.fresh_process import FreshProcessError, answer, ask, fresh_processes
from mlpspace.memory import memory_kept
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import deployed, probe_architectures, random_images, reference_network
from mlpspace.runtime import fastest, selected
from mlpspace.timing import LESS_PATIENCE_S, all_cores, in_turns, others_compute

BUDGET_S = 0.5  # of each of a process's timings
ENOUGH = 3  # processes, where another program came then
PATIENCE_S = 120.0  # for a process
AGAIN_S = 120.0  # after which a machine that others disturbed is calibrated anew
VERSION = 1  # of the reference network and of what is kept

# What is believed of the spread before any process was asked, worth so many degrees of freedom: on a shared 2-core Xeon
# VM the quotients of 6 networks of spaces/hybrid.yaml to one reference varied by 1.1 to 2.3 % over 10 processes, of
# which 1.6 to 2.3 % were noise within the measurement (0.8 s each, torch 2.13, 2026-11-22). No GPU was asked.
BELIEF = {"cpu": 0.01, "cuda": 0.005}
BELIEF_FREEDOM = 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What there is to know of a machine before a network is timed on it."""

    reference: float  # images/s of the reference network
    error: float  # standard error of its logarithm, from process to process; 0.0: one process
    spread: float  # standard deviation between processes of a quotient's logarithm, beyond the noise within each
    freedom: float  # degrees of freedom of that
    processes: int
    undisturbed: bool = True  # False: other programs used the device meanwhile; serves for what is disturbed itself


@dataclass(frozen=True, slots=True)
class Found:
    """What one process found."""

    seconds: float  # of one pass of the reference
    ratios: tuple[tuple[float, float], ...]  # of each probe: logarithm, its error within the process
    undisturbed: bool


_known: dict[str, tuple[Calibration, float]] = {}  # of this process, with when it is to be asked for again


def calibrated(device: torch.device, resolution: int, deployment: Deployment, quiet: QuietDevice) -> Calibration:
    """The calibration of this machine, as it is kept on the node; made first where there is none.

    Others wait for it meanwhile, as for a measurement.

    Raises:
        UserError: a fresh process fails.
    """
    processes = fresh_processes()
    key = _key(device, resolution, deployment, processes)
    if _is_known(key):
        return _known[key][0]
    kept = folder() / f"calibration-{key}.json"
    with suppress(OSError):  # a folder that cannot be written: then each process calibrates for itself
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = _read(kept) or _made(device, resolution, deployment, quiet, processes)
            _know(key, found)
            if found.undisturbed:  # else the next process calibrates anew
                half = kept.with_suffix(f".{os.getpid()}.half")
                half.write_text(json.dumps(asdict(found)))
                half.replace(kept)
    if not _is_known(key):
        _know(key, _made(device, resolution, deployment, quiet, processes))
    return _known[key][0]


def _know(key: str, found: Calibration) -> None:
    """Keep it in this process: as long as it lives, if nobody disturbed."""
    _known[key] = found, math.inf if found.undisturbed else time.monotonic() + AGAIN_S


def _is_known(key: str) -> bool:
    return key in _known and time.monotonic() < _known[key][1]


def is_calibrated(device: torch.device, resolution: int, deployment: Deployment) -> bool:
    """Whether `calibrated` would answer at once."""
    key = _key(device, resolution, deployment, fresh_processes())
    return _is_known(key) or _read(folder() / f"calibration-{key}.json") is not None


def combined(found: Sequence[Found], batch: int, device_type: str) -> Calibration:
    """What several processes found, taken together.

    The spread is that of the probes' quotients, pooled, less the noise within each process, and pooled with what is
    believed beforehand as if it were so many degrees of freedom more.
    """
    logs = np.log([batch / each.seconds for each in found])
    freedom, squares = BELIEF_FREEDOM, BELIEF_FREEDOM * BELIEF[device_type] ** 2
    if len(found) > 1:
        values = np.array([[ratio for ratio, _ in each.ratios] for each in found])  # (processes, probes)
        errors = np.array([[error for _, error in each.ratios] for each in found])
        beyond = np.maximum(0.0, values.var(axis=0, ddof=1) - np.square(errors).mean(axis=0))
        freedom += beyond.size * (len(found) - 1)
        squares += float(beyond.sum()) * (len(found) - 1)
    return Calibration(
        reference=float(np.exp(np.median(logs))),
        error=float(logs.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else 0.0,
        spread=math.sqrt(squares / freedom),
        freedom=freedom,
        processes=len(found),
        undisturbed=all(each.undisturbed for each in found),
    )


def _key(device: torch.device, resolution: int, deployment: Deployment, processes: int) -> str:
    asked = deployment.precision or usual_precision(device)
    told = [VERSION, describe(device), cores(), torch.__version__, resolution, deployment.batch, asked]
    digest = hashlib.sha256(json.dumps([*told, processes]).encode())
    return digest.hexdigest()[:16]


def _read(kept: Path) -> Calibration | None:
    try:
        found = Calibration(**json.loads(kept.read_text()))
        right = found.reference > 0 and found.spread >= 0 and found.freedom > 0 and math.isfinite(found.reference)
    except (OSError, ValueError, TypeError):  # there is none, or it is not ours: it is only a cache
        return None
    return found if right else None


def _made(
    device: torch.device,
    resolution: int,
    deployment: Deployment,
    quiet: QuietDevice,
    processes: int,
) -> Calibration:
    found: list[Found] = []
    with quiet.alone():
        if processes == 1:
            found.append(in_this_process(device, resolution, deployment, quiet.file, probes=False))
        # once disturbed, more of the same would take long and tell nothing of the machine
        while len(found) < processes and all(each.undisturbed for each in found):
            found.append(_in_a_fresh_process(device, resolution, deployment, quiet.file))
    calm = [each for each in found if each.undisturbed]
    return combined(calm if len(calm) >= min(processes, ENOUGH) else found[-1:], deployment.batch, device.type)


def in_this_process(
    device: torch.device, resolution: int, deployment: Deployment, shared: Path, *, probes: bool
) -> Found:
    """The reference's speed, and the probes beside it.

    Args:
        shared: the file that those of ours have open who share the device: see `timing.others_compute`.
    """
    dtype = dtype_of(deployment.precision or usual_precision(device))
    reference = reference_network(resolution, device, dtype)
    images = random_images(deployment.batch, resolution, device, dtype)
    others = [deployed(each, resolution) for each in probe_architectures(resolution)] if probes else [reference]
    seconds: list[float] = []
    ratios: list[tuple[float, float]] = []
    undisturbed = True
    with all_cores(device), torch.inference_mode(), memory_kept(device):
        beside, _ = fastest(reference, images, device)
        for other in others:
            other = other.to(device=device, dtype=dtype)
            work, _ = fastest(other, images, device)
            pairs = in_turns(work, beside, device, budget_s=BUDGET_S, patience_s=LESS_PATIENCE_S)
            seconds.append(pairs.reference_seconds)
            undisturbed &= pairs.undisturbed
            if probes:
                ratios.append(pairs.ratio())
    undisturbed &= not (device.type == "cuda" and others_compute(device, shared))
    return Found(float(np.median(seconds)), tuple(ratios), undisturbed)


def _in_a_fresh_process(device: torch.device, resolution: int, deployment: Deployment, shared: Path) -> Found:
    told = [str(device), resolution, deployment.batch, deployment.precision, str(shared)]
    try:
        found = ask("mlpspace.calibration", told, timeout_s=PATIENCE_S)
    except FreshProcessError as error:
        raise UserError(
            f"The clock of {describe(device)} cannot be calibrated, as a fresh process failed: {error}\n"
            "  To do without fresh processes: export MLPSPACE_CALIBRATION=1"
        ) from error
    return Found(found["seconds"], tuple((ratio, error) for ratio, error in found["ratios"]), found["undisturbed"])


def _answer(told: list[Any]) -> dict[str, Any]:
    device, resolution, batch, precision, shared = torch.device(told[0]), *told[1:]
    with selected(device):
        return asdict(in_this_process(device, resolution, Deployment(batch, precision), Path(shared), probes=True))


if __name__ == "__main__":
    answer(_answer)
