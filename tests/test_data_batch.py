"""Augmentation against a slow loop over images; normalisation against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlpspace.data import Dataset, augment, normalised
from mlpspace.recipe import Augmentation


def photographs(count: int, channels: int = 3, side: int = 8) -> Tensor:
    """No pixel is 0, and no two pixels of an image are equal as long as there are fewer than 255 of them."""
    pixels = torch.arange(side * side).remainder(255) + 1
    return pixels.view(1, 1, side, side).expand(count, channels, -1, -1).to(torch.uint8).contiguous()


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """One pixel at a time; what comes from outside is 0."""
    _, height, width = image.shape
    moved = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_one_of_the_shifts_and_flips_and_all_of_them_come(channels: int) -> None:
    images = photographs(600, channels, side=5)
    possible = {}
    for flip in (False, True):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                image = shifted(images[0].flip(2) if flip else images[0], down, right)
                possible[image.numpy().tobytes()] = (flip, down, right)
    moved = augment(images, Augmentation(shift=1), True, generator())
    seen = [possible[image.contiguous().numpy().tobytes()] for image in moved]
    counts = {which: seen.count(which) for which in possible.values()}
    assert len(counts) == 18
    assert all(600 / 18 / 2 < count < 600 / 18 * 2 for count in counts.values()), (
        counts
    )  # 33 expected, 5.6 is one sigma


def test_a_flip_is_a_mirror_image_of_about_half_of_the_batch() -> None:
    images = photographs(400)
    flipped = augment(images, Augmentation(shift=0, flip="always"), False, generator())
    is_mirror = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(is_mirror, ~(flipped == images).flatten(1).all(1))
    assert 160 < is_mirror.sum() < 240  # 200 +- 4 sigma


@pytest.mark.parametrize(("flip", "mirrors", "happens"), [("auto", True, True), ("auto", False, False)])
def test_flip_auto_is_what_the_dataset_says(flip: str, mirrors: bool, happens: bool) -> None:
    images = photographs(64)
    assert torch.equal(augment(images, Augmentation(shift=0, flip=flip), mirrors, generator()), images) is not happens


def test_flip_never_holds_whatever_the_dataset_says() -> None:
    images = photographs(64)
    assert torch.equal(augment(images, Augmentation(shift=0, flip="never"), True, generator()), images)


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_blanks_one_square_that_may_hang_over_the_border(side: int) -> None:
    images = photographs(500, side=8)
    blanked = augment(images, Augmentation(shift=0, flip="never", cutout=side), False, generator())
    possible = set()
    for row in range(8):
        for column in range(8):
            image = images[0].clone()
            top, left = row - side // 2, column - side // 2
            image[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
            possible.add(image.numpy().tobytes())
    seen = {image.contiguous().numpy().tobytes() for image in blanked}
    assert seen <= possible
    assert len(seen) > 0.9 * len(possible)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    images, all_of_it = photographs(32), Augmentation(shift=2, flip="always", cutout=3)
    first = augment(images, all_of_it, True, generator(7))
    assert torch.equal(first, augment(images, all_of_it, True, generator(7)))
    assert not torch.equal(first, augment(images, all_of_it, True, generator(8)))


def test_augmentation_leaves_the_stored_images_alone() -> None:
    images = photographs(16)
    before = images.clone()
    augment(images, Augmentation(shift=2, flip="always", cutout=4), True, generator())
    assert torch.equal(images, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_generator_of_the_cpu_gives_the_same_batch_on_the_gpu() -> None:
    images, all_of_it = photographs(32), Augmentation(shift=2, flip="always", cutout=3)
    there = augment(images.cuda(), all_of_it, True, generator(7))
    assert there.is_cuda
    assert torch.equal(there.cpu(), augment(images, all_of_it, True, generator(7)))
    assert augment(images.cuda(), all_of_it, True, generator(7, "cuda")).is_cuda


def holding(images: Tensor, mean: list[float], std: list[float]) -> Dataset:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return Dataset(
        name="any",
        train_images=images,
        train_labels=labels,
        val_images=images,
        val_labels=labels,
        mean=torch.tensor(mean),
        std=torch.tensor(std),
        classes=1,
        mirrors=True,
        fingerprint="0",
    )


def test_normalised_is_pixel_less_mean_over_std() -> None:
    images = photographs(2)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 1.0]
    batch = normalised(images, holding(images, mean, std), torch.float32)
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(batch[:, channel].double(), expected, atol=1e-6)


def test_gray_becomes_three_equal_channels() -> None:
    images = photographs(2, channels=1)
    batch = normalised(images, holding(images, [0.5], [0.5]), torch.bfloat16)
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == torch.bfloat16
    assert torch.equal(batch[:, 0], batch[:, 1])
    assert torch.equal(batch[:, 0], batch[:, 2])
