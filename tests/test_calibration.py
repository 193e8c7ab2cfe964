"""Calibration: what several processes found, taken together, and kept on the node."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mlpspace import calibration
from mlpspace.calibration import BELIEF, BELIEF_FREEDOM, Calibration, Found, calibrated, combined, is_calibrated
from mlpspace.errors import UserError
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import reference_architecture
from mlpspace.throughput import in_images
from mlpspace.timing import Pairs

CPU = torch.device("cpu")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node on which nothing was calibrated yet."""
    monkeypatch.setenv("MLPSPACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "_known", {})
    return tmp_path


def found(*ratios: float, seconds: float = 0.01, error: float = 0.0, undisturbed: bool = True) -> Found:
    return Found(seconds, tuple((ratio, error) for ratio in ratios), undisturbed)


def test_the_reference_is_the_median_of_the_processes() -> None:
    told = combined([found(0.0, seconds=s) for s in (0.010, 0.011, 0.050)], batch=64, device_type="cpu")
    assert told.reference == pytest.approx(64 / 0.011)
    assert told.error == pytest.approx(np.std(np.log([0.010, 0.011, 0.050]), ddof=1) / math.sqrt(3))


def test_the_spread_is_that_between_processes_beyond_the_noise_within_pooled_with_what_was_believed() -> None:
    first, second = [0.10, 0.14, 0.06], [1.0, 1.0, 1.0]
    told = combined([found(a, b, error=0.02) for a, b in zip(first, second, strict=True)], batch=64, device_type="cpu")
    beyond = np.var(first, ddof=1) - 0.02**2
    squares = 2 * beyond + 2 * 0.0 + BELIEF_FREEDOM * BELIEF["cpu"] ** 2
    assert told.freedom == BELIEF_FREEDOM + 4
    assert told.spread == pytest.approx(math.sqrt(squares / told.freedom))


def test_one_process_tells_nothing_of_the_spread_so_that_the_belief_stands() -> None:
    told = combined([found()], batch=64, device_type="cpu")
    assert (told.spread, told.freedom, told.error) == (pytest.approx(BELIEF["cpu"]), BELIEF_FREEDOM, 0.0)


def test_intervals_of_a_calibrated_machine_cover_what_other_processes_find() -> None:
    """Machines whose processes scatter by 0 to 4 %, each calibrated by 5 processes with 2 probes: of all measurements
    at least 9 in 10 cover the network's median over all processes."""
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.01, 0.02, 0.04):
        covered = 0
        for _ in range(500):

            def seen(ratio: float, spread: float = spread) -> float:
                return float(ratio + rng.normal(0, spread) + rng.normal(0, 0.015))

            told = combined([found(seen(0.5), seen(-1.0), error=0.015) for _ in range(5)], 64, "cpu")
            _, low, high = in_images((seen(0.0), 0.015), told)
            covered += low <= told.reference <= high
        assert covered / 500 >= 0.9, spread


