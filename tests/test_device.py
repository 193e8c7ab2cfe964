"""The device's name, cores and precision, from what a machine says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlpspace import device
from mlpspace.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "CGROUP_CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5, 6, 7}, raising=False)
    return tmp_path / "cpuinfo"


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "found"),
    [("auto", "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")],
)
def test_each_name_is_a_device(name: str, found: str) -> None:
    assert device.resolve(name) == torch.device(found)


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.resolve("auto") == CPU


@pytest.mark.usefixtures("gpus")
def test_a_gpu_too_many_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r'device "cuda:2" is not there; this machine has cuda:0, cuda:1'):
        device.resolve("cuda:2")


def test_a_gpu_where_there_is_none_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"finds no GPU here; type --device cpu"):
        device.resolve("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"Known: auto, cpu, cuda, cuda:1"):
        device.resolve(name)


def test_a_cpu_is_described_with_its_cores(cpuinfo: Path) -> None:
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu\nprocessor\t: 1\nmodel name\t: x\n"
    )
    assert device.describe(CPU) == "Some CPU @ 2.00GHz, 8 cores"


@pytest.mark.parametrize(("quota", "found"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)])
def test_a_containers_quota_limits_the_cores(quota: str, found: int, cpuinfo: Path) -> None:
    cpuinfo.with_name("cpu.max").write_text(quota + "\n")
    assert device.cores() == found


@pytest.mark.parametrize(
    ("vendor", "flags", "trains", "used"),
    [
        ("GenuineIntel", "fpu sse", "fp32", "fp32"),
        ("GenuineIntel", "avx512f avx512_bf16", "fp32", "fp32"),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", "bf16", "bf16"),
        ("AuthenticAMD", "fpu sse avx512f", "fp32", "fp32"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bf16", "fp32"),
    ],
)
def test_a_cpu_trains_in_bf16_where_that_was_seen_to_be_faster(
    vendor: str, flags: str, trains: str, used: str, cpuinfo: Path
) -> None:
    cpuinfo.write_text(f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n")
    assert device.training_precision(CPU) == trains
    assert device.usual_precision(CPU) == used


def test_a_machine_without_cpuinfo_trains_in_fp32(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    assert device.training_precision(CPU) == device.usual_precision(CPU) == "fp32"
    assert device.describe(CPU).endswith(", 8 cores")


@pytest.mark.parametrize(("capability", "found"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_trains_in_bf16_from_ampere_on(
    capability: tuple[int, int], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    gpu = torch.device("cuda", 0)
    assert device.training_precision(gpu) == device.usual_precision(gpu) == found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_a_name_and_a_key_of_its_own() -> None:
    gpu = device.resolve("cuda")
    assert device.describe(gpu) == torch.cuda.get_device_name(0)
    assert device.key(gpu) != device.key(CPU) == "cpu"
    assert len(device.key(gpu)) >= 32


def test_a_gpu_has_one_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or object())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    device._side_stream.cache_clear()
    try:
        second = device.side_stream(torch.device("cuda", 1))
        assert second is device.side_stream(torch.device("cuda", 1)) is device.side_stream(torch.device("cuda"))
        assert second is not device.side_stream(torch.device("cuda", 0))
    finally:
        device._side_stream.cache_clear()
    assert made == [torch.device("cuda", 1), torch.device("cuda", 0)]
