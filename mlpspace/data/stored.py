"""Decoded images that stay in their file of the cache, and are read as they are asked for."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from mlpspace.data.pixels import Pixels, Rows
from mlpspace.errors import DataError


class Stored:
    """N images of a file of decoded ones, in an order of their own.

    They are read at their place in the file, into memory that the caller has, and not through a map of the file into
    memory. What was read before comes from the same pages of the system about as quickly: an image of 224 pixels in
    17.4 us, through a map in 16.0, one of 64 pixels in 2.4 and 1.4 (one thread, means of 40 batches of 128 random
    images, 2-core Xeon VM, NumPy 2.4, 2026-11-22). But pages that were looked at do not count as this process's memory,
    and a file that is cut short or a disk that fails is an error that can be told, where a map ends the process.
    """

    def __init__(self, file: Path, shape: tuple[int, int, int, int], offset: int, rows: Rows | None = None) -> None:
        """
        Args:
            shape: of all that the file holds, (images, C, s, s).
            offset: bytes before the first image.
            rows: (N,) which of them, and in what order; None: all.

        Raises:
            OSError: the file cannot be opened.
        """
        self.file, self._held, self._offset = file, shape, offset
        self._rows = np.arange(shape[0]) if rows is None else rows
        self._bytes = math.prod(shape[1:])  # of an image
        self._stream = file.open("rb", buffering=0)  # open as long as this lives: the file may be deleted meanwhile

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, s, s)"""
        return len(self), *self._held[1:]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def stat(self) -> os.stat_result:
        """Of the file as it is open here."""
        return os.fstat(self._stream.fileno())

    def part(self, rows: Rows) -> Stored:
        """The images at those places, in that order; of the file as it is open here."""
        part = object.__new__(Stored)
        part.file, part._held, part._offset = self.file, self._held, self._offset
        part._rows, part._bytes, part._stream = self._rows[rows], self._bytes, self._stream
        return part

    def read(self, places: Rows | slice, into: Pixels) -> None:
        """The images at `places`, n of them, into (n, C, s, s). Python's lock is not held while one is read.

        Raises:
            DataError: the file cannot be read, or was cut short.
        """
        file = self._stream.fileno()
        # memory that is not contiguous would be copied by reshape, and the copy filled
        assert into.flags.c_contiguous, into.strides
        for row, image in zip(self._rows[places].tolist(), into.reshape(len(into), -1), strict=True):
            at, left = self._offset + row * self._bytes, memoryview(image.data)
            while left:
                try:
                    got = os.preadv(file, [left], at)
                except OSError as error:
                    raise self._broken(error.strerror or str(error)) from error
                if not got:
                    raise self._broken("it was cut short")
                at, left = at + got, left[got:]

    def expect(self, places: Rows) -> None:
        """Tells the system that the images at `places` will be read, and it fetches from the disk what it lacks.

        All are asked for at once and in the order of the file, which spares a disk both waits and ways.
        """
        if hasattr(os, "posix_fadvise"):  # Linux
            for row in np.sort(self._rows[places]).tolist():
                at = self._offset + row * self._bytes
                os.posix_fadvise(self._stream.fileno(), at, self._bytes, os.POSIX_FADV_WILLNEED)

    def _broken(self, why: str) -> DataError:
        return DataError(f"{self.file}: decoded images cannot be read ({why}). Delete it: it is made anew")
