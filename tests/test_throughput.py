"""Throughput: what is timed, and what the number and its interval are made of."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlpspace import throughput
from mlpspace.calibration import Calibration
from mlpspace.device import cores
from mlpspace.errors import UserError
from mlpspace.fingerprint import Fingerprint, fingerprint
from mlpspace.measurement import Measurement
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import random_images
from mlpspace.throughput import DISTURBED_PROTOCOL, THROUGHPUT_PROTOCOL, in_images, measure_throughput
from mlpspace.timing import Pairs

CPU = torch.device("cpu")
EIGHT = Deployment(8)
CALIBRATION = Calibration(reference=1000.0, error=0.0, spread=0.0, freedom=4.0, processes=1)


class Seeing(nn.Module):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.modes: set[tuple[bool, bool, int]] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        self.modes.add((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return images.new_zeros(len(images), 2)


def measured(
    network: nn.Module,
    tmp_path: Path,
    *,
    calibration: Calibration = CALIBRATION,
    deployment: Deployment = EIGHT,
) -> Measurement:
    quiet = QuietDevice("cpu", tmp_path)
    found, _ = measure_throughput(
        network,
        resolution=4,
        deployment=deployment,
        device=CPU,
        quiet=quiet,
        calibration=calibration,
        budget_s=0.02,
        patience_s=0.0,
    )
    return found


def test_throughput_is_the_references_over_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Pairs(ours=(0.03,) * 9, reference=(0.01,) * 9, undisturbed=True)
    monkeypatch.setattr(throughput, "in_turns", lambda *work, **how: pairs)
    found = measured(Seeing(), tmp_path)
    assert found.value == found.low == found.high == pytest.approx(1000 / 3)
    assert (found.metric, found.batch, found.precision, found.rung) == ("throughput", 8, "fp32", None)
    assert (found.protocol, found.reference) == (THROUGHPUT_PROTOCOL, 1000.0)
    disturbed = dataclasses.replace(pairs, undisturbed=False)
    monkeypatch.setattr(throughput, "in_turns", lambda *work, **how: disturbed)
    assert measured(Seeing(), tmp_path).protocol == DISTURBED_PROTOCOL


def test_what_was_calibrated_while_others_used_the_cpu_makes_disturbed_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = Pairs(ours=(0.03,) * 9, reference=(0.01,) * 9, undisturbed=True)
    monkeypatch.setattr(throughput, "in_turns", lambda *work, **how: pairs)
    loud = dataclasses.replace(CALIBRATION, undisturbed=False)
    assert measured(Seeing(), tmp_path, calibration=loud).disturbed


class Gpu:
    """A GPU played by this CPU: all that `measure_throughput` asks of one, in the order in which it asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, others: bool = False, captures: bool = True) -> None:
        self.asked: list[object] = []
        pairs = Pairs(ours=(0.03,) * 9, reference=(0.01,) * 9, undisturbed=True)

        def others_compute(device: torch.device, shared: Path) -> bool:
            self.asked.append(shared)
            return others

        def told(device: torch.device) -> Fingerprint:
            self.asked.append("clocks")
            return fingerprint(CPU)

        monkeypatch.setattr(throughput, "in_turns", lambda *work, **how: pairs)
        monkeypatch.setattr(throughput, "random_images", lambda *shape: random_images(*shape[:2], CPU, shape[3]))
        monkeypatch.setattr(throughput, "reference_network", lambda *_: Seeing())
        monkeypatch.setattr(throughput, "peak_bytes", lambda *_: 10**6)
        monkeypatch.setattr(throughput, "MEMORY_PROTOCOL", {"cuda": "allocator-peak-v1"})
        monkeypatch.setattr(throughput, "fastest", lambda network, images, device: (lambda: None, "plain"))
        monkeypatch.setattr(throughput, "may_capture", lambda: captures)
        monkeypatch.setattr(throughput, "energy_per_image", lambda *_, **__: (3.0, 2.0, 4.0))
        monkeypatch.setattr(throughput, "describe", lambda device: "NVIDIA H200")
        monkeypatch.setattr(throughput, "others_compute", others_compute)
        monkeypatch.setattr(throughput, "fingerprint", told)

    def measured(self, quiet: QuietDevice) -> dict[str, Measurement]:
        class Staying(Seeing):
            def to(self, *_: object, **__: object) -> Seeing:  # type: ignore[override]
                return self

        found = measure_throughput(
            Staying(),
            resolution=4,
            deployment=Deployment(8, precision="fp32"),
            device=torch.device("cuda", 0),
            quiet=quiet,
            calibration=CALIBRATION,
        )
        return {each.metric: each for each in found}


