"""Measurements by fresh processes: the same numbers, and whose fault it is when there are none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import an_assignment

from mlpspace import evaluate as evaluating
from mlpspace import fork_server, fresh_measurement
from mlpspace.architecture import Architecture, Mlp, Patches, Stage
from mlpspace.calibration import Calibration
from mlpspace.engines.worker import Worker
from mlpspace.errors import DeviceLost, UserError
from mlpspace.fork_server import ForkServer
from mlpspace.fresh_measurement import (
    Asked,
    NotMeasured,
    measured_by_a_fork,
    measured_by_a_fresh_process,
    measured_while_others_give_way,
)
from mlpspace.fresh_process import FreshProcessError
from mlpspace.measurement import Failure, Measurement
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import deployed
from mlpspace.throughput import measure_throughput

NETWORK = Architecture(stem=Patches(patch=8), stages=(Stage(depth=1, width=16, channel_mixer=Mlp(ratio=2)),))
ASKED = Asked(
    architecture=NETWORK,
    resolution=32,
    classes=10,
    deployment=Deployment(8),
    device=torch.device("cpu"),
    patience_s=0.0,
)
KNOWN = Calibration(reference=1000.0, error=0.0, spread=0.01, freedom=4.0, processes=1)


@pytest.fixture
def quiet(tmp_path: Path) -> QuietDevice:
    return QuietDevice("cpu", tmp_path)


@pytest.mark.slow
def test_a_fork_and_a_fresh_process_tell_what_this_one_would(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_measurement, "calibrated", lambda *_: KNOWN)
    here = measure_throughput(
        deployed(NETWORK, 32),
        resolution=32,
        deployment=Deployment(8),
        device=ASKED.device,
        quiet=quiet,
        calibration=KNOWN,
        patience_s=0.0,
    )
    forked = measured_by_a_fork(ASKED, quiet)
    assert [each.metric for each in forked] == [each.metric for each in here]
    again = measured_by_a_fresh_process(ASKED, quiet)
    given_way = measured_while_others_give_way(ASKED, quiet)
    assert [each.metric for each in given_way] == [each.metric for each in here]
    for one in (forked[0], again, given_way[0]):
        for fact in ("metric", "device", "batch", "precision", "threads", "runtime"):
            assert getattr(one, fact) == getattr(here[0], fact), fact
        assert 0 < one.low <= one.value <= one.high
    assert here[0].reference == forked[0].reference == given_way[0].reference == KNOWN.reference
    deeper = dataclasses.replace(NETWORK, stages=(dataclasses.replace(NETWORK.stages[0], depth=64),))
    slow, _ = measured_by_a_fork(dataclasses.replace(ASKED, architecture=deeper), quiet)
    assert slow.value < forked[0].value  # it is this network that was measured, whatever the machine does meanwhile
    assert forked[1].value == here[1].value  # peak memory is arithmetic on a CPU


@pytest.mark.slow
def test_a_network_that_does_not_fit_into_memory_is_told_as_its_own_failure(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_measurement, "calibrated", lambda *_: KNOWN)
    large = dataclasses.replace(ASKED, deployment=Deployment(10**9))
    for measure in (measured_by_a_fork, measured_while_others_give_way):
        with pytest.raises(NotMeasured) as told:
            measure(large, quiet)
        assert told.value.failure.reason == "out of memory"


@pytest.mark.slow
def test_why_a_network_is_not_measured_again_is_told(quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_measurement, "calibrated", lambda *_: KNOWN)
    with pytest.raises(FreshProcessError, match="allocate memory"):
        measured_by_a_fresh_process(dataclasses.replace(ASKED, deployment=Deployment(10**9)), quiet)


def answering(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    monkeypatch.setattr(fresh_measurement, "_forks", ForkServer("forked", function))


@pytest.mark.parametrize(
    ("function", "why"), [("dies", "it died of SIGKILL"), ("is_not_there", "has no attribute 'is_not_there'")]
)
def test_where_processes_die_the_worker_counts_as_dead_and_not_the_network_as_wrong(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch, function: str, why: str
) -> None:
    answering(monkeypatch, function)
    with pytest.raises(DeviceLost, match=rf"2 processes .* failed: .*{why}[^\n]*\n.*MLPSPACE_CALIBRATION=1"):
        measured_by_a_fork(ASKED, quiet)


def test_one_that_takes_too_long_is_not_tried_twice(quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "sleeps")
    monkeypatch.setattr(fresh_measurement, "PATIENCE_S", 0.5)
    with pytest.raises(NotMeasured, match="gave no answer within"):
        measured_by_a_fork(ASKED, quiet)


def test_a_server_that_is_not_ready_in_time_is_no_networks_fault(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "sleeps")
    monkeypatch.setattr(fresh_measurement, "calibrated", lambda *_: KNOWN)
    monkeypatch.setattr(fork_server, "READY_S", 0.0)
    with pytest.raises(DeviceLost, match=r"2 processes .* failed: no answer within 0 s"):
        measured_by_a_fork(ASKED, quiet)


def test_whoever_measures_again_has_the_calibration_before_the_device_alone(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another one who calibrates holds the calibration's lock while he waits for the device."""
    asked: list[dict[str, Any]] = []

    def known(*_: object) -> Calibration:
        with QuietDevice("cpu", tmp_path).alone():  # it would wait for ever, were the device taken
            return KNOWN

    def ask(module: str, told: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        asked.append(told)
        return {"wrong": "nothing is measured here"}

    monkeypatch.setattr(fresh_measurement, "calibrated", known)
    monkeypatch.setattr(fresh_measurement, "ask", ask)
    with pytest.raises(FreshProcessError, match="nothing is measured here"):
        measured_by_a_fresh_process(ASKED, quiet)
    assert asked[0]["calibration"] == dataclasses.asdict(KNOWN)
    monkeypatch.setattr(fresh_measurement, "calibrated", raising(UserError("the clock cannot be calibrated")))
    with pytest.raises(FreshProcessError, match="cannot be calibrated"):
        measured_by_a_fresh_process(ASKED, quiet)


def raising(error: Exception) -> Callable[..., Any]:
    def fails(*_: object) -> None:
        raise error

    return fails


def test_a_fresh_process_measures_on_the_gpu_it_is_told_and_knows_ours_by_the_file_of_who_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    current: list[torch.device] = []
    files: list[Path] = []

    @contextmanager
    def selected(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def measure(network: object, *, device: torch.device, quiet: QuietDevice, **how: object) -> tuple[()]:
        assert current == [device] == [torch.device("cuda", 1)]
        files.append(quiet.file)
        return ()

    monkeypatch.setattr(torch.cuda, "device", selected)
    monkeypatch.setattr(fresh_measurement, "measure_throughput", measure)
    told = dataclasses.replace(ASKED, device=torch.device("cuda", 1)).to_json()
    told |= {
        "folder": str(tmp_path / "own"),
        "shared": str(tmp_path / "room"),
        "calibration": dataclasses.asdict(KNOWN),
    }
    assert fresh_measurement.measure(told) == {"measurements": []}
    assert files == [tmp_path / "room"]


def test_one_that_died_is_forgiven_when_the_next_one_answers(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORKED_DIED", str(tmp_path / "died"))
    answering(monkeypatch, "dies_once")
    assert measured_by_a_fork(ASKED, quiet) == ()


def test_what_is_wrong_with_all_of_them_is_no_networks_failure(
    quiet: QuietDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "finds_no_compiler")
    with pytest.raises(UserError, match="no compiler"):
        measured_by_a_fork(ASKED, quiet)


@pytest.mark.parametrize(("processes", "compiles", "forks"), [("2", False, 1), ("1", False, 0), ("2", True, 0)])
def test_a_worker_has_forks_measure_on_a_cpu_unless_that_is_refused_or_networks_are_compiled(
    monkeypatch: pytest.MonkeyPatch, processes: str, compiles: bool, forks: int
) -> None:
    monkeypatch.setenv("MLPSPACE_CALIBRATION", processes)
    by_fork: list[Asked] = []

    def fork(asked: Asked, quiet: QuietDevice) -> tuple[Measurement, ...]:
        by_fork.append(asked)
        return ()

    monkeypatch.setattr(evaluating, "measured_by_a_fork", fork)
    monkeypatch.setattr(evaluating, "measure_throughput", lambda *_, **__: ())
    assignment = dataclasses.replace(an_assignment(0), measure_only=True, deployment=Deployment(8, compile=compiles))
    events = list(Worker("cpu", 1).events(assignment, {}))
    assert not [event for event in events if isinstance(event, Failure)]
    assert [asked.architecture for asked in by_fork] == [assignment.architecture] * forks
