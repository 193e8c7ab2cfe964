"""The training part of a dataset as it lies on the disk, labels read and images not yet decoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlpspace.data.pixels import Decoding, Rows

_TRAINING = {"train", "training", "trainset"}
_HELD_OUT = {"test", "testing", "testset", "val", "valid", "validation", "valset", "dev", "eval", "evaluation"}


def is_training(name: str) -> bool | None:
    """Whether the name of a file or a folder says that the training set is in it; None: it says nothing of the kind.

    "train-00000-of-00005.parquet", "mnist-train.parquet" and a folder Train are, "test" and "flowers_val.parquet" are
    not: a search never opens those. Of a folder's name only all of it counts: test-bench may hold anything.
    """
    stem, dot, _ = name.lower().partition(".")
    words = set(re.split(r"[^a-z]+", stem)) if dot else {stem}
    return True if words & _TRAINING else False if words & _HELD_OUT else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingPart:
    """N images in a fixed order.

    `images(rows, resolution)` tells how the rows asked for, a rising selection of the N, become (len(rows), C, s, s)
    by the rule of `pixels`; it raises DataError for an image whose head is broken.
    """

    files: tuple[Path, ...]  # all that images and labels come from
    labels: Rows  # (N,), not yet checked against the task
    images: Callable[[Rows, int], Decoding]
    place: Callable[[int], str]  # row -> words that say where it lies
