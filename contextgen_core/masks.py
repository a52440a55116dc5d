"""Arithmetic on subject masks: parts, holes, edges, boxes.

A mask is uint8 (H, W), 0..255, 255 = subject; 128 and above counts as selected, as the authors' code
binarises at one half. Arrays are row-major (y, x); boxes are xyxy, half-open, in pixels. No function changes
its argument.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .errors import InputError
from .layout.box import Box

SELECTED = 128
MAX_RADIUS = 256

Mask = NDArray[np.uint8]
Bits = NDArray[np.bool_]


class Parts(NamedTuple):
    """Connected parts of a bit picture: `labels` int32 (H, W), 0 = not selected, 1..len(areas); `areas` int64
    in pixels."""

    labels: NDArray[np.int32]
    areas: NDArray[np.int64]


class _Runs(NamedTuple):
    """Horizontal runs of set pixels, in reading order. `start` inclusive, `stop` exclusive."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def as_mask(values: NDArray) -> Mask:
    """Any (H, W) array of booleans, bytes, or floats in 0..1 as a mask. Raises InputError for another shape
    or non-finite numbers."""
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"a mask must have the shape (height, width), not {tuple(array.shape)}; pass one mask at a time."
        )
    if array.dtype == np.uint8:
        return array.copy()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        raise InputError("the mask holds numbers that are not finite; check the node that made it.")
    return np.rint(floats.clip(0, 1) * 255).astype(np.uint8)


def selected(mask: Mask) -> Bits:
    """Which pixels the mask selects, bool (H, W)."""
    return mask >= SELECTED


def _as_bytes(bits: Bits) -> Mask:
    return bits.astype(np.uint8) * np.uint8(255)


def _runs(bits: Bits) -> _Runs:
    edges = np.zeros((bits.shape[0], bits.shape[1] + 1), np.int8)
    edges[:, :-1] = bits
    edges[:, 1:] -= bits
    row, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    return _Runs(row, start, stop)


def _touching(runs: _Runs, width: int, reach: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (upper run, lower run) in adjacent rows that touch; `reach` 1 joins diagonals, 0 does not."""
    stride = width + 2
    start_keys = runs.row * stride + runs.start
    stop_keys = runs.row * stride + runs.stop
    above = (runs.row - 1) * stride
    first = np.searchsorted(stop_keys, above + runs.start - reach, side="right")
    last = np.searchsorted(start_keys, above + runs.stop + reach, side="left")
    count = np.maximum(last - first, 0)
    lower = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(lower)) - np.repeat(np.cumsum(count) - count, count)
    return first[lower] + offset, lower


def _roots(nodes: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest member of each node's component: hooking and pointer jumping, a logarithmic number of
    passes over the edges."""
    parent = np.arange(nodes)
    while len(a):
        root_a, root_b = parent[a], parent[b]
        open_edges = root_a != root_b
        if not open_edges.any():
            break
        a, b = a[open_edges], b[open_edges]
        low, high = np.minimum(root_a, root_b)[open_edges], np.maximum(root_a, root_b)[open_edges]
        np.minimum.at(parent, high, low)
        while True:
            jumped = parent[parent]
            if np.array_equal(jumped, parent):
                break
            parent = jumped
    return parent


def parts(bits: Bits, *, diagonal: bool = True) -> Parts:
    """Label the connected parts of bool (H, W); `diagonal` joins pixels that touch by a corner. Parts are
    numbered in reading order."""
    runs = _runs(bits)
    if not len(runs.row):
        return Parts(np.zeros(bits.shape, np.int32), np.zeros(0, np.int64))
    upper, lower = _touching(runs, bits.shape[1], 1 if diagonal else 0)
    _, number = np.unique(_roots(len(runs.row), upper, lower), return_inverse=True)
    number = number.reshape(-1)
    length = runs.stop - runs.start
    areas = np.bincount(number, weights=length).astype(np.int64)
    labels = np.zeros(bits.shape, np.int32)
    labels[bits] = np.repeat(number.astype(np.int32) + 1, length)
    return Parts(labels, areas)


def border_labels(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The part numbers that touch the picture's edge, without 0."""
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.unique(edge[edge > 0])


def fill_holes(mask: Mask) -> Mask:
    """Select every unselected area that the selection encloses; the rest keeps its soft edge."""
    outside = parts(~selected(mask), diagonal=False)
    open_parts = np.zeros(len(outside.areas) + 1, bool)
    open_parts[border_labels(outside.labels)] = True
    holes = (outside.labels > 0) & ~open_parts[outside.labels]
    return np.where(holes, np.uint8(255), mask)


def largest_part(mask: Mask) -> Mask:
    """Keep the largest connected part (the first in reading order among equals); what is not part of it
    becomes 0."""
    found = parts(selected(mask))
    if len(found.areas) <= 1:
        return mask.copy()
    others = (found.labels > 0) & (found.labels != int(np.argmax(found.areas)) + 1)
    # The soft rim of a removed part must go with it, that of the kept part must stay: decide by the nearer
    # part.
    rim = (mask > 0) & (found.labels == 0)
    keep = grow(_as_bytes(found.labels == int(np.argmax(found.areas)) + 1), 2) > 0
    return np.where(others | (rim & ~keep), np.uint8(0), mask)


def _widen(bits: Bits, reach: int) -> Bits:
    """Each row's set pixels, extended by `reach` to the left and the right."""
    if reach == 0:
        return bits
    width = bits.shape[1]
    total = np.zeros((bits.shape[0], width + 1), np.int32)
    np.cumsum(bits, axis=1, out=total[:, 1:])
    columns = np.arange(width)
    return total[:, np.minimum(columns + reach + 1, width)] > total[:, np.maximum(columns - reach, 0)]


def _dilate(bits: Bits, radius: int) -> Bits:
    """Dilation by a disc: `radius` pixels in every direction."""
    height = bits.shape[0]
    result = np.zeros_like(bits)
    for dy in range(min(radius, height - 1) + 1):
        wide = _widen(bits, math.isqrt(radius * radius - dy * dy))
        result[: height - dy] |= wide[dy:]
        result[dy:] |= wide[: height - dy]
    return result


def grow(mask: Mask, pixels: int) -> Mask:
    """Widen the selection by `pixels` in every direction, or narrow it where `pixels` is negative. 0 returns
    the mask as it is; otherwise the result is hard (0 or 255). Nothing lies beyond the picture's edge: a
    subject cut by it is not narrowed there."""
    if abs(pixels) > MAX_RADIUS:
        raise InputError(
            f"a mask can grow or shrink by at most {MAX_RADIUS} pixels, not {pixels}; resize the picture instead."
        )
    if pixels == 0:
        return mask.copy()
    bits = selected(mask)
    return _as_bytes(_dilate(bits, pixels) if pixels > 0 else ~_dilate(~bits, -pixels))


def feather(mask: Mask, radius: float) -> Mask:
    """Blur the mask's edge with a Gaussian of `radius` pixels; 0 returns it as it is."""
    if not 0 <= radius <= MAX_RADIUS:
        raise InputError(f"the feather radius must be between 0 and {MAX_RADIUS} pixels, not {radius}.")
    if radius == 0:
        return mask.copy()
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(radius)), dtype=np.uint8).copy()


