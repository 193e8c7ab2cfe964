"""What NVIDIA's driver tells of a GPU: its clocks, who else uses it, the energy it has used.

Asked by way of NVML (nvidia-ml-py, whose module is `pynvml`). A GPU is named by the UUID that torch gives it
(`device.key`), so that CUDA_VISIBLE_DEVICES, which counts GPUs anew, does not matter. Nothing here raises: what the
driver does not tell, or what there is no driver to tell, is None.

Nobody has run this on a GPU yet; the tests put functions of their own in the place of NVML's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Answer = TypeVar("Answer")

# Why a GPU does not run at its highest clocks (nvml.h, nvmlClocksEventReasons).
_REASONS = {
    "nvmlClocksEventReasonGpuIdle": "idle",
    "nvmlClocksEventReasonApplicationsClocksSetting": "clocks set by hand",
    "nvmlClocksEventReasonSwPowerCap": "power cap",
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSyncBoost": "in step with another GPU",
    "nvmlClocksEventReasonSwThermalSlowdown": "thermal",
    "nvmlClocksEventReasonHwThermalSlowdown": "thermal, by the hardware",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
    "nvmlClocksEventReasonDisplayClockSetting": "display",
}
_PLANNED = {"idle", "clocks set by hand"}  # no sign of a GPU that cannot keep up


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """MHz of a GPU's multiprocessors (sm) and of its memory, at the moment and at most.

    `reasons` says why they are not the highest, in words. What the driver does not tell is None.
    """

    sm_mhz: int | None
    memory_mhz: int | None
    sm_max_mhz: int | None
    memory_max_mhz: int | None
    reasons: tuple[str, ...] | None

    @property
    def throttled(self) -> tuple[str, ...]:
        """The reasons for which a busy GPU is slower than it could be: power, heat."""
        return tuple(reason for reason in self.reasons or () if reason not in _PLANNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A process that uses a GPU, with the memory it holds there (MB of 10^6 bytes); None where that is not told."""

    pid: int
    memory_mb: float | None


def driver() -> str | None:
    """The version of NVIDIA's driver, such as "570.86.15"."""
    return _asked(lambda nvml: str(nvml.nvmlSystemGetDriverVersion()))


def clocks(uuid: str) -> Clocks | None:
    """The clocks of a GPU; a MIG slice has those of its GPU."""

    def ask(nvml: Any) -> Clocks:
        gpu = _handle(nvml, uuid)
        if _is_slice(nvml, gpu):
            gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu)

        def mhz(call: Callable[[Any, int], int], clock: int) -> int | None:
            return _told(nvml, lambda: int(call(gpu, clock)))

        return Clocks(
            sm_mhz=mhz(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            memory_mhz=mhz(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            sm_max_mhz=mhz(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
            memory_max_mhz=mhz(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_MEM),
            reasons=_told(nvml, lambda: _words(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))),
        )

    return _asked(ask)


def others(uuid: str, *, ours: Callable[[int], bool]) -> tuple[Other, ...] | None:
    """The processes that use a GPU, without this one and those that are `ours` by their pid; by memory, most first.

    Ask once this process has used the GPU. If it is then not among those listed, the list tells nothing and the answer
    is None: in a container the driver shows no processes, or those of the host by numbers that mean something else
    here. A newer driver shows a container its own processes and not those of others, so () there means that none is
    seen, not that none is there: `utilisation` of a GPU that we leave alone tells.
    """

    def ask(nvml: Any) -> tuple[Other, ...] | None:
        gpu = _handle(nvml, uuid)
        listed = list(nvml.nvmlDeviceGetComputeRunningProcesses_v3(gpu))
        for more in (nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3):
            listed += _told(nvml, functools.partial(more, gpu)) or []
        held = {process.pid: process.usedGpuMemory for process in listed}
        if os.getpid() not in held:
            return None
        found = [
            Other(pid=pid, memory_mb=None if used is None else used / 1e6)
            for pid, used in held.items()
            if pid != os.getpid() and not ours(pid)
        ]
        return tuple(sorted(found, key=lambda other: (-(other.memory_mb or 0.0), other.pid)))

    return _asked(ask)


def utilisation(uuid: str) -> int | None:
    """Percent of the last sampling period (a sixth of a second to a second) in which a kernel ran, whoever's it was.

    A MIG slice does not tell.
    """
    return _asked(lambda nvml: int(nvml.nvmlDeviceGetUtilizationRates(_handle(nvml, uuid)).gpu))


def energy_mj(uuid: str) -> int | None:
    """Millijoules that a GPU, memory and board with it, has used since its driver was loaded (from Volta on).

    None for a MIG slice: what is counted is the energy of all slices.
    """

    def ask(nvml: Any) -> int | None:
        gpu = _handle(nvml, uuid)
        if _is_slice(nvml, gpu) or _told(nvml, lambda: nvml.nvmlDeviceGetMigMode(gpu)[0]):
            return None
        return int(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu))

    return _asked(ask)


@functools.cache
def _library() -> Any | None:
    """pynvml, with NVML at work until this process ends; None where there is none. To start it takes a while."""
    try:
        import pynvml
    except ImportError:  # nobody needs it on macOS
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no library, no driver, no GPU that one may see
        return None
    return pynvml


def _asked(question: Callable[[Any], Answer | None]) -> Answer | None:
    nvml = _library()
    return None if nvml is None else _told(nvml, lambda: question(nvml))


def _told(nvml: Any, call: Callable[[], Answer | None]) -> Answer | None:
    try:
        return call()
    except nvml.NVMLError:  # not supported, not permitted, unknown to this driver, the GPU is lost
        return None


def _handle(nvml: Any, uuid: str) -> Any:
    """NVML's handle of the device that torch gives this UUID; NVML puts the kind of device before it."""
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _is_slice(nvml: Any, gpu: Any) -> bool:
    """Whether it is a MIG slice; a GPU from before those does not know the question."""
    return bool(_told(nvml, lambda: nvml.nvmlDeviceIsMigDeviceHandle(gpu)))


def _words(nvml: Any, reasons: int) -> tuple[str, ...]:
    return tuple(word for name, word in _REASONS.items() if reasons & getattr(nvml, name))
