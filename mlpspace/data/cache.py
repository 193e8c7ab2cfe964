"""Decoded images on the local disk, so that the workers of one node decode a dataset once between them.

Of images that are decoded at rows and resolution of their own there are, under a name that tells these apart:

    NAME.npy                 all of them, (N, C, s, s) of uint8 in NumPy's format
    NAME.HOST.BOOT.half      as much of it as is decoded; the host goes on with it until it is started anew
    NAME.SPLIT.json          mean, deviation and fingerprint of one split of them, which would take reading them all
    NAME.lock                held by who writes one of these
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import torch

from mlpspace.data.pixels import Decoding, Pixels, Rows
from mlpspace.data.stored import Stored
from mlpspace.data.summary import Summary, summarise
from mlpspace.data.training_part import TrainingPart
from mlpspace.device import cores
from mlpspace.errors import DataError

Busy: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Gives what is held while the machine works, and let go of now and then: `QuietDevice.busy`."""

_VERSION = 1  # of the rule of `pixels`: what an older rule decoded is not taken
_POLL_S = 0.2  # between two looks at whether another has ended
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_DAY_S = 86400.0
_ELSEWHERE = "name a folder with space for them, MLPSPACE_CACHE=FOLDER mlpspace ..."


def folder() -> Path:
    """$MLPSPACE_CACHE, or ~/.cache/mlpspace. Deleting it costs nothing but time."""
    return Path(os.environ.get("MLPSPACE_CACHE") or Path.home() / ".cache" / "mlpspace")


def decoded(part: TrainingPart, rows: Rows, resolution: int, busy: Busy) -> Generator[float | None, None, Stored]:
    """`part.images(rows, resolution)` in the cache; decoded first if it is not there, a piece at a time.

    One process decodes with all cores, the others wait for it. What is found there is taken if its files have the same
    paths, sizes and times, and if it has the right shape; a broken one is written anew. Who is stopped on the way has
    not worked in vain, the next goes on from there.

    Yields:
        Now and then how much of it is decoded, 0 to 1; None: that is not known.

    Raises:
        DataError: the images are broken; or the cache folder cannot be written, or has no room for them.
    """
    kept = folder() / f"{_key(part, rows, resolution)}.npy"
    with _telling(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".lock").open("w") as lock:
            yield from _alone(lock, kept)
            images = _read(kept, len(rows), resolution)
            if images is None:
                with busy():
                    decoding = part.images(rows, resolution)
                yield from _write(kept, decoding, busy)
                images = _read(kept, len(rows), resolution)
    assert images is not None, kept
    return images


def summarised(
    images: Stored, train_rows: Rows, train_labels: Rows, val_rows: Rows, val_labels: Rows, busy: Busy
) -> Generator[float | None, None, Summary]:
    """Mean, deviation and fingerprint of images of the cache, computed once for a split of them.

    It is taken as long as the images' file is the one that it was computed of, by its size and time.

    Args:
        train_rows: places in `images`; `val_rows` likewise.

    Raises:
        DataError: the images cannot be read, or the cache folder cannot be written.
    """
    digest = hashlib.sha256()
    for each in (train_rows, train_labels, val_rows, val_labels):
        digest.update(json.dumps([str(each.dtype), each.shape]).encode() + each.tobytes())
    kept = images.file.with_suffix(f".{digest.hexdigest()[:16]}.json")
    with _telling(kept), kept.with_name(f"{images.file.stem}.lock").open("w") as lock:
        yield from _alone(lock, images.file)
        stat = images.stat()
        of = f"{stat.st_size} {stat.st_mtime_ns}\n"
        with suppress(OSError, ValueError):  # not there, or broken: it is only a cache
            before, told = kept.read_text().split("\n", 1)
            if f"{before}\n" == of:
                return Summary.from_json(told)
        computing = summarise(
            images.part(train_rows), torch.from_numpy(train_labels), images.part(val_rows), torch.from_numpy(val_labels)
        )
        while True:
            try:
                with busy():
                    next(computing)
            except StopIteration as end:
                summary: Summary = end.value
                break
            yield None
        half = kept.with_suffix(f".{socket.gethostname()}.half-json")
        half.write_text(of + summary.to_json())
        half.replace(kept)
    return summary


