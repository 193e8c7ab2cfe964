"""What a study and each of its sessions notes of itself: code, versions, machine, devices, command, seeds.

Enough to know later what was measured on what, and to get it back. Imports none of the packages that it names, since a
search notes it before anything heavy is loaded.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from mlpspace.errors import StudyError, printable

PACKAGES = (
    *("mlpspace", "torch", "optuna", "ray", "pandas", "ptflops", "pyyaml", "sqlalchemy", "numpy", "click", "rich"),
    *("matplotlib", "pyarrow", "pillow", "mlxtend", "scikit-learn", "threadpoolctl", "scipy", "nvidia-ml-py", "timm"),
    "psycopg",
)
DIFF_CHARACTERS = 1_000_000  # of a diff are kept; the rest is cut off, with a word

_CODE = Path(__file__).parent
_SETTINGS: tuple[str, ...] = (
    "OMP_",
    "MKL_",
    "KMP_",
    "OPENBLAS_",
    "ATEN_",
    "DNNL_",
    "ONEDNN_",
    "CUDA_",
    "CUBLAS_",
    "NVIDIA_TF32_",
)
_SET_BY_LIBRARIES = ("KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK")  # by scikit-learn, once it is imported
_SETTINGS += ("TORCH_", "PYTORCH_")  # environment variables that change what is computed, or where
_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "sve",
)  # that torch has kernels of their own for


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one session notes."""

    told: Mapping[str, Any]  # plain values, for JSON
    diff: str  # of mlpspace's code against its commit, as `git apply` takes it; empty where nothing was changed

    def keep_diff(self, folder: Path) -> None:
        """Write the diff to where `told` says it is, in a study's folder; once, however many sessions ran with it.

        Raises:
            StudyError: it cannot be written.
        """
        name = self.told["git"]["diff"]
        if name is None or (folder / name).exists():
            return
        new = folder / f"{name}.new"
        try:
            new.write_text(self.diff, encoding="utf-8")
            new.replace(folder / name)
        except OSError as error:
            raise StudyError(f"{folder / name} cannot be written ({error.strerror or error}).") from None


def manifest(*, command: str, space_id: str, data: Mapping[str, str], seeds: Mapping[str, int]) -> Manifest:
    """The manifest of a session that begins now. Takes as long as git and nvidia-smi do: tens of milliseconds.

    Args:
        command: as it was typed; passwords in it are not noted.
        data: dataset -> where it lies.
        seeds: "space": as the file says it, "search": that of this session.
    """
    git, diff = _git(_CODE)
    told = {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": without_passwords(command),
        "space_id": space_id,
        "data": dict(data),
        "seeds": dict(seeds),
        "git": git,
        "source": _source(_CODE),
        "python": sys.version.split()[0],
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "torch": _torch(),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            **_cpu(Path("/proc/cpuinfo")),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": _memory_gb(Path("/proc/meminfo")),
            **_gpus(),
        },
        "environment": {
            name: os.environ[name]
            for name in sorted(os.environ)
            if name.startswith(_SETTINGS) and name not in _SET_BY_LIBRARIES
        },
    }
    return Manifest(told, diff)


def without_passwords(command: str) -> str:
    """`command`, with *** for the password of each address in it.

    Example:
        >>> without_passwords("mlpspace search a.yaml --storage postgresql://me:secret@host/db")
        'mlpspace search a.yaml --storage postgresql://me:***@host/db'
    """
    command = re.sub(r"(://[^\s/:@]*:)\S+(?=@)", r"\1***", command)
    return re.sub(r"([?&]password=)[^&\s']+", r"\1***", command)


def facts(told: Mapping[str, Any]) -> dict[str, str]:
    """A manifest as flat names and texts, to be compared and shown: "machine.host" -> "laptop". What was not known is
    left out. Takes any JSON, as older versions noted less and a stranger's file may hold anything."""
    return dict(_flat("", told))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{_line(name)}" if prefix else _line(name), inner)
    elif isinstance(value, list):
        if value:
            yield prefix, ", ".join(map(_line, value))
    elif value is not None:
        yield prefix, _line(value)


def _line(value: Any) -> str:
    return printable(str(value)).replace("\n", "\\n")


# --- the code ---------------------------------------------------------------------------------------------------------


