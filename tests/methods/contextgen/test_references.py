"""References as ContextGen reads them: their size, their valid tokens, what is grey."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from golden import CONTEXTGEN_CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import picture, reference, square_mask

from contextgen_core.composite.references import GREY, Reference
from contextgen_core.errors import InputError
from contextgen_core.methods.contextgen.references import budget_size, official_size, prepare, token_mask


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
