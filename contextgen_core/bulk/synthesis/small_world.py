"""Models of the drawn world: every role of a synthesis without a download.

They know how creatures are drawn and nothing of how a picture came about: what a picture shows they tell from its
pixels, as the models do whose places they take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...composite.references import GREY
from ...errors import InputError
from ...input.checks import shorten
from ...layout.box import Box
from ...layout.layout import Layout
from ...masks import fill_holes
from ...training.small_world import world
from ...training.small_world.evaluate import things
from .draft import Cutting, Found, Story

_NAMED = 0.4  # of the prompts name the creatures
_SHIFTS = range(-8, 9, 4)  # pixels from where a creature was meant to be
_LIKE = 0.12  # of 0..1: a pixel that differs by less is the creature's
_SEEN = 0.3  # of its pixels that must be in sight
_TILTS = range(-20, 21, 4)
_GAINS = (0.75, 1.2)  # of a reference's lamp
_CHOICES = 2  # shapes whose patterns are looked at
_ALIKE = 0.01  # of its pixels: poses whose outlines differ by less are told apart by the pattern
_WHITE, _BLACK = world.COLOURS.index("white"), world.COLOURS.index("black")


def creature_of(phrase: str) -> world.Creature:
    """The creature that a phrase names. Raises InputError."""
    said = re.findall(r"[a-z]+", phrase.lower())

    def of(names: Sequence[str]) -> list[int]:
        return [names.index(word) for word in said if word in names]

    shapes, patterns, colours = of(world.SHAPES), of(world.PATTERNS), of(world.COLOURS)
    if (len(shapes), len(patterns), len(colours)) != (1, 1, 2):
        raise InputError(
            f"{shorten(phrase, 60)} names no creature of the small world; write like 'red and blue banded disc'."
        )
    return world.Creature(shapes[0], patterns[0], colours[0], colours[1])


def scenery_of(words: str) -> tuple[int, int] | None:
    """Place and light that words name; None where they name none."""
    said = re.findall(r"[a-z]+", words.lower())
    places = [world.PLACES.index(w) for w in said if w in world.PLACES]
    lights = [world.LIGHTS.index(w) for w in said if w in world.LIGHTS]
    return (places[0], lights[0]) if places and lights else None


def _whole(box: Box) -> tuple[int, int, int, int]:
    return round(box.x1), round(box.y1), round(box.x2), round(box.y2)


def _seen_at(words: str) -> tuple[int, int]:
    scenery = scenery_of(words)
    if scenery is None:
        raise InputError(f"{shorten(words, 60)} names no place of the small world; write like 'the meadow at noon'.")
    return scenery


class SmallWriter:
    """Creatures of the training split alone: those that evaluation asks for are never shown. Some prompts name them, as
    in the training of the base; what the others do not say is in the pictures alone."""

    def story(self, seed: int, number: int, count: int) -> Story:
        rng = np.random.default_rng(seed)
        known = world.identities("train")
        creatures = [known[k] for k in rng.choice(len(known), count, replace=False)]
        place, light = int(rng.integers(len(world.PLACES))), int(rng.integers(len(world.LIGHTS)))
        scenery = f"the {world.PLACES[place]} at {world.LIGHTS[light]}"
        named = creatures if rng.random() < _NAMED else []
        return Story(world.caption(named, place, light), scenery, tuple(c.name for c in creatures))


class SmallPainter:
    def paint(self, story: Story, layout: Layout, seed: int) -> np.ndarray:
        place, light = _seen_at(story.place)
        return _rendered([creature_of(i.label) for i in layout.instances], layout, place, light)

    def alone(self, phrase: str, seed: int, side: int) -> np.ndarray:
        return _reference(creature_of(phrase), seed)


def _rendered(creatures: Sequence[world.Creature], layout: Layout, place: int, light: int) -> np.ndarray:
    members = tuple(
        world.Member(creature, _whole(instance.box), 0.0, (1.0, 1.0, 1.0))
        for creature, instance in zip(creatures, layout.instances, strict=True)
    )
    return (world.render_target(world.Scene("", place, light, members, layout.width)) * 255 + 0.5).astype(np.uint8)


def _reference(creature: world.Creature, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    gain, tint = rng.uniform(0.8, 1.1), rng.uniform(0.94, 1.06, 3)
    lamp = (float(gain * tint[0]), float(gain * tint[1]), float(gain * tint[2]))
    member = world.Member(creature, (0, 0, 1, 1), float(rng.uniform(-20, 20)), lamp)
    return world.render_reference(member)[0]


class SmallSegmenter:
    """Looks for the drawing of the creature that a phrase names."""

    def find(self, picture: np.ndarray, phrase: str, place: str, near: Box | None) -> Found | None:
        scenery = scenery_of(place)
        if scenery is None:
            return _on_plain(picture)
        image = picture.astype(np.float32) / 255
        candidates = [_whole(near)] if near is not None else things(image, world.background(*scenery, len(picture)))
        best: Found | None = None
        for x1, y1, x2, y2 in candidates:
            albedo, cover = world.draw(creature_of(phrase), x2 - x1, y2 - y1, (x2 - x1) / 2, (y2 - y1) / 2, 0.0)
            drawn, subject = world.lit(albedo, scenery[1]), cover >= 0.5
            for dx in _SHIFTS if near is not None else (0,):
                for dy in _SHIFTS if near is not None else (0,):
                    left, top, right, bottom = x1 + dx, y1 + dy, x2 + dx, y2 + dy
                    if min(left, top) < 0 or right > image.shape[1] or bottom > image.shape[0]:
                        continue
                    like = (np.abs(image[top:bottom, left:right] - drawn).max(-1) < _LIKE) & subject
                    if like.sum() >= _SEEN * subject.sum() and (best is None or like.sum() > best.mask.sum()):
                        mask = np.zeros(picture.shape[:2], bool)
                        mask[top:bottom, left:right] = like
                        best = Found(Box(left, top, right, bottom), mask)
        return best


def _on_plain(picture: np.ndarray) -> Found | None:
    mask = (picture != GREY).any(-1)
    if not mask.any():
        return None
    whole = fill_holes(np.where(mask, np.uint8(255), np.uint8(0))) > 0
    rows, cols = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    return Found(Box(cols[0], rows[0], cols[-1] + 1, rows[-1] + 1), whole)


class SmallEditor:
    def repaint(self, cutting: Cutting, phrase: str, seed: int, side: int) -> np.ndarray:
        return _reference(recognised(cutting), seed)

    def empty(self, picture: np.ndarray, story: Story, seed: int) -> np.ndarray:
        return (world.background(*_seen_at(story.place), len(picture)) * 255 + 0.5).astype(np.uint8)

    def unite(self, cuttings: Sequence[Cutting], story: Story, layout: Layout, seed: int) -> np.ndarray:
        return _rendered([recognised(c) for c in cuttings], layout, *_seen_at(story.place))


class SmallDepth:
    """The smaller its box, the nearer a creature is, as the drawn world has it;
    it bulges towards the camera by a tenth of its height."""

    def measure(self, picture: np.ndarray, found: Sequence[Found]) -> np.ndarray:
        size = picture.shape[0]
        out = np.full(picture.shape[:2], np.inf, np.float32)
        for one in found:
            x1, y1, x2, y2 = _whole(one.box)
            far = world.distance(world.Member(world.Creature(0, 0, 0, 1), (x1, y1, x2, y2), 0.0, (1, 1, 1)), size)
            x = (np.arange(size, dtype=np.float32) + 0.5 - (x1 + x2) / 2) * 2 / (x2 - x1)
            y = (np.arange(size, dtype=np.float32) + 0.5 - (y1 + y2) / 2) * 2 / (y2 - y1)
            bulge = np.sqrt(np.clip(1 - x[None] ** 2 - y[:, None] ** 2, 0, 1))
            out[one.mask] = (far - 0.1 * far * (y2 - y1) / size * bulge)[one.mask]
        return out


class SmallIdentity:
    """Shape, pattern and both colours, as the pixels tell them: the cosine is the share that agrees."""

    def embed(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        out: list[np.ndarray | None] = []
        for picture in pictures:
            mask = np.where((picture != GREY).any(-1), np.uint8(255), np.uint8(0))
            if not mask.any():
                out.append(None)
                continue
            vector = np.zeros((4, 8))
            vector[np.arange(4), list(recognised(Cutting(picture, mask)))] = 0.5
            out.append(vector.ravel())
        return out


# ---- recognising ---------------------------------------------------------------------------------


def recognised(cutting: Cutting) -> world.Creature:
    """The creature whose drawing fits the pixels of a cut-out best: either filling its box upright, in a light of the
    world, or as references show it. The pixels that something covers are left out."""
    mask = cutting.mask >= 128
    image = cutting.pixels.astype(np.float32) / 255
    poses = _poses(*mask.shape)
    misses = [(mask & ~cover).sum() + 0.3 * (cover & ~mask).sum() for *_, cover in poses]
    best, error = world.Creature(0, 0, 0, 1), np.inf
    least = {shape: min(m for m, p in zip(misses, poses, strict=True) if p[0] == shape) for shape, *_ in poses}
    likely = sorted(least, key=lambda shape: least[shape])[:_CHOICES]
    for miss, (shape, half_w, half_h, tilt, _) in zip(misses, poses, strict=True):
        if shape not in likely or miss > least[shape] + _ALIKE * mask.sum():  # a disc is the same at any tilt
            continue
        for pattern in range(len(world.PATTERNS)):
            creature, off = _coloured(image, mask, shape, pattern, (half_w, half_h, tilt))
            if off + miss < error:
                best, error = creature, off + float(miss)
    return best


@lru_cache(maxsize=256)
def _poses(height: int, width: int) -> list[tuple[int, float, float, float, np.ndarray]]:
    """Shape, half sizes, tilt and cover of each pose in which a cut-out of this size may show a creature."""
    poses = [(width / 2, height / 2, 0.0)]
    if height == width == world.REFERENCE_SIZE:
        half = world.REFERENCE_SIZE * world.FILL
        poses += [(half, half, float(tilt)) for tilt in _TILTS]
    return [
        (shape, *pose, world.draw(world.Creature(shape, 0, 0, 1), width, height, *pose)[1] >= 0.5)
        for pose in poses
        for shape in range(len(world.SHAPES))
    ]


class _Weights(NamedTuple):
    """A drawing's albedo as first * RGB of its first colour + second * RGB of its second + rest, float32 (h, w)."""

    first: np.ndarray
    second: np.ndarray
    rest: np.ndarray


