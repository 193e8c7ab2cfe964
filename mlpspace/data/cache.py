"""Decoded images on the local disk, so that the workers of one node decode a dataset once between them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path

import numpy as np

from mlpspace.data.pixels import Pixels, Rows
from mlpspace.data.training_part import TrainingPart
from mlpspace.errors import DataError

_VERSION = 1  # of the rule of `pixels`: what an older rule decoded is not taken


def folder() -> Path:
    """$MLPSPACE_CACHE, or ~/.cache/mlpspace. Deleting it costs nothing but time."""
    return Path(os.environ.get("MLPSPACE_CACHE") or Path.home() / ".cache" / "mlpspace")


def decoded(part: TrainingPart, rows: Rows, resolution: int) -> Pixels:
    """`part.images(rows, resolution)`, memory-mapped from the cache; decoded first if it is not there.

    One process decodes, the others wait for it. What is found there is taken if its files have the same paths, sizes
    and times, and if it has the right shape; a broken one is written anew.

    Raises:
        DataError: the images are broken; or the cache folder cannot be written.
    """
    kept = folder() / f"{_key(part, rows, resolution)}.npy"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            images = _read(kept, len(rows), resolution)
            if images is None:
                _write(kept, part.images(rows, resolution))
                images = _read(kept, len(rows), resolution)
    except OSError as error:
        raise DataError(
            f"cannot keep decoded images in {kept.parent} ({error.strerror or error}): "
            f"name a folder with space for them, MLPSPACE_CACHE=FOLDER mlpspace ..."
        ) from error
    assert images is not None, kept
    return images


def _key(part: TrainingPart, rows: Rows, resolution: int) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, resolution]).encode())
    for file in part.files:
        stat = file.stat()
        digest.update(json.dumps([str(file.absolute()), stat.st_size, stat.st_mtime_ns]).encode())
    digest.update(rows.tobytes())
    return digest.hexdigest()[:24]


def _read(kept: Path, count: int, resolution: int) -> Pixels | None:
    """The images, or None if they are not there or broken."""
    try:
        images = np.load(kept, mmap_mode="r")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError):  # cut short, or not ours: it is only a cache
        return None
    whole = images.dtype == np.uint8 and images.shape in [(count, c, resolution, resolution) for c in (1, 3)]
    return images if whole else None


def _write(kept: Path, images: Pixels) -> None:
    """Whole or not at all."""
    half = kept.with_suffix(f".{socket.gethostname()}.half")  # a home on the network has several nodes writing
    with half.open("wb") as stream:
        np.save(stream, images)
    half.replace(kept)
