"""The small world's own finder and judge, in the place of a detector and a model that answers questions: they know how
each creature is drawn, and name what a box shows by the creature that fits it best."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from ...layout.box import Box
from ...score.grounding import Picture
from . import world
from .evaluate import things

_KINDS = {"shape": (world.SHAPES,), "texture": (world.PATTERNS,), "colour": (world.COLOURS, world.COLOURS)}


def _said(text: str, names: Sequence[str]) -> list[int]:
    """The names that a text says, in its order."""
    return [names.index(word) for word in re.findall(r"[a-z]+", text.lower()) if word in names]


_SHADES = range(len(world.COLOURS))


@lru_cache(maxsize=64)
def _drawings(shape: int, pattern: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A creature in all pairs of colours, (colours, colours, height, width, 3), and its cover, filling a box."""

    def drawn(first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
        return world.draw(world.Creature(shape, pattern, first, second), width, height, width / 2, height / 2, 0.0)

    # A drawing is a sum of what its first and its second colour give.
    base, cover = drawn(0, 1)
    firsts = np.stack([drawn(first, 1)[0] for first in _SHADES])
    seconds = np.stack([drawn(0, second)[0] for second in _SHADES])
    return firsts[:, None] + seconds[None] - base, cover


@lru_cache(maxsize=256)
def _creature(pixels: bytes, height: int, width: int) -> world.Creature:
    """The creature that a crop, uint8 RGB, shows: the drawing nearest to it, under any light."""
    crop = np.frombuffer(pixels, np.uint8).reshape(height, width, 3).astype(np.float32) / 255
    best, error = world.Creature(0, 0, 0, 1), np.inf
    for shape, pattern in product(range(len(world.SHAPES)), range(len(world.PATTERNS))):
        albedo, cover = _drawings(shape, pattern, height, width)
        inside = cover >= 0.5
        behind = crop[~inside]
        outside = float(np.square(behind - np.median(behind, 0)).sum()) if len(behind) else 0.0
        for light in range(len(world.LIGHTS)):
            off = np.square(world.lit(albedo[:, :, inside], light) - crop[inside]).sum((2, 3)) + outside
            np.fill_diagonal(off, np.inf)  # the two colours differ
            first, second = np.unravel_index(off.argmin(), off.shape)
            if off[first, second] < error:
                best, error = world.Creature(shape, pattern, int(first), int(second)), off[first, second]
    return best


def _named(crop: Picture) -> world.Creature:
    return _creature(np.ascontiguousarray(crop).tobytes(), *crop.shape[:2])


def detect(picture: Picture, category: str, prompt: str) -> Sequence[Box]:
    """What stands apart from the scenery that the prompt names and has the category's shape; anything, where the
    category names no shape."""
    place, light = (_said(prompt, names) or [0] for names in (world.PLACES, world.LIGHTS))
    empty = world.background(place[0], light[0], picture.shape[0])
    boxes = things(picture.astype(np.float32) / 255, empty)
    shapes = _said(category, world.SHAPES)
    return [
        Box(x1, y1, x2, y2)
        for x1, y1, x2, y2 in boxes
        if not shapes or _named(picture[y1:y2, x1:x2]).shape == shapes[0]
    ]


def judge(crop: Picture, category: str, description: str, attribute: str) -> str:
    """Whether the creature in the crop has what the description says of the attribute."""
    seen = _named(crop)
    has = {"shape": (seen.shape,), "texture": (seen.pattern,), "colour": (seen.first, seen.second)}[attribute]
    said = _said(description, _KINDS[attribute][0])
    return "yes" if all(a == b for a, b in zip(said, has, strict=False)) else "no"
