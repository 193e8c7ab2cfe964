"""Batches of images that are too many for the device: read ahead by a thread, copied while the device computes.

The images and their order are those of a dataset that lies on the device, so that a training is the same. For that a
set larger than main memory is read at random places of the disk. The system is told of the next ones early, many at
once and in the order of the file, which an SSD needs to be as quick as in sequence: at 224 pixels an image has 0.15 MB,
so 5,000 images/s take 0.75 GB/s. To shuffle within blocks alone would suit a hard disk, and be another training.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from mlpspace.data.pixels import Rows
from mlpspace.data.stored import Stored
from mlpspace.wall_time import spent

SLOTS = 3  # batches in memory: one that is used, two that were read ahead
EXPECTED_BYTES = 2**28  # of images after these that the system is told of, so that the disk works ahead


def streamed(images: Stored, order: Tensor, batch: int, device: torch.device) -> Generator[Tensor, None, None]:
    """The images at the places `order`, on `device`, `batch` at a time; the last batch may be smaller.

    One that was given holds until the next is asked for. On CUDA images are read into pinned memory and copied on a
    stream of their own; the stream that is current when a batch is asked for waits for its copy, and the copy of a
    later one into the same memory waits for what was queued on it until then. On a CPU nothing is copied.

    The copies of CUDA are written by torch's documentation of streams and unrun, as no GPU was there to run them on.

    The thread lives until the generator ends or is closed, and has no more than two batches to read before it waits:
    who has to keep the device quiet need only stop asking.

    Args:
        order: (n,) int64, on any device; it is fetched once.

    Raises:
        DataError: the images cannot be read any more.
    """
    places: Rows = order.cpu().numpy()
    batches = [places[at : at + batch] for at in range(0, len(places), batch)]
    with torch.inference_mode(False):  # else another thread might not write into them
        slots = [_Slot(min(batch, len(places)), images.shape[1:], device) for _ in range(min(SLOTS, len(batches)))]
    free: SimpleQueue[_Slot] = SimpleQueue()
    ready: SimpleQueue[_Slot | BaseException] = SimpleQueue()
    for slot in slots:
        free.put(slot)
    ended = threading.Event()
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    reading = threading.Thread(
        target=_read, args=(images, batches, free, ready, ended, copies), name="mlpspace-images", daemon=True
    )
    reading.start()
    try:
        for rows in batches:
            with spent("data"):
                got = ready.get()
            if isinstance(got, BaseException):
                raise got
            yield got.take(len(rows))
            got.give_back()
            free.put(got)
    finally:
        ended.set()
        free.put(slots[0])  # wakes it if it waits
        reading.join()
        if copies is not None:  # its memory is given back to the stream that it was taken from
            torch.cuda.current_stream(device).wait_stream(copies)


def _read(
    images: Stored,
    batches: Sequence[Rows],
    free: SimpleQueue[_Slot],
    ready: SimpleQueue[_Slot | BaseException],
    ended: threading.Event,
    copies: torch.cuda.Stream | None,
) -> None:
    """What the thread does: batch after batch into a slot that is free."""
    try:
        expected = 0  # batches that the system was told of
        for number, rows in enumerate(batches):
            slot = free.get()
            if ended.is_set():
                return
            told = max(1, EXPECTED_BYTES // slot.nbytes)
            for some in batches[max(expected, number + 1) : number + 1 + told]:
                images.expect(some)
            expected = number + 1 + told
            slot.fill(images, rows, copies)
            ready.put(slot)
    except BaseException as error:  # raised by who asks for the batch
        ready.put(error)


class _Slot:
    """Memory for a batch: on the device, and on CUDA pinned memory to copy from."""

    def __init__(self, batch: int, shape: tuple[int, int, int], device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.nbytes = batch * int(np.prod(shape))
        self._read = torch.empty((batch, *shape), dtype=torch.uint8, pin_memory=cuda)
        self._there = torch.empty((batch, *shape), dtype=torch.uint8, device=device) if cuda else self._read
        self._copied = torch.cuda.Event() if cuda else None
        self._used = torch.cuda.Event() if cuda else None
        self.give_back()  # the memory may have been in use until now

    def fill(self, images: Stored, rows: Rows, copies: torch.cuda.Stream | None) -> None:
        """The images at `rows`; on CUDA their copy is queued."""
        if self._copied is not None:
            self._copied.synchronize()  # of the pinned memory's last images
        images.read(rows, self._read[: len(rows)].numpy())
        if copies is not None:
            assert self._used is not None
            assert self._copied is not None
            with torch.cuda.stream(copies):
                copies.wait_event(self._used)
                self._there[: len(rows)].copy_(self._read[: len(rows)], non_blocking=True)
                self._copied.record(copies)

    def take(self, count: int) -> Tensor:
        """(count, C, s, s), for what is queued on the current stream from now on."""
        if self._copied is not None:
            torch.cuda.current_stream(self._there.device).wait_event(self._copied)
        return self._there[:count]

    def give_back(self) -> None:
        """Until now the current stream was given work on it."""
        if self._used is not None:
            self._used.record(torch.cuda.current_stream(self._there.device))
