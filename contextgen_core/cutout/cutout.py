"""From a photograph to a cut-out: what the user clicked, where the mask comes from, and how it is cleaned.

The clicks, version 1, in pixels of the picture they were made on::

    {"v": 1, "picture": {"w": 800, "h": 600},
     "points": [{"x": 20, "y": 35, "keep": true}], "box": {"x": 10, "y": 10, "w": 90, "h": 80},
     "strokes": [{"keep": false, "r": 12, "at": [20, 35, 28, 40]}]}

`keep` false marks what must stay out; `box` may be null or left out, `strokes` too. Strokes of a round brush of
radius r go through the places at = x, y, x, y, ... (whole numbers) and are painted into the finished mask in their
order. Unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .. import masks
from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import finite_number, plain_number, shorten
from ..layout.box import Box
from .sam import Candidates, Point, Segmenter

MAX_POINTS = 64
MAX_STROKES = 64
MAX_PLACES = 4096  # of all strokes together
MAX_RADIUS = 2048
MAX_PROMPT_BYTES = 65536
MAX_SIDE = 16384
VERSION = 1
WHAT = "the field of clicks"

Pixels = NDArray[np.uint8]


class Stroke(NamedTuple):
    """One pull of a round brush: its radius and the places it goes through, pixels; keep False rubs out."""

    keep: bool
    radius: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Prompts:
    """What to cut out, and what to mend of it by hand. `width`, `height`: the picture the coordinates belong to, 0 =
    whatever picture is given."""

    points: tuple[Point, ...] = ()
    box: Box | None = None
    width: int = 0
    height: int = 0
    strokes: tuple[Stroke, ...] = ()

    @property
    def empty(self) -> bool:
        """True when there is nothing to ask a model for; strokes need none."""
        return self.box is None and not self.points

    @classmethod
    def from_json(cls, value: object) -> Prompts:
        """Read the clicks from text, UTF-8 bytes, or the parsed object; empty text is no clicks. Raises
        InputError."""
        literals: tuple[str, ...] = ()
        if isinstance(value, (str, bytes)):
            if len(value) <= MAX_PROMPT_BYTES and not value.strip():
                return cls()
            value, literals = parse(value, WHAT, MAX_PROMPT_BYTES)
        prompts = _read(value)
        if literals:
            raise InputError(f"{WHAT} contains {literals[0]}, which is not JSON; give finite numbers.")
        return prompts

    def scaled_to(self, width: int, height: int) -> Prompts:
        """The same clicks on a picture of another size."""
        if not self.width or (self.width, self.height) == (width, height):
            return replace(self, width=width, height=height)
        sx, sy = width / self.width, height / self.height
        points = tuple(Point(p.x * sx, p.y * sy, p.keep) for p in self.points)
        strokes = tuple(
            Stroke(
                stroke.keep,
                max(1, round(stroke.radius * (sx + sy) / 2)),
                tuple((round(x * sx), round(y * sy)) for x, y in stroke.places),
            )
            for stroke in self.strokes
        )
        return Prompts(points, self.box and self.box.scaled(sx, sy), width, height, strokes)


def _read(value: object) -> Prompts:
    if not isinstance(value, Mapping):
        raise InputError(f'{WHAT} is {shorten(value)}; give an object with "points" and "box", or empty it.')
    version = plain_number(value.get("v", VERSION))
    if version is None or version != VERSION:
        raise InputError(
            f"{WHAT} has version {shorten(value.get('v'))}, this pack reads {VERSION}; update the pack or empty it."
        )
    width, height = _picture(value.get("picture"))
    points = value.get("points", [])
    if not isinstance(points, (list, tuple)):
        raise InputError(f"{WHAT} has points = {shorten(points)}; give a list.")
    if len(points) > MAX_POINTS:
        raise InputError(
            f"{WHAT} has {len(points)} points, the limit is {MAX_POINTS}; remove {len(points) - MAX_POINTS}."
        )
    marks = tuple(_point(n, p) for n, p in enumerate(points, 1))
    return Prompts(marks, _box(value.get("box")), width, height, _strokes(value.get("strokes")))


def _strokes(value: object) -> tuple[Stroke, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or len(value) > MAX_STROKES:
        raise InputError(f"{WHAT} has strokes = {shorten(value)}; give a list of at most {MAX_STROKES}.")
    strokes = tuple(_stroke(number, stroke) for number, stroke in enumerate(value, 1))
    if sum(len(stroke.places) for stroke in strokes) > MAX_PLACES:
        raise InputError(f"{WHAT} has strokes through more than {MAX_PLACES} places; remove some.")
    return strokes


def _stroke(number: int, value: object) -> Stroke:
    where = f"stroke {number}"
    if not isinstance(value, Mapping):
        raise InputError(f'{where} is {shorten(value)}; give an object with "keep", "r" and "at".')
    keep, at = value.get("keep", True), value.get("at")
    if not isinstance(keep, bool):
        raise InputError(f"{where} has keep = {shorten(keep)}; give true or false.")
    if not isinstance(at, (list, tuple)) or not at or len(at) % 2:
        raise InputError(f"{where} has at = {shorten(at)}; give x, y, x, y, ...")
    radius = finite_number(value.get("r"), where, "r")
    numbers = [finite_number(place, where, "at") for place in at]
    if not 1 <= radius <= MAX_RADIUS:
        raise InputError(f"{where} has r = {radius:g}; give a radius from 1 to {MAX_RADIUS} pixels.")
    if not all(-MAX_SIDE <= place <= 2 * MAX_SIDE for place in numbers):
        raise InputError(f"{where} leads {max(map(abs, numbers)):g} pixels away; stay near the picture.")
    places = tuple((round(x), round(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True))
    return Stroke(keep, round(radius), places)


def _picture(value: object) -> tuple[int, int]:
    if value is None:
        return 0, 0
    if not isinstance(value, Mapping):
        raise InputError(f'{WHAT} has picture = {shorten(value)}; give {{"w": width, "h": height}} in pixels.')
    sides = [finite_number(value.get(name), WHAT, f"picture {name}") for name in "wh"]
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(
            f"{WHAT} has a picture of {sides[0]:g} x {sides[1]:g}; give sides from 1 to {MAX_SIDE} pixels."
        )
    return int(sides[0]), int(sides[1])


def _point(number: int, value: object) -> Point:
    where = f"point {number}"
    if not isinstance(value, Mapping):
        raise InputError(f'{where} is {shorten(value)}; give an object with "x", "y" and "keep".')
    keep = value.get("keep", True)
    if not isinstance(keep, bool):
        raise InputError(f"{where} has keep = {shorten(keep)}; give true or false.")
    return Point(finite_number(value.get("x"), where, "x"), finite_number(value.get("y"), where, "y"), keep)


def _box(value: object) -> Box | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError(f'the box to cut out is {shorten(value)}; give an object with "x", "y", "w" and "h", or null.')
    x, y, w, h = (finite_number(value.get(name), "the box to cut out", name) for name in "xywh")
    if w <= 0 or h <= 0:
        raise InputError(f"the box to cut out is {w:g} x {h:g} pixels; give it a width and height above 0.")
    return Box(x, y, x + w, y + h)


@dataclass(frozen=True)
class Cleaning:
    """What is done to a mask, in this order. `grow` in pixels, negative narrows; `feather` in pixels."""

    fill_holes: bool = True
    largest_part: bool = False
    grow: int = 0
    feather: float = 0.0

    def __call__(self, mask: masks.Mask) -> masks.Mask:
        if self.fill_holes:
            mask = masks.fill_holes(mask)
        if self.largest_part:
            mask = masks.largest_part(mask)
        return masks.feather(masks.grow(mask, self.grow), self.feather)


@dataclass(frozen=True, eq=False)
class Cutout:
    """One subject: pixels uint8 (H, W, 3) as in the picture, mask uint8 (H, W), its tight box in pixels, and
    SAM's own estimate of the mask's IoU (1.0 where no model was asked). `warnings`: sentences for the
    user. `candidates`: the masks that SAM proposed, before cleaning, and `taken`, the index of the one it is from."""

    pixels: Pixels
    mask: masks.Mask
    box: Box
    quality: float = 1.0
    warnings: tuple[str, ...] = field(default=())
    candidates: Candidates | None = None
    taken: int = 0


def fit_mask(mask: masks.Mask, width: int, height: int) -> masks.Mask:
    """A mask in the size of the picture it belongs to (bilinear). Raises InputError where its shape is
    another one by more than rounding: such a mask belongs to another picture."""
    rows, columns = mask.shape
    if (columns, rows) == (width, height):
        return mask
    if abs(columns * height - rows * width) > max(columns + rows, width + height):
        raise InputError(
            f"the mask is {columns} x {rows} pixels, the picture {width} x {height}; connect the mask that belongs to "
            "this picture."
        )
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8).copy()


def finish(pixels: Pixels, mask: masks.Mask, cleaning: Cleaning, quality: float = 1.0) -> Cutout:
    """Clean the mask and measure it. Raises InputError where nothing is left; warns where the mask is
    probably not meant so."""
    if not masks.selected(mask).any():
        raise InputError(
            "the mask selects nothing (1 = subject); use another mask, or choose another source for the cut-out."
        )
    cleaned = cleaning(mask)
    box = masks.tight_box(cleaned)
    if box is None:
        raise InputError(f"nothing is left of the mask after grow = {cleaning.grow}; shrink it less.")
    return Cutout(pixels, cleaned, box, quality, masks.doubts(mask, pixels))


def brushed(cutout: Cutout, strokes: Sequence[Stroke]) -> Cutout:
    """The cut-out with strokes painted into its mask, in their order. Raises InputError where nothing is left."""
    if not strokes:
        return cutout
    picture = Image.fromarray(cutout.mask)
    draw = ImageDraw.Draw(picture)
    for keep, radius, places in strokes:
        fill = 255 if keep else 0
        if len(places) > 1:
            draw.line(places, fill, 2 * radius + 1)
        for x, y in places:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    mask = np.array(picture)
    box = masks.tight_box(mask)
    if box is None:
        raise InputError("the strokes rub out the whole subject; undo some of them.")
    return replace(cutout, mask=mask, box=box)


def by_model(
    segmenter: Segmenter,
    pixels: Pixels,
    prompts: Prompts,
    *,
    hint: masks.Mask | None = None,
    choice: int = 0,
    cleaning: Cleaning | None = None,
) -> Cutout:
    """Cut one subject out with SAM.

    pixels: uint8 (H, W, 3). prompts: clicks, scaled to the picture here. hint: a rough mask uint8 (H, W) to
    start from. choice: 0 = the mask SAM rates highest, 1..3 = that one (part, subpart, whole: SAM does not
    order them by size).
    """
    height, width = pixels.shape[:2]
    prompts = prompts.scaled_to(width, height)
    for number, point in enumerate(prompts.points, 1):
        if not (0 <= point.x <= width and 0 <= point.y <= height):
            raise InputError(
                f"point {number} at ({point.x:g}, {point.y:g}) lies outside the picture of {width} x "
                f"{height}; move or remove it."
            )
    box = prompts.box and prompts.box.clipped(width, height)
    if box is not None and not box.area:
        raise InputError(f"the box to cut out lies outside the picture of {width} x {height}; draw it again.")
    found = segmenter.propose(pixels, box=box, points=prompts.points, mask=hint)
    if not 0 <= choice <= len(found.masks):
        raise InputError(
            f"mask {choice} was asked for, SAM proposes {len(found.masks)}; choose 1 to {len(found.masks)}, or best."
        )
    index = found.best() if choice == 0 else choice - 1
    chosen = found.masks[index].astype(np.uint8) * np.uint8(255)
    if not chosen.any():
        raise InputError("SAM found nothing there; click closer to the subject's middle, or draw a box around it.")
    # A model is not a mask from another node: what it selects is the subject, even where it fills the
    # picture's edge.
    made = finish(pixels, chosen, cleaning or Cleaning(), float(found.quality[index]))
    return replace(made, warnings=(), candidates=found, taken=index)


def plain(pixels: Pixels, tolerance: float, cleaning: Cleaning | None = None) -> Cutout:
    """Cut a subject out of a plain background; see masks.flood_subject."""
    return finish(pixels, masks.flood_subject(pixels, tolerance), cleaning or Cleaning())


def rgba(cutouts: Sequence[Cutout]) -> list[Pixels]:
    """The cut-outs as uint8 (H, W, 4) pictures."""
    return [np.dstack([cutout.pixels, cutout.mask]) for cutout in cutouts]
