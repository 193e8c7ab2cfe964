"""Batches as a network takes them. Tensor code on the device of the images; no loop over images.

B batch, C = 1 (gray) or 3 channels, H and W pixels. Images are uint8 until `normalised`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mlpspace.data.dataset import Dataset
from mlpspace.recipe import Augmentation


def normalised(images: Tensor, dataset: Dataset, dtype: torch.dtype) -> Tensor:
    """(pixel / 255 - mean) / std per channel, gray repeated to three channels.

    Args:
        images: (B, C, H, W) uint8, on the dataset's device.

    Returns:
        (B, 3, H, W) of `dtype`. The arithmetic is in float32 whatever the dtype.
    """
    scale = (1 / (255 * dataset.std)).view(1, -1, 1, 1)
    offset = (dataset.mean / dataset.std).view(1, -1, 1, 1)
    pixels = (images.float() * scale - offset).to(dtype)
    return pixels if pixels.shape[1] == 3 else pixels.expand(-1, 3, -1, -1).contiguous()


def augment(images: Tensor, augmentation: Augmentation, mirrors: bool, generator: torch.Generator) -> Tensor:
    """Flip, shift and cut out, drawn for each image on its own.

    Shift: whole pixels, each of the (2n + 1)^2 offsets equally likely, zeros move in. Flip: left-right, each image with
    probability 1/2. Cutout (arXiv:1708.04552): a square whose centre is any pixel, so it may hang over the border; it
    is filled with zeros, that is black, not the mean.

    Args:
        images: (B, C, H, W) uint8.
        mirrors: what `flip: auto` means, `Dataset.mirrors`.
        generator: all randomness; one on the CPU gives the same batch on every device.

    Returns:
        (B, C, H, W) uint8, on the device of `images`; `images` itself if there is nothing to do.
    """
    flip = mirrors if augmentation.flip == "auto" else augmentation.flip == "always"
    if flip or augmentation.shift:
        images = _moved(images, augmentation.shift, flip, generator)
    if augmentation.cutout:
        images = _cut_out(images, augmentation.cutout, generator)
    return images


def _draw(below: int, count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(count, 1) whole numbers of [0, below), drawn where the generator lives, sent to where the images are."""
    drawn = torch.randint(below, (count, 1), generator=generator, device=generator.device)
    return drawn.to(like.device, non_blocking=True)


def _moved(images: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Every image read from a window of its zero-padded self; a flipped one reads its columns from right to left."""
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (shift,) * 4)  # (B, C, H + 2n, W + 2n)
    rows = torch.arange(height, device=images.device) + _draw(2 * shift + 1, batch, images, generator)  # (B, H)
    columns = torch.arange(width, device=images.device).expand(batch, -1)  # (B, W)
    if flip:
        columns = torch.where(_draw(2, batch, images, generator) == 1, width - 1 - columns, columns)
    columns = columns + _draw(2 * shift + 1, batch, images, generator)
    places = rows.unsqueeze(2) * padded.shape[3] + columns.unsqueeze(1)  # (B, H, W), into the flattened padded map
    places = places.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view_as(images)


def _cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    top = _draw(height, batch, images, generator) - side // 2
    left = _draw(width, batch, images, generator) - side // 2
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    blank = ((row >= top) & (row < top + side)).unsqueeze(2) & ((column >= left) & (column < left + side)).unsqueeze(1)
    return images.masked_fill(blank.unsqueeze(1), 0)
