"""A dataset's files on their way from the driver's machine to nodes that do not have them.

An actor beside the driver reads them; a node asks for each once and keeps a copy in its temporary folder, for all of
its workers and for later searches. What is larger than MOST_BYTES is not sent: it belongs on storage that nodes share.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlpspace.errors import DataError
from mlpspace.quiet import node_folder

MOST_BYTES = 4 * 2**30
PIECE_BYTES = 32 * 2**20

Entry = tuple[str, int, int]  # path below the root ("" for the root itself), bytes, time it was changed (ns)


class _Reader:
    """What the actor does: it reads below one root, and nothing else."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._entries = entries(self._root)
        self._names = {name for name, _, _ in self._entries}

    def entries(self) -> list[Entry]:
        return self._entries

    def piece(self, name: str, offset: int, size: int) -> bytes:
        assert name in self._names, name
        with open(self._root / name if name else self._root, "rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True, slots=True)
class Files:
    """What a worker needs to fetch a dataset: carried to it by Ray."""

    root: str  # on the driver's machine
    total: int  # bytes
    reader: Any  # the actor; None where there is too much to send

    def here(self, path: str) -> str:
        """Where the dataset lies on this node: at `path` if it is there, else a copy, which is made now if need be.

        Raises:
            DataError: it is not here, and too large to be sent.
        """
        if path != self.root or os.path.exists(path):
            return path
        total = self.total
        if self.reader is None:
            raise DataError(
                f"{path} is not on this node, and its {total / 1e9:.1f} GB are too much to be sent there (at most"
                f" {MOST_BYTES / 1e9:.1f} GB).\n  Put it there under the same path, or on storage that all nodes share."
            )
        found = ray.get(self.reader.entries.remote())
        told = json.dumps([self.root, found])
        place = node_folder() / "data" / hashlib.sha256(told.encode()).hexdigest()[:16]
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy = place / (Path(self.root).name or "data")
        with open(place.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of the workers of a node one fetches, the others wait
            if not place.exists():
                try:
                    self._fetch(found, place, copy.name)
                except OSError as error:
                    raise DataError(
                        f"{path} is not on this node, and its {total / 1e6:.0f} MB cannot be kept in {place.parent}:"
                        f" {error.strerror or error}.\n  Make room there, or put the dataset on that node."
                    ) from None
        return str(copy)

    def _fetch(self, found: list[Entry], place: Path, name: str) -> None:
        beside = place.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)  # of a worker that died
        beside.mkdir(mode=0o700)
        if shutil.disk_usage(beside).free < self.total:
            beside.rmdir()
            raise OSError(28, os.strerror(28))
        for entry, size, _ in found:
            target = beside / name / entry if entry else beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                for offset in range(0, size, PIECE_BYTES):
                    file.write(ray.get(self.reader.piece.remote(entry, offset, PIECE_BYTES)))
        beside.rename(place)


def entries(root: Path) -> list[Entry]:
    """All files below a folder, or the one file, by name."""
    if root.is_file():
        found = [("", root)]
    else:
        found = [
            (os.path.relpath(os.path.join(folder, name), root), Path(folder, name))
            for folder, _, names in os.walk(root)
            for name in names
        ]
    regular = [(name, path.stat()) for name, path in sorted(found) if path.is_file()]
    return [(name, told.st_size, told.st_mtime_ns) for name, told in regular]


def offer(root: str) -> Files:
    """The dataset at `root` on this machine, for nodes that do not have it."""
    total = sum(size for _, size, _ in entries(Path(root)))
    reader = None
    if total <= MOST_BYTES:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(_Reader)
        reader = actor.remote(root)
    return Files(root, total, reader)
