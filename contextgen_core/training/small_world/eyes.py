"""The small world's own finder and judge, in the place of a detector, a segmenter, a model that answers questions and
nets that know things again: they know how each creature is drawn, and name what a box shows by the creature that fits
it best."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image

from ...layout.box import Box
from ...score.grounding import PRESENCE, Picture
from . import world
from .evaluate import things

LEAST = 4  # pixels of a side from which a crop can show a creature
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


def _in_size(picture: Picture) -> tuple[Picture, float]:
    """A square picture in a size that the world draws, and the factor back."""
    side = picture.shape[0]
    if side <= world.DENSE_SIZE:
        return picture, 1.0
    whole = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(whole.resize((world.SIZE, world.SIZE), Image.Resampling.BOX)), side / world.SIZE


def detect(picture: Picture, category: str, prompt: str) -> Sequence[Box]:
    """What stands apart from the scenery that the prompt names and has the category's shape; anything, where the
    category names no shape."""
    picture, back = _in_size(picture)
    place, light = (_said(prompt, names) or [0] for names in (world.PLACES, world.LIGHTS))
    empty = world.background(place[0], light[0], picture.shape[0])
    boxes = things(picture.astype(np.float32) / 255, empty)
    shapes = _said(category, world.SHAPES)
    return [
        Box(x1, y1, x2, y2).scaled(back, back)
        for x1, y1, x2, y2 in boxes
        if not shapes or _named(picture[y1:y2, x1:x2]).shape == shapes[0]
    ]


def judge(crop: Picture, category: str, description: str, attribute: str) -> str:
    """Whether the creature in the crop has what the description says of the attribute; whether there is one of the
    category's shape at all, where presence is asked."""
    if min(crop.shape[:2]) < LEAST or float(crop.std((0, 1)).max()) < 1:  # a crop of one colour shows no creature
        return "no"
    seen = _named(crop)
    if attribute == PRESENCE:
        shapes = _said(category, world.SHAPES)
        return "yes" if not shapes or shapes[0] == seen.shape else "no"
    has = {"shape": (seen.shape,), "texture": (seen.pattern,), "colour": (seen.first, seen.second)}[attribute]
    said = _said(description, _KINDS[attribute][0])
    return "yes" if all(a == b for a, b in zip(said, has, strict=False)) else "no"


def segment(picture: Picture, box: Box) -> np.ndarray:
    """The creature in a box, bool (H, W): the cover of the drawing that fits it best."""
    whole = picture.shape[:2]
    picture, back = _in_size(picture)
    height, width = picture.shape[:2]
    inside = box.scaled(1 / back, 1 / back).clipped(width, height)
    x1, y1, x2, y2 = int(inside.x1), int(inside.y1), round(inside.x2), round(inside.y2)
    mask = np.zeros((height, width), bool)
    if min(x2 - x1, y2 - y1) >= LEAST:
        seen = _named(picture[y1:y2, x1:x2])
        mask[y1:y2, x1:x2] = _drawings(seen.shape, seen.pattern, y2 - y1, x2 - x1)[1] >= 0.5
    return np.asarray(Image.fromarray(mask).resize(whole[::-1], Image.Resampling.NEAREST))


def _seen(picture: Picture) -> list[world.Creature]:
    """The creatures of a picture, in front of the scenery that is most of it."""
    picture = _in_size(picture)[0]
    image = picture.astype(np.float32) / 255
    scenes = [world.background(place, light, picture.shape[0]) for place, light in _SCENERY]
    empty = min(scenes, key=lambda scene: float(np.median(np.abs(scene - image).sum(2))))
    return [_named(picture[y1:y2, x1:x2]) for x1, y1, x2, y2 in things(image, empty) if min(x2 - x1, y2 - y1) >= LEAST]


_SCENERY = tuple(product(range(len(world.PLACES)), range(len(world.LIGHTS))))


def answer(picture: Picture, question: str) -> str:
    """Whether the picture shows a creature that has all that the question says: shape, pattern, colours."""
    asked = [_said(question, names) for names in (world.SHAPES, world.PATTERNS, world.COLOURS)]
    for seen in _seen(picture):
        has = ((seen.shape,), (seen.pattern,), (seen.first, seen.second))
        if all(a == b for words, parts in zip(asked, has, strict=True) for a, b in zip(words, parts, strict=False)):
            return "yes"
    return "no"


def _vector(creature: world.Creature) -> np.ndarray:
    """A creature as a unit vector; two have the cosine of the share of what they have in common."""
    vector = np.zeros((4, len(world.COLOURS)))
    vector[range(4), list(creature)] = 0.5
    return vector.ravel()


def creatures(picture: Picture) -> Sequence[np.ndarray]:
    """In the place of faces: a vector for each creature; of a reference on grey, of the whole picture."""
    corner = picture[:2, :2].reshape(-1, 3).astype(int)
    if picture.shape[0] < world.SIZE and np.abs(corner - world.GREY).max() <= 4:
        return [features(picture, np.abs(picture.astype(int) - world.GREY).max(2) > 24)]
    return [_vector(seen) for seen in _seen(picture)]


def features(picture: Picture, mask: np.ndarray) -> np.ndarray:
    """In the place of a net's features: the vector of the creature that the mask's bounds show, zero for none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows) or min(len(rows), len(columns)) < LEAST:
        return np.zeros(4 * len(world.COLOURS))
    return _vector(_named(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))


def likeness(picture: Picture, texts: Sequence[str]) -> Sequence[float]:
    """In the place of CLIP: 100 times the share of the shapes that a text says and the picture shows."""
    shown = [seen.shape for seen in _seen(picture)]
    said = [_said(text, world.SHAPES) for text in texts]
    return [100.0 * sum(shape in shown for shape in shapes) / max(len(shapes), 1) for shapes in said]
