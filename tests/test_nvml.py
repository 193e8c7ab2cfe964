"""What the driver tells of a GPU: the real pynvml, with functions of ours in the place of the driver's library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlpspace import nvml

pynvml = pytest.importorskip("pynvml")

UUID = "0f1d7e3b-5a44-9c1e-8a0c-3f2b1d6e7a90"
NOBODY: Callable[[int], bool] = lambda pid: False  # noqa: E731

OK, NOT_SUPPORTED, NOT_FOUND, TOO_SMALL = 0, 3, 6, 7  # nvml.h
NOT_AVAILABLE = 2**64 - 1


class Driver(SimpleNamespace):
    """libnvidia-ml.so.1 with one GPU: its functions by the names and with the arguments that nvml.h gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"GPU-{UUID}"
        self.clocks = {pynvml.NVML_CLOCK_SM: 1410, pynvml.NVML_CLOCK_MEM: 1593}
        self.most = {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}
        self.reasons = 0
        self.mig_mode: int | None = None
        self.knows_slices = True
        self.energy: int | None = 123_456
        self.compute: list[tuple[int, int]] | None = []
        self.graphics: list[tuple[int, int]] | None = None

    def nvmlInitWithFlags(self, flags: int) -> int:
        return OK

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:
        text.value = b"570.86.15"
        return OK

    def nvmlDeviceGetHandleByUUID(self, uuid: ctypes.c_char_p, handle: Any) -> int:
        return OK if uuid.value == self.name.encode() else NOT_FOUND

    def nvmlDeviceIsMigDeviceHandle(self, handle: Any, answer: Any) -> int:
        if not self.knows_slices:
            return NOT_SUPPORTED
        answer._obj.value = self.name.startswith("MIG-")
        return OK

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Any, answer: Any) -> int:
        return OK

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:
        if self.mig_mode is None:
            return NOT_SUPPORTED
        current._obj.value = self.mig_mode
        return OK

    def nvmlDeviceGetClockInfo(self, handle: Any, clock: Any, answer: Any) -> int:
        return self._number(answer, self.clocks.get(clock.value))

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, clock: Any, answer: Any) -> int:
        return self._number(answer, self.most.get(clock.value))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any, answer: Any) -> int:
        return self._number(answer, self.reasons)

    def nvmlDeviceGetUtilizationRates(self, handle: Any, answer: Any) -> int:
        answer._obj.gpu, answer._obj.memory = 37, 5
        return OK

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, answer: Any) -> int:
        return self._number(answer, self.energy)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:
        return self._list(self.compute, count, found)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:
        return self._list(self.graphics, count, found)

    def _number(self, answer: Any, value: int | None) -> int:
        if value is None:
            return NOT_SUPPORTED
        answer._obj.value = value
        return OK

    def _list(self, processes: list[tuple[int, int]] | None, count: Any, found: Any) -> int:
        if processes is None:
            return NOT_SUPPORTED
        if found is None:
            count._obj.value = len(processes)
            return TOO_SMALL if processes else OK
        count._obj.value = len(processes)
        for place, (pid, used) in zip(found, processes, strict=False):
            place.pid, place.usedGpuMemory = pid, used
        return OK


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    driver = Driver()
    monkeypatch.setattr(pynvml, "nvmlLib", driver)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    nvml._library.cache_clear()
    yield driver
    nvml._library.cache_clear()


@pytest.mark.usefixtures("gpu")
def test_the_driver_has_a_version() -> None:
    assert nvml.driver() == "570.86.15"


def test_clocks_are_those_of_now_and_the_highest(gpu: Driver) -> None:
    assert nvml.clocks(UUID) == nvml.Clocks(
        sm_mhz=1410, memory_mhz=1593, sm_max_mhz=1980, memory_max_mhz=2619, reasons=()
    )


@pytest.mark.parametrize(
    ("bits", "words", "throttled"),
    [  # nvml.h, nvmlClocksEventReasons
        (0x0, (), ()),
        (0x1, ("idle",), ()),
        (0x2, ("clocks set by hand",), ()),
        (0x4, ("power cap",), ("power cap",)),
        (0x20, ("thermal",), ("thermal",)),
        (0x44, ("power cap", "thermal, by the hardware"), ("power cap", "thermal, by the hardware")),
        (0x89, ("idle", "hardware slowdown", "power brake"), ("hardware slowdown", "power brake")),
    ],
)
def test_a_slow_gpu_says_why(bits: int, words: tuple[str, ...], throttled: tuple[str, ...], gpu: Driver) -> None:
    gpu.reasons = bits
    found = nvml.clocks(UUID)
    assert found is not None
    assert found.reasons == words
    assert found.throttled == throttled