def _key(part: TrainingPart, rows: Rows, resolution: int) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, resolution]).encode())
    for file in part.files:
        stat = file.stat()
        digest.update(json.dumps([str(file.absolute()), stat.st_size, stat.st_mtime_ns]).encode())
    digest.update(rows.tobytes())
    return digest.hexdigest()[:24]


@contextmanager
def _telling(kept: Path) -> Iterator[None]:
    """Tells of a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot keep decoded images in {kept.parent} ({error.strerror or error}): {_ELSEWHERE}"
        ) from error


def _alone(lock: IO[str], kept: Path) -> Generator[float | None, None, None]:
    """Waits until no other process writes; yields how far that one has come."""
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _share(kept)
        time.sleep(_POLL_S)


def _share(kept: Path) -> float | None:
    """How much of it some host has decoded."""
    for half in kept.parent.glob(f"{kept.stem}.*.half"):
        with suppress(OSError, ValueError), half.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
            return min(1.0, (half.stat().st_size - stream.tell()) / math.prod(shape))
    return None


def _read(kept: Path, count: int, resolution: int) -> Stored | None:
    """The images, or None if they are not there or broken."""
    try:
        images = np.load(kept, mmap_mode="r")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError):  # cut short, or not ours: it is only a cache
        return None
    if images.dtype != np.uint8 or images.shape not in [(count, c, resolution, resolution) for c in (1, 3)]:
        return None
    return Stored(kept, images.shape, images.offset)


def _write(kept: Path, decoding: Decoding, busy: Busy) -> Generator[float, None, None]:
    """Whole or not at all."""
    half = _half(kept)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": decoding.shape})
    each = math.prod(decoding.shape[1:])
    done = _begun(half, head.getvalue(), each)
    if done > decoding.count:  # it is not what it says
        done = 0
    _check_disk(half, (decoding.count - done) * each, decoding)
    try:
        with half.open("r+b" if done else "wb") as stream:
            if not done:
                stream.write(head.getvalue())
                stream.flush()
            stream.truncate(stream.seek(head.tell() + done * each))
            pieces = decoding.pieces(done, cores())
            yield done / decoding.count
            while done < decoding.count:
                with busy():
                    done += _append(stream, next(pieces))
                yield done / decoding.count
            os.fsync(stream.fileno())
    except (DataError, OSError):  # of no use to go on with, and in the way of others on a full disk
        half.unlink(missing_ok=True)
        raise
    half.replace(kept)


def _append(stream: IO[bytes], piece: Pixels) -> int:
    """Gives how many there were."""
    stream.write(piece.data)
    stream.flush()  # as much as it says is there, for who waits and for who goes on
    return len(piece)


def _half(kept: Path) -> Path:
    """Where this host writes; a home on the network has several that do.

    It names the start of the machine too: what was written before a power cut may not have come to the disk. Such ones
    are taken away.
    """
    host = socket.gethostname()
    boot = _BOOT.read_text().strip()[:8] if _BOOT.exists() else f"pid{os.getpid()}"
    for old in kept.parent.glob(f"*.{host}.*.half"):
        with suppress(OSError):
            if not old.name.endswith(f".{boot}.half") and time.time() - old.stat().st_mtime > _DAY_S:
                old.unlink()
    return kept.with_suffix(f".{host}.{boot}.half")


def _begun(half: Path, head: bytes, each: int) -> int:
    """Images that it holds already, of `each` bytes."""
    try:
        with half.open("rb") as stream:
            return max(0, half.stat().st_size - len(head)) // each if stream.read(len(head)) == head else 0
    except FileNotFoundError:
        return 0


def _check_disk(half: Path, needed: int, decoding: Decoding) -> None:
    free = shutil.disk_usage(half.parent).free
    if needed > free:
        side = decoding.resolution
        raise DataError(
            f"{decoding.count:,} images of {side} x {side} pixels need {needed / 1e9:,.1f} GB more on the disk of "
            f"{half.parent}, which has {free / 1e9:,.1f} GB left: {_ELSEWHERE}, or say fewer with "
            "fidelity: {images: N, ...}"
        )
