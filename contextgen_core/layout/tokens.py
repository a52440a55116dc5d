"""Boxes on the grid of image tokens."""

from __future__ import annotations

import math
from typing import NamedTuple

from .box import Box

TOKEN = 16  # pixels along one side of an image token: 8x in the autoencoder, 2x2 in the packing


class TokenBox(NamedTuple):
    """A box on the token grid, half-open, in tokens: columns ``x1..x2-1`` and rows ``y1..y2-1``."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def empty(self) -> bool:
        return self.x2 <= self.x1 or self.y2 <= self.y1


def token_box(box: Box, grid_width: int, grid_height: int) -> TokenBox:
    """Rasterise a pixel box: every token that it touches belongs to it. The box is clipped to the grid."""
    x1 = min(max(math.floor(box.x1 / TOKEN), 0), grid_width)
    y1 = min(max(math.floor(box.y1 / TOKEN), 0), grid_height)
    x2 = min(max(math.ceil(box.x2 / TOKEN), 0), grid_width)
    y2 = min(max(math.ceil(box.y2 / TOKEN), 0), grid_height)
    return TokenBox(x1, y1, x2, y2)
