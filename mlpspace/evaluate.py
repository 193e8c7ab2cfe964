"""All that a worker does for one assignment."""

from __future__ import annotations

import gc
from collections.abc import Generator, Mapping

import torch

from mlpspace.architecture import Architecture
from mlpspace.calibration import is_calibrated
from mlpspace.counts import counted, profile
from mlpspace.data import Dataset
from mlpspace.errors import DeviceLost, UserError
from mlpspace.failure import failure_of
from mlpspace.fresh_measurement import (
    Asked,
    NotMeasured,
    measured_by_a_fork,
    measured_by_a_fresh_process,
    measured_while_others_give_way,
)
from mlpspace.fresh_process import FreshProcessError
from mlpspace.measurement import Assignment, Event, Failure, Measurement, Progress
from mlpspace.memory import free, out_of_memory
from mlpspace.nets import build, deploy
from mlpspace.nets.network import Network
from mlpspace.objectives import METRICS
from mlpspace.processes import others_share
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.runtime import selected
from mlpspace.throughput import measure_throughput
from mlpspace.timing import OTHERS_PATIENCE_S
from mlpspace.wall_time import spent

COUNT_TOLERANCE = 1e-3  # relative; more apart, and one of two counts is wrong


def evaluate(
    assignment: Assignment,
    *,
    dataset: Dataset | None,
    device: torch.device,
    quiet: QuietDevice,
    measured_on: torch.device | None = None,
    afresh: bool = False,
    require: Mapping[str, tuple[float, float]] = {},
    patience_s: float = OTHERS_PATIENCE_S,
    shared: bool = False,
) -> Generator[Event, None, None]:
    """Build the network, check its counts, measure it, train it; tell each thing as soon as it is known.

    A training goes on from `assignment.state`, where there is one, and ends where it takes longer than
    `assignment.timeout_s`.

    It may be closed at any point, and frees the device's memory however it ends. Nothing that goes wrong with the
    network is raised: it becomes a Failure, which is then the last event.

    Raises:
        DataError: the images cannot be read any more.
        DeviceLost: every further call in this process would fail; the trial deserves another.

    Args:
        dataset: on `device`; None for an assignment that is to be measured only.
        quiet: of the device that is measured on, and busy on both; see `QuietBeside`.
        measured_on: the device that networks are going to run on; None: `device`.
        afresh: measure in a process that did nothing before. In one that has trained on a CPU a network may be several
            percent slower: which memory it gets hangs on what was freed.
        patience_s: seconds that a throughput measurement waits for other programs to leave the CPU alone.
        require: closed bounds on "throughput" and "peak_memory_mb"; a network outside one is not trained.
        shared: other workers use `device` too; see `train`.
    """
    try:
        yield from _evaluate(
            assignment,
            dataset=dataset,
            device=device,
            quiet=quiet,
            measured_on=measured_on or device,
            afresh=afresh,
            require=require,
            patience_s=patience_s,
            shared=shared,
        )
        return
    except UserError:  # images cannot be read, or the clock cannot be calibrated: nothing that the network did
        raise
    except Exception as error:
        failure = error.failure if isinstance(error, NotMeasured) else failure_of(error)
        if failure.reason == "error" and isinstance(error, torch.AcceleratorError):  # an illegal access, a lost card
            raise DeviceLost(f"{device} fails: {str(error).splitlines()[0]}") from error
    finally:
        if device.type == "cuda":
            gc.collect()  # the first optimizer of a process, by its imports, is in a circle with what made it
        free(device)
        free(measured_on or device)
    # only here: the error with its frames, and the network in them, is gone by now
    gc.collect()
    free(device)
    free(measured_on or device)
    yield failure


