"""A dataset as a search uses it: training and validation images as uint8 tensors, or in a file if they are too many.

N images, C = 1 (gray) or 3 channels, s the resolution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mlpspace.data import cache, catalog, sources
from mlpspace.data.cache import Busy
from mlpspace.data.pixels import Rows, machine_bytes
from mlpspace.data.stored import Stored
from mlpspace.data.stream import streamed
from mlpspace.data.summary import SLICE_BYTES, summarise
from mlpspace.data.training_part import TrainingPart
from mlpspace.device import free_memory_bytes
from mlpspace.errors import DataError
from mlpspace.memory import free, out_of_memory

Result = TypeVar("Result")

RESIDENT_SHARE = 0.25  # of the memory that is free: networks need most of it, and a device may have several workers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Both parts come from the training set; the test set is not here.

    It lies on a device. Images that are too many for it stay in a file, and come as they are asked for.
    """

    name: str
    train_images: Tensor | Stored  # (N, C, s, s) uint8
    train_labels: Tensor  # (N,) int64
    val_images: Tensor | Stored  # (M, C, s, s) uint8
    val_labels: Tensor  # (M,) int64
    mean: Tensor  # (C,) float32, of the training images in units of 0..1, padding included
    std: Tensor  # (C,) float32, likewise; at least one grey level, so that dividing by it is safe
    classes: int
    mirrors: bool  # whether a left-right flip makes sense
    fingerprint: str  # 16 hex digits; equal if and only if images, labels and split are equal

    @property
    def resident(self) -> bool:
        """Whether all images lie on the device."""
        return isinstance(self.train_images, Tensor) and isinstance(self.val_images, Tensor)

    def train_batches(self, order: Tensor, batch: int) -> Generator[Tensor, None, None]:
        """(batch, C, s, s) training images on the device, in an order of their places; the last batch may be smaller.

        One holds until the next is asked for. Close it when no more are wanted: `stream.streamed` says why.

        Raises:
            DataError: the file that they are in cannot be read any more.
        """
        if isinstance(self.train_images, Stored):
            return streamed(self.train_images, order, batch, self.train_labels.device)
        return _taken(self.train_images, order, batch)

    def val_batches(self, batch: int) -> Generator[Tensor, None, None]:
        """(batch, C, s, s) validation images in their order, likewise."""
        if isinstance(self.val_images, Stored):
            return streamed(self.val_images, torch.arange(len(self.val_images)), batch, self.val_labels.device)
        return (some for some in self.val_images.split(batch))

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset with its tensors on `device`; itself if they are there."""
        if self.train_labels.device == torch.device(device):
            return self
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **moved)


def _taken(images: Tensor, order: Tensor, batch: int) -> Generator[Tensor, None, None]:
    for rows in order.split(batch):
        yield images[rows]


def load(
    name: str,
    path: str | None,
    *,
    resolution: int,
    classes: int,
    images: int | None,
    validation: float,
    seed: int,
    device: torch.device | str = "cpu",
    resident: int | None = None,
    busy: Busy = nullcontext,
) -> Dataset:
    """What `loading` comes to."""
    coming: Generator[float | None, None, Dataset] = loading(
        name,
        path,
        resolution=resolution,
        classes=classes,
        images=images,
        validation=validation,
        seed=seed,
        device=device,
        resident=resident,
        busy=busy,
    )
    return _end_of(coming)


def loading(
    name: str,
    path: str | None,
    *,
    resolution: int,
    classes: int,
    images: int | None,
    validation: float,
    seed: int,
    device: torch.device | str = "cpu",
    resident: int | None = None,
    busy: Busy = nullcontext,
) -> Generator[float | None, None, Dataset]:
    """Read, check, split and decode the training set of a dataset. Its test set is never opened.

    The split is stratified and hangs on `seed`, `validation` and the order of the rows alone. `images` then takes a
    stratified part of the training images, and a smaller one is contained in a larger one of the same seed. The
    validation part is `validation` of the whole training set, however few `images` are trained on: fewer would make
    every accuracy less certain and save little.

    Decoded images are kept in a cache on the node (`cache.folder`), so that only the first worker decodes. Those that
    would take more than a quarter of the device's free memory, or more than `resident`, are left there and streamed; so
    are those for which its memory turns out to be too short after all.

    Args:
        name: as the space file says it.
        path: where it lies; None for the embedded ones.
        resolution: of the task, in pixels; `pixels` says how images are brought to it.
        classes: of the task.
        images: so many training images; None: all that validation leaves.
        validation: share of the training set that is held out, between 0 and 1.
        seed: of the split; give all trials of a study the same.
        device: where it shall lie.
        resident: bytes of images that may lie there, though never more than are free; None: a quarter of those.
        busy: held while something is read or decoded, and let go of now and then.

    Yields:
        Every second or so, while there is something to do or to wait for: how much is decoded, 0 to 1, if known.

    Raises:
        DataError: it is missing or broken, has other classes than the task, or too few images; or there is no room for
            the decoded images in the cache.
    """
    device = torch.device(device)
    with busy():
        catalog.check(name, path, classes)
        found = sources.embedded(name) if path is None else sources.find(name, path, classes, catalog.wants(name))
        part = found.open()
        _check_labels(name, part, classes)
        train_rows, val_rows = split(name, part.labels, images=images, validation=validation, seed=seed)
    rows = np.union1d(train_rows, val_rows)
    train_at, val_at = np.searchsorted(rows, train_rows), np.searchsorted(rows, val_rows)
    train_labels, val_labels = part.labels[train_rows], part.labels[val_rows]
    ours: tuple[Tensor | Stored, Tensor | Stored]
    if path is None and math.prod((decoding := part.images(rows, resolution)).shape) <= _room(device, resident):
        with busy():  # quicker than a cache
            whole = decoding.whole()
            train, val = whole[train_at], whole[val_at]
            summary = _end_of(summarise(train, torch.from_numpy(train_labels), val, torch.from_numpy(val_labels)))
            ours = torch.from_numpy(train).to(device), torch.from_numpy(val).to(device)
    else:
        stored = yield from cache.decoded(part, rows, resolution, busy)
        summary = yield from cache.summarised(stored, train_at, train_labels, val_at, val_labels, busy)
        ours = stored.part(train_at), stored.part(val_at)
        # only now: others on the device, that waited for the same decoding, may have theirs there already
        if stored.nbytes <= _room(device, resident):
            ours = yield from _brought_if_it_fits(*ours, device, busy)
    return Dataset(
        name=name,
        train_images=ours[0],
        train_labels=torch.from_numpy(train_labels).to(device),
        val_images=ours[1],
        val_labels=torch.from_numpy(val_labels).to(device),
        mean=torch.tensor(summary.mean).to(device),
        std=torch.tensor(summary.std).to(device),
        classes=classes,
        mirrors=catalog.mirrors(name),
        fingerprint=summary.fingerprint,
    )


def _end_of(work: Generator[object, None, Result]) -> Result:
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result


def _room(device: torch.device, resident: int | None) -> int:
    """Bytes of images that may lie on the device."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
    else:
        told, machine = free_memory_bytes(), machine_bytes()
        free = machine if told is None else min(told, machine)  # a container may have less than is free
    return int(RESIDENT_SHARE * free) if resident is None else min(resident, free)


