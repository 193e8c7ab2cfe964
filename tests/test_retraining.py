"""A trial trained again, outside of any study."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlpspace import retraining
from mlpspace.data import load
from mlpspace.engines.worker import SPLIT_SEED
from mlpspace.errors import UserError
from mlpspace.evaluate import fresh_network
from mlpspace.measurement import Measurement
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.retraining import retrained
from mlpspace.space import Space, load_space

SPACE = Path(__file__).parents[1] / "spaces" / "smoke.yaml"
CPU = torch.device("cpu")


@pytest.fixture
def space() -> Space:
    space = load_space(str(SPACE))
    return dataclasses.replace(space, fidelity=dataclasses.replace(space.fidelity, images=200, epochs=(1, 3)))


@pytest.fixture
def searched(space: Space, tmp_path: Path) -> tuple[Any, list[Any]]:
    """A trial of the space as a search leaves it, and its weights after each rung."""
    torch.set_num_threads(1)
    fidelity = space.fidelity
    architecture, recipe = space.sample(np.random.default_rng(0)), space.default_recipe()
    data = load(
        fidelity.dataset,
        None,
        resolution=space.resolution,
        classes=space.classes,
        images=fidelity.images,
        validation=fidelity.validation,
        seed=SPLIT_SEED,
    )
    network = fresh_network(architecture, space.resolution, space.classes, seed=4)
    rungs = []
    for event in train(
        network, data, recipe=recipe, epochs=(1, 3), seed=4, device=CPU, quiet=QuietDevice("cpu", tmp_path)
    ):
        if isinstance(event, Measurement):
            rungs.append((event, {name: value.clone() for name, value in network.state_dict().items()}))
    return SimpleNamespace(number=0, architecture=architecture, recipe=recipe, seed=4), rungs


def again(trial: Any, space: Space, found: Measurement | None) -> tuple[dict[str, torch.Tensor], list[str]]:
    said: list[str] = []
    trial = SimpleNamespace(**vars(trial), measurements={} if found is None else {"accuracy": found})
    study: Any = SimpleNamespace(folder=Path("studies/run1"), manifest={})
    network = retrained(study, trial, space, data={}, device_name="cpu", write=said.append)
    return network.state_dict(), said


@pytest.mark.parametrize(("rung", "told"), [(0, "1 of 3 epochs of mnist5k"), (1, "3 epochs of mnist5k")])
def test_a_trial_becomes_the_network_that_it_was_at_its_last_rung(
    rung: int, told: str, space: Space, searched: tuple[Any, list[Any]]
) -> None:
    trial, rungs = searched
    found, weights = rungs[rung]
    network, said = again(trial, space, found)
    assert all(torch.equal(network[name], weights[name]) for name in weights)
    assert told in said[0]
    assert said[-1].endswith(f": {found.value:.2f} %, {found.value:.2f} % in the search")


def test_a_trial_that_was_never_measured_is_trained_to_the_end(
    space: Space, searched: tuple[Any, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "cores", lambda: 1)  # as `searched` was trained with
    trial, rungs = searched
    network, _ = again(trial, space, None)
    assert all(torch.equal(network[name], value) for name, value in rungs[1][1].items())


def test_memory_that_is_lacking_is_told_without_a_traceback(
    space: Space, searched: tuple[Any, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("1 at once of a batch of 50: none left")

    monkeypatch.setattr(retraining, "train", fails)
    trial, rungs = searched
    with pytest.raises(UserError, match=r"trial 0 could not be trained again: out of memory, .*1 at once of a batch"):
        again(trial, space, rungs[0][0])
