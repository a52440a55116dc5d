"""Mask arithmetic, against drawn cases and slow but obvious definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contextgen_core import masks
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box

bit_pictures = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[255 if c == "#" else 0 for c in row] for row in rows], np.uint8)


def as_bytes(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.uint8) * np.uint8(255)


def slow_parts(bits: np.ndarray, diagonal: bool) -> np.ndarray:
    """Flood fill, pixel by pixel, numbered in reading order."""
    labels = np.zeros(bits.shape, np.int32)
    count = 0
    for y, x in zip(*np.nonzero(bits), strict=True):
        if labels[y, x]:
            continue
        count += 1
        todo = [(y, x)]
        while todo:
            v, u = todo.pop()
            if not (0 <= v < bits.shape[0] and 0 <= u < bits.shape[1]) or labels[v, u] or not bits[v, u]:
                continue
            labels[v, u] = count
            todo += [
                (v + dv, u + du)
                for dv in (-1, 0, 1)
                for du in (-1, 0, 1)
                if (dv or du) and (diagonal or not (dv and du))
            ]
    return labels


@settings(max_examples=200, deadline=None)
@given(bits=bit_pictures)
def test_parts_and_holes_equal_a_flood_fill(bits):
    mask = as_bytes(bits)
    labels = slow_parts(bits, diagonal=True)
    areas = np.bincount(labels.ravel())[1:]
    largest = labels == np.argmax(areas) + 1 if len(areas) else bits
    assert np.array_equal(masks.largest_part(mask) > 0, largest)
    open_air = slow_parts(np.pad(~bits, 1, constant_values=True), diagonal=False)[1:-1, 1:-1] == 1
    assert np.array_equal(masks.fill_holes(mask) > 0, ~open_air)


def test_holes_are_filled_and_bays_are_not():
    mask = drawn("......", ".####.", ".#..#.", ".####.", ".#....", "......")
    assert np.array_equal(masks.fill_holes(mask), drawn("......", ".####.", ".####.", ".####.", ".#....", "......"))
    bay = drawn("....", ".##.", ".#..", ".##.")
    assert np.array_equal(masks.fill_holes(bay), bay)
    corner = drawn("#.#", "..#", "###")
    assert np.array_equal(masks.fill_holes(corner), corner), "a gap that opens through the picture's edge is not a hole"


def test_largest_part_keeps_one_and_its_soft_edge():
    mask = drawn("##....", "##....", "......", "...###", "...###", "...###")
    mask[4, 2] = 60  # soft rim of the large part
    mask[0, 2] = 60  # soft rim of the small one
    kept = masks.largest_part(mask)
    assert kept[:2].sum() == 0 and (kept[3:, 3:] == 255).all() and kept[4, 2] == 60


@settings(max_examples=60, deadline=None)
@given(bits=bit_pictures, radius=st.integers(1, 4))
def test_grow_equals_the_distance_definition(bits, radius):
    height, width = bits.shape
    y, x = np.mgrid[:height, :width]
    expected = np.zeros_like(bits)
    for v, u in zip(*np.nonzero(bits), strict=True):
        expected |= (y - v) ** 2 + (x - u) ** 2 <= radius * radius
    grown = masks.grow(as_bytes(bits), radius)
    assert np.array_equal(grown > 0, expected)
    assert np.array_equal(masks.grow(as_bytes(~bits), -radius), 255 - grown), "shrinking is growing the rest"


def test_grow_and_feather_zero_change_nothing():
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    assert np.array_equal(masks.grow(mask, 0), mask) and np.array_equal(masks.feather(mask, 0), mask)
    assert masks.grow(mask, 0) is not mask
    with pytest.raises(InputError, match="256"):
        masks.grow(mask, 1000)


def test_feather_softens_only_the_edge():
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    soft = masks.feather(mask, 2)
    assert soft[32, 32] == 255 and soft[2, 2] == 0 and 64 < soft[32, 16] < 192


def test_tight_box_is_half_open():
    assert masks.tight_box(drawn("....", ".##.", "....")) == Box(1, 1, 3, 2)
    assert masks.tight_box(np.full((3, 5), 127, np.uint8)) is None


def subject(height=96, width=64):
    """A person-like mask: standing on the lower edge of the picture."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 :, width // 4 : 3 * width // 4] = 255
    return mask


def test_inverted_masks_are_recognised():
    small = np.zeros((80, 80), np.uint8)
    small[8:32, 8:32] = 255
    for right in (
        subject(),
        small,
        as_bytes(np.ones((8, 8), bool)),
        as_bytes(np.zeros((8, 8), bool)),
    ):
        assert not masks.looks_inverted(right)
    for wrong in (255 - subject(), 255 - small):
        assert masks.looks_inverted(wrong)


def test_plain_background_is_flooded_from_the_edge():
    picture = np.full((40, 40, 3), (250, 250, 245), np.uint8)
    picture[10:30, 10:30] = (200, 40, 40)
    picture[15:20, 15:20] = (250, 250, 245)  # the background's colour, enclosed: part of the subject
    mask = masks.flood_subject(picture, 0.1)
    expected = np.zeros((40, 40), np.uint8)
    expected[10:30, 10:30] = 255
    assert np.array_equal(mask, expected)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="plain colour"):
        masks.flood_subject(noise, 0.05)
    with pytest.raises(InputError, match="lower the tolerance"):
        masks.flood_subject(np.zeros((8, 8, 3), np.uint8), 0.1)


def test_a_mask_of_the_plain_ground_is_told_from_one_of_the_subject():
    """A subject that fills its picture up to the border, as the cat of the samples does."""
    rng = np.random.default_rng(3)
    subject = np.full((40, 40), 255, np.uint8)
    subject[:8] = 0
    pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
    pixels[subject == 0] = 128
    assert not masks.looks_inverted(255 - subject)
    assert "exchanged" in masks.doubts(255 - subject, pixels)[0]
    assert masks.doubts(subject, pixels) == ()