def test_a_machine_is_calibrated_once_and_the_next_process_reads_it(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSPACE_CALIBRATION", "3")
    asked = []

    def ask(module: str, told: object, *, timeout_s: float) -> object:
        asked.append(told)
        return {"seconds": 0.01, "ratios": [[0.1, 0.01], [0.2, 0.01]], "undisturbed": True}

    monkeypatch.setattr(calibration, "ask", ask)
    quiet, deployment = QuietDevice("cpu", node), Deployment(64)
    assert not is_calibrated(CPU, 32, deployment)
    first = calibrated(CPU, 32, deployment, quiet)
    assert asked == [["cpu", 32, 64, None, str(quiet.file)]] * 3
    monkeypatch.setattr(calibration, "_known", {})  # another process
    assert is_calibrated(CPU, 32, deployment)
    assert calibrated(CPU, 32, deployment, quiet) == first
    assert len(asked) == 3
    calibrated(CPU, 32, Deployment(32), quiet)  # another batch is another reference
    assert len(asked) == 6


@pytest.mark.parametrize("spoiled", ["", "{", "[]", '{"reference": -1}', json.dumps({"reference": "x"})])
def test_a_spoiled_file_is_written_anew(node: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    quiet = QuietDevice("cpu", node)
    monkeypatch.setattr(calibration, "in_this_process", lambda *a, **k: found(seconds=0.02))
    calibrated(CPU, 32, Deployment(), quiet)
    (kept,) = (node / "cache").glob("calibration-*.json")
    kept.write_text(spoiled)
    monkeypatch.setattr(calibration, "_known", {})
    assert calibrated(CPU, 32, Deployment(), quiet).reference == pytest.approx(64 / 0.02)
    assert Calibration(**json.loads(kept.read_text())).reference == pytest.approx(64 / 0.02)


def test_what_other_programs_disturbed_is_not_kept_and_ends_at_once(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSPACE_CALIBRATION", "5")
    asked = []

    def ask(module: str, told: object, *, timeout_s: float) -> object:
        asked.append(told)
        return {"seconds": 0.01, "ratios": [[0.1, 0.01]], "undisturbed": False}

    monkeypatch.setattr(calibration, "ask", ask)
    assert not calibrated(CPU, 32, Deployment(), QuietDevice("cpu", node)).undisturbed
    assert len(asked) == 1
    assert not list((node / "cache").glob("calibration-*.json"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What is asked of a GPU played by this CPU: whether it is current, and by which file others are told from ours."""
    asked: list[tuple[object, ...]] = []
    current: list[torch.device] = []

    @contextmanager
    def selected(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def others_compute(device: torch.device, shared: Path) -> bool:
        asked.append((tuple(current), device, shared))
        return True

    calm = Pairs(ours=(0.03,) * 9, reference=(0.01,) * 9, undisturbed=True)
    monkeypatch.setattr(torch.cuda, "device", selected)
    monkeypatch.setattr(calibration, "others_compute", others_compute)
    monkeypatch.setattr(calibration, "in_turns", lambda *work, **how: calm)
    monkeypatch.setattr(calibration, "fastest", lambda *work: (lambda: None, "plain"))
    monkeypatch.setattr(calibration, "random_images", lambda *shape: None)
    monkeypatch.setattr(calibration, "reference_network", lambda *of: nn.Identity())
    monkeypatch.setattr(calibration, "deployed", lambda *of: SimpleNamespace(to=lambda **to: None))
    return asked


def test_a_gpu_on_which_another_program_computes_is_not_calibrated_for_good(
    gpu: list[tuple[object, ...]], tmp_path: Path
) -> None:
    """A fresh process asks for itself, of the GPU that it calibrates, and knows ours by the file of the one who asks."""
    told = calibration._answer(["cuda:1", 32, 64, "fp32", str(tmp_path / "room")])
    assert not told["undisturbed"]
    second = torch.device("cuda", 1)
    assert gpu == [((second,), second, tmp_path / "room")]
    calibration._answer(["cpu", 32, 64, "fp32", str(tmp_path / "room")])
    assert len(gpu) == 1


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("undisturbed", [True, False])
def test_a_disturbed_calibration_is_made_again_after_a_while_wherever_it_is_kept(
    node: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: bool, writable: bool
) -> None:
    asked: list[object] = []

    def in_this_process(*told: object, **others: object) -> Found:
        asked.append(told)
        return found(undisturbed=undisturbed)

    monkeypatch.setattr(calibration, "in_this_process", in_this_process)
    now = 1000.0
    monkeypatch.setattr(calibration.time, "monotonic", lambda: now)
    if not writable:
        (node / "cache").write_text("a file, where the folder should be")
    quiet = QuietDevice("cpu", node)
    for _ in range(2):
        calibrated(CPU, 32, Deployment(), quiet)
        now += calibration.AGAIN_S - 1
    assert len(asked) == 1
    now += 2
    assert is_calibrated(CPU, 32, Deployment()) == undisturbed
    calibrated(CPU, 32, Deployment(), quiet)
    assert len(asked) == (1 if undisturbed else 2)


def test_a_number_of_processes_that_is_none_is_told(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPSPACE_CALIBRATION", "many")
    with pytest.raises(
        UserError, match='MLPSPACE_CALIBRATION "many" is no number of processes from 1 to 100; 5 is usual'
    ):
        calibrated(CPU, 32, Deployment(), QuietDevice("cpu", node))


@pytest.mark.slow
def test_fresh_processes_calibrate_this_machine(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPSPACE_CALIBRATION", "2")
    told = calibrated(CPU, 32, Deployment(16), QuietDevice("cpu", node))
    assert told.reference > 0
    assert told.processes in (1, 2)  # 1: other programs use the CPU


def test_the_reference_has_eight_tokens_a_side_or_more_at_any_resolution() -> None:
    for resolution in (4, 7, 8, 15, 28, 32, 33, 64, 96, 160, 224, 225, 384):
        architecture = reference_architecture(resolution)
        assert architecture.unfit(resolution) is None
        patch = architecture.stem.patch  # type: ignore[union-attr]
        assert resolution // patch >= min(8, resolution)
