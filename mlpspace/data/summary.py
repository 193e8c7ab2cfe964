"""What is computed of all images of a dataset, in one pass over them and without holding them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mlpspace.data.pixels import Pixels
from mlpspace.data.stored import Stored

SLICE_BYTES = 2**21  # of images that are looked at at once


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a dataset."""

    mean: tuple[float, ...]  # for each channel, of the training images in units of 0..1, padding included; float32
    std: tuple[float, ...]  # likewise; at least one grey level, so that dividing by it is safe
    fingerprint: str  # 16 hex digits; equal if and only if images, labels and split are equal

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Summary:
        """What `to_json` wrote.

        Raises:
            ValueError: the text is none.
        """
        try:
            told = json.loads(text)
            mean, std, fingerprint = told["mean"], told["std"], told["fingerprint"]
            if len(mean) == len(std) and len(fingerprint) == 16:
                return Summary(tuple(map(float, mean)), tuple(map(float, std)), str(fingerprint))
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"not a summary: {error}") from None
        raise ValueError("not a summary")


def summarise(
    train: Pixels | Stored, train_labels: Tensor, val: Pixels | Stored, val_labels: Tensor
) -> Generator[None, None, Summary]:
    """Pauses after every few images.

    Mean and deviation come from how often each value stands in a channel, and so are exact.
    """
    digest = hashlib.sha256()
    often = torch.zeros(train.shape[1], 256, dtype=torch.int64)  # (C, value)
    digest.update(_kind("torch.uint8", train.shape))
    for some in _slices(train):
        digest.update(some.data)
        values = torch.from_numpy(some).transpose(0, 1).flatten(1)  # (C, n * s * s)
        often += torch.stack([torch.bincount(channel, minlength=256) for channel in values])
        yield
    digest.update(_kind(str(train_labels.dtype), train_labels.shape))
    digest.update(train_labels.numpy().data)
    digest.update(_kind("torch.uint8", val.shape))
    for some in _slices(val):
        digest.update(some.data)
        yield
    digest.update(_kind(str(val_labels.dtype), val_labels.shape))
    digest.update(val_labels.numpy().data)
    mean, std = zip(*(_mean_and_std(counts) for counts in often.tolist()), strict=True)
    return Summary(_single(mean), _single(std), digest.hexdigest()[:16])


def _mean_and_std(counts: list[int]) -> tuple[float, float]:
    """Of values from 0 to 255 that stand there so often, in units of 0..1."""
    count = sum(counts)
    total = sum(value * times for value, times in enumerate(counts))
    squares = sum(value**2 * times for value, times in enumerate(counts))
    # whole numbers until the division: nothing is lost where both terms are nearly equal
    variance = (squares * count - total**2) / (255 * count) ** 2
    return total / (255 * count), max(math.sqrt(variance), 1 / 255)


def _kind(dtype: str, shape: tuple[int, ...]) -> bytes:
    return f"{dtype} {tuple(shape)} ".encode()


def _slices(images: Pixels | Stored) -> Iterator[Pixels]:
    """All of them in their order, each (n, C, s, s) and contiguous; the memory of a slice is that of the next."""
    each = max(1, SLICE_BYTES // math.prod(images.shape[1:]))
    memory = np.empty((min(each, len(images)), *images.shape[1:]), np.uint8)
    for start in range(0, len(images), each):
        count = min(each, len(images) - start)
        if isinstance(images, Stored):
            images.read(slice(start, start + count), memory[:count])
        else:
            memory[:count] = images[start : start + count]
        yield memory[:count]


def _single(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(torch.tensor(values, dtype=torch.float32).tolist())