def fresh_network(architecture: Architecture, resolution: int, classes: int, *, seed: int) -> Network:
    """A network as a trial of that seed starts it; torch's global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(architecture, resolution, classes)


def _evaluate(
    assignment: Assignment,
    *,
    dataset: Dataset | None,
    device: torch.device,
    quiet: QuietDevice,
    measured_on: torch.device,
    afresh: bool,
    require: Mapping[str, tuple[float, float]],
    patience_s: float,
    shared: bool,
) -> Generator[Event, None, None]:
    if assignment.remeasure:
        yield from _measured_again(assignment, measured_on, quiet, patience_s)
        return
    with quiet.busy():  # on a CPU this too is work that would disturb a measurement
        network = fresh_network(
            assignment.architecture, assignment.resolution, assignment.classes, seed=assignment.seed
        )
        arithmetic = profile(assignment.architecture, assignment.resolution, assignment.classes)
        params, macs = counted(network, assignment.resolution)
    for what, told, found in (("params", arithmetic.params, params), ("MACs", arithmetic.macs, macs)):
        if abs(told - found) > COUNT_TOLERANCE * found:
            yield Failure("error", f"{what}: {told:,} by arithmetic, {found:,} counted in the network")
            return
    if assignment.deployment is not None:
        yield Progress(phase="throughput", epochs=assignment.epochs[-1])
        if not is_calibrated(measured_on, assignment.resolution, assignment.deployment):
            yield Progress(phase="calibrating", epochs=assignment.epochs[-1])
        with spent("measuring"):
            if afresh:
                measured = measured_by_a_fork(_asked(assignment, measured_on, patience_s), quiet)
            else:
                measured = _measured(network, assignment, measured_on, quiet, patience_s)
        yield from measured
        # what other programs slowed down says nothing against a network
        judged = [m for m in measured if m.metric in require and not m.disturbed]
        broken = [_broken(m, *require[m.metric]) for m in judged]
        reasons = [reason for reason in broken if reason]
        if reasons:
            yield Failure("broken requirement", "; ".join(reasons))
            return
    if assignment.measure_only:
        return
    assert dataset is not None
    yield Progress(phase="training", epochs=assignment.epochs[-1])
    with quiet.busy():
        network = network.to(device)
    with spent("training"):
        yield from train(
            network,
            dataset,
            recipe=assignment.recipe,
            epochs=assignment.epochs,
            seed=assignment.seed,
            device=device,
            quiet=quiet,
            state=assignment.state,
            timeout_s=assignment.timeout_s,
            checkpoint_s=assignment.checkpoint_s,
            shared=shared,
        )


def _measured(
    network: Network, assignment: Assignment, device: torch.device, quiet: QuietDevice, patience_s: float
) -> tuple[Measurement, ...]:
    """In this process; where a GPU that others share has not enough memory, in another one while they give way."""
    assert assignment.deployment is not None
    with quiet.busy():
        deployed = deploy(network.eval())
    try:
        with selected(device):
            return measure_throughput(
                deployed,
                resolution=assignment.resolution,
                deployment=assignment.deployment,
                device=device,
                quiet=quiet,
                patience_s=patience_s,
            )
    except Exception as error:
        if not (out_of_memory(error) and _shared(device, quiet)):
            raise
    # only here: the error with its frames, and what they hold, is gone by now
    del deployed
    gc.collect()
    free(device)
    return measured_while_others_give_way(_asked(assignment, device, patience_s), quiet)


def _shared(device: torch.device, quiet: QuietDevice) -> bool:
    """Whether a device is a GPU on which others of ours hold memory."""
    return device.type == "cuda" and others_share(quiet.file)


def _measured_again(
    assignment: Assignment, device: torch.device, quiet: QuietDevice, patience_s: float
) -> Generator[Event, None, None]:
    """The throughput once more."""
    yield Progress(phase="throughput", epochs=assignment.epochs[-1])
    try:
        with spent("measuring"):
            measured = measured_by_a_fresh_process(_asked(assignment, device, patience_s), quiet)
    except FreshProcessError as error:  # then the throughput stays as it is known
        yield Failure("error", f"a fresh process to measure it again failed: {error}")
        return
    yield measured


def _asked(assignment: Assignment, device: torch.device, patience_s: float) -> Asked:
    assert assignment.deployment is not None
    return Asked(
        architecture=assignment.architecture,
        resolution=assignment.resolution,
        classes=assignment.classes,
        deployment=assignment.deployment,
        device=device,
        patience_s=patience_s,
    )


def _broken(measurement: Measurement, low: float, high: float) -> str | None:
    """What bound the measured value breaks; None if it keeps both."""
    if low <= measurement.value <= high:
        return None
    bound = f"at least {low:g}" if measurement.value < low else f"at most {high:g}"
    unit = METRICS[measurement.metric].unit
    return f"{measurement.metric} {measurement.value:.4g} {unit}, {bound} required"
