"""The circumstances of a speed: what a machine says of itself, kept, compared, in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mlpspace import fingerprint as module
from mlpspace import nvml
from mlpspace.device import describe
from mlpspace.fingerprint import Fingerprint, differences, fingerprint

CPU = torch.device("cpu")

GPU_HERE = Fingerprint(
    kind="cuda",
    name="NVIDIA H100 80GB HBM3",
    torch="2.15.0+cu132",
    libraries=("CUDA 13.2", "cuDNN 9.26.0"),
    threads=8,
    driver="570.86.15",
    mhz=1410,
    max_mhz=1980,
    memory_mhz=2619,
    max_memory_mhz=2619,
)
CPU_HERE = Fingerprint(
    kind="cpu",
    name="Some CPU, 8 cores",
    torch="2.15.0+cpu",
    libraries=("AVX512", "MKL 2024.2", "oneDNN 3.13.3"),
    threads=8,
    mhz=2300,
    max_mhz=3900,
    governor="powersave",
    siblings=True,
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that says nothing of its CPUs yet, of which this process may use 0 to 3."""
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(module, "CPUS", tmp_path)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return tmp_path


def says(machine: Path, file: str, *texts: str) -> None:
    """Each CPU's text in its file, CPU 0's first."""
    for cpu, text in enumerate(texts):
        (machine / f"cpu{cpu}" / file).parent.mkdir(parents=True, exist_ok=True)
        (machine / f"cpu{cpu}" / file).write_text(text + "\n")


def test_this_machines_fingerprint_names_its_device_and_torch() -> None:
    found = fingerprint(CPU)
    assert (found.kind, found.name, found.threads) == ("cpu", describe(CPU), torch.get_num_threads())
    assert found.torch == torch.__version__
    assert found.libraries[0] == torch.backends.cpu.get_cpu_capability()
    assert any(library.startswith("oneDNN") for library in found.libraries) == torch.backends.mkldnn.is_available()
    assert any(library.startswith("MKL") for library in found.libraries) == torch.backends.mkl.is_available()
    assert found.driver is None


def test_the_fastest_cpu_that_this_process_may_use_tells_the_clock(machine: Path) -> None:
    says(machine, "cpufreq/scaling_cur_freq", "800000", "2300123", "800000", "800000", "5000000")
    says(machine, "cpufreq/cpuinfo_max_freq", "3900000", "3900000", "3900000", "3900000", "5000000")
    says(machine, "cpufreq/scaling_governor", "powersave", "powersave", "powersave", "powersave", "performance")
    found = fingerprint(CPU)
    assert (found.mhz, found.max_mhz, found.governor) == (2300, 3900, "powersave")


def test_without_cpufreq_cpuinfo_tells_the_clock_and_nobody_the_highest(machine: Path) -> None:
    (machine / "cpuinfo").write_text("processor\t: 0\ncpu MHz\t\t: 2299.998\nprocessor\t: 1\ncpu MHz\t\t: 1000.0\n")
    found = fingerprint(CPU)
    assert (found.mhz, found.max_mhz, found.governor) == (2300, None, None)


def test_a_machine_that_says_nothing_has_unknown_clocks(machine: Path) -> None:
    found = fingerprint(CPU)
    assert (found.mhz, found.max_mhz, found.governor, found.siblings) == (None, None, None, None)
    assert "clock unknown" in found.words()


@pytest.mark.parametrize(
    ("cores", "threads", "shared"),
    [
        (("0,2", "1,3", "0,2", "1,3"), 2, False),
        (("0,2", "1,3", "0,2", "1,3"), 3, True),
        (("0-1", "0-1", "2-3", "2-3"), 4, True),
        (("0", "1", "2", "3"), 4, False),
    ],
)
def test_more_threads_than_cores_share_them(
    cores: tuple[str, ...], threads: int, shared: bool, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(machine, "topology/thread_siblings_list", *cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert fingerprint(CPU).siblings is shared


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    clocks = nvml.Clocks(sm_mhz=1410, memory_mhz=2619, sm_max_mhz=1980, memory_max_mhz=2619, reasons=())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="a-b"))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92600)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch, "__version__", "2.15.0+cu132")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(nvml, "driver", lambda: "570.86.15")
    monkeypatch.setattr(nvml, "clocks", lambda uuid: clocks if uuid == "a-b" else None)
    return torch.device("cuda", 0)


