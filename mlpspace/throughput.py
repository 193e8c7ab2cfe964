"""Throughput and peak memory of a network by the clock, with the statistics."""

from __future__ import annotations

import dataclasses
import math
import time

import torch
from scipy import stats
from torch import nn

from mlpspace.calibration import Calibration, calibrated
from mlpspace.device import describe, dtype_of, usual_precision
from mlpspace.energy import ENERGY_PROTOCOL, energy_per_image
from mlpspace.fingerprint import fingerprint
from mlpspace.measurement import COMPILED, DISTURBED, Measurement
from mlpspace.measurement import THROUGHPUT_PROTOCOL as THROUGHPUT_PROTOCOL
from mlpspace.memory import memory_kept
from mlpspace.objectives import Deployment
from mlpspace.peak_memory import MEMORY_PROTOCOL, peak_bytes
from mlpspace.quiet import QuietDevice
from mlpspace.reference import random_images, reference_network
from mlpspace.runtime import compiled, fastest, may_capture
from mlpspace.timing import OTHERS_PATIENCE_S, all_cores, in_turns, others_compute
from mlpspace.wall_time import spent

DISTURBED_PROTOCOL = THROUGHPUT_PROTOCOL + DISTURBED


def measure_throughput(
    network: nn.Module,
    *,
    resolution: int,
    deployment: Deployment,
    device: torch.device,
    quiet: QuietDevice,
    calibration: Calibration | None = None,
    budget_s: float = 0.8,
    patience_s: float = OTHERS_PATIENCE_S,
) -> tuple[Measurement, ...]:
    """Throughput (images/s) and peak memory (MB of 10^6 bytes) of a deployed network; energy where the device tells it.

    Protocol deployed-eval-v2: eval and inference_mode, weights and images in the deployment's precision, one batch of
    normal random images that already lies on the device, nothing else of ours running there, all cores on a CPU. After
    warm-up, windows of at least 10 ms of successive forward passes, in turns with windows of the reference network
    (`reference`), those left out during which other programs used a CPU. The value is the median quotient of the two
    speeds, times the reference's images/s on this machine as it was calibrated (`calibration`): what the machine does
    to both in that minute cancels. The 95 % interval holds the noise within this measurement (bootstrap of the median)
    and what the quotient varies from process to process, as calibrated. The error of the calibration itself is not
    in it: it is the same for all networks. Where others never leave the CPU alone, all windows count and the protocol
    says "disturbed". So does that of throughput and of energy where another program computes on the GPU
    (`timing.others_compute`).

    With `deployment.compile` the network goes through torch.compile; the reference does not. On CUDA the passes are
    replayed as a CUDA graph where that is faster. In a process that can capture none any more (`runtime.may_capture`)
    the reference does not run as it was calibrated, and the protocol says "disturbed", too.

    Peak memory is weights, plus the images, plus the most that one forward pass holds beside them. On CUDA
    (allocator-peak-v1) the caching allocator tells. On a CPU (live-tensors-v1) it is the sum of all tensors alive at
    once; scratch space inside a kernel is not seen. It is that of the network as it is, not compiled.

    Args:
        network: takes (batch, 3, resolution, resolution). It is moved and cast in place: hand over a copy, such as
            `nets.deploy` makes.
        calibration: of the machine; None: the one that is kept on this node, made first if there is none.
        budget_s: seconds to spend, the reference's among them. A slow network takes longer, and so does a CPU that
            other programs use: see `timing.in_turns`.
        patience_s: seconds to wait for those other programs to leave the CPU alone.

    Raises:
        UserError: torch.compile is asked for and does not work here.
    """
    precision = deployment.precision or usual_precision(device)
    dtype = dtype_of(precision)
    calibration = calibration or calibrated(device, resolution, deployment, quiet)
    with quiet.busy():
        network = network.to(device=device, dtype=dtype).eval()
        reference = reference_network(resolution, device, dtype)
        images = random_images(deployment.batch, resolution, device, dtype)
        runnable: nn.Module = network
        if deployment.compile:
            with spent("compiling"), all_cores(device):  # with other threads torch would compile it anew
                runnable = compiled(network, images, simple=reference)

    with quiet.alone(), all_cores(device) as threads:
        started = time.perf_counter()
        peak_mb = peak_bytes(network, images) / 1e6  # first, as it is a cold pass that the clock must not see
        memory_seconds = time.perf_counter() - started
        # memory kept: or what this process did before would decide how fast it comes
        with torch.inference_mode(), memory_kept(device):
            alike = may_capture()  # the reference first, as a network that cannot be captured may end all capturing
            beside, _ = fastest(reference, images, device)
            forward, runtime = fastest(runnable, images, device)
            pairs = in_turns(forward, beside, device, budget_s=budget_s, patience_s=patience_s)
            seconds = time.perf_counter() - started - memory_seconds
            energy = energy_per_image(forward, batch=deployment.batch, device=device)
            energy_seconds = time.perf_counter() - started - memory_seconds - seconds
        facts = fingerprint(device)  # before it rests, which a clock does at once
        others = device.type == "cuda" and others_compute(device, quiet.file)
    # a clock as it stood that moment, in steps of 100 MHz: else every measurement had circumstances of its own
    facts = dataclasses.replace(facts, mhz=None if facts.mhz is None else round(facts.mhz, -2))
    if not calibration.undisturbed:  # it may be wrong by any factor; this minute's images/s are what there is
        calibration = dataclasses.replace(calibration, reference=deployment.batch / pairs.reference_seconds)
    value, low, high = in_images(pairs.ratio(), calibration)
    undisturbed = pairs.undisturbed and calibration.undisturbed and alike and not others
    protocol = THROUGHPUT_PROTOCOL + COMPILED * deployment.compile + DISTURBED * (not undisturbed)

    def told(metric: str, protocol: str, value: float, low: float, high: float, seconds: float) -> Measurement:
        return Measurement(
            metric=metric,
            value=value,
            low=low,
            high=high,
            seconds=seconds,
            protocol=protocol,
            device=describe(device),
            batch=deployment.batch,
            precision=precision,
            threads=threads,
            reference=calibration.reference if metric == "throughput" else None,
            runtime=runtime if metric == "throughput" else None,
            fingerprint=facts.to_json(),
        )

    found = [
        told("throughput", protocol, value, low, high, seconds),
        told("peak_memory_mb", MEMORY_PROTOCOL[device.type], peak_mb, peak_mb, peak_mb, memory_seconds),
    ]
    if energy is not None:
        protocol = ENERGY_PROTOCOL + COMPILED * deployment.compile + DISTURBED * others
        found.append(told("energy_mj", protocol, *energy, energy_seconds))
    return tuple(found)


def in_images(ratio: tuple[float, float], calibration: Calibration) -> tuple[float, float, float]:
    """Images/s of a network whose pass takes so many of the reference's: (value, low, high), a 95 % interval.

    Args:
        ratio: as a logarithm, with its standard error within the measurement: `Pairs.ratio`.
    """
    log_ratio, error = ratio
    value = calibration.reference * math.exp(-log_ratio)
    # the error between processes is itself known from few of them: Student's t, by Welch and Satterthwaite
    variance = error**2 + calibration.spread**2
    freedom = variance**2 / (calibration.spread**4 / calibration.freedom) if calibration.spread else math.inf
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return value, value * math.exp(-half), value * math.exp(half)
