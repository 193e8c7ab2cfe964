"""CIFAR-10 and CIFAR-100 as their authors ship them: python pickles of uint8 rows (Krizhevsky 2009)."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpspace.data import pixels
from mlpspace.data.pixels import Pixels, Rows
from mlpspace.data.training_part import TrainingPart
from mlpspace.errors import DataError

_SIDE = 32
_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}  # what the archives unpack to


@dataclass(frozen=True, slots=True)
class CifarBatches:
    """Five batches with `labels`, or one file `train` with `fine_labels`."""

    files: tuple[Path, ...]
    label_key: bytes

    def open(self) -> TrainingPart:
        """Reads all of it.

        Raises:
            DataError: a file that cannot be read, or holds something else.
        """
        batches = [_read(file) for file in self.files]
        images = np.concatenate([_images(file, batch) for file, batch in zip(self.files, batches, strict=True)])
        labels = [_labels(file, batch, self.label_key) for file, batch in zip(self.files, batches, strict=True)]
        places = [
            f"{file}, row {row}" for file, held in zip(self.files, labels, strict=True) for row in range(len(held))
        ]
        return TrainingPart(
            files=self.files,
            labels=np.concatenate(labels),
            images=lambda rows, resolution: pixels.fitted(images, rows, resolution),
            place=places.__getitem__,
        )


def find(folder: Path) -> CifarBatches | None:
    """The batches in `folder`, or in the folder there that the archive unpacks to; None if there are none.

    Raises:
        DataError: some of the five batches are missing.
    """
    for place in (folder, *(folder / name for name in _FOLDERS.values())):
        there = [place / name for name in _BATCHES if (place / name).is_file()]
        if there and len(there) < len(_BATCHES):
            missing = ", ".join(name for name in _BATCHES if not (place / name).is_file())
            raise DataError(f"{place} has no {missing}: unpack cifar-10-python.tar.gz there again")
        if there:
            return CifarBatches(tuple(there), b"labels")
        if (place / "train").is_file() and (place / "meta").is_file():
            return CifarBatches((place / "train",), b"fine_labels")
    return None


def _images(file: Path, batch: dict[Any, Any]) -> Pixels:
    """(n, 3, 32, 32); a row of the batch is all red, then all green, then all blue pixels."""
    rows = getattr(batch.get(b"data"), "rows", None)
    if rows is None or rows.ndim != 2 or rows.shape[1] != 3 * _SIDE**2:
        raise DataError(f"{file} has no array of uint8 rows of {3 * _SIDE**2} under 'data': {_AGAIN}")
    return rows.reshape(-1, 3, _SIDE, _SIDE)


def _labels(file: Path, batch: dict[Any, Any], key: bytes) -> Rows:
    labels, count = batch.get(key), len(batch[b"data"].rows)
    if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 2**31 for label in labels):
        raise DataError(f"{file} has no list of whole numbers under {key.decode()!r}: {_AGAIN}")
    if len(labels) != count:
        raise DataError(f"{file} has {len(labels)} labels for {count} images: {_AGAIN}")
    return np.array(labels, np.int64)


_AGAIN = "it is broken, or no batch of CIFAR. Unpack the archive again"


# --- a pickle that runs nothing -------------------------------------------------------------------------------------


def _bytes_of_text(text: str, encoding: str) -> bytes:
    """What Python 3 asks for when it reads bytes that it wrote in protocol 2; only in the one encoding it uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


class _Bytes:
    """Stands for NumPy's dtype, of which a batch needs one; the real one believes whatever state a pickle gives it."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of {code!r}, not of bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment: bytes have none."""


class _Array:
    """Stands for NumPy's array while it is being read; `rows` are made of its state, if that is one."""

    rows: Pixels | None = None

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, kind, by_columns, values = state
        if not isinstance(kind, _Bytes) or not isinstance(values, bytes):
            raise pickle.UnpicklingError("an array of something else than bytes")
        self.rows = np.frombuffer(values, np.uint8).reshape(tuple(shape), order="F" if by_columns else "C")


def _array(*_: object) -> _Array:
    return _Array()


# what a pickled uint8 array needs, by the names that NumPy 1 and 2 give it
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Bytes,
    ("_codecs", "encode"): _bytes_of_text,
}
_MOST_TUPLES = 60_000  # a batch has some ten, or one for each file name; of 150,000 in each other the hash overflows


class _PlainUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and the containers that pickle builds by itself; any other name is refused, never called."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR needs")
        return admitted


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


def _check_tuples(data: bytes) -> None:
    """Walks over the opcodes of a pickle; what is none is left for the unpickler to refuse."""
    stream, tuples = io.BytesIO(data), 0
    while code := stream.read(1):
        opcode = _OPCODES.get(code.decode("latin1"))
        if opcode is None or opcode.name == "STOP":
            return
        tuples += opcode.name.startswith("TUPLE")
        if tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError(f"more than {_MOST_TUPLES:,} tuples, which no batch of CIFAR needs")
        if opcode.arg is not None and opcode.arg.n == pickletools.UP_TO_NEWLINE:  # its reader takes ASCII alone
            for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
                stream.readline()
        elif opcode.arg is not None:
            opcode.arg.reader(stream)


def _read(file: Path) -> dict[Any, Any]:
    try:
        data = file.read_bytes()
        _check_tuples(data)
        batch = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a broken pickle raises anything: EOFError, KeyError, ValueError, TypeError, ...
        raise DataError(f"{file} cannot be read as a batch of CIFAR ({error}): unpack the archive again") from error
    if not isinstance(batch, dict):
        raise DataError(f"{file} holds no dictionary: {_AGAIN}")
    return batch
