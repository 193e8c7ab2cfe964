"""A study's trial trained again. A study keeps the weights of its front, and all that it takes to come to others."""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch

from mlpspace.checkpoints import Checkpoints
from mlpspace.data import Dataset, catalog, load
from mlpspace.deploy_device import DeviceMissing, measuring_device
from mlpspace.device import cores, describe, resolve, training_precision
from mlpspace.domain import SpaceDomain
from mlpspace.engines.worker import SPLIT_SEED
from mlpspace.errors import DataError, StudyError, UserError
from mlpspace.evaluate import evaluate, fresh_network
from mlpspace.failure import failure_of
from mlpspace.measurement import Failure, Measurement, Progress
from mlpspace.memory import out_of_memory
from mlpspace.nets.network import Network
from mlpspace.proxy import PROTOCOL, train
from mlpspace.quiet import QuietDevice, quiet_on
from mlpspace.report import duration, epochs_text
from mlpspace.space import Space
from mlpspace.study import Study
from mlpspace.trial import SET_ASIDE, Epoch, Record, Trial

TIME_LIMIT = "time limit"  # a failure that hangs on how fast the machine is
NOT_TRAINED = (SET_ASIDE, "broken requirement")  # reasons of trials that ended before their training


def retrained(
    study: Study,
    trial: Trial,
    space: Space,
    *,
    data: Mapping[str, str],
    device_name: str = "auto",
    write: Callable[[str], None],
) -> Network:
    """The network of a trial: with the weights that the search kept, else trained as the trial was, with the same
    weights to start from, recipe, images and their order.

    A trial that paused or was stopped at a rung is trained as far, on its way through the whole schedule.
    On the CPU that it was trained on, with as many threads, it becomes the same network; elsewhere a sibling whose
    accuracy is near. Nothing is written into the study.

    Args:
        space: of the study.
        data: dataset -> where it lives, as `--data` says it; else it is sought where the study found it.
        write: hears how it goes, line by line.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        UserError: the dataset or the device is not there, or the training failed.
    """
    fidelity = space.fidelity
    place = _place(study, space, data)
    device = resolve(device_name)
    kept = _kept(study, trial, space, write)
    if kept is not None:
        return kept
    before = trial.measurements.get("accuracy")
    reached = _reached(before, fidelity.epochs)
    write(f"The weights were not kept: {_announcement(trial, space, reached, describe(device))}")
    try:
        with _at_work(space, place, device, threads=before.threads if before else cores()) as (dataset, quiet):
            with quiet.busy():
                network = fresh_network(trial.architecture, space.resolution, space.classes, seed=trial.seed)
                network = network.to(device)
            events = train(
                network,
                dataset,
                recipe=trial.recipe,
                epochs=fidelity.epochs,
                seed=trial.seed,
                device=device,
                quiet=quiet,
            )
            for event in events:
                if isinstance(event, Failure):
                    raise UserError(f"trial {trial.number} could not be trained again: {event.reason}, {event.detail}")
                if isinstance(event, Progress) and event.accuracy is not None:
                    write(f"  epoch {event.epoch} of {event.epochs}, {event.accuracy:.2f} %")
                if isinstance(event, Measurement) and event.epochs == reached:
                    told = "" if before is None else f", {before.value:.2f} % in the search"
                    write(f"trained in {duration(event.seconds)}: {event.value:.2f} %{told}")
                    break
    except Exception as error:
        if not out_of_memory(error):
            raise
        failure = failure_of(error)
        raise UserError(
            f"trial {trial.number} could not be trained again: {failure.reason}, {failure.detail}"
        ) from None
    return network.cpu().eval()


