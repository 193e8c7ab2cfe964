"""A study's trial trained again. A study keeps no weights, but all that it takes to come to them once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from mlpspace.data import catalog, load
from mlpspace.device import cores, describe, key, resolve
from mlpspace.engines.worker import SPLIT_SEED
from mlpspace.errors import DataError, UserError
from mlpspace.evaluate import failure_of, fresh_network
from mlpspace.measurement import Failure, Measurement, Progress
from mlpspace.memory import out_of_memory
from mlpspace.nets.network import Network
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.report import duration
from mlpspace.space import Space
from mlpspace.study import Study
from mlpspace.trial import Record, Trial


def retrained(
    study: Study,
    trial: Trial,
    space: Space,
    *,
    data: Mapping[str, str],
    device_name: str = "auto",
    write: Callable[[str], None],
) -> Network:
    """The network of a trial, trained as the trial was: same weights to start from, recipe, images and their order.

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
    fidelity, name = space.fidelity, space.fidelity.dataset
    for other in data:
        if other != name:
            raise DataError(f"--data {other}=...: the space of {study.folder} uses {name}, not {other}.")
    path = data.get(name) or study.manifest.get("data", {}).get(name)
    catalog.check(name, path, space.classes)
    device = resolve(device_name)
    before = trial.measurements.get("accuracy")
    reached = _reached(before, fidelity.epochs)
    write(_announcement(trial, space, reached, describe(device)))

    quiet = QuietDevice(key(device))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(before.threads if before else cores())
        with quiet.busy():
            dataset = load(
                name,
                path,
                resolution=space.resolution,
                classes=space.classes,
                images=fidelity.images,
                validation=fidelity.validation,
                seed=SPLIT_SEED,
            ).to(device)
            network = fresh_network(trial.architecture, space.resolution, space.classes, seed=trial.seed)
            network = network.to(device)
        events = train(
            network, dataset, recipe=trial.recipe, epochs=fidelity.epochs, seed=trial.seed, device=device, quiet=quiet
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
    finally:
        torch.set_num_threads(threads)
    return network.cpu().eval()


def _reached(before: Record | None, rungs: tuple[int, ...]) -> int:
    """The epochs after which the trial was last measured; all of them for one that never was."""
    return rungs[-1] if before is None or before.epochs is None else before.epochs


def _announcement(trial: Trial, space: Space, reached: int, device: str) -> str:
    fidelity, before = space.fidelity, trial.measurements.get("accuracy")
    took = f" (in the search {duration(before.seconds)} on {before.device})" if before else ""
    last = fidelity.epochs[-1]
    epochs = f"{reached} epoch{'s' * (reached > 1)}" if reached == last else f"{reached} of {last} epochs"
    return (
        f"A study keeps no weights: trial {trial.number} is trained again with its recipe and seed, "
        f"{epochs} of {fidelity.dataset} on {device}{took}."
    )