@lru_cache(maxsize=512)
def _weights(shape: int, pattern: int, height: int, width: int, pose: tuple[float, float, float]) -> _Weights:
    def red(first: int, second: int) -> np.ndarray:
        return world.draw(world.Creature(shape, pattern, first, second), width, height, *pose)[0][..., 0]

    values, base = world.RGB[:, 0], red(_WHITE, _BLACK)
    span = values[_WHITE] - values[_BLACK]
    first, second = (base - red(_BLACK, _BLACK)) / span, (red(_WHITE, _WHITE) - base) / span
    return _Weights(first, second, base - first * values[_WHITE] - second * values[_BLACK])


def _coloured(
    image: np.ndarray, mask: np.ndarray, shape: int, pattern: int, pose: tuple[float, float, float]
) -> tuple[world.Creature, float]:
    """The best pair of colours, and the sum of squared differences over the pixels in sight: in a light of the world,
    or for a tilted one under a lamp of any strength near 1."""
    first, second, rest = (w[mask] for w in _weights(shape, pattern, *mask.shape, pose))
    pixels, ones = image[mask], np.ones(1, np.float32)
    upright = not pose[2] and pose[0] * 2 == mask.shape[1]
    lights = zip(world.LAMP, world.HAZE, strict=True) if upright else [(ones, 0 * ones)]
    best, error = world.Creature(shape, pattern, 0, 1), np.inf
    for lamp, haze in lights:
        # |p - (haze + lamp (first a + second b + rest))|^2 for all colours a, b from sums over the pixels
        wanted, known = pixels - haze, rest[:, None] * lamp
        basis = np.stack([first, second])
        squares = basis @ basis.T
        a, b = world.RGB[:, None] * lamp, world.RGB[None] * lamp

        def dot(values: np.ndarray, basis: np.ndarray = basis, a: np.ndarray = a, b: np.ndarray = b) -> np.ndarray:
            """Sums of `values` (pixels, 3) times the colours' part of the drawing, (colours, colours)."""
            per = basis @ values
            return (per[0] * a).sum(-1) + (per[1] * b).sum(-1)

        own = (squares[0, 0] * a**2 + 2 * squares[0, 1] * a * b + squares[1, 1] * b**2).sum(-1)
        drawn = own + 2 * dot(known * np.ones((1, 3), np.float32)) + (known**2 * np.ones(3, np.float32)).sum()
        both = dot(wanted) + (wanted * known).sum()
        gain = 1.0 if upright else np.clip(both / np.maximum(drawn, 1e-6), *_GAINS)
        off = (wanted**2).sum() - 2 * gain * both + gain**2 * drawn
        np.fill_diagonal(off, np.inf)
        k, j = np.unravel_index(int(off.argmin()), off.shape)
        if off[k, j] < error:
            best, error = world.Creature(shape, pattern, int(k), int(j)), float(off[k, j])
    return best, error


MODELS = {
    "writer": SmallWriter, "painter": SmallPainter, "segmenter": SmallSegmenter, "editor": SmallEditor,
    "depth": SmallDepth, "identity": SmallIdentity,
}  # fmt: skip
