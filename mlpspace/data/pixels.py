"""Images of any size become uint8 arrays at the task's resolution.

N images, C = 1 (gray) or 3 channels, s the resolution. One rule for all formats: a size that fits is taken as it is; a
set whose images all have one size of at least 3/4 s and at most s is padded with zeros, centred (28 -> 32 keeps every
pixel of MNIST); everything else has its short side resized to s (bilinear, antialiased) and is cropped at the centre.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlpspace.errors import DataError

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

# What training sets come in. Pillow reads others too, for one of which, PostScript, it runs another program.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_GRAY = ("1", "L", "LA")
_TOO_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def fit(images: Pixels, resolution: int) -> Pixels:
    """(N, C, H, W) of one size to (N, C, s, s).

    Raises:
        DataError: the result would not fit into the machine.
    """
    count, channels, height, width = images.shape
    if (height, width) == (resolution, resolution):
        return images
    fitted = _blank(count, channels, resolution)
    if _pads(height, width, resolution):
        top, left = (resolution - height) // 2, (resolution - width) // 2
        fitted[:, :, top : top + height, left : left + width] = images
    else:
        for at, image in enumerate(images):
            fitted[at] = _fit(Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)), resolution)
    return fitted


def decode(encoded: Callable[[], Iterable[tuple[str, bytes]]], count: int, resolution: int) -> Pixels:
    """JPEG, PNG and the like (_FORMATS), to (N, C, s, s); C is 1 if every image is gray.

    Args:
        encoded: gives the images, each with the words that say where it lies; called more than once.
        count: how many there are.

    Raises:
        DataError: names the image that cannot be decoded; or the result would not fit into the machine.
    """
    sizes = (_opened(where, data).size for where, data in encoded())
    width, height = next(sizes)
    pad = _pads(height, width, resolution) and all(size == (width, height) for size in sizes)
    images = None
    for at, (where, data) in enumerate(encoded()):
        image = _opened(where, data)
        try:
            image.draft(
                None, (2 * resolution, 2 * resolution)
            )  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            image = image.convert("L" if image.mode in _GRAY else "RGB")
        except Exception as error:  # its decoders raise anything on broken input
            raise _broken(where, error) from error
        pixels = _fit(image, resolution, pad=pad)
        if images is None:
            images = _blank(count, len(pixels), resolution)
        elif len(pixels) > images.shape[1]:  # the first coloured one after gray ones
            images, gray = _blank(count, 3, resolution), images
            images[:at] = gray[:at]
        images[at] = pixels
    assert images is not None
    return images


def _pads(height: int, width: int, resolution: int) -> bool:
    short, long = sorted((height, width))
    return 4 * short >= 3 * resolution and long <= resolution and short < resolution


def _opened(where: str, data: bytes) -> Image.Image:
    """The image with its head read."""
    try:
        image = Image.open(io.BytesIO(data), formats=_readable())
    except Exception as error:  # its decoders raise anything on broken input
        raise _broken(where, error) from error
    if image.mode in _TOO_DEEP:
        raise DataError(f"{where}: pixels of mode {image.mode}; 8 bits a channel are wanted. Convert the images")
    return image


@functools.cache
def _readable() -> tuple[str, ...]:
    """Of _FORMATS those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _broken(where: str, error: Exception) -> DataError:
    known = f"none of {', '.join(_FORMATS)}"
    reason = known if isinstance(error, Image.UnidentifiedImageError) else str(error) or type(error).__name__
    return DataError(f"{where}: Pillow cannot read this image ({reason}). Write it anew, or take it out of the set")


def _fit(image: Image.Image, resolution: int, pad: bool = False) -> Pixels:
    """(C, s, s) of an image of mode L or RGB."""
    width, height = image.size
    if pad:
        left, top = (width - resolution) // 2, (height - resolution) // 2  # negative: Pillow's crop adds black
        image = image.crop((left, top, left + resolution, top + resolution))
    elif (width, height) != (resolution, resolution):
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        square = (left, top, left + short, top + short)  # crop and resize in one step
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=square)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _blank(count: int, channels: int, resolution: int) -> Pixels:
    """(N, C, s, s) of zeros.

    Raises:
        DataError: it would take more than half of the machine's memory.
    """
    mend = "say fewer with fidelity: {images: N, ...}, or a smaller resolution or validation share"
    check_room(count * channels * resolution**2, f"{count:,} images of {resolution} x {resolution}", mend)
    return np.zeros((count, channels, resolution, resolution), np.uint8)


def check_room(needed: int, what: str, mend: str = "it is broken, or for a larger machine") -> None:
    """Refuse what would take more than half of the machine's memory.

    Args:
        needed: bytes.
        what: as the message calls it, such as "5,000 images of 32 x 32".
        mend: what would do.

    Raises:
        DataError: it would.
    """
    machine = _machine_bytes()
    if needed > machine / 2:
        told = f"{needed / 1e9:,.1f} GB, more than half of the {machine / 1e9:.1f} GB of this machine"
        raise DataError(f"{what} take {told}: {mend}")


def _machine_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.exists() else "max"
    return physical if told == "max" else min(physical, int(told))