def tight_box(mask: Mask) -> Box | None:
    """The smallest box around the selected pixels, or None where nothing is selected."""
    bits = selected(mask)
    columns = np.flatnonzero(bits.any(axis=0))
    rows = np.flatnonzero(bits.any(axis=1))
    if not len(rows):
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def looks_inverted(mask: Mask) -> bool:
    """Whether the mask probably selects the background: it holds most of the picture's edge, and what it
    leaves out lies inside.

    LoadImage hands out such a mask (1 = transparent). A guess for a warning: a subject in the shape of a
    picture frame would be taken for a background too.
    """
    bits = selected(mask)
    left_out = 1.0 - float(bits.mean())
    if left_out < 0.03 or left_out > 0.97:
        return False
    edge = np.concatenate([bits[0], bits[-1], bits[1:-1, 0], bits[1:-1, -1]])
    return float(edge.mean()) >= 0.5 and 1.0 - float(edge.mean()) < 0.75 * left_out


def flood_subject(pixels: NDArray[np.uint8], tolerance: float) -> Mask:
    """Cut a subject out of a plain background.

    pixels: uint8 (H, W, 3). tolerance: 0..1, the Euclidean distance in RGB, in units of the longest possible
    one, up to which a colour counts as the background's. The background is what is connected with the
    picture's edge and near its median colour. Raises InputError where the edge has no such colour, or nothing
    remains.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise InputError(f"a picture must have the shape (height, width, 3), not {tuple(pixels.shape)}.")
    if not 0 <= tolerance <= 1:
        raise InputError(f"the background tolerance must be between 0 and 1, not {tolerance}.")
    edge = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    colour = np.median(edge, axis=0).astype(np.int32)
    difference = pixels.astype(np.int32) - colour
    near = (difference * difference).sum(axis=2) <= 3 * (255 * tolerance) ** 2
    on_edge = np.concatenate([near[0], near[-1], near[1:-1, 0], near[1:-1, -1]])
    if on_edge.mean() < 0.5:
        raise InputError(
            f"the picture's edge is not one plain colour (only {on_edge.mean():.0%} of it is near "
            f"{tuple(int(c) for c in colour)}); "
            "raise the tolerance, use a SAM model, or connect a subject_mask"
        )
    background = parts(near, diagonal=False)
    outer = np.zeros(len(background.areas) + 1, bool)
    outer[border_labels(background.labels)] = True
    mask = _as_bytes(~outer[background.labels])
    if not mask.any():
        raise InputError("the whole picture counts as plain background; lower the tolerance.")
    return mask
