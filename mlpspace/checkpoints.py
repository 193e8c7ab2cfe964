"""States of trainings, kept while they are needed: of those at work, of paused ones, and the weights of the front."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from mlpspace.errors import StudyError
from mlpspace.measurement import Checkpoint


class Shelf(Protocol):
    """Where the states of trainings are kept: trial -> the latest `measurement.Checkpoint`, by repeat (0: its own)."""

    def put(self, trial: int, checkpoint: Checkpoint, repeat: int = 0) -> None: ...
    def epochs(self, trial: int) -> int: ...
    def get(self, trial: int, repeat: int = 0) -> Checkpoint | None: ...
    def drop(self, trial: int) -> None: ...
    def clear_except(self, trials: Collection[int]) -> None: ...


class _Kept(NamedTuple):
    """A file of the folder, as its name tells it."""

    repeat: int
    epochs: int
    crc: int
    file: Path


@dataclass(slots=True)
class Checkpoints:
    """A file for each trial, `<folder>/17-epoch6-1a2b3c4d.pt`: its number, the epochs behind it, a CRC-32 of what is in
    it; `17-repeat2-epoch6-1a2b3c4d.pt` is of its second training anew. The folder is made when there is something to
    keep.

    A state is there in full or not at all, wherever the process ends. One process at a time may write to a folder: that
    of a study is used by the driver, which holds the study's lock.

    Raises:
        StudyError: from each method, where the disk is full or the folder does not let itself be used.
    """

    folder: Path
    _held: dict[int, list[_Kept]] | None = None  # what is in the folder, by trial, once it was looked at

    def put(self, trial: int, checkpoint: Checkpoint, repeat: int = 0) -> None:
        """Keep a training's state, in place of the one it had."""
        state = checkpoint.state
        training = f"{trial}-repeat{repeat}" if repeat else f"{trial}"
        crc = zlib.crc32(state)
        file = self.folder / f"{training}-epoch{checkpoint.epochs}-{crc:08x}.pt"
        beside = file.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            before = self._of(trial, repeat)
            with open(beside, "wb") as part:
                part.write(state)
                part.flush()
                os.fsync(part.fileno())  # or a power cut may leave the name with nothing behind it
            os.replace(beside, file)
            new = _Kept(repeat, checkpoint.epochs, crc, file)
            if new not in before:
                self._all().setdefault(trial, []).append(new)
            self._delete(trial, [kept for kept in before if kept != new])
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise self._refused(f"the checkpoint of trial {trial}, {_size(state)}, cannot be kept", error) from error

    def epochs(self, trial: int) -> int:
        """How far the kept state is, by its name: it may be hundreds of MB. 0 where none is kept."""
        try:
            return max((kept.epochs for kept in self._of(trial, 0)), default=0)
        except OSError as error:
            raise self._refused(f"the checkpoint of trial {trial} cannot be read", error) from error

    def get(self, trial: int, repeat: int = 0) -> Checkpoint | None:
        """The state of a training; None if none is kept, or what is kept is damaged or was taken away."""
        try:
            for kept in sorted(self._of(trial, repeat), reverse=True):
                with contextlib.suppress(FileNotFoundError):
                    state = kept.file.read_bytes()
                    if zlib.crc32(state) == kept.crc:
                        return Checkpoint(kept.epochs, state)
        except OSError as error:
            raise self._refused(f"the checkpoint of trial {trial} cannot be read", error) from error
        return None

    def drop(self, trial: int) -> None:
        """Keep the states of a trial's trainings no longer, if there are any."""
        try:
            self._delete(trial, list(self._all().get(trial, ())))
        except OSError as error:
            raise self._refused(f"the checkpoint of trial {trial} cannot be deleted", error) from error

    def clear_except(self, trials: Collection[int]) -> None:
        """Drop the states of all other trials, and what a process that was ended while writing left."""
        try:
            for trial in self._all().keys() - set(trials):
                self.drop(trial)
            for file in self.folder.glob("*.part"):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused("checkpoints that nobody needs cannot be deleted", error) from error

    def _delete(self, trial: int, those: list[_Kept]) -> None:
        for kept in those:
            kept.file.unlink(missing_ok=True)
            self._all()[trial].remove(kept)
        if not self._all().get(trial):
            self._all().pop(trial, None)

    def _of(self, trial: int, repeat: int) -> list[_Kept]:
        return [kept for kept in self._all().get(trial, ()) if kept.repeat == repeat]

    def _all(self) -> dict[int, list[_Kept]]:
        """Read from the folder once: nobody else writes to it, and a search asks several times a trial."""
        if self._held is None:
            try:
                names = os.listdir(self.folder)
            except FileNotFoundError:
                names = []
            held: dict[int, list[_Kept]] = {}
            for name in names:
                told = _NAME.fullmatch(name)
                if told is not None:
                    kept = _Kept(int(told[2] or 0), int(told[3]), int(told[4], 16), self.folder / name)
                    held.setdefault(int(told[1]), []).append(kept)
            self._held = held
        return self._held

    def _refused(self, what: str, error: OSError) -> StudyError:
        return StudyError(
            f"{self.folder}: {what}: {error.strerror or error}.\n"
            "  Make room there, or make the folder writable, and type the same command again: the study goes on, and\n"
            "  loses at most what was being trained."
        )


_NAME = re.compile(r"(\d{1,9})(?:-repeat(\d{1,9}))?-epoch(\d{1,9})-([0-9a-f]{8})\.pt")


def renamed(name: str, numbers: Mapping[int, int]) -> str | None:
    """A file's name once its trial has another number; None: it is of no trial in `numbers` (old -> new).

    Example:
        >>> renamed("17-repeat2-epoch6-1a2b3c4d.pt", {17: 3})
        '3-repeat2-epoch6-1a2b3c4d.pt'
    """
    told = _NAME.fullmatch(name)
    if told is None or int(told[1]) not in numbers:
        return None
    return f"{numbers[int(told[1])]}{name[len(told[1]) :]}"


@dataclass(frozen=True, slots=True)
class MemoryCheckpoints:
    """The same in memory, for searches that end with their process: replays, tests."""

    states: dict[tuple[int, int], Checkpoint] = field(default_factory=dict)  # by trial and repeat

    def put(self, trial: int, checkpoint: Checkpoint, repeat: int = 0) -> None:
        """Keep a training's state, in place of the one it had."""
        self.states[trial, repeat] = checkpoint

    def epochs(self, trial: int) -> int:
        """How far the kept state is; 0 where none is kept."""
        return self.states[trial, 0].epochs if (trial, 0) in self.states else 0

    def get(self, trial: int, repeat: int = 0) -> Checkpoint | None:
        """The state of a training; None if none is kept."""
        return self.states.get((trial, repeat))

    def drop(self, trial: int) -> None:
        """Keep the states of a trial's trainings no longer, if there are any."""
        for key in [key for key in self.states if key[0] == trial]:
            del self.states[key]

    def clear_except(self, trials: Collection[int]) -> None:
        """Drop the states of all other trials."""
        for key in [key for key in self.states if key[0] not in trials]:
            del self.states[key]


def _size(state: bytes) -> str:
    return f"{len(state) / 1e6:.1f} MB"
