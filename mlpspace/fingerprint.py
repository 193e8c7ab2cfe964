"""The circumstances on which a device's speed hangs, beside its name: clocks, driver, torch, threads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpspace import nvml

if TYPE_CHECKING:
    import torch

CPUINFO = Path("/proc/cpuinfo")
CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A device as it was when something was timed on it; what could not be known is None."""

    kind: str  # "cpu", "cuda"
    name: str  # as `device.describe` gives it
    torch: str  # with its build: 2.15.0+cu132
    libraries: tuple[str, ...]  # that torch computes with there, with their versions
    threads: int  # of this process
    driver: str | None = None  # a GPU's
    mhz: int | None = None  # when it was asked: a device at rest runs slowly
    max_mhz: int | None = None
    memory_mhz: int | None = None  # a GPU's
    max_memory_mhz: int | None = None
    governor: str | None = None  # what sets a CPU's clock: "performance", "powersave"
    siblings: bool | None = None  # whether a CPU's threads share cores (SMT, hyper-threading), two on one

    def to_json(self) -> str:
        """One line of JSON, keys sorted: two equal fingerprints give one text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Fingerprint:
        """The fingerprint that `to_json` wrote.

        Raises:
            ValueError: the text is none.
        """
        try:
            told = json.loads(text)
            found = Fingerprint(**{**told, "libraries": tuple(told["libraries"])})
        except (TypeError, KeyError, RecursionError) as error:  # of an unknown field, or one that is not there
            raise ValueError(f"not a fingerprint: {error}") from None
        wrong = [name for name, kind in _KINDS.items() if not isinstance(getattr(found, name), kind)]
        if not all(isinstance(library, str) for library in found.libraries):
            wrong.append("libraries")
        if wrong:
            raise ValueError(f"not a fingerprint: {', '.join(wrong)} of another kind")
        return found

    def words(self) -> str:
        """What matters, in one line."""
        parts = [self.name]
        if self.kind == "cpu":
            parts.append(f"{self.threads} {'thread' if self.threads == 1 else 'threads'}")
            if self.siblings:
                parts.append("two on a core")
        else:
            parts.append(f"driver {self.driver or 'unknown'}")
        parts.append(_clock(self.mhz, self.max_mhz) or "clock unknown")
        if self.kind != "cpu" and self.memory_mhz is not None:
            parts.append(f"memory {_clock(self.memory_mhz, self.max_memory_mhz)}")
        if self.governor:
            parts.append(self.governor)
        return ", ".join([*parts, f"torch {self.torch}", *self.libraries])


def content_id(text: str) -> str:
    """Of a fingerprint's JSON; the ledger knows it by this."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_TO_A_CORE = {None: None, False: "one", True: "two"}
_NUMBER, _WORD = (int, type(None)), (str, type(None))
_KINDS = {
    **dict.fromkeys(("kind", "name", "torch"), (str,)),
    **dict.fromkeys(("mhz", "max_mhz", "memory_mhz", "max_memory_mhz"), _NUMBER),
    **dict.fromkeys(("driver", "governor"), _WORD),
    "threads": (int,),
    "siblings": (bool, type(None)),
}


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """In what two fingerprints differ so that speeds taken under them may not compare, in words; [] if in nothing.

    What one of them does not know is no difference. A clock differs if its maximum does, as the present one moves all
    the time; threads matter on a CPU alone, as a GPU is fed by one.
    """
    only = [[name for name in a.libraries if name not in b.libraries] for a, b in ((one, other), (other, one))]
    pairs: list[tuple[str, str | None, str | None]] = [
        ("", one.name, other.name),
        ("driver ", one.driver, other.driver),
        ("torch ", one.torch, other.torch),
        ("", ", ".join(only[0]) or None, ", ".join(only[1]) or None),
        ("governor ", one.governor, other.governor),
        ("at most ", _clock(one.max_mhz), _clock(other.max_mhz)),
        ("memory at most ", _clock(one.max_memory_mhz), _clock(other.max_memory_mhz)),
    ]
    if "cpu" in (one.kind, other.kind):
        pairs.append(("threads: ", str(one.threads), str(other.threads)))
        pairs.append(("threads to a core: ", _TO_A_CORE[one.siblings], _TO_A_CORE[other.siblings]))
    return [f"{what}{a} and {b}" for what, a, b in pairs if a is not None and b is not None and a != b]