def _kept(study: Study, trial: Trial, space: Space, write: Callable[[str], None]) -> Network | None:
    """The network with the weights that the search kept; None where it kept none, or they are not this network's."""
    found = Checkpoints(study.folder / "weights").get(trial.number)
    if found is None:
        return None
    network = fresh_network(trial.architecture, space.resolution, space.classes, seed=trial.seed)
    try:
        network.load_state_dict(torch.load(io.BytesIO(found.state), map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        write(f"The weights in {study.folder / 'weights'} are not those of trial {trial.number} ({said}).")
        return None
    write(f"trial {trial.number} with the weights that the search kept, after {epochs_text(found.epochs)}")
    return network.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A training of a trial, made once more, with its circumstances."""

    curve: tuple[Epoch, ...]
    failure: Failure | None
    seconds: float | None  # of work, up to the last rung that it came to
    validation_images: int
    seed: int
    data: str  # fingerprint of the images
    device: str
    threads: int
    precision: str
    micro_batch: int | None  # as a measurement tells it
    protocol: str = PROTOCOL


def check_trained(study: Study, trial: Trial) -> None:
    """Refuse a trial that has nothing to be compared with.

    Raises:
        UserError: it was not trained in the search; the text says why.
    """
    which = f"trial {trial.number} of {study.folder}"
    if trial.reason in NOT_TRAINED:
        why = f"{trial.reason}: {trial.detail}" if trial.detail else str(trial.reason)
        raise UserError(
            f"{which} was not trained in the search ({why}), so there is no curve to get again.\n"
            f"  To measure its throughput: mlpspace profile {study.folder}:{trial.number}"
        )
    if trial.state != "infeasible" and not recorded(trial):
        raise UserError(
            f"{which} has not come to the end of an epoch so far. To watch it: mlpspace status {study.folder}"
        )


def recorded(trial: Trial) -> dict[int, Epoch]:
    """Epoch -> (epoch, loss, accuracy %) as the search got it; the accuracy alone where only a rung's was kept."""
    accuracies = [record for record in trial.records if record.metric == "accuracy" and record.repeat == 0]
    found: dict[int, Epoch] = {r.epochs: (r.epochs, None, r.value) for r in accuracies if r.epochs is not None}
    return found | {epoch[0]: epoch for epoch in trial.curve if epoch[2] is not None}


def trained_again(
    study: Study,
    trial: Trial,
    space: Space,
    *,
    data: Mapping[str, str],
    device_name: str = "auto",
    write: Callable[[str], None],
) -> Again:
    """Train a trial again as the search did, as far as the search did, without having been interrupted.

    A trial that failed is trained until it fails, at most one epoch further than it came; for one that ran into the
    time limit, to the end. Its throughput is measured again only where the failure may have come from that.

    Args:
        trial: one that passes `check_trained`.
        space: of the study.
        data: dataset -> where it lives, as `--data` says it; else it is sought where the study found it.
        device_name: "auto" takes the device that the search took, or one of its kind.
        write: hears how it goes, line by line.

    Raises:
        UserError: the dataset or the device is not there.
    """
    place = _place(study, space, data)
    before = recorded(trial)
    record = trial.measurements.get("accuracy")
    some = record or next(iter(trial.records), None)
    device = _device_as(some) if device_name == "auto" else resolve(device_name)
    threads = record.threads if record else _usual_threads(study)
    last = space.fidelity.epochs[-1]
    until = max(before, default=last)
    if trial.state == "infeasible":
        until = last if trial.reason == TIME_LIMIT else min(last, max(before, default=0) + 1)
    write(_announcement(trial, space, until, describe(device)))
    if trial.state == "infeasible":
        dies = " This process may die of it, too." if trial.reason == "worker died" else ""
        write(f"In the search it failed: {trial.reason}, {trial.detail}.{dies}")
    assignment = SpaceDomain(space, data_path=place).assignment(
        trial.number, trial.attempt, trial.architecture, trial.recipe, seed=trial.seed
    )
    failed_early = trial.state == "infeasible" and not before and "throughput" not in trial.measurements
    measured_on = _where_measured(space, device, write) if failed_early else None
    assignment = dataclasses.replace(
        assignment,
        deployment=None if measured_on is None else assignment.deployment,
        timeout_s=assignment.timeout_s if trial.reason == TIME_LIMIT else None,
        checkpoint_s=math.inf,
    )
    curve: list[Epoch] = []
    failure, measured = None, None
    with _at_work(space, place, device, threads=threads, measured_on=measured_on) as (dataset, quiet):
        if record is not None and record.data not in (None, dataset.fingerprint):
            write(
                f"WARNING: these are not the images of the search: {dataset.name} has the fingerprint"
                f" {dataset.fingerprint}, in the search it had {record.data}."
            )
        events = evaluate(assignment, dataset=dataset, device=device, quiet=quiet, measured_on=measured_on)
        with closing(events):
            for event in events:
                if isinstance(event, Failure):
                    failure = event
                    write(f"  {event.reason}: {event.detail}")
                if isinstance(event, Progress) and event.accuracy is not None:
                    curve.append((event.epoch, event.loss, event.accuracy))
                    then = before.get(event.epoch)
                    told = "" if then is None else f", {then[2]:.2f} % in the search"
                    write(f"  epoch {event.epoch} of {event.epochs}, {event.accuracy:.2f} %{told}")
                    if event.epoch >= until and event.epoch not in assignment.epochs:
                        break
                if isinstance(event, Measurement) and event.metric == "accuracy":
                    measured = event
                    if event.epochs is not None and event.epochs >= until:
                        break
        return Again(
            curve=tuple(curve),
            failure=failure,
            seconds=None if measured is None else measured.seconds,
            validation_images=len(dataset.val_labels),
            seed=trial.seed,
            data=dataset.fingerprint,
            device=describe(device),
            threads=torch.get_num_threads(),
            precision=training_precision(device),
            micro_batch=None if measured is None else measured.micro_batch,
        )


def _place(study: Study, space: Space, data: Mapping[str, str]) -> str | None:
    """Where the dataset lies; None for one that comes with mlpspace."""
    name = space.fidelity.dataset
    for other in data:
        if other != name:
            raise DataError(f"--data {other}=...: the space of {study.folder} uses {name}, not {other}.")
    noted = study.manifest.get("data", {})
    if not isinstance(noted, dict) or not isinstance(noted.get(name, ""), str):
        raise StudyError(
            f'{study.folder / "manifest.json"}: "data" says nothing of where {name} lies: --data {name}=PATH'
        )
    path = data.get(name) or noted.get(name)
    catalog.check(name, path, space.classes)
    return path


def _where_measured(space: Space, device: torch.device, write: Callable[[str], None]) -> torch.device | None:
    """The device that its networks are measured on, if it is here."""
    try:
        return measuring_device(space.deployment.device, device)
    except DeviceMissing:
        write(f"Its throughput is not measured again, as {space.deployment.device} is not here.")
        return None


@contextmanager
def _at_work(
    space: Space, place: str | None, device: torch.device, *, threads: int, measured_on: torch.device | None = None
) -> Iterator[tuple[Dataset, QuietDevice]]:
    """The dataset on the device, and so many threads until the block ends."""
    fidelity, quiet = space.fidelity, quiet_on(device, measured_on)
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        dataset = load(
            fidelity.dataset,
            place,
            resolution=space.resolution,
            classes=space.classes,
            images=fidelity.images,
            validation=fidelity.validation,
            seed=SPLIT_SEED,
            device=device,
            busy=quiet.busy,
        )
        yield dataset, quiet
    finally:
        torch.set_num_threads(threads_before)


def on_cpu(device: str) -> bool:
    """Whether a device that `describe` named is a CPU."""
    return re.search(r", \d+ cores?$", device) is not None


def _device_as(found: Record | None) -> torch.device:
    """The device of this machine that a measurement was made on, or one of its kind; the best there is for None."""
    if found is None:
        return resolve("auto")
    if on_cpu(found.device):
        return resolve("cpu")
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return next((gpu for gpu in gpus if describe(gpu) == found.device), resolve("auto"))


def _usual_threads(study: Study) -> int:
    """Of the trainings of a study, where the trial's own are not told."""
    told = Counter(r.threads for trial in study.trials() for r in trial.records if r.metric == "accuracy")
    return told.most_common(1)[0][0] if told else cores()


def _reached(before: Record | None, rungs: tuple[int, ...]) -> int:
    """The epochs after which the trial was last measured; all of them for one that never was."""
    return rungs[-1] if before is None or before.epochs is None else before.epochs


def _announcement(trial: Trial, space: Space, until: int, device: str) -> str:
    fidelity, before = space.fidelity, trial.measurements.get("accuracy")
    took = f" (in the search {duration(before.seconds)} on {before.device})" if before else ""
    last = fidelity.epochs[-1]
    epochs = epochs_text(until) if until == last else f"{until} of {last} epochs"
    return (
        f"trial {trial.number} is trained again with its recipe and seed, "
        f"{epochs} of {fidelity.dataset} on {device}{took}."
    )
