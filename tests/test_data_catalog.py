"""The check before any worker starts: what it says, and that it stays cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlpspace.data import catalog
from mlpspace.errors import DataError


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_an_embedded_dataset_needs_nothing(name: str) -> None:
    catalog.check(name, None, 10)


@pytest.mark.parametrize(
    ("name", "path", "classes", "says"),
    [
        (
            "cifar10",
            None,
            10,
            'dataset "cifar10" needs a place: --data cifar10=PATH (a folder with the python batches '
            "data_batch_1..data_batch_5, or Hugging Face parquet train-*.parquet)",
        ),
        ("fashion_mnist", None, 10, "needs a place: --data fashion_mnist=PATH (a folder with train-images-idx3-ubyte"),
        (
            "ciphar10",
            None,
            10,
            'dataset "ciphar10" is not one we know. Did you mean "cifar10"? Known: cifar10, cifar100',
        ),
        ("flowers", None, 5, "A set of your own needs a place: --data flowers=PATH (a folder train/<class>/*.png|jpg"),
        ("cifar100", None, 10, 'dataset "cifar100" needs a place'),
        ("mnist5k", None, 100, 'dataset "mnist5k" has 10 classes, the task says 100: write task: {classes: 10, ...}'),
        (
            "mnist5k",
            "here",
            10,
            'dataset "mnist5k" comes with mlpspace and takes no place: leave out --data mnist5k=here',
        ),
        ("cifar10", "no/where", 10, 'dataset "cifar10": there is no no/where. Say where it lies: --data cifar10=PATH'),
        ("cifar10", "no/where", 100, 'dataset "cifar10" has 10 classes, the task says 100'),
    ],
)
def test_a_mistake_says_what_to_type(name: str, path: str | None, classes: int, says: str) -> None:
    with pytest.raises(DataError) as caught:
        catalog.check(name, path, classes)
    assert says in str(caught.value)


def test_any_name_will_do_with_a_place(tmp_path: Path) -> None:
    for name in ("daisy", "rose"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.png").write_bytes(b"not decoded by the check")
    catalog.check("flowers", str(tmp_path), 2)


def test_digits_have_no_mirror_image_and_photographs_have() -> None:
    assert not any(catalog.mirrors(name) for name in ("mnist5k", "digits", "mnist", "flowers"))
    assert all(catalog.mirrors(name) for name in ("fashion_mnist", "cifar10", "cifar100", "imagenet"))


def test_the_catalog_loads_no_heavy_library() -> None:
    heavy = ("torch", "numpy", "pyarrow", "PIL", "ray", "pandas")
    program = (
        "import sys; from mlpspace.data import catalog; catalog.check('mnist5k', None, 10); "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
