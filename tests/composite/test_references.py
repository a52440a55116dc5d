"""References: sizes, masks, and what is read out of pictures."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from golden import CONTEXTGEN_CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contextgen_core.composite.references import (
    GREY,
    Reference,
    budget_size,
    official_size,
    prepare,
    subject_from_image,
    token_mask,
)
from contextgen_core.errors import InputError


def golden_masks() -> list[Any]:
    """(mask, valid tokens): a case made by hand, and every golden one."""
    middle = np.zeros((64, 96), np.uint8)
    middle[16:48, 32:64] = 255  # tokens 2..3 by 1..2
    expected = np.ones((4, 6), bool)
    expected[:, [0, 5]] = False  # the filter gives touching neighbours 8 % of it, the next ones less than 0
    cases = [pytest.param(middle, expected, id="by hand")]
    for path in CONTEXTGEN_CASES:
        data = np.load(path)
        for name in data.files:
            if name.startswith("ref") and name.endswith("_mask"):
                valid = data[name.replace("_mask", "_tokmask")]
                cases.append(pytest.param(data[name], valid, id=f"{path.stem}-{name}"))
    return cases


def picture(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square_mask(width: int, height: int, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 255
    return mask


def reference(width: int = 64, height: int = 48, **changes: Any) -> Reference:
    fields: dict[str, Any] = {
        "name": "Anna",
        "pixels": picture(width, height),
        "mask": square_mask(width, height, width // 4, height // 4, width // 2, height // 2),
    }
    return Reference(**{**fields, **changes})


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canvas", "side"),
    [
        ((384, 384), 256),
        ((385, 2000), 384),
        ((512, 512), 384),
        ((513, 513), 512),
        ((768, 1024), 512),
        ((1024, 769), 768),
        ((1024, 1024), 768),
        ((1025, 1025), 1024),
    ],
)
def test_the_official_area_follows_the_canvas_short_side(canvas: tuple[int, int], side: int) -> None:
    assert official_size(500, 500, *canvas) == (side, side)
    assert official_size(50, 50, *canvas) == (side, side)


def test_official_sizes_computed_by_hand() -> None:
    # k = 1024 / sqrt(500000) = 1.44815; 1448 -> 1456, 724 -> 736
    assert official_size(1000, 500, 1200, 1200) == (1456, 736)
    # k = 768 / sqrt(64 * 48) = 13.8564; 886 -> 896, 665 -> 672
    assert official_size(64, 48, 1024, 1024) == (896, 672)
    # k = 256 / 512 = 0.5 for 16384 x 16: 8192, 8 -> 16
    assert official_size(16384, 16, 384, 384) == (8192, 16)


@given(st.integers(16, 16384), st.integers(16, 16384), st.integers(64, 4096), st.integers(64, 4096))
def test_official_sizes_round_each_side_up_to_sixteen(w: int, h: int, cw: int, ch: int) -> None:
    width, height = official_size(w, h, cw, ch)
    assert width % 16 == height % 16 == 0
    base = official_size(16, 16, cw, ch)[0]
    scale = math.sqrt(base**2 / (w * h))
    assert 0 <= width - int(w * scale) < 16 or width == 16
    assert 0 <= height - int(h * scale) < 16 or height == 16


@given(st.integers(16, 16384), st.integers(16, 16384), st.integers(1, 16384))
def test_a_budget_is_kept_and_well_used(w: int, h: int, tokens: int) -> None:
    width, height = budget_size(w, h, tokens)
    assert width % 16 == height % 16 == 0
    across, down = width // 16, height // 16
    assert 1 <= across * down <= tokens
    # Whichever side still has room would have to break the budget, or distort more than it gains.
    ideal = math.sqrt(tokens * w / h), math.sqrt(tokens * h / w)
    if min(ideal) >= 1:
        assert across >= int(ideal[0]) and down >= int(ideal[1])
        assert across <= ideal[0] + 1 and down <= ideal[1] + 1


def test_budgets_computed_by_hand() -> None:
    assert budget_size(640, 480, 1024) == (576, 432)  # 36 x 27 = 972, exactly 4:3; 37 x 27 is worse
    assert budget_size(100, 100, 256) == (256, 256)
    assert budget_size(100, 100, 1) == (16, 16)
    assert budget_size(16384, 16, 64) == (1024, 16)


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "expected"), golden_masks())
def test_valid_tokens_equal_the_golden_cases(mask: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(token_mask(mask).ravel(), expected.ravel())


def bicubic_weights(size: int, tokens: int) -> np.ndarray:
    """Antialiased bicubic (a = -0.5), support 2 output pixels, as a (tokens, size) matrix."""
    scale = size / tokens
    centres = (np.arange(tokens) + 0.5) * scale
    x = np.abs((np.arange(size)[None] + 0.5 - centres[:, None]) / scale)
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    weights[x >= 2] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def test_valid_tokens_of_a_square_reach_beyond_the_tokens_it_touches() -> None:
    mask = square_mask(512, 512, 150, 150, 350, 350)  # touches 13 x 13 tokens, 9..21
    valid = token_mask(mask)
    weights = bicubic_weights(512, 32)
    soft = weights @ mask @ weights.T
    clear = np.abs(soft - 0.5) > 0.3  # where 8-bit rounding of the two passes cannot decide
    assert np.array_equal(valid[clear], (soft >= 0.5)[clear])
    assert 169 < valid.sum() < 200
    assert valid[9:22, 9:22].all()


def test_any_trace_counts_as_a_valid_token() -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[16:32, 48:64] = 1
    assert token_mask(mask).shape == (4, 6)
    assert [tuple(map(int, spot)) for spot in np.argwhere(token_mask(mask))] == [(1, 3)]


def test_a_mask_off_the_token_grid_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        token_mask(np.zeros((64, 65), np.uint8))


# --- prepare --------------------------------------------------------------------------------------


def test_prepared_pixels_are_grey_outside_the_subject() -> None:
    ready = prepare(reference(640, 480), 512, 512)
    assert ready.pixels.shape == (336, 448, 3)  # k = 384 / sqrt(640 * 480) = 0.6928: 443 -> 448, 332 -> 336
    assert ready.mask.shape == (336, 448) and ready.valid.shape == (21, 28)
    assert ready.pixels.dtype == ready.mask.dtype == np.uint8 and ready.valid.dtype == bool
    assert (ready.pixels[ready.mask < 128] == GREY).all()
    inside = ready.pixels[ready.mask >= 128]
    assert inside.std() > 5
    assert np.array_equal(ready.valid, token_mask(ready.mask))
    assert 0 < ready.valid.sum() < ready.valid.size / 4


def test_the_subject_itself_is_untouched_when_no_resize_is_needed() -> None:
    whole = reference(384, 384, mask=np.full((384, 384), 255, np.uint8))
    ready = prepare(whole, 512, 512)
    assert np.array_equal(ready.pixels, whole.pixels)
    assert ready.valid.all()
    assert whole.pixels is not ready.pixels


def test_pixels_follow_the_half_and_tokens_the_trace() -> None:
    mask = np.full((384, 384), 40, np.uint8)  # faint everywhere: valid tokens, grey pixels
    mask[100:200, 100:200] = 128
    ready = prepare(reference(384, 384, mask=mask), 512, 512)
    assert ready.valid.all()
    assert ((ready.pixels == GREY).all(axis=2) == (mask < 128)).mean() > 0.999


def test_a_budget_replaces_the_official_rule() -> None:
    ready = prepare(reference(640, 480, tokens=100), 1024, 1024)
    assert ready.valid.size <= 100
    assert ready.valid.shape == (budget_size(640, 480, 100)[1] // 16, budget_size(640, 480, 100)[0] // 16)


def test_cropping_brings_the_subject_close_and_is_off_by_default() -> None:
    mask = square_mask(640, 480, 300, 200, 380, 280)
    plain = prepare(reference(640, 480, mask=mask), 512, 512)
    cropped = prepare(reference(640, 480, mask=mask, crop=True), 512, 512)
    assert (plain.mask >= 128).mean() < 0.03
    assert 0.7 < (cropped.mask >= 128).mean() < 0.9  # 80 pixels and a margin of 5 on each side
    assert cropped.pixels.shape[0] == cropped.pixels.shape[1] == 384


@settings(max_examples=60)
@given(st.data())
def test_cropping_never_loses_a_part_of_the_subject(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(16, 80)), data.draw(st.integers(16, 80))
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    mask = square_mask(width, height, x1, y1, x2, y2)
    ready = prepare(Reference("a", picture(width, height), mask, crop=True), 384, 384)
    margin = math.ceil(max(x2 - x1, y2 - y1) / 16)
    cut = [max(side + 2 * margin, 17) for side in (x2 - x1, y2 - y1)]
    expected = (x2 - x1) * (y2 - y1) / (cut[0] * cut[1])
    assert ready.mask.mean() / 255 > expected * 0.8


def test_a_subject_lost_in_resizing_is_refused() -> None:
    mask = np.zeros((2048, 2048), np.uint8)
    mask[100, 100] = 255
    tiny = Reference("Anna", picture(2048, 2048), mask)
    with pytest.raises(InputError, match=r"'Anna' has a subject too small to be seen at 256 x 256"):
        prepare(tiny, 384, 384)


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
