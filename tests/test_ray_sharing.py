"""A search on GPUs that Ray pretends to have: how many workers share one of them, and when that is asked."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_process import skip_beside_other_clusters
from stubs import Session, evaluate

from mlpspace.engines import ray_cluster, ray_sharing, ray_tune
from mlpspace.engines.ray_sharing import FEWEST, SHORT_S, cores_for_a_gpu, settled
from mlpspace.engines.resources import Wanted
from mlpspace.measurement import Assignment, Event
from mlpspace.sharing import Sharing, Trials, trials_of
from mlpspace.space import load_space
from mlpspace.study import Study

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GPUS = 2
ENOUGH = FEWEST * GPUS


@pytest.fixture(scope="module", autouse=True)
def _one_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """Four cores and two GPUs, as far as Ray knows."""
    skip_beside_other_clusters(request)
    import stubs
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(stubs)  # workers do not have the tests on their path
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_cluster.cluster(Wanted(), num_cpus=4, num_gpus=GPUS):
        yield


@functools.cache
def trials() -> Trials:
    return trials_of(load_space(Path(__file__).parents[1] / "spaces" / "smoke.yaml"), data_path=None, resident=None)


def _two(folder: Path) -> Callable[..., Sharing]:
    """Finds that two share one, and leaves word of what it was asked, and on which GPU."""

    def find(trials: Trials, device: str, most: int) -> Sharing:
        told = f"{len(trials.trainings)} networks, {device}, {most}, GPU {os.environ['CUDA_VISIBLE_DEVICES']}"
        (folder / "asked").write_text(told)
        return Sharing(2, {1: 100.0, 2: 190.0})

    return find


def _with_four_at_once(folder: Path) -> Callable[..., Iterator[Event]]:
    """A worker that leaves its GPU in `folder`, and waits there for three others, a minute long."""

    def events(assignment: Assignment, bounds: object) -> Iterator[Event]:
        (folder / f"{assignment.trial} {os.environ['CUDA_VISIBLE_DEVICES']}").touch()
        until = time.monotonic() + 60
        while len(list(folder.iterdir())) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        yield from evaluate(assignment, bounds)

    return events


def test_two_workers_share_each_gpu_where_that_was_found_to_train_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_sharing, "FEWEST", 2)
    notes: list[str] = []
    workers = tmp_path / "workers"
    workers.mkdir()
    with Session(tmp_path / "run1", trials=2 * GPUS) as search:
        ray_tune.run(
            search,
            wanted=Wanted(),
            interrupted=lambda: False,
            note=notes.append,
            make_evaluate=functools.partial(_with_four_at_once, workers),
            trials=trials,
            find=_two(tmp_path),
        )
    assert {trial.state for trial in Study(tmp_path / "run1").trials()} == {"complete"}
    assert (tmp_path / "asked").read_text() in {f"3 networks, auto, 2, GPU {gpu}" for gpu in range(GPUS)}
    assert notes[1] == "2 trials share a GPU: 190 images/s in sum, one alone 100; --gpus-per-worker 1 for one each"
    on = Counter(file.name.split()[1] for file in workers.iterdir())
    assert on == {"0": 2, "1": 2}


def _settled(folder: Path, wanted: Wanted, find: Callable[..., Sharing], **more: float) -> tuple[Wanted, list[str]]:
    notes: list[str] = []
    with Session(folder / "run1", **{"trials": ENOUGH, **more}) as search:
        told = settled(wanted, search, trials, interrupted=lambda: False, note=notes.append, find=find)
    return told, notes


@pytest.mark.parametrize(
    ("wanted", "limits"),
    [
        (Wanted(workers=2), {}),
        (Wanted(gpus_per_worker=0.25), {}),
        (Wanted(device="cpu"), {}),
        (Wanted(), {"trials": ENOUGH - 1}),
        (Wanted(), {"seconds": SHORT_S - 1}),
    ],
)
def test_nothing_is_measured_where_the_user_said_it_or_it_would_not_help(
    wanted: Wanted, limits: dict[str, float], tmp_path: Path
) -> None:
    told, notes = _settled(tmp_path, wanted, _two(tmp_path), **limits)
    assert told == wanted
    assert notes == []
    assert not (tmp_path / "asked").exists()


def _dying(trials: Trials, device: str, most: int) -> Sharing:
    os._exit(1)


def _without_a_device(trials: Trials, device: str, most: int) -> Sharing:
    raise RuntimeError("no CUDA-capable device is detected")


@pytest.mark.parametrize(("find", "word"), [(_dying, "died"), (_without_a_device, "no CUDA-capable device")])
def test_where_the_measuring_fails_each_trial_has_a_gpu_and_the_search_goes_on(
    find: Callable[..., Sharing], word: str, tmp_path: Path
) -> None:
    told, notes = _settled(tmp_path, Wanted(), find)
    assert told == dataclasses.replace(Wanted(), gpus_per_worker=1.0)
    assert notes[1].startswith("one trial at a time on a GPU, as how fast several train could not be measured: ")
    assert word in notes[1]
    assert "\n" not in notes[1]


def _sleeping(trials: Trials, device: str, most: int) -> Sharing:
    time.sleep(600)
    raise AssertionError


def test_an_interrupt_ends_the_measuring(tmp_path: Path) -> None:
    begun = time.monotonic()
    with Session(tmp_path / "run1", trials=ENOUGH) as search:
        told = settled(
            Wanted(),
            search,
            trials,
            interrupted=lambda: time.monotonic() > begun + 1,
            note=lambda text: None,
            find=_sleeping,
        )
    assert told == Wanted()


def test_the_node_with_the_fewest_cores_for_a_gpu_counts() -> None:
    assert cores_for_a_gpu([{"CPU": 64.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 14.0, "GPU": 2.0}]) == 4
