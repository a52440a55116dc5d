"""Arithmetic on subject masks: parts, holes, edges, boxes.

A mask is uint8 (H, W), 0..255, 255 = subject; 128 and above counts as selected, as the authors' code
binarises at one half. Arrays are row-major (y, x); boxes are xyxy, half-open, in pixels. No function changes
its argument.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from .errors import InputError
from .layout.box import Box

SELECTED = 128
AGREEMENT = 0.02  # share of a cut-out below which a mask leaves nothing of it
PLAIN = 6.0  # of 255: the spread of a colour that counts as one
NOTHING = 0.005  # share of a picture that is as good as nothing, or all but everything
MAX_RADIUS = 256

Mask = NDArray[np.uint8]
Bits = NDArray[np.bool_]


def selected(mask: Mask) -> Bits:
    """Which pixels the mask selects, bool (H, W)."""
    return mask >= SELECTED


def _as_bytes(bits: Bits) -> Mask:
    return bits.astype(np.uint8) * np.uint8(255)


def _labelled(bits: Bits, *, diagonal: bool) -> tuple[NDArray[np.int32], int]:
    """Connected parts of bool (H, W), numbered from 1 in reading order, and their count; `diagonal` joins corners."""
    labels = np.empty(bits.shape, np.int32)
    count: Any = ndimage.label(bits, np.ones((3, 3)) if diagonal else None, labels)
    return labels, count


def _filled(bits: Bits) -> Bits:
    """bool (H, W) with everything selected that cannot reach the picture's edge past the selection."""
    labels, count = _labelled(~bits, diagonal=False)
    outside = np.zeros(count + 1, bool)
    outside[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    outside[0] = False  # the selection itself
    return ~outside[labels]


def fill_holes(mask: Mask) -> Mask:
    """Select every unselected area that the selection encloses; the rest keeps its soft edge."""
    bits = selected(mask)
    return np.where(_filled(bits) & ~bits, np.uint8(255), mask)


def largest_part(mask: Mask) -> Mask:
    """Keep the largest connected part (the first in reading order among equals; a common corner connects); what is
    not part of it becomes 0."""
    labels, count = _labelled(selected(mask), diagonal=True)
    if count <= 1:
        return mask.copy()
    largest = labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    # The soft rim of a removed part must go with it, that of the kept part must stay: decide by the nearer part.
    return np.where((labels == 0) & (grow(_as_bytes(largest), 2) > 0) | largest, mask, np.uint8(0))


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

    LoadImage gives such a mask (1 = transparent). A guess for a warning: a subject in the shape of a
    picture frame would be taken for a background too.
    """
    bits = selected(mask)
    left_out = 1.0 - float(bits.mean())
    if left_out < 0.03 or left_out > 0.97:
        return False
    edge = np.concatenate([bits[0], bits[-1], bits[1:-1, 0], bits[1:-1, -1]])
    return float(edge.mean()) >= 0.5 and 1.0 - float(edge.mean()) < 0.75 * left_out


def selects_plain(pixels: NDArray[np.uint8], mask: Mask) -> bool:
    """Whether what the mask selects of uint8 (H, W, 3) is one plain colour and what it leaves out is not: the ground of
    a cut-out whose transparency was taken off."""
    bits = selected(mask)
    if bits.all() or not bits.any():
        return False
    return float(pixels[bits].std(axis=0).max()) < PLAIN and float(pixels[~bits].std(axis=0).max()) > 4 * PLAIN


def doubts(mask: Mask, pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Full sentences on a mask that is probably not meant so: exchanged with its ground, all, or next to nothing."""
    share = float(selected(mask).mean())
    if looks_inverted(mask) or selects_plain(pixels, mask):
        return (
            "the mask selects what looks like the ground, so subject and ground are probably exchanged: "
            "white must mean subject, and Load Image's mask is white where the picture is transparent; change 'invert "
            "mask'.",
        )
    if share > 1 - NOTHING:
        return ("the whole picture counts as subject, so its ground comes along; cut the subject out.",)
    if 0 < share < NOTHING:
        return (f"only {share:.2%} of the picture count as subject; look at the mask, or change 'invert mask'.",)
    return ()


class Subject(NamedTuple):
    """A subject's mask, and full sentences on what was strange about it."""

    mask: Mask
    warnings: tuple[str, ...]


def subject_of(alpha: Mask | None, mask: Mask | None, shape: tuple[int, int]) -> Subject:
    """The subject of a picture of ``shape`` (H, W) from its transparency, a given mask, or both: what both select.

    A mask that does not go with a transparent picture, of another size or of its ground, is left out with a warning:
    the cut-out says itself what its subject is. Raises InputError where neither tells a subject.
    """
    warnings: list[str] = []
    if alpha is not None and mask is not None and alpha.min() == 255:
        alpha = None  # opaque: it says nothing that the mask does not
    if mask is not None and mask.shape != shape:
        sizes = f"the mask is {mask.shape[1]} x {mask.shape[0]} and the picture {shape[1]} x {shape[0]} pixels"
        if alpha is None:
            raise InputError(f"{sizes}; give a mask of the picture's size.")
        warnings.append(f"{sizes}, so the picture's own transparency is used alone; pull the mask's wire.")
        mask = None
    if alpha is not None and mask is not None:
        both = np.minimum(alpha, mask)
        if selected(both).sum() < AGREEMENT * selected(alpha).sum():
            warnings.append(
                "the mask selects what is transparent in the picture, so the picture's own transparency is used alone; "
                "pull the mask's wire, a cut-out needs none (or change 'invert mask')."
            )
            mask = None
    given = [part for part in (alpha, mask) if part is not None]
    if not given:
        raise InputError(
            "the picture has neither transparency nor a mask, so its subject is unknown; put ContextGen Cutout behind "
            "Load Image and connect its cut-out to image, or give a mask."
        )
    return Subject(np.ascontiguousarray(np.minimum.reduce(given)), tuple(warnings))


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
            f"{tuple(int(c) for c in colour)}); raise the tolerance, use a SAM model, or connect a subject_mask"
        )
    mask = _as_bytes(_filled(~near))  # background is what is near and reaches the edge
    if not mask.any():
        raise InputError("the whole picture counts as plain background; lower the tolerance.")
    return mask