def _source(code: Path) -> str | None:
    """16 hex digits that are equal if and only if all of mlpspace's code is, whatever git knows; None: it is in no
    files that can be read."""
    digest, files = hashlib.sha256(), sorted(code.rglob("*.py"))
    for path in files:
        try:
            text = path.read_bytes()
        except OSError:
            return None
        digest.update(f"{path.relative_to(code).as_posix()}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.hexdigest()[:16] if files else None


def _git(code: Path) -> tuple[dict[str, Any], str]:
    """The commit of the checkout that mlpspace runs from, how its code differs from that, and the diff itself.

    What git ignores is no part of it. Where there is no commit to tell, "why" says so.
    """
    try:
        root = Path(_run_git(code, "rev-parse", "--show-toplevel").strip())
        inside = str(code.resolve().relative_to(root.resolve()))
        if not _run_git(root, "ls-files", "--", inside):  # installed into an environment inside somebody's repository
            return {"commit": None, "changed": None, "diff": None, "why": "not a checkout of mlpspace"}, ""
        commit = _run_git(root, "rev-parse", "HEAD").strip()
        how = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
        parts = [_run_git(root, "diff", *how, "HEAD", "--", inside)]
        for file in _run_git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", inside).split("\0"):
            if file and sum(map(len, parts)) < DIFF_CHARACTERS:
                parts.append(_run_git(root, "diff", *how, "--no-index", "--", os.devnull, file, may_differ=True))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return {"commit": None, "changed": None, "diff": None, "why": _said(error)}, ""
    diff = "".join(parts)
    if not diff:
        return {"commit": commit, "changed": False, "diff": None}, ""
    cut = "-cut" if len(diff) > DIFF_CHARACTERS else ""
    name = f"mlpspace-{hashlib.sha256(diff.encode()).hexdigest()[:12]}{cut}.diff"
    return {"commit": commit, "changed": True, "diff": name}, _cut(diff)


def _run_git(folder: Path, *arguments: str, may_differ: bool = False) -> str:
    """What git says in `folder`, whatever the caller's environment and settings make of it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "core.quotePath=off", *arguments],
        capture_output=True,
        timeout=10,
        env=environment | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
    )
    if done.returncode not in ((0, 1) if may_differ else (0,)):
        raise subprocess.CalledProcessError(done.returncode, "git", stderr=done.stderr)
    return done.stdout.decode(errors="replace")


def _said(error: Exception) -> str:
    """What went wrong with a program, in a line."""
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return str(error.stderr.decode(errors="replace").strip().splitlines()[0])
    return f"{type(error).__name__}: {error}"


def _cut(diff: str) -> str:
    if len(diff) <= DIFF_CHARACTERS:
        return diff
    kept = diff[: diff.rindex("\n", 0, DIFF_CHARACTERS) + 1]
    return f"{kept}# cut here: {len(kept):,} of {len(diff):,} characters; mlpspace keeps no more of a diff\n"


# --- versions and machine ---------------------------------------------------------------------------------------------


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, str]:
    """How torch was built, and the CUDA libraries that came with it; read from its files, as importing it takes
    seconds."""
    found = util.find_spec("torch")
    told: dict[str, str] = {}
    if found is not None and found.origin is not None:
        try:
            text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
        except OSError:
            text = ""
        for ours, theirs in (("version", "__version__"), ("cuda", "cuda"), ("hip", "hip"), ("git", "git_version")):
            if match := re.search(rf"^{theirs}\b[^=]*= *'([^']*)'", text, re.MULTILINE):
                told[ours] = match[1]
    try:
        wanted = metadata.requires("torch") or []
    except metadata.PackageNotFoundError:
        wanted = []
    names = (match[0] for each in wanted if (match := re.match(r"(nvidia|triton|cuda)[\w.-]*", each)))
    for name in names:
        if installed := _version(name):
            told[name] = installed
    return told


def _cpu(file: Path) -> dict[str, str]:
    """Model and instruction sets; virtual machines say just "Processor", so family, model and stepping are told too."""
    fields = _fields(file)
    told = {}
    if name := fields.get("model name") or platform.processor() or platform.machine():
        told["cpu"] = name
    if numbers := [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]:
        told["cpu_model"] = "-".join(numbers)
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    if known := [name for name in _INSTRUCTIONS if name in flags]:
        told["instructions"] = " ".join(known)
    return told


def _memory_gb(file: Path) -> float | None:
    total = _fields(file).get("MemTotal")
    return None if total is None else round(int(total.split()[0]) * 1024 / 1e9, 1)  # in kB


def _fields(file: Path) -> dict[str, str]:
    """The first value of each field of such a file; none where there is no such file (another system)."""
    told: dict[str, str] = {}
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return told
    for line in lines:
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    return told


def _gpus() -> dict[str, Any]:
    """The machine's NVIDIA GPUs and their driver, as nvidia-smi tells them; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        version = _fields(Path("/proc/driver/nvidia/version")).get("NVRM version")
        return {"gpus": [], "driver": version}
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stdout", None) or str(error)
        return {"gpus": [], "driver": f"not known: nvidia-smi: {str(said).strip().splitlines()[0]}"}
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.count(",") >= 2]
    return {
        "gpus": [f"{name}, {memory}" for name, memory, *_ in rows],
        "driver": rows[0][2] if rows else None,
    }
