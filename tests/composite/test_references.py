"""References: what they refuse, and what is read out of pictures."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from subjects import picture, reference, square_mask

from contextgen_core.composite.references import Reference, subject_from_image
from contextgen_core.errors import InputError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "x" * 101}, "needs a name of 1 to 100"),
        ({"name": "a\nb"}, "control character"),
        ({"mask": np.zeros((48, 64), np.uint8)}, "empty mask"),
        ({"mask": np.full((48, 64), 127, np.uint8)}, "empty mask"),
        ({"mask": np.full((48, 65), 255, np.uint8)}, "mask of shape"),
        ({"mask": np.full((48, 64), 1.0, np.float32)}, "mask of shape"),
        ({"pixels": np.zeros((48, 64, 4), np.uint8)}, "pixels of shape"),
        ({"pixels": np.zeros((48, 64, 3), np.float32)}, "pixels of shape"),
        ({"tokens": -1}, "tokens = -1"),
        ({"tokens": 16385}, "tokens = 16385"),
        ({"tokens": 1.5}, "whole number"),
        ({"strength": 4.1}, "strength = 4.1; give a number from 0 to 4"),
        ({"strength": math.nan}, "strength = NaN"),
        ({"strength": True}, "strength = true"),
        ({"start": -0.1}, "start = -0.1"),
        ({"end": 1.1}, "end = 1.1"),
        ({"start": 0.6, "end": 0.5}, "starts at 0.6 and ends at 0.5"),
    ],
)
def test_a_reference_out_of_range_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        reference(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("width", "height"), [(15, 64), (64, 15), (16385, 16)])
def test_absurd_sizes_are_refused(width: int, height: int) -> None:
    pixels, mask = np.zeros((height, width, 3), np.uint8), np.full((height, width), 255, np.uint8)
    with pytest.raises(InputError, match=f"{width} x {height} pixels; give one with sides from 16 to 16384"):
        Reference("a", pixels, mask)
    with pytest.raises(InputError, match=f"{width} x {height} pixels"):
        subject_from_image(Image.fromarray(pixels), Image.fromarray(mask))


# --- pictures -------------------------------------------------------------------------------------

HOLE = square_mask(32, 24, 8, 6, 20, 18)


def rgba() -> Image.Image:
    return Image.fromarray(np.dstack([picture(32, 24), HOLE]))


def through_png(image: Image.Image, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_alpha_is_the_mask() -> None:
    pixels, mask = subject_from_image(through_png(rgba()))
    assert np.array_equal(mask, HOLE)
    assert np.array_equal(pixels, picture(32, 24))


def test_grey_with_alpha() -> None:
    grey = Image.fromarray(picture(32, 24)).convert("L")
    pixels, mask = subject_from_image(through_png(Image.merge("LA", [grey, Image.fromarray(HOLE)])))
    assert np.array_equal(mask, HOLE)
    assert np.array_equal(pixels[..., 0], np.asarray(grey)) and np.array_equal(pixels[..., 0], pixels[..., 2])


def test_premultiplied_modes() -> None:
    grey = Image.merge("LA", [Image.fromarray(picture(32, 24)).convert("L"), Image.fromarray(HOLE)])
    for image in (rgba().convert("RGBa"), grey.convert("La")):
        assert np.array_equal(subject_from_image(image)[1], HOLE)


def test_a_palette_with_one_transparent_colour() -> None:
    indices = np.where(HOLE > 0, 1, 0).astype(np.uint8)
    image = Image.new("P", (32, 24))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([int(v) for v in indices.ravel()])
    pixels, mask = subject_from_image(through_png(image, transparency=0))
    assert np.array_equal(mask, HOLE)
    assert (pixels[HOLE > 0] == [200, 100, 50]).all()


def test_a_palette_with_an_alpha_for_each_colour() -> None:
    indices = np.where(HOLE > 0, 1, 0).astype(np.uint8)
    image = Image.new("P", (32, 24))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([int(v) for v in indices.ravel()])
    _, mask = subject_from_image(through_png(image, transparency=bytes([0, 255])))
    assert np.array_equal(mask, HOLE)


def test_a_transparent_colour_key() -> None:
    pixels = np.where(HOLE[..., None] > 0, 90, 255).astype(np.uint8).repeat(3, axis=2)
    _, mask = subject_from_image(through_png(Image.fromarray(pixels), transparency=(255, 255, 255)))
    assert np.array_equal(mask, HOLE)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_a_separate_mask_of_any_mode(mode: str) -> None:
    given = Image.fromarray(HOLE.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(HOLE).convert(mode)
    assert given.mode == mode
    pixels, mask = subject_from_image(Image.fromarray(picture(32, 24)), given)
    assert np.array_equal(mask, HOLE)
    assert np.array_equal(pixels, picture(32, 24))


def test_a_separate_mask_never_uncovers_what_is_transparent() -> None:
    other = square_mask(32, 24, 0, 0, 12, 24)
    _, mask = subject_from_image(rgba(), Image.fromarray(other))
    assert np.array_equal(mask, np.minimum(other, HOLE))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV"])
def test_pictures_of_other_modes(mode: str) -> None:
    pixels, _ = subject_from_image(Image.fromarray(picture(32, 24)).convert(mode), Image.fromarray(HOLE))
    assert pixels.shape == (24, 32, 3) and pixels.dtype == np.uint8


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32)
    pixels, _ = subject_from_image(through_png(Image.fromarray(ramp)), Image.fromarray(HOLE))
    assert np.array_equal(pixels[..., 0], ramp >> 8)


def test_camera_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    pixels, mask = subject_from_image(through_png(rgba(), exif=exif))
    assert pixels.shape == (32, 24, 3)
    assert np.array_equal(mask, np.rot90(HOLE, -1))


def test_a_picture_without_mask_and_alpha_is_refused() -> None:
    with pytest.raises(InputError, match="neither a mask nor transparency"):
        subject_from_image(Image.fromarray(picture()))


def test_empty_masks_are_refused() -> None:
    nothing = Image.fromarray(np.zeros((24, 32), np.uint8))
    with pytest.raises(InputError, match="empty mask"):
        subject_from_image(Image.fromarray(picture(32, 24)), nothing)
    clear = rgba()
    clear.putalpha(0)
    with pytest.raises(InputError, match="empty mask"):
        subject_from_image(clear)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="the mask is 32 x 24 and the picture 64 x 48"):
        subject_from_image(Image.fromarray(picture()), Image.fromarray(HOLE))


def test_a_broken_file_is_refused() -> None:
    buffer = io.BytesIO()
    rgba().resize((256, 256)).save(buffer, "PNG")
    with pytest.raises(InputError, match="cannot be read"):
        subject_from_image(Image.open(io.BytesIO(buffer.getvalue()[:2000])))
