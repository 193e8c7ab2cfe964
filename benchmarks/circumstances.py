"""Where and when a benchmark ran, for the head of what it prints; and the file that keeps it."""

from __future__ import annotations

import contextlib
import io
import platform
import re
import shlex
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def circumstances(device: str, *packages: str) -> str:
    """Date, device, versions and the command, as two lines of a comment."""
    told = [date.today().isoformat(), device, f"Python {platform.python_version()}"]
    for package in ("torch", *packages):
        try:
            told.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            told.append(f"no {package}")
    command = " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *map(shlex.quote, sys.argv[1:])])
    return f"# {', '.join(told)}\n# {command}"


def saved(name: str, device: str, run: Callable[[], int]) -> int:
    """Run a benchmark, print what it prints, and keep it as results/NAME-DEVICE-DATE.txt."""
    kept = io.StringIO()

    class Both(io.TextIOBase):
        def write(self, text: str) -> int:
            sys.__stdout__.write(text)  # type: ignore[union-attr]
            sys.__stdout__.flush()  # type: ignore[union-attr]
            return kept.write(text)

    with contextlib.redirect_stdout(Both()):
        code = run()
    words = re.sub(r"[^a-z0-9]+", "-", device.lower().replace("(r)", "")).strip("-")
    RESULTS.mkdir(exist_ok=True)
    name = name.replace("_", "-")
    file = RESULTS / f"{name}-{words}-{date.today().isoformat()}.txt"
    file.write_text(kept.getvalue())
    print(f"wrote {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")
    return code
