"""How ContextGen reads a reference: its size, its grey ground, and which of its tokens may be attended to.

Sizes are (width, height) in pixels, multiples of 16; arrays are (height, width). Source of the rules: the released
inference code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...composite.references import GREY, HALF, Reference, cropped
from ...errors import InputError
from ...input.checks import shorten
from ...layout.tokens import TOKEN

# (longest short side of the canvas, side of the square whose area a reference gets)
_OFFICIAL_SIDES = ((384, 256), (512, 384), (768, 512), (1024, 768))
_OFFICIAL_LARGEST = 1024


@dataclass(frozen=True, eq=False)
class PreparedReference:
    """A reference as the VAE and the attention read it; h and w are multiples of 16.

    pixels: uint8 (h, w, 3), grey 128 outside the subject. mask: uint8 (h, w), as resized, not binarised.
    valid: bool (h/16, w/16), the tokens that anyone may attend to; at least one.
    """

    name: str
    pixels: np.ndarray
    mask: np.ndarray
    valid: np.ndarray


# --- sizes ----------------------------------------------------------------------------------------


def official_size(width: int, height: int, canvas_width: int, canvas_height: int) -> tuple[int, int]:
    """The authors' size for a width x height reference: the area depends on the canvas' short side alone.

    Sides are rounded up to multiples of 16, so the aspect may drift by up to 15 pixels; small pictures are
    enlarged.
    """
    short = min(canvas_width, canvas_height)
    base = next((side for limit, side in _OFFICIAL_SIDES if short <= limit), _OFFICIAL_LARGEST)
    scale = math.sqrt(base * base / (width * height))
    return _ceil16(int(width * scale)), _ceil16(int(height * scale))


def _ceil16(length: int) -> int:
    return max(TOKEN, -(-length // TOKEN) * TOKEN)


def budget_size(width: int, height: int, tokens: int) -> tuple[int, int]:
    """The size of at most `tokens` tokens that fits the aspect best; multiples of 16, at least 16 x 16.

    Of the whole-token sizes around the ideal one that keep the budget, the one with the least cost: the logarithm of
    the unused budget plus twice that of the aspect's error.
    """
    across = math.sqrt(tokens * width / height)
    candidates = [
        (columns, rows)
        for columns in _around(across, tokens)
        for rows in _around(tokens / across, tokens)
        if columns * rows <= tokens
    ]

    def cost(candidate: tuple[int, int]) -> float:
        columns, rows = candidate
        return 2 * abs(math.log(columns * height / (rows * width))) + math.log(tokens / (columns * rows))

    columns, rows = min(candidates, key=cost)
    return columns * TOKEN, rows * TOKEN


def _around(ideal: float, most: int) -> tuple[int, ...]:
    low = min(max(int(ideal), 1), most)
    return (low, min(low + 1, most))


# --- masks ----------------------------------------------------------------------------------------


def token_mask(mask: np.ndarray) -> np.ndarray:
    """Which tokens of a reference may be attended to: uint8 (h, w) -> bool (h/16, w/16).

    The mask is resized to the token grid with Pillow's antialiased bicubic filter and tested for > 0, as the
    authors do: any faint trace counts, and the set is slightly larger than the tokens the mask touches.
    """
    height, width = mask.shape
    if height % TOKEN or width % TOKEN:
        raise ValueError(f"the mask is {width} x {height}; its sides must be multiples of {TOKEN}")
    small = Image.fromarray(mask).resize((width // TOKEN, height // TOKEN), Image.Resampling.BICUBIC)
    return np.asarray(small) > 0


def prepare(reference: Reference, canvas_width: int, canvas_height: int) -> PreparedReference:
    """Resize a reference for a canvas and grey its background.

    Image and mask are resized with Pillow's bicubic filter; a pixel is subject where the resized mask is
    above one half. Raises InputError when nothing of the subject is left at that size.
    """
    pixels, mask = cropped(reference)
    height, width = mask.shape
    if reference.tokens:
        size = budget_size(width, height, int(reference.tokens))
    else:
        size = official_size(width, height, canvas_width, canvas_height)
    small = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    small_mask = np.array(Image.fromarray(mask).resize(size, Image.Resampling.BICUBIC))
    valid = token_mask(small_mask)
    outside = small_mask < HALF
    if outside.all() or not valid.any():
        raise InputError(
            f"reference {shorten(reference.name, 60)} has a subject too small to be seen at {size[0]} x "
            f"{size[1]} pixels; crop to the subject, or give it more tokens."
        )
    small[outside] = GREY
    return PreparedReference(reference.name, small, small_mask, valid)
