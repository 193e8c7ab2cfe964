"""A search as a user starts it: `python -m mlpspace search ...`, in a process group of its own, watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import processes

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for one search: the study, what each session printed, what was trained by the witness's word.

    `folder` has the mark of its processes for its name, and a short path: Ray puts sockets below it.
    """

    folder: Path
    space: Path
    engine: tuple[str, ...]  # options
    core: int | None = None  # that all of it is kept on: two searches then do not disturb one another

    @property
    def mark(self) -> str:
        return self.folder.name

    @property
    def study(self) -> Path:
        return self.folder / "study"

    @property
    def database(self) -> Path:
        return self.study / "study.db"

    @property
    def command(self) -> list[str]:
        return ["search", str(self.space), "--study", str(self.study), "--device", "cpu", "--plain", *self.engine]

    def logs(self) -> list[Path]:
        """What the sessions printed, in their order."""
        return sorted(self.folder.glob("*.log"))

    def witnessed(self) -> list[dict[str, Any]]:
        """What was trained, line by line; the last may be cut short."""
        file = self.folder / "witness"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]  # one may be on its way

    def environment(self) -> dict[str, str]:
        """Of all its processes."""
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE / "witness"), os.environ.get("PYTHONPATH")))),
            "CHAOS_WITNESS": str(self.folder / "witness"),
            processes.MARK: self.mark,
            "TMPDIR": str(temporary),  # holds the locks of a quiet device: another search does not wait for this one
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "disabled",  # a token would be written into the home folder
            "COLUMNS": "160",
        }

    def start(self) -> Session:
        """The command, once more."""
        log = self.folder / f"{len(self.logs()):03d}.log"
        words: list[str] = [sys.executable, "-m", "mlpspace", *self.command]
        if self.core is not None:
            words = ["taskset", "--cpu-list", str(self.core), *words]
        with log.open("w") as file:
            begun = time.time()
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Session(self, process, log, begun)


@dataclass(slots=True)
class Session:
    """One run of the command."""

    place: Place
    process: subprocess.Popen[bytes]
    log: Path
    begun: float  # seconds since 1970
    ended: float | None = None
    told: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Whole lines that it printed so far."""
        return self.log.read_text().split("\n")[:-1]

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float) -> int:
        """Its exit code. AssertionError: it has not ended by then."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still alive after {seconds:g} s:\n{self.tail()}") from None
        self.ended = time.time()
        return code

    def tail(self, lines: int = 12) -> str:
        """The last of what it printed, for messages."""
        return "\n".join(["  | " + line for line in self.log.read_text().splitlines()[-lines:]])

    def seconds_to_work(self) -> float | None:
        """From the command to the first epoch that was trained; None where it did not come so far."""
        witnessed = self.place.witnessed()
        before = {line["pid"] for line in witnessed if line["at"] < self.begun}  # orphans train on for a moment
        until = self.ended or time.time()
        found = [line["at"] for line in witnessed if line["what"] == "epoch" and line["pid"] not in before]
        found = [at for at in found if self.begun <= at <= until]
        return min(found) - self.begun if found else None


def trained(witnessed: Sequence[dict[str, Any]]) -> list[tuple[int, int, float]]:
    """(seed, epoch, accuracy) of each epoch that was trained, also of those that were trained twice."""
    return [(line["seed"], line["epoch"], line["accuracy"]) for line in witnessed if line["what"] == "epoch"]