@pytest.mark.parametrize("others", [False, True])
def test_others_on_a_gpu_disturb_its_speed_and_its_energy_and_not_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    quiet = QuietDevice("gpu", tmp_path)
    gpu = Gpu(monkeypatch, others=others)
    found = gpu.measured(quiet)
    disturbed = {metric: each.disturbed for metric, each in found.items()}
    assert disturbed == {"throughput": others, "peak_memory_mb": False, "energy_mj": others}
    assert gpu.asked == ["clocks", quiet.file]  # the clock of a GPU that has just computed
    assert {each.threads for each in found.values()} == {1}


def test_a_speed_beside_a_reference_that_cannot_be_captured_as_it_was_compares_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Gpu(monkeypatch, captures=False).measured(QuietDevice("gpu", tmp_path))
    assert found["throughput"].disturbed
    assert not found["energy_mj"].disturbed


def test_the_interval_holds_what_varies_within_a_process_and_between_processes() -> None:
    """True ratios of processes scatter by 3 %, each is seen with an error of 2 %, the 3 % are known from 8 degrees of
    freedom: of 4,000 such measurements 95 % cover the true value. Without the scatter between processes 71 % would."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(4000):
        spread = 0.03 * math.sqrt(rng.chisquare(8) / 8)
        calibration = Calibration(reference=500.0, error=0.0, spread=spread, freedom=8.0, processes=5)
        ratio = rng.normal(math.log(2), 0.03) + rng.normal(0, 0.02)
        value, low, high = in_images((ratio, 0.02), calibration)
        assert low < value < high
        covered += low <= 250.0 <= high
    assert 0.94 <= covered / 4000 <= 0.965


def test_the_network_sees_random_images_in_eval_mode_on_all_cores(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    network = Seeing().train()
    found = measured(network, tmp_path)
    assert network.modes == {(False, False, cores())}
    assert found.threads == cores()
    assert torch.get_num_threads() == 1
    images = network.seen[0]
    assert images.shape == (8, 3, 4, 4)
    assert images.std() > 0.5


def test_threads_and_locks_are_restored_after_an_error(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    with pytest.raises(RuntimeError):
        measured(nn.Linear(5, 5), tmp_path)
    assert torch.get_num_threads() == 1
    with QuietDevice("cpu", tmp_path).alone():
        pass


def test_a_network_is_measured_in_the_precision_it_is_deployed_in(tmp_path: Path) -> None:
    network = Seeing()
    found = measured(network, tmp_path, deployment=Deployment(8, precision="bf16"))
    assert found.precision == "bf16"
    assert network.seen[0].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__file__, reason="torch.compile links nothing from a folder with a blank in its name")
def test_a_compiled_network_is_measured_compiled_and_compares_with_its_like_alone(tmp_path: Path) -> None:
    """Ten of one class: torch would run the ninth as it is, were it not told to forget the others."""
    for width in range(1, 11):
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16 * width), nn.GELU())
        found = measured(network, tmp_path, deployment=Deployment(8, compile=True))
        assert found.protocol.startswith(f"{THROUGHPUT_PROTOCOL}, compiled")
    with torch._dynamo.config.patch(error_on_recompile=True):
        measured(nn.Sequential(nn.Flatten(), nn.Linear(48, 7)), tmp_path, deployment=Deployment(8, compile=True))


@pytest.mark.parametrize(
    ("folder", "advice"), [("/home/a b/torch", "install it in one without"), ("/torch", "apt install g++")]
)
def test_where_nothing_compiles_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, advice: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CppCompileError: C++ compile error\nand much more")

    monkeypatch.setattr("torch.compile", fails)
    monkeypatch.setattr("torch.__file__", f"{folder}/__init__.py")
    with pytest.raises(UserError, match=f"compile error\n  .*{re.escape(advice)}.* compile: false"):
        measured(nn.Flatten(), tmp_path, deployment=Deployment(8, compile=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_measured_in_its_own_precision(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4096), nn.ReLU(), nn.Linear(4096, 10))
    quiet = QuietDevice("gpu", tmp_path)
    ballast = torch.empty(10**8, dtype=torch.uint8, device=device)  # a dataset, say: not the network's
    found, memory, *_ = measure_throughput(
        network, resolution=32, deployment=Deployment(64), device=device, quiet=quiet
    )
    size = 2 if found.precision == "bf16" else 4
    least = size * (3072 * 4096 + 4096 * 10 + 64 * 3072 + 2 * 64 * 4096) / 1e6
    assert least <= memory.value < least + 20
    assert found.low <= found.value <= found.high
    del ballast