def test_a_clock_that_is_not_told_is_none_and_the_others_are_told(gpu: Driver) -> None:
    del gpu.most[pynvml.NVML_CLOCK_MEM]
    found = nvml.clocks(UUID)
    assert found is not None
    assert (found.sm_max_mhz, found.memory_max_mhz) == (1980, None)


def test_others_are_neither_this_process_nor_ours(gpu: Driver) -> None:
    gpu.compute = [(os.getpid(), 5_000_000), (100, 2_000_000), (200, NOT_AVAILABLE), (300, 7_500_000)]
    assert nvml.others(UUID, ours=lambda pid: pid == 100) == (
        nvml.Other(pid=300, memory_mb=7.5),
        nvml.Other(pid=200, memory_mb=None),
    )


def test_a_process_that_draws_on_the_screen_uses_the_gpu_too(gpu: Driver) -> None:
    gpu.compute, gpu.graphics = [(os.getpid(), 1)], [(7, 30_000_000)]
    assert nvml.others(UUID, ours=NOBODY) == (nvml.Other(pid=7, memory_mb=30.0),)


def test_a_gpu_of_our_own_has_no_others(gpu: Driver) -> None:
    gpu.compute = [(os.getpid(), 5_000_000)]
    assert nvml.others(UUID, ours=NOBODY) == ()


@pytest.mark.parametrize("listed", [[], [(2**22 + 1, 5_000_000)], None])
def test_a_list_without_this_process_tells_nothing(listed: list[tuple[int, int]] | None, gpu: Driver) -> None:
    gpu.compute = listed
    assert nvml.others(UUID, ours=NOBODY) is None


def test_utilisation_is_that_of_the_kernels_and_not_of_the_memory(gpu: Driver) -> None:
    assert nvml.utilisation(UUID) == 37


def test_energy_is_the_boards_counter(gpu: Driver) -> None:
    assert nvml.energy_mj(UUID) == 123_456
    gpu.energy = None  # before Volta
    assert nvml.energy_mj(UUID) is None


def test_a_mig_slice_has_the_clocks_of_its_gpu_and_no_energy_of_its_own(gpu: Driver) -> None:
    gpu.name = f"MIG-{UUID}"
    found = nvml.clocks(UUID)
    assert found is not None
    assert found.sm_mhz == 1410
    assert nvml.energy_mj(UUID) is None


def test_a_gpu_that_knows_of_no_slices_tells_its_clocks_and_its_energy(gpu: Driver) -> None:
    gpu.knows_slices = False  # before Ampere
    found = nvml.clocks(UUID)
    assert found is not None
    assert found.sm_mhz == 1410
    assert nvml.energy_mj(UUID) == 123_456


@pytest.mark.parametrize(("mode", "energy"), [(0, 123_456), (1, None)])
def test_a_gpu_cut_into_slices_counts_the_energy_of_them_all(mode: int, energy: int | None, gpu: Driver) -> None:
    gpu.mig_mode = mode
    assert nvml.energy_mj(UUID) == energy


@pytest.mark.usefixtures("gpu")
def test_of_an_unknown_gpu_nothing_is_told() -> None:
    other = UUID[::-1]
    assert nvml.clocks(other) is None
    assert nvml.others(other, ours=NOBODY) is None
    assert nvml.utilisation(other) is None
    assert nvml.energy_mj(other) is None


@pytest.mark.usefixtures("gpu")
def test_a_driver_that_does_not_know_a_question_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Driver, "nvmlDeviceGetCurrentClocksEventReasons")
    monkeypatch.delattr(Driver, "nvmlDeviceGetTotalEnergyConsumption")
    monkeypatch.delattr(Driver, "nvmlDeviceGetComputeRunningProcesses_v3")
    found = nvml.clocks(UUID)
    assert found is not None
    assert (found.reasons, found.throttled) == (None, ())
    assert nvml.energy_mj(UUID) is None
    assert nvml.others(UUID, ours=NOBODY) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver here")
def test_without_a_driver_nothing_is_told() -> None:
    nvml._library.cache_clear()
    assert nvml.driver() is None
    assert nvml.clocks(UUID) is None
    assert nvml.others(UUID, ours=NOBODY) is None
    assert nvml.utilisation(UUID) is None
    assert nvml.energy_mj(UUID) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpu_tells() -> None:
    torch.zeros(1, device="cuda")
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    assert nvml.driver() is not None
    found = nvml.clocks(uuid)
    assert found is not None
    assert found.sm_mhz is not None
    assert found.sm_max_mhz is not None
    assert 0 < found.sm_mhz <= found.sm_max_mhz