def fingerprint(device: torch.device) -> Fingerprint:
    """The fingerprint of a device at this moment, with the threads that this process has at this moment."""
    import torch

    from mlpspace.device import describe, key

    threads = torch.get_num_threads()
    if device.type == "cuda":
        uuid = key(device)
        clocks = nvml.clocks(uuid)
        return Fingerprint(
            kind="cuda",
            name=describe(device),
            torch=str(torch.__version__),
            libraries=_gpu_libraries(torch.version.cuda, torch.backends.cudnn.version()),
            threads=threads,
            driver=nvml.driver(),
            mhz=clocks.sm_mhz if clocks else None,
            max_mhz=clocks.sm_max_mhz if clocks else None,
            memory_mhz=clocks.memory_mhz if clocks else None,
            max_memory_mhz=clocks.memory_max_mhz if clocks else None,
        )
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return Fingerprint(
        kind="cpu",
        name=describe(device),
        torch=str(torch.__version__),
        libraries=_cpu_libraries(torch.backends.cpu.get_cpu_capability(), torch.__config__.show()),
        threads=threads,
        mhz=_mhz(allowed, "scaling_cur_freq") or _mhz_of_cpuinfo(),
        max_mhz=_mhz(allowed, "cpuinfo_max_freq"),
        governor=", ".join(sorted(_each(allowed, "cpufreq/scaling_governor"))) or None,
        siblings=_siblings(allowed, threads),
    )


def _clock(now: int | None, most: int | None = None) -> str | None:
    if now is None:
        return None
    return f"{now} MHz" if most is None else f"{now} of {most} MHz"


def _gpu_libraries(cuda: str | None, cudnn: int | None) -> tuple[str, ...]:
    """`cudnn` as torch tells it: 92600 for 9.26.0."""
    found = [f"CUDA {cuda}"] if cuda else []
    if cudnn:
        found.append(f"cuDNN {cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}")
    return tuple(found)


def _cpu_libraries(capability: str, config: str) -> tuple[str, ...]:
    """The instructions that torch uses, its BLAS and its oneDNN, from the text in which it tells of its build."""
    found = [capability]
    mkl = re.search(r"Math Kernel Library Version ([\d.]+)", config)
    blas = re.search(r"\bBLAS_INFO=(\w+)", config)
    if mkl:
        found.append(f"MKL {mkl[1]}")
    elif blas:
        found.append(f"BLAS {blas[1]}")
    onednn = re.search(r"MKL-DNN v([\d.]+)", config)
    if onednn:
        found.append(f"oneDNN {onednn[1]}")
    return tuple(found)


def _each(cpus: list[int], file: str) -> set[str]:
    """What these CPUs say in a file of their own; nothing where they do not."""
    found = set()
    for cpu in cpus:
        try:
            found.add((CPUS / f"cpu{cpu}" / file).read_text().strip())
        except OSError:
            continue
    return found


def _mhz(cpus: list[int], file: str) -> int | None:
    """Of the fastest of them, as the others may be at rest, or made to save power."""
    told = [int(text) for text in _each(cpus, f"cpufreq/{file}") if text.isdecimal()]  # in kHz
    return round(max(told) / 1000) if told else None


def _mhz_of_cpuinfo() -> int | None:
    """The same where cpufreq tells nothing, as in virtual machines; None on processors that do not say it there."""
    try:
        told = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return round(max(map(float, told))) if told else None


def _siblings(cpus: list[int], threads: int) -> bool | None:
    """Whether so many threads are more than the cores that these CPUs lie on."""
    on = _each(cpus, "topology/thread_siblings_list")  # the same text for all CPUs of a core
    return threads > len(on) if on else None
