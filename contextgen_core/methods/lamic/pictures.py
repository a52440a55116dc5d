"""References as LAMIC encodes them: whole pictures, at their size or at a given area (``preprocess_image``)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ...composite.references import GREY, HALF, MAX_TOKENS, Reference, cropped
from ...errors import InputError
from ...input.checks import shorten
from ...layout.tokens import TOKEN

Size = tuple[int, int]  # width, height in pixels


def fed_sizes(width: int, height: int, area: int = 0) -> tuple[Size, ...]:
    """The sizes to which a picture is resized one after the other; the last one is encoded.

    area  in pixels, 0: the picture keeps its size, rounded down to whole tokens
    """
    columns, rows = _whole_tokens(width), _whole_tokens(height)
    if not area:
        return ((columns, rows),)
    scale = (area / (rows * columns)) ** 0.5
    scaled = int(columns * scale), int(rows * scale)
    return scaled, (_whole_tokens(scaled[0]), _whole_tokens(scaled[1]))


def _whole_tokens(length: int) -> int:
    return length // TOKEN * TOKEN


def resized(pixels: np.ndarray, sizes: tuple[Size, ...]) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3), resized with Pillow's Lanczos filter to each size in turn."""
    picture = Image.fromarray(pixels)
    for size in sizes:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.array(picture)


def fed_picture(reference: Reference, grey: bool) -> np.ndarray:
    """The picture to encode, uint8 (h, w, 3), sides multiples of 16; a token budget is an area of so many tokens.

    grey  paint grey what the subject's mask leaves out; the authors feed pictures as they are

    Raises InputError where nothing is left at that size, or more than a model can take.
    """
    pixels, mask = cropped(reference)
    sizes = fed_sizes(pixels.shape[1], pixels.shape[0], int(reference.tokens) * TOKEN**2)
    width, height = sizes[-1]
    tokens = width * height // TOKEN**2
    name = shorten(reference.name, 60)
    if not tokens:
        raise InputError(f"reference {name} is too long and thin for {reference.tokens:g} tokens; give it more.")
    if tokens > MAX_TOKENS:
        raise InputError(
            f"reference {name} is {pixels.shape[1]} x {pixels.shape[0]} pixels and would take {tokens} tokens, the"
            f" limit is {MAX_TOKENS}; give it a size in tokens in Reference Bundle."
        )
    made = resized(pixels, sizes)
    if grey:
        made[resized(mask, sizes) < HALF] = GREY
    return made
