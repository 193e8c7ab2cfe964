"""The training part of a dataset as it lies on the disk, labels read and images not yet decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlpspace.data.pixels import Pixels, Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingPart:
    """N images in a fixed order.

    `images(rows, resolution)` decodes the rows asked for, a rising selection of the N, to (len(rows), C, s, s) by the
    rule of `pixels`; it raises DataError for a broken image and for a result that would not fit into the machine.
    """

    files: tuple[Path, ...]  # all that images and labels come from
    labels: Rows  # (N,), not yet checked against the task
    images: Callable[[Rows, int], Pixels]
    place: Callable[[int], str]  # row -> words that say where it lies
