"""Images of any size become uint8 arrays at the task's resolution.

N images, C = 1 (gray) or 3 channels, s the resolution. One rule for all formats: a size that fits is taken as it is; a
set whose images all have one size of at least 3/4 s and at most s is padded with zeros, centred (28 -> 32 keeps every
pixel of MNIST); everything else has its short side resized to s (bilinear, antialiased) and is cropped at the centre.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlpspace.errors import DataError

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Encoded: TypeAlias = tuple[str, bytes | Path]
"""JPEG, PNG and the like: words that say where it lies, and its bytes or the file that holds them."""

PIECE_BYTES = 2**28  # of decoded images that are held at once, at most, unless one is larger
_EACH = 64  # images that a thread decodes for a piece, so that the last of them is not waited for long

# What training sets come in. Pillow reads others too, for one of which, PostScript, it runs another program.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_GRAY = ("1", "L", "LA")
_TOO_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoding:
    """How images become (N, C, s, s), a piece at a time; nothing is decoded before it is asked for."""

    count: int  # N
    channels: int
    resolution: int
    pieces: Callable[[int, int], Iterator[Pixels]]
    """(the first image, threads) -> (n, C, s, s) for the images from that one on. DataError names a broken one."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.count, self.channels, self.resolution, self.resolution

    def whole(self) -> Pixels:
        """All of them.

        Raises:
            DataError: they would take more than half of the machine's memory; or an image is broken.
        """
        mend = "say fewer with fidelity: {images: N, ...}, or a smaller resolution or validation share"
        check_room(math.prod(self.shape), f"{self.count:,} images of {self.resolution} x {self.resolution}", mend)
        images = np.empty(self.shape, np.uint8)
        done = 0
        for piece in self.pieces(0, 1):
            images[done : done + len(piece)] = piece
            done += len(piece)
        assert done == self.count
        return images


def fitted(images: Pixels, rows: Rows, resolution: int) -> Decoding:
    """Those `rows` of images of one size, (N, C, H, W)."""
    channels = images.shape[1]

    def pieces(start: int, threads: int) -> Iterator[Pixels]:
        size = _piece(channels, resolution, threads)
        for at in range(start, len(rows), size):
            yield fit(images[rows[at : at + size]], resolution)

    return Decoding(count=len(rows), channels=channels, resolution=resolution, pieces=pieces)


def fit(images: Pixels, resolution: int) -> Pixels:
    """(N, C, H, W) of one size to (N, C, s, s)."""
    count, channels, height, width = images.shape
    if (height, width) == (resolution, resolution):
        return images
    fitted = np.zeros((count, channels, resolution, resolution), np.uint8)
    if _pads(height, width, resolution):
        top, left = (resolution - height) // 2, (resolution - width) // 2
        fitted[:, :, top : top + height, left : left + width] = images
    else:
        for at, image in enumerate(images):
            fitted[at] = _fit(Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)), resolution)
    return fitted


def decode(encoded: Callable[[int], Iterable[Encoded]], count: int, resolution: int) -> Decoding:
    """JPEG, PNG and the like (_FORMATS), to (N, C, s, s); C is 1 if every image is gray.

    As many heads are read at once as it takes to know C, and whether the set is padded.

    Args:
        encoded: gives the images from a place on; called more than once.
        count: how many there are.

    Raises:
        DataError: names an image whose head cannot be read.
    """
    pad, gray = _form(encoded(0), resolution)
    channels = 1 if gray else 3

    def pieces(start: int, threads: int) -> Iterator[Pixels]:
        rest = iter(encoded(start))
        # Pillow decodes and resizes without Python's lock: 448 x 336 JPEG to 224 pixels at 524 images/s with one thread
        # and 1,050 with two, 128 x 96 to 64 at 2,805 and 3,645 (benchmarks/streamed_data.py, 2-core VM, 2026-11-22)
        with ThreadPoolExecutor(threads) as pool:
            while some := list(itertools.islice(rest, _piece(channels, resolution, threads))):
                piece = np.empty((len(some), channels, resolution, resolution), np.uint8)

                def fill(at: int, each: Encoded, piece: Pixels = piece) -> None:
                    piece[at] = _decoded(*each, resolution, pad=pad)  # a gray one may become three equal channels

                for _ in pool.map(fill, range(len(some)), some):
                    pass
                yield piece
                del piece, fill  # before the next is made

    return Decoding(count=count, channels=channels, resolution=resolution, pieces=pieces)


def _piece(channels: int, resolution: int, threads: int) -> int:
    """Images that are decoded between two that ask how far it has come."""
    return max(1, min(_EACH * threads, PIECE_BYTES // (channels * resolution**2)))


def _form(encoded: Iterable[Encoded], resolution: int) -> tuple[bool, bool]:
    """Whether a set is padded, and whether all of it is gray."""
    pad, gray, first = True, True, None
    for where, source in encoded:
        (width, height), mode = _head(where, source)
        first = first or (width, height)
        pad = pad and first == (width, height) and _pads(height, width, resolution)
        gray = gray and mode in _GRAY
        if not pad and not gray:
            break
    return pad, gray


def _head(where: str, source: bytes | Path) -> tuple[tuple[int, int], str]:
    """Size and mode of an image."""
    if isinstance(source, bytes):
        image = _opened(where, io.BytesIO(source))
        return image.size, image.mode
    try:
        stream = source.open("rb")
    except OSError as error:
        raise _unreadable(where, error) from error
    with stream:
        image = _opened(where, stream)
        return image.size, image.mode


def _decoded(where: str, source: bytes | Path, resolution: int, *, pad: bool) -> Pixels:
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise _unreadable(where, error) from error
    image = _opened(where, io.BytesIO(data))
    try:
        image.draft(None, (2 * resolution, 2 * resolution))  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
        image = image.convert("L" if image.mode in _GRAY else "RGB")
    except Exception as error:  # its decoders raise anything on broken input
        raise _broken(where, error) from error
    return _fit(image, resolution, pad=pad)


def _pads(height: int, width: int, resolution: int) -> bool:
    short, long = sorted((height, width))
    return 4 * short >= 3 * resolution and long <= resolution and short < resolution


def _opened(where: str, stream: IO[bytes]) -> Image.Image:
    """The image with its head read."""
    try:
        image = Image.open(stream, formats=_readable())
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


def _unreadable(where: str, error: OSError) -> DataError:
    return DataError(f"{where} cannot be read ({error.strerror or error})")


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


def check_room(needed: int, what: str, mend: str = "it is broken, or for a larger machine") -> None:
    """Refuse what would take more than half of the machine's memory.

    Args:
        needed: bytes.
        what: as the message calls it, such as "5,000 images of 32 x 32".
        mend: what would do.

    Raises:
        DataError: it would.
    """
    machine = machine_bytes()
    if needed > machine / 2:
        told = f"{needed / 1e9:,.1f} GB, more than half of the {machine / 1e9:.1f} GB of this machine"
        raise DataError(f"{what} take {told}: {mend}")


def machine_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.exists() else "max"
    return physical if told == "max" else min(physical, int(told))
