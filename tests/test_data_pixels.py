"""How images of any size come to the task's resolution, against Pillow's own words for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from mlpspace.data import pixels
from mlpspace.errors import DataError

rng = np.random.default_rng(0)


def noise(*shape: int) -> pixels.Pixels:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def encoded(images: list[Image.Image], kind: str = "PNG") -> Callable[[int], Iterator[tuple[str, bytes]]]:
    def each(start: int = 0) -> Iterator[tuple[str, bytes]]:
        for at, image in enumerate(images[start:], start):
            stream = io.BytesIO()
            image.save(stream, kind)
            yield f"image {at}", stream.getvalue()

    return each


def test_28_pixels_are_padded_by_2_on_each_side_to_32() -> None:
    images = noise(5, 1, 28, 28)
    assert np.array_equal(pixels.fit(images, 32), np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))))


@pytest.mark.parametrize("channels", [1, 3])
def test_8_pixels_are_resized_to_32_as_pillow_does_it(channels: int) -> None:
    images = noise(3, channels, 8, 8)
    fitted = pixels.fit(images, 32)
    for image, got in zip(images, fitted, strict=True):
        for plane, got_plane in zip(image, got, strict=True):
            expected = Image.fromarray(plane).resize((32, 32), Image.Resampling.BILINEAR)
            assert np.array_equal(got_plane, np.asarray(expected))


def test_the_right_size_is_taken_as_it_is() -> None:
    images = noise(3, 3, 32, 32)
    assert np.array_equal(pixels.fit(images, 32), images)
    decoded = pixels.decode(encoded([Image.fromarray(image.transpose(1, 2, 0)) for image in images]), 3, 32).whole()
    assert np.array_equal(decoded, images)


def test_a_wide_image_is_cropped_at_its_centre() -> None:
    wide = noise(16, 48, 3)
    (got,) = pixels.decode(encoded([Image.fromarray(wide)]), 1, 16).whole()
    assert np.array_equal(got, wide[:, 16:32].transpose(2, 0, 1))


def test_a_large_image_is_resized_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing every second column survives and the image is all black or all white
    (got,) = pixels.decode(encoded([Image.fromarray(stripes)]), 1, 16).whole()
    assert np.all(abs(got[0, :, 1:-1].astype(int) - 127) < 10)


def test_images_of_one_size_near_enough_are_padded_and_of_several_sizes_resized() -> None:
    white = [Image.fromarray(np.full((side, side), 255, np.uint8)) for side in (28, 28, 30)]
    assert pixels.decode(encoded(white[:2]), 2, 32).whole()[:, :, 0, :].max() == 0  # a black border
    assert pixels.decode(encoded(white), 3, 32).whole().min() == 255  # none


def test_gray_images_stay_gray_until_a_coloured_one_comes() -> None:
    gray, colour = noise(8, 8), noise(8, 8, 3)
    assert pixels.decode(encoded([Image.fromarray(gray)] * 2), 2, 8).whole().shape == (2, 1, 8, 8)
    mixed = pixels.decode(encoded([Image.fromarray(gray), Image.fromarray(colour)]), 2, 8).whole()
    assert np.array_equal(mixed[0], np.stack([gray] * 3))
    assert np.array_equal(mixed[1], colour.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA", "1"])
def test_every_8_bit_mode_is_read(mode: str) -> None:
    image = Image.fromarray(noise(8, 8, 3)).convert(mode)
    got = pixels.decode(encoded([image], "JPEG" if mode == "CMYK" else "PNG"), 1, 8).whole()
    assert got.shape == (1, 1 if mode in ("LA", "1") else 3, 8, 8)


def test_16_bit_images_are_refused_by_name() -> None:
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    with pytest.raises(DataError, match="image 0: pixels of mode I"):
        pixels.decode(encoded([deep]), 1, 8).whole()


def test_a_set_that_does_not_fit_says_how_many_gigabytes_and_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "machine_bytes", lambda: 2**30)
    with pytest.raises(DataError, match=r"take 0\.6 GB, more than half of the 1\.1 GB .* fidelity: \{images: N"):
        pixels.decode(encoded([Image.fromarray(noise(8, 8))]), 10_000, 250).whole()


def test_an_image_cut_short_anywhere_names_itself() -> None:
    for kind in ("PNG", "JPEG"):
        ((_, whole),) = encoded([Image.fromarray(noise(16, 16, 3))], kind)()
        for length in range(0, len(whole) - 30, 7):  # the last bytes of a file may be spared without loss
            with pytest.raises(DataError, match=r"photo\.x: Pillow cannot read this image"):
                pixels.decode(lambda start: [("photo.x", whole[:length])], 1, 16).whole()  # noqa: B023 the call is over with the turn
