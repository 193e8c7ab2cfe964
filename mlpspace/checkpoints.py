"""Trainings that pause at a rung, each kept until it goes on or never will."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mlpspace.errors import StudyError


class Shelf(Protocol):
    """Where the states of paused trainings are kept: trial -> `measurement.Checkpoint.state`, the latest alone."""

    def put(self, trial: int, state: bytes) -> None: ...
    def has(self, trial: int) -> bool: ...
    def get(self, trial: int) -> bytes | None: ...
    def drop(self, trial: int) -> None: ...
    def clear_except(self, trials: Collection[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A file for each trial, `<folder>/<trial>.pt`. The folder is made when there is something to keep.

    A state is there in full or not at all, wherever the process ends. One process at a time may use a folder: that of
    a study is used by the driver, which holds the study's lock.

    Raises:
        StudyError: from each method, where the disk is full or the folder does not let itself be used.
    """

    folder: Path

    def put(self, trial: int, state: bytes) -> None:
        """Keep a trial's state, in place of the one it had."""
        file = self._file(trial)
        beside = file.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(beside, "wb") as part:
                part.write(state)
                part.flush()
                os.fsync(part.fileno())  # or a power cut may leave the name with nothing behind it
            os.replace(beside, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise self._refused(f"the checkpoint of trial {trial}, {_size(state)}, cannot be kept", error) from error

    def has(self, trial: int) -> bool:
        """Whether a state is kept, without reading it: it may be hundreds of MB."""
        return self._file(trial).is_file()

    def get(self, trial: int) -> bytes | None:
        """The state of a trial; None if none is kept."""
        try:
            return self._file(trial).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"the checkpoint of trial {trial} cannot be read", error) from error

    def drop(self, trial: int) -> None:
        """Keep a trial's state no longer, if there is one."""
        try:
            self._file(trial).unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(f"the checkpoint of trial {trial} cannot be deleted", error) from error

    def clear_except(self, trials: Collection[int]) -> None:
        """Drop the states of all other trials, and what a process that was ended while writing left."""
        keep = {self._file(trial) for trial in trials}
        try:
            for file in (*self.folder.glob("*.pt"), *self.folder.glob("*.part")):
                if file not in keep:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused("checkpoints that nobody needs cannot be deleted", error) from error

    def _file(self, trial: int) -> Path:
        return self.folder / f"{trial}.pt"

    def _refused(self, what: str, error: OSError) -> StudyError:
        return StudyError(
            f"{self.folder}: {what}: {error.strerror or error}.\n"
            "  Make room there, or make the folder writable, and type the same command again: the study goes on, and\n"
            "  loses at most what was being trained."
        )


@dataclass(frozen=True, slots=True)
class MemoryCheckpoints:
    """The same in memory, for searches that end with their process: replays, tests."""

    states: dict[int, bytes] = field(default_factory=dict)

    def put(self, trial: int, state: bytes) -> None:
        """Keep a trial's state, in place of the one it had."""
        self.states[trial] = state

    def has(self, trial: int) -> bool:
        """Whether a state is kept."""
        return trial in self.states

    def get(self, trial: int) -> bytes | None:
        """The state of a trial; None if none is kept."""
        return self.states.get(trial)

    def drop(self, trial: int) -> None:
        """Keep a trial's state no longer, if there is one."""
        self.states.pop(trial, None)

    def clear_except(self, trials: Collection[int]) -> None:
        """Drop the states of all other trials."""
        for trial in self.states.keys() - set(trials):
            del self.states[trial]


def _size(state: bytes) -> str:
    return f"{len(state) / 1e6:.1f} MB"
