"""The device a worker computes on: its name, its cores, its precision."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import torch

from mlpspace.errors import UserError

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def resolve(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:1" stands for; auto is the first GPU, else the CPU.

    Raises:
        UserError: it is none of these, or the machine does not have it.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if gpus else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise UserError(f'device "{name}" is not known. Known: auto, cpu, cuda, cuda:1 and so on.')
    if not gpus:
        raise UserError(
            f'device "{name}" asked for, but torch {torch.__version__} finds no GPU here; type --device cpu'
        )
    number = int(index or 0)
    if number >= gpus:
        known = ", ".join(f"cuda:{i}" for i in range(gpus))
        raise UserError(f'device "{name}" is not there; this machine has {known}')
    return torch.device("cuda", number)


def describe(device: torch.device) -> str:
    """The device's name as its maker gives it, a CPU with its cores: what a measurement is labelled with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = _field(CPUINFO, "model name") or platform.processor() or platform.machine()
    return f"{model}, {cores()} {'core' if cores() == 1 else 'cores'}"


def key(device: torch.device) -> str:
    """What tells this device from the others of its node, for every process alike.

    A GPU's index will not do: CUDA_VISIBLE_DEVICES counts them anew in each worker.
    """
    if device.type == "cuda":
        return str(torch.cuda.get_device_properties(device).uuid)
    return "cpu"


def cores() -> int:
    """Cores this process may use: its affinity, or less where its container has a quota (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_MAX.read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def free_memory_bytes() -> int | None:
    """Main memory that can still be had, without swap; None where the system does not tell.

    It has to be asked before: Linux promises more than there is, and ends the process that comes to collect it.
    """
    told = _field(MEMINFO, "MemAvailable")
    return None if told is None else int(told.split()[0]) * 1024  # in kB


def training_precision(device: torch.device) -> str:
    """What a device trains in: "bf16" where it computes faster in it, else "fp32".

    CUDA: bf16 from compute capability 8 (Ampere); before that it is emulated. CPU: with AMX tiles, which is unmeasured,
    and on AMD's with AVX-512's bfloat16 instructions (Zen 4). Elsewhere those are not enough. Images a CPU second
    beside fp32, 1 thread, batch 125, patch 4, 32 pixels, torch 2.13, best of 8 steps of mixers of 4x64 and 8x128: 1.75
    and 1.97 on an AMD EPYC (family 25, model 17; 0.92 to 1.35 for five draws of spaces/hybrid.yaml), 0.81 and 0.73 on a
    Xeon that has them without AMX.
    """
    if device.type == "cpu" and _field(CPUINFO, "vendor_id") == "AuthenticAMD" and "avx512_bf16" in _flags():
        return "bf16"
    return usual_precision(device)


def usual_precision(device: torch.device) -> str:
    """What networks are thought to be used in where nobody says: "bf16" on GPUs that have it and CPUs with AMX."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if "amx_bf16" in _flags() else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """The torch type that "fp32" or "bf16" names."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what was asked of it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def side_stream(device: torch.device) -> torch.cuda.Stream:
    """A GPU's one stream beside the usual one, on which what becomes a CUDA graph is warmed up and captured.

    One for all, as cuBLAS keeps a workspace for each stream that it was ever used on (32 MiB on Hopper) until the
    process ends.
    """
    return _side_stream(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _side_stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(torch.device("cuda", index))


def _flags() -> set[str]:
    return set((_field(CPUINFO, "flags") or "").split())


def _field(file: Path, field: str) -> str | None:
    """The first value of a field of such a file; None where there is none (another system, another processor)."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), None)
