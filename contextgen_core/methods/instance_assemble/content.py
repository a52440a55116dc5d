"""A box's picture as content: how it is read, and where its tokens stand.

The subject is read as Layout Composer pastes it: cut out, fitted to its box, mirrored, turned, on grey. So what the
user sees in the composite is what the model is shown, where it stands, and in no more detail than the box has room for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...composite.placement import Cutout
from ...composite.references import GREY
from ...layout.tokens import TOKEN

MAX_PICTURE = 1024  # tokens of a picture whose bundle gives no budget: 512 x 512 pixels


class Place(NamedTuple):
    """A picture's grid of ``rows`` x ``columns`` tokens, and where it lies, in shares of the canvas.

    strength  0..4 on how much of it is read: adds its logarithm to the logits of its tokens; 1 = as trained
    """

    rows: int
    columns: int
    left: float
    top: float
    right: float
    bottom: float
    strength: float = 1.0

    @property
    def size(self) -> int:
        """How many tokens it has."""
        return self.rows * self.columns

    def middles(self) -> np.ndarray:
        """x and y of each token's middle in shares of the canvas, float64 (size, 2), row-major."""
        x = self.left + (np.arange(self.columns) + 0.5) * (self.right - self.left) / self.columns
        y = self.top + (np.arange(self.rows) + 0.5) * (self.bottom - self.top) / self.rows
        return np.stack([np.tile(x, self.rows), np.repeat(y, self.columns)], axis=1)


def read_picture(
    cutout: Cutout, width: int, height: int, tokens: int = 0, strength: float = 1.0
) -> tuple[np.ndarray, Place] | None:
    """What the VAE encodes, uint8 (h, w, 3) with sides of whole tokens, and its place; None where nothing is left.

    width, height  of the canvas; tokens: the most it may take, 0 = 1024. It is never enlarged by more than a token.
    """
    h, w = cutout.mask.shape
    if not cutout.mask.any():
        return None
    most = tokens or MAX_PICTURE
    shrink = min(1.0, math.sqrt(most * TOKEN * TOKEN / (w * h)))
    columns, rows = (max(1, round(side * shrink / TOKEN)) for side in (w, h))
    while rows * columns > most:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    pixels = np.where(cutout.mask[..., None], cutout.pixels, np.uint8(GREY))
    picture = Image.fromarray(pixels).resize((columns * TOKEN, rows * TOKEN), Image.Resampling.BILINEAR)
    x, y = cutout.x, cutout.y
    place = Place(rows, columns, x / width, y / height, (x + w) / width, (y + h) / height, strength)
    return np.array(picture), place
