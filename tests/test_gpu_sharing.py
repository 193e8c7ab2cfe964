"""How many trials share a GPU, by what so many of them trained together: the decision, and the measuring on a CPU."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mlpspace import cli, sharing
from mlpspace.data import load
from mlpspace.fresh_process import FreshProcessError
from mlpspace.sharing import Sharing, Trials, at_once, decided, found, in_sum, measured, trials_of, typical
from mlpspace.space import Space, load_space
from mlpspace.survey import survey
from mlpspace.training_group import Group, Memory, Training

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture
def smoke() -> Space:
    return load_space(ROOT / "spaces" / "smoke.yaml")


@pytest.fixture
def trials(smoke: Space) -> Trials:
    return trials_of(smoke, data_path=None, resident=None)


# --- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speeds", "count"),
    [
        ({1: 100.0, 2: 160.0, 4: 170.0}, 2),  # a sixteenth more is not worth twice the memory
        ({1: 100.0, 2: 105.0, 4: 108.0}, 1),
        ({1: 100.0, 2: 105.0, 4: 140.0}, 4),  # two do not pay, four do
        ({1: 100.0, 2: 190.0, 4: 380.0}, 4),
        ({1: 100.0, 2: 60.0, 4: 20.0}, 1),
        ({1: 100.0}, 1),
    ],
)
def test_more_at_once_only_where_it_is_worth_their_memory(speeds: dict[int, float], count: int) -> None:
    assert at_once(speeds) == count
    assert at_once(dict(reversed(speeds.items()))) == count
    room = dict.fromkeys(speeds, Memory(1 * GB, 80 * GB))
    nothing = Trials(trainings=(), epochs=1, data_bytes=0)
    assert decided(speeds, room, nothing) == Sharing(count, dict(sorted(speeds.items())))


@pytest.mark.parametrize(
    ("used", "data", "resident", "count", "lacking"),
    [
        ({2: 4 * GB, 4: 7 * GB}, 0, None, 4, None),
        ({2: 4 * GB, 4: 9 * GB}, 0, None, 2, 4),  # of 10 GB a fifth stays free for larger networks
        ({2: 9 * GB, 4: 9.5 * GB}, 0, None, 1, 4),
        ({2: 3 * GB, 4: 5 * GB}, 1 * GB, None, 2, 4),  # each worker has the dataset for itself: 5 + 4 GB, 3 + 2 GB
        ({2: 3 * GB, 4: 5 * GB}, 3 * GB, None, 4, None),  # more than a quarter of the device stays in a file
        ({2: 3 * GB, 4: 5 * GB}, 3 * GB, 3 * GB, 1, 4),  # unless the user said so
        ({2: 3 * GB, 4: 5 * GB}, 1 * GB, 0, 4, None),
    ],
)
def test_so_many_at_once_as_the_device_has_memory_for(
    used: dict[int, float], data: int, resident: int | None, count: int, lacking: int | None
) -> None:
    speeds = {1: 100.0, 2: 190.0, 4: 380.0}
    memory = {number: Memory(int(each), 10 * GB) for number, each in used.items()}
    told = decided(speeds, memory, Trials(trainings=(), epochs=1, data_bytes=data, resident=resident))
    assert (told.at_once, told.held_back) == (count, f"{lacking} lack memory" if lacking else None)


def test_trainings_that_share_a_device_stay_well_within_their_time_limit(trials: Trials) -> None:
    """1,000 images each: four at once at 25 images/s take 40 s, two at once at 35 take 29 s."""
    memory = dict.fromkeys((2, 4), Memory(1 * GB, 80 * GB))
    for timeout_s, count in ((None, 4), (161.0, 4), (159.0, 2), (113.0, 1)):
        told = decided({1: 60.0, 2: 70.0, 4: 100.0}, memory, dataclasses.replace(trials, timeout_s=timeout_s))
        assert told.at_once == count, timeout_s


def test_the_images_a_second_of_a_search_are_all_images_over_the_time_they_take() -> None:
    quick, slow = [900.0, 1000.0, 5000.0], [10.0, 11.0, 9.0]  # medians 1000 and 10
    seconds = 300 / 1000 + 300 / 10
    assert in_sum([quick, slow]) == pytest.approx(600 / seconds)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            Sharing(2, {1: 8203.0, 2: 13096.0}),
            "2 trials share a GPU: 13,100 images/s in sum, one alone 8,200; --gpus-per-worker 1 for one each",
        ),
        (
            Sharing(2, {1: 8203.0, 2: 13096.0, 4: 20000.0}, held_back="4 lack memory"),
            "2 trials share a GPU: 13,100 images/s in sum, one alone 8,200; 4 lack memory; --gpus-per-worker 1 for one"
            " each",
        ),
        (
            Sharing(1, {1: 812.6, 2: 820.0}),
            "one trial at a time on a GPU: 813 images/s, two at once 820 in sum; --gpus-per-worker 0.5 for two each",
        ),
        (
            Sharing(1, failed="a process ended, signal 9"),
            "one trial at a time on a GPU, as how fast several train could not be measured: a process ended, signal 9;"
            " --gpus-per-worker 0.5 for two each",
        ),
    ],
)
def test_it_is_said_in_one_line_with_what_to_type(told: Sharing, words: str) -> None:
    assert told.words() == words


# --- what is trained --------------------------------------------------------------------------------------------------


def test_the_networks_that_stand_for_a_space_meet_its_requirements_and_are_near_its_quartiles() -> None:
    space = load_space(ROOT / "spaces" / "hybrid.yaml")
    networks = typical(space)
    assert networks == typical(space)
    counts = survey(space, draws=1000, seed=1).meeting
    macs = np.sort([each.macs for each in counts])
    from mlpspace.counts import profile

    for candidate, share in zip(networks, (0.25, 0.5, 0.75), strict=True):
        mine = profile(candidate.architecture, space.resolution, space.classes)
        assert mine.params <= 1e6
        assert mine.macs <= 8e6
        assert np.searchsorted(macs, mine.macs) / len(macs) == pytest.approx(share, abs=0.15)


def test_a_training_has_the_images_of_the_searchs_own(smoke: Space, trials: Trials) -> None:
    asked = {"images": smoke.fidelity.images, "validation": smoke.fidelity.validation}
    real = load("mnist5k", None, resolution=smoke.resolution, classes=10, seed=0, **asked)
    assert len(trials.trainings) == 3
    for training in trials.trainings:
        assert (training.images, training.validation) == (len(real.train_labels), len(real.val_labels))
        assert (training.batch, training.epochs) == (50, 2)
    assert trials.data_bytes == 3 * (real.train_images.numel() + real.val_images.numel())  # digits are grey
    assert [Training.heard(each.told()) for each in trials.trainings] == list(trials.trainings)


# --- measuring --------------------------------------------------------------------------------------------------------


class StandIn:
    """A group whose speeds are told; an error in place of one is raised."""

    def __init__(self, speeds: Mapping[int, float | str], seconds: float = 0.0) -> None:
        self.speeds, self.grown = speeds, [0]
        self.left_s = 90.0

    def __call__(self, device: torch.device, *, limit_s: float) -> StandIn:
        return self

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def grow(self, count: int) -> None:
        self.grown.append(count)

    def prepare(self, training: Training, *, alone: bool) -> None: ...

    def train(self, count: int, seconds: float) -> tuple[float, Memory]:
        speed = self.speeds[count]
        if isinstance(speed, str):
            raise FreshProcessError(speed)
        return speed, Memory(0, GB)


@pytest.mark.parametrize(
    ("speeds", "told", "grown"),
    [
        ({1: 10.0, 2: 19.0, 4: 30.0, 8: 31.0}, (4, None), [2, 4, 8]),
        ({1: 10.0, 2: 10.5}, (1, None), [2]),  # the first that brings nothing is the last
        ({1: 10.0, 2: 19.0, 4: "a process ended, signal 9"}, (2, "a process ended, signal 9"), [2, 4]),
        ({1: 10.0, 2: "it took longer than 75 s"}, (1, "it took longer than 75 s"), [2]),
    ],
)
def test_it_is_twice_as_many_as_long_as_that_pays(
    speeds: dict[int, float | str],
    told: tuple[int, str | None],
    grown: list[int],
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = StandIn(speeds)
    monkeypatch.setattr(sharing, "Group", group)
    number, failed = told
    assert (measured(trials, CPU, most=8).at_once, measured(trials, CPU, most=8).failed) == (number, failed)
    assert group.grown[1 : 1 + len(grown)] == grown
    assert max(group.grown) == grown[-1]


def test_there_are_no_more_than_may_be_and_none_that_the_time_is_too_short_for(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = StandIn({1: 10.0, 2: 19.0, 4: 38.0, 8: 76.0})
    monkeypatch.setattr(sharing, "Group", group)
    assert measured(trials, CPU, most=4).at_once == 4
    assert max(group.grown) == 4
    group.grown, group.left_s = [], 0.0
    assert measured(trials, CPU, most=8).at_once == 2
    assert group.grown == [2]


def test_what_was_found_is_kept_on_the_node_and_a_failure_is_not(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSPACE_CACHE", str(tmp_path / "cache"))
    answers = [Sharing(1, failed="a process ended, signal 9"), Sharing(2, {1: 10.0, 2: 19.0}), Sharing(1, {1: 5.0})]
    asked: list[Trials] = []

    def stand_in(trials: Trials, device: torch.device, **more: object) -> Sharing:
        asked.append(trials)
        return answers[len(asked) - 1]

    monkeypatch.setattr(sharing, "measured", stand_in)
    assert found(trials, CPU, most=8) == answers[0]
    assert found(trials, CPU, most=8) == answers[1]
    assert found(trials, CPU, most=8) == answers[1]
    assert len(asked) == 2
    (kept,) = (tmp_path / "cache").glob("sharing-*.json")
    for spoiled in ("", "[2]", '[2, [[1, "x"]], null]', "[4, [[1, 5.0]], null]"):
        kept.write_text(spoiled)
        asked.clear()
        found(trials, CPU, most=8)
        assert len(asked) == 1
    other = dataclasses.replace(trials, trainings=trials.trainings[:2])
    asked.clear()
    found(other, CPU, most=8)
    assert len(asked) == 1


@pytest.mark.slow
def test_processes_train_at_the_same_time_and_what_goes_wrong_in_one_is_told(trials: Trials) -> None:
    """On the CPU, where it is no advice: the processes and what they do are the same."""
    small = min(trials.trainings, key=lambda each: each.architecture.stages[0].width)
    with Group(CPU, limit_s=300.0) as group:
        group.grow(2)
        group.prepare(small, alone=True)
        for count in (1, 2):
            speed, memory = group.train(count, 0.1)
            assert speed > 0
            assert 0 < memory.used <= memory.total
        processes = list(group._processes)
        os.kill(processes[1].pid, signal.SIGKILL)
        with pytest.raises(FreshProcessError, match="a process ended, signal 9"):
            group.train(2, 0.1)
        odd = Training(**{**{name: getattr(small, name) for name in Training.__slots__}, "resolution": 33})
        with pytest.raises(FreshProcessError, match="33"):  # no patch divides it
            group._ask(processes[:1], "make", odd.told(), 5, 0.01)
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(FreshProcessError, match="it took longer than 0 s"), Group(CPU, limit_s=0.0) as group:
        processes = group._processes
        group.grow(1)
    assert processes
    assert all(process.poll() is not None for process in processes)


@pytest.mark.slow
def test_the_benchmark_measures_all_counts_and_says_what_to_type() -> None:
    asked = ["--device", "cpu", "--width", "8", "--batch", "16", "--at-once", "1", "--at-once", "2"]
    program = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu_sharing.py"),
        *asked,
        "--seconds",
        "0.2",
        "--repeats",
        "1",
    ]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("1", "2")][:2] == ["1", "2"]
    assert "--gpus-per-worker" in done.stdout.splitlines()[-1]


# --- a search ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_on_ray_can_tell_what_its_trials_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlpspace.engines import ray_tune

    heard: dict[str, object] = {}
    monkeypatch.setattr(ray_tune, "run", lambda search, **told: heard.update(told))
    file = str(ROOT / "spaces" / "smoke.yaml")
    CliRunner().invoke(cli.cli, ["search", file, "--study", str(tmp_path / "run1"), "--resident", "1GB"])
    told = heard["trials"]()  # type: ignore[operator]
    assert told == trials_of(load_space(file), data_path=None, resident=10**9)