def _brought_if_it_fits(
    train: Stored, val: Stored, device: torch.device, busy: Busy
) -> Generator[None, None, tuple[Tensor, Tensor] | tuple[Stored, Stored]]:
    """Both on the device; as they are where others took its memory meanwhile."""
    try:
        return (yield from _brought(train, device, busy)), (yield from _brought(val, device, busy))
    except Exception as error:
        if not out_of_memory(error):
            raise
    # only here: the error with its frames, and what was brought, is gone by now
    free(device)
    return train, val


def _brought(images: Stored, device: torch.device, busy: Busy) -> Generator[None, None, Tensor]:
    """All of them on the device, a few at a time; no more than these are in main memory on the way."""
    there = torch.empty(images.shape, dtype=torch.uint8, device=device)
    each = max(1, 8 * SLICE_BYTES // math.prod(images.shape[1:]))
    for start in range(0, len(images), each):
        with busy():
            some = there[start : start + each]
            here = some if device.type == "cpu" else torch.empty(some.shape, dtype=torch.uint8)
            images.read(slice(start, start + each), here.numpy())
            if here is not some:
                some.copy_(here)
        yield None
    return there


def split(name: str, labels: Rows, *, images: int | None, validation: float, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on and the rows to validate on, each rising; stratified, as `load` says.

    Args:
        name: of the dataset, for the messages.
        labels: (N,), every class among them.

    Raises:
        DataError: a class would be left without an image in one of the two parts, or `images` are too many.
    """
    # RandomState and not default_rng: its numbers are promised to stay, so a study's split outlives NumPy's versions.
    order = np.random.RandomState(seed % 2**32).permutation(len(labels))
    counts = np.bincount(labels)
    of_class = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(counts)[:-1])
    held_out = shares(counts, round(validation * len(labels)))
    left = counts - held_out
    trained = left if images is None else shares(left, min(images, left.sum()))
    if images is not None and images > left.sum():
        raise DataError(
            f'dataset "{name}": images: {images:,} are asked for; of {len(labels):,} training images '
            f"{held_out.sum():,} are held out for validation, which leaves {left.sum():,}: "
            f"say images: {left.sum()} or less"
        )
    for what, number, mend in (
        ("validation", held_out, "say a larger validation: share"),
        ("training", trained, "say more images:, or a smaller validation: share"),
    ):
        if not number.all():
            label = int(np.argmin(number))
            raise DataError(
                f'dataset "{name}": class {label} has {counts[label]} images, which leaves none for {what} '
                f"(validation: {validation:g}{'' if images is None else f', images: {images}'}): {mend}"
            )
    val_rows = np.concatenate([rows[:n] for rows, n in zip(of_class, held_out, strict=True)])
    train_rows = np.concatenate(
        [rows[n : n + m] for rows, n, m in zip(of_class, held_out, trained, strict=True)],
    )
    return np.sort(train_rows), np.sort(val_rows)


def shares(counts: Rows, total: int) -> Rows:
    """`total` shared out in proportion to `counts`, in whole numbers; each is within 1 of its exact share.

    Largest remainder first, and of equal ones the earlier. (Hamilton's method; a larger total can in theory give one
    class fewer, which costs a row of nesting and nothing else.)
    """
    exact = counts * total / counts.sum()
    given = np.floor(exact).astype(np.int64)
    most = np.argsort(given - exact, kind="stable")[: total - given.sum()]
    given[most] += 1
    return given


def _check_labels(name: str, part: TrainingPart, classes: int) -> None:
    labels = part.labels
    if not len(labels):
        raise DataError(f'dataset "{name}": {part.files[0]} holds no image')
    if labels.min() < 0:
        row = int(np.argmin(labels))
        raise DataError(
            f'dataset "{name}": {part.place(row)}: label {labels[row]}; they count from 0. Take the row out'
        )
    found = int(labels.max()) + 1
    if found != classes:
        row = int(np.argmax(labels))
        raise DataError(
            f'dataset "{name}" has labels up to {labels[row]} ({part.place(row)}), which is {found} classes, '
            f"and the task says {classes}: write task: {{classes: {found}, ...}} or mend the labels"
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(empty):
        raise DataError(
            f'dataset "{name}": no image in {part.files[0].parent} has label {empty[0]}; number them 0 to n-1'
        )
