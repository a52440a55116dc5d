"""The colour test of COCO-MIG: does enough of an instance lie in its colour's range?

The ranges and the share are those of the benchmark's published evaluation (LeyRio/MIG_Bench, eval_mig.py as of its
second version; its first had others, which stand there as a comment), in OpenCV's 8-bit HSV:
hue 0..180 (degrees halved), saturation and value 0..255, both ends included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RIGHT_SHARE = 0.2


class Range(NamedTuple):
    hue: tuple[int, int]
    saturation: tuple[int, int] = (50, 255)
    value: tuple[int, int] = (70, 255)


COLOURS: dict[str, tuple[Range, ...]] = {
    "red": (Range((0, 9)), Range((159, 180))),
    "brown": (Range((6, 25), (43, 255), (35, 255)),),
    "yellow": (Range((25, 35)),),
    "green": (Range((36, 89)),),
    "blue": (Range((90, 128)),),
    "black": (Range((0, 180), (0, 255), (0, 30)),),
    "white": (Range((0, 180), (0, 43), (221, 255)),),
}


def to_hsv(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (..., 3) RGB as OpenCV's 8-bit HSV, equal to it in every bit: quotients are rounded to 12 binary places
    first."""
    r, g, b = np.moveaxis(pixels.astype(np.int64), -1, 0)
    value = np.maximum(np.maximum(r, g), b)
    spread = value - np.minimum(np.minimum(r, g), b)
    sixth = np.where(value == r, g - b, np.where(value == g, b - r + 2 * spread, r - g + 4 * spread))
    hue = _rounded(sixth * _quotient(180 * 4096, 6 * spread))
    saturation = _rounded(spread * _quotient(255 * 4096, value))
    return np.stack([np.where(hue < 0, hue + 180, hue), saturation, value], axis=-1).astype(np.uint8)


def _quotient(above: int, below: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.rint(np.divide(above, below, out=np.zeros(below.shape), where=below > 0)).astype(np.int64)


def _rounded(fixed: NDArray[np.int64]) -> NDArray[np.int64]:
    return (fixed + 2048) >> 12


def colour_share(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], colour: str) -> float:
    """The share 0..1 of the masked pixels in the colour's range; 0 where the mask is empty.

    pixels: uint8 (H, W, 3) RGB. mask: bool (H, W). colour: a key of COLOURS.
    """
    hsv = to_hsv(pixels[mask])
    if not len(hsv):
        return 0.0
    inside = np.zeros(len(hsv), bool)
    for span in COLOURS[colour]:
        low, high = np.array(list(zip(*span, strict=True)))
        inside |= ((hsv >= low) & (hsv <= high)).all(axis=-1)
    return float(inside.mean())


def named_colour(label: str) -> str | None:
    """The benchmark's colour a label begins with ("red cup"), or None."""
    first = label.casefold().split()[:1]
    return first[0] if first and first[0] in COLOURS else None


def colour_right(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], label: str) -> bool | None:
    """Whether at least a fifth of the mask has the label's colour; None where the label names no colour."""
    colour = named_colour(label)
    return None if colour is None else colour_share(pixels, mask, colour) >= RIGHT_SHARE