def test_a_gpus_fingerprint_is_what_its_driver_and_torch_tell(gpu: torch.device) -> None:
    assert fingerprint(gpu) == GPU_HERE


def test_a_gpu_without_nvml_has_unknown_clocks_and_driver(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "driver", lambda: None)
    monkeypatch.setattr(nvml, "clocks", lambda uuid: None)
    assert fingerprint(gpu).words() == (
        "NVIDIA H100 80GB HBM3, driver unknown, clock unknown, torch 2.15.0+cu132, CUDA 13.2, cuDNN 9.26.0"
    )


def test_a_fingerprint_is_one_line_of_words() -> None:
    assert GPU_HERE.words() == (
        "NVIDIA H100 80GB HBM3, driver 570.86.15, 1410 of 1980 MHz, memory 2619 of 2619 MHz, torch 2.15.0+cu132, "
        "CUDA 13.2, cuDNN 9.26.0"
    )
    assert CPU_HERE.words() == (
        "Some CPU, 8 cores, 8 threads, two on a core, 2300 of 3900 MHz, powersave, torch 2.15.0+cpu, AVX512, "
        "MKL 2024.2, oneDNN 3.13.3"
    )


@pytest.mark.parametrize("one", [GPU_HERE, CPU_HERE])
def test_a_fingerprint_comes_back_from_its_json(one: Fingerprint) -> None:
    assert Fingerprint.from_json(one.to_json()) == one
    assert "\n" not in one.to_json()


@pytest.mark.parametrize(
    "spoiled",
    [
        "",
        "7",
        "[]",
        "{}",
        "null",
        json.dumps({**dataclasses.asdict(CPU_HERE), "volts": 1}),
        json.dumps({**dataclasses.asdict(CPU_HERE), "threads": "8"}),
        json.dumps({**dataclasses.asdict(CPU_HERE), "libraries": 8}),
        json.dumps({**dataclasses.asdict(CPU_HERE), "libraries": [8]}),
        json.dumps({**dataclasses.asdict(CPU_HERE), "name": None}),
    ],
)
def test_anything_else_is_no_fingerprint(spoiled: str) -> None:
    with pytest.raises(ValueError, match=r"not a fingerprint|Expecting value"):
        Fingerprint.from_json(spoiled)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"torch": "2.13.0+cu132"}, ["torch 2.15.0+cu132 and 2.13.0+cu132"]),
        ({"driver": "550.54.14"}, ["driver 570.86.15 and 550.54.14"]),
        ({"driver": None}, []),
        ({"libraries": ("CUDA 13.0", "cuDNN 9.26.0")}, ["CUDA 13.2 and CUDA 13.0"]),
        ({"mhz": 345, "memory_mhz": 1593}, []),
        ({"max_mhz": 1755}, ["at most 1980 MHz and 1755 MHz"]),
        ({"threads": 2}, []),
        (
            {"name": "NVIDIA A100", "max_memory_mhz": 1593},
            ["NVIDIA H100 80GB HBM3 and NVIDIA A100", "memory at most 2619 MHz and 1593 MHz"],
        ),
    ],
)
def test_gpus_differ_in_what_makes_speeds_differ(change: dict[str, object], words: list[str]) -> None:
    assert differences(GPU_HERE, dataclasses.replace(GPU_HERE, **change)) == words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mhz": 800}, []),
        ({"threads": 4}, ["threads: 8 and 4"]),
        ({"siblings": False}, ["threads to a core: two and one"]),
        ({"governor": "performance"}, ["governor powersave and performance"]),
        ({"governor": None, "siblings": None, "max_mhz": None}, []),
        ({"libraries": ("AVX2", "MKL 2024.2", "oneDNN 3.13.3")}, ["AVX512 and AVX2"]),
    ],
)
def test_cpus_differ_in_threads_too(change: dict[str, object], words: list[str]) -> None:
    assert differences(CPU_HERE, dataclasses.replace(CPU_HERE, **change)) == words  # type: ignore[arg-type]


def test_a_build_without_mkl_names_its_blas() -> None:
    config = "  - Intel(R) MKL-DNN v3.10.2 (Git Hash abc)\n  - Build settings: BLAS_INFO=open, LAPACK_INFO=open"
    assert module._cpu_libraries("DEFAULT", config) == ("DEFAULT", "BLAS open", "oneDNN 3.10.2")
