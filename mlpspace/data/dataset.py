"""A dataset as a search uses it: training and validation images as uint8 tensors.

N images, C = 1 (gray) or 3 channels, s the resolution.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlpspace.data import cache, catalog, sources
from mlpspace.data.pixels import Rows
from mlpspace.data.training_part import TrainingPart
from mlpspace.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Both parts come from the training set; the test set is not here."""

    name: str
    train_images: Tensor  # (N, C, s, s) uint8
    train_labels: Tensor  # (N,) int64
    val_images: Tensor  # (M, C, s, s) uint8
    val_labels: Tensor  # (M,) int64
    mean: Tensor  # (C,) float32, of the training images in units of 0..1, padding included
    std: Tensor  # (C,) float32, likewise; at least one grey level, so that dividing by it is safe
    classes: int
    mirrors: bool  # whether a left-right flip makes sense
    fingerprint: str  # 16 hex digits; equal if and only if images, labels and split are equal

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset with its tensors on `device`; itself if they are there."""
        if self.train_images.device == torch.device(device):
            return self
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **moved)


def load(
    name: str,
    path: str | None,
    *,
    resolution: int,
    classes: int,
    images: int | None,
    validation: float,
    seed: int,
) -> Dataset:
    """Read, check, split and decode the training set of a dataset. Its test set is never opened.

    The split is stratified and hangs on `seed`, `validation` and the order of the rows alone. `images` then takes a
    stratified part of the training images, and a smaller one is contained in a larger one of the same seed. The
    validation part is `validation` of the whole training set, however few `images` are trained on: fewer would make
    every accuracy less certain and save little.

    Decoded images are kept in a cache on the node (`cache.folder`), so that only the first worker decodes.

    Args:
        name: as the space file says it.
        path: where it lies; None for the embedded ones.
        resolution: of the task, in pixels; `pixels` says how images are brought to it.
        classes: of the task.
        images: so many training images; None: all that validation leaves.
        validation: share of the training set that is held out, between 0 and 1.
        seed: of the split; give all trials of a study the same.

    Raises:
        DataError: it is missing or broken, has other classes than the task, or too few images.
    """
    catalog.check(name, path, classes)
    part = (sources.embedded(name) if path is None else sources.find(name, path, classes, catalog.wants(name))).open()
    _check_labels(name, part, classes)
    train_rows, val_rows = split(name, part.labels, images=images, validation=validation, seed=seed)
    rows = np.union1d(train_rows, val_rows)
    pixels = part.images(rows, resolution) if path is None else cache.decoded(part, rows, resolution)
    train_images = torch.from_numpy(pixels[np.searchsorted(rows, train_rows)])
    val_images = torch.from_numpy(pixels[np.searchsorted(rows, val_rows)])
    train_labels, val_labels = torch.from_numpy(part.labels[train_rows]), torch.from_numpy(part.labels[val_rows])
    mean, std = _mean_and_std(train_images)
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        val_images=val_images,
        val_labels=val_labels,
        mean=mean,
        std=std,
        classes=classes,
        mirrors=catalog.mirrors(name),
        fingerprint=_fingerprint(train_images, train_labels, val_images, val_labels),
    )


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


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) each, float32, in units of 0..1; summed in float64, a slice at a time to spare memory."""
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for some in images.split(1024):
        values = some.transpose(0, 1).flatten(1).double() / 255  # (C, n * s * s)
        total += values.sum(1)
        squares += values.square().sum(1)
    count = images.numel() / images.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return mean.float(), std.float()


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
