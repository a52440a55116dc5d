"""A world of drawn creatures, small enough to train on and to measure.

A creature is a shape, a pattern and two colours. Its reference shows it tilted, in its own light, on grey; the
composite is that tilted view pasted into its box, in the order in which the user painted; the picture to be made
shows it upright, in the light that the words name, with the **smaller box in front**. So neither the composite nor
the reference can be copied: pose and light follow the words. In the flexible tier the user painted a large
creature over a small one: the composite hides it wholly, and what it looks like is known from its reference alone.

Everything is a function of (seed, split, index). Sizes are (width, height), boxes xyxy half-open in pixels of the
canvas. One identity in eight is held out: the train split never draws it, the test split draws nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import InputError

SIZE = 128  # canvas, pixels
REFERENCE_SIZE = 64  # reference picture, pixels: 4x4 tokens
GREY = 128
TOKEN = 16
_FILL = 0.39  # half size of a creature over the side of its reference: a square tilted by 20 degrees still fits

SHAPES = ("disc", "square", "triangle", "cross", "heart")
PATTERNS = ("halved", "banded", "spotted", "rimmed")
COLOURS = ("red", "yellow", "green", "blue", "violet", "white", "black")
PLACES = ("meadow", "desert", "shore", "snow")
LIGHTS = ("noon", "sunset", "night", "mist")
TIERS = ("basic", "complex", "flexible")
SPLITS = ("train", "test")

_RGB = np.array(
    [
        (0.86, 0.13, 0.13),
        (0.98, 0.85, 0.15),
        (0.15, 0.62, 0.22),
        (0.15, 0.35, 0.85),
        (0.72, 0.25, 0.78),
        (0.95, 0.95, 0.95),
        (0.10, 0.10, 0.12),
    ],
    np.float32,
)
_SKY = np.array([(0.62, 0.80, 0.95), (0.85, 0.84, 0.78), (0.70, 0.88, 0.92), (0.78, 0.84, 0.90)], np.float32)
_GROUND = np.array([(0.50, 0.68, 0.36), (0.86, 0.72, 0.48), (0.30, 0.55, 0.68), (0.90, 0.92, 0.95)], np.float32)
_HORIZON = (0.55, 0.62, 0.45, 0.50)
_LAMP = np.array([(1.0, 1.0, 1.0), (1.05, 0.80, 0.62), (0.50, 0.56, 0.82), (0.62, 0.62, 0.62)], np.float32)
_HAZE = np.array([(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.30, 0.31, 0.33)], np.float32)


class Creature(NamedTuple):
    """An identity: indices into SHAPES, PATTERNS, COLOURS, COLOURS (the two colours differ)."""

    shape: int
    pattern: int
    first: int
    second: int

    @property
    def name(self) -> str:
        return f"{COLOURS[self.first]} and {COLOURS[self.second]} {PATTERNS[self.pattern]} {SHAPES[self.shape]}"

    @property
    def held_out(self) -> bool:
        code = ((self.shape * 11 + self.pattern) * 13 + self.first) * 17 + self.second
        return (code * 2654435761 >> 7) % 8 == 0


class Member(NamedTuple):
    """A creature in a scene. `tilt` in degrees and `lamp` (RGB gains) belong to its reference alone."""

    creature: Creature
    box: tuple[int, int, int, int]
    tilt: float
    lamp: tuple[float, float, float]
    hidden: bool = False


class Scene(NamedTuple):
    """`members` in the order in which the user painted them: first = bottom of the composite."""

    tier: str
    place: int
    light: int
    members: tuple[Member, ...]

    @property
    def caption(self) -> str:
        return f"creatures on the {PLACES[self.place]} at {LIGHTS[self.light]}"


class Picture(NamedTuple):
    """target, composite: uint8 (SIZE, SIZE, 3); references: uint8 (N, 64, 64, 3) on grey; masks: uint8 (N, 64,
    64), 255 = subject."""

    target: np.ndarray
    composite: np.ndarray
    references: np.ndarray
    masks: np.ndarray


def identities(split: str) -> tuple[Creature, ...]:
    """All creatures of a split, in a fixed order."""
    if split not in SPLITS:
        raise InputError(f"The split {split!r} is unknown; use one of {', '.join(SPLITS)}.")
    every = (
        Creature(s, p, a, b)
        for s in range(len(SHAPES))
        for p in range(len(PATTERNS))
        for a in range(len(COLOURS))
        for b in range(len(COLOURS))
        if a != b
    )
    return tuple(c for c in every if c.held_out == (split == "test"))


_IDENTITIES: dict[str, tuple[Creature, ...]] = {split: identities(split) for split in SPLITS}


# ---- drawing -------------------------------------------------------------------------------------


def _distance(shape: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance, roughly, to a shape that fills [-1, 1]²; negative inside, y grows downwards."""
    name = SHAPES[shape]
    ax, ay = np.abs(x), np.abs(y)
    if name == "disc":
        return np.sqrt(x * x + y * y) - 1
    if name == "square":
        qx, qy = np.maximum(ax - 0.75, 0), np.maximum(ay - 0.75, 0)
        return np.sqrt(qx * qx + qy * qy) - 0.25 + np.minimum(np.maximum(ax, ay) - 0.75, 0)
    if name == "triangle":
        return np.maximum(y - 1, (2 * ax - y - 1) / 2.236)
    if name == "cross":
        return np.minimum(np.maximum(ax - 1, ay - 0.45), np.maximum(ay - 1, ax - 0.45))
    lobe = np.sqrt((ax - 0.5) ** 2 + (y + 0.5) ** 2) - 0.5  # two discs on a wedge
    wedge = np.maximum(-y - 0.5, (1.5 * ax + y - 1) / 1.803)
    return np.minimum(lobe, np.maximum(wedge, ax - 1))


def _second_colour(pattern: int, x: np.ndarray, y: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Where the second colour is, as a soft field: positive inside, in local units."""
    name = PATTERNS[pattern]
    if name == "halved":
        return x
    if name == "banded":  # bands at [-0.5, 0] and [0.5, 1]
        return 0.25 - np.abs(y % 1.0 - 0.75)
    if name == "spotted":
        u, v = (x + 0.33) % 0.66 - 0.33, (y + 0.66) % 0.66 - 0.33
        return 0.22 - np.sqrt(u * u + v * v)
    return distance + 0.27


def _soft(field: np.ndarray, pixel: float) -> np.ndarray:
    """Antialiased step: 1 where the field is positive; `pixel` is the size of a pixel in local units."""
    return np.clip(field / pixel + 0.5, 0, 1)


def _local(width: int, height: int, half_w: float, half_h: float, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """The creature's own coordinates (x, y) of each pixel of a patch, float32 (height, width)."""
    py = (np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2))[:, None]
    px = (np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2))[None]
    c, s = np.float32(np.cos(np.deg2rad(tilt))), np.float32(np.sin(np.deg2rad(tilt)))
    return (c * px + s * py) / np.float32(half_w), (c * py - s * px) / np.float32(half_h)


def draw(
    creature: Creature, width: int, height: int, half_w: float, half_h: float, tilt: float
) -> tuple[np.ndarray, np.ndarray]:
    """A creature on a (height, width) patch, centred, half sizes in pixels, tilted by degrees.

    Returns albedo float32 (height, width, 3) in 0..1 and cover float32 (height, width) in 0..1."""
    x, y = _local(width, height, half_w, half_h, tilt)
    pixel = 1 / min(half_w, half_h)
    distance = _distance(creature.shape, x, y)
    second = _soft(_second_colour(creature.pattern, x, y, distance), pixel)[..., None]
    albedo = _RGB[creature.first] * (1 - second) + _RGB[creature.second] * second
    albedo = albedo * (1 - 0.12 * np.clip(y, -1, 1))[..., None]  # a little darker below: shows the pose
    eye = np.sqrt((np.abs(x) - 0.24) ** 2 + (y + 0.05) ** 2)
    for radius, shade in ((0.20, 0.06), (0.16, 1.0), (0.08, 0.06)):
        part = _soft(radius - eye, pixel)[..., None]
        albedo = albedo * (1 - part) + np.float32(shade) * part
    return albedo.astype(np.float32), _soft(-distance, pixel).astype(np.float32)


def _background_table() -> np.ndarray:
    """Every place in every light: float32 (places, lights, SIZE, SIZE, 3) in 0..1."""
    y, x = (np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5) / SIZE
    out = np.empty((len(PLACES), len(LIGHTS), SIZE, SIZE, 3), np.float32)
    for place in range(len(PLACES)):
        edge = _HORIZON[place] + 0.03 * np.sin(6.283 * (x * (1 + 0.5 * place) + 0.3 * place))
        ground = _soft(y - edge, 1 / SIZE)[..., None]
        sky = _SKY[place] * (0.85 + 0.25 * y[..., None])
        land = _GROUND[place] * (1.1 - 0.25 * y[..., None])
        scene = sky * (1 - ground) + land * ground
        for light in range(len(LIGHTS)):
            out[place, light] = np.clip(scene * _LAMP[light] + _HAZE[light], 0, 1)
    return out


_BACKGROUNDS = _background_table()


def background(place: int, light: int) -> np.ndarray:
    """The empty scene, float32 (SIZE, SIZE, 3) in 0..1."""
    return _BACKGROUNDS[place, light].copy()


def front_order(boxes: tuple[tuple[int, int, int, int], ...]) -> tuple[int, ...]:
    """Indices from back to front in the target: larger boxes behind, ties by index."""
    return tuple(
        sorted(range(len(boxes)), key=lambda i: (-(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]), i))
    )


def cover(member: Member) -> np.ndarray:
    """Cover of the upright creature in its box, float32 (box height, box width)."""
    x1, y1, x2, y2 = member.box
    return draw(member.creature, x2 - x1, y2 - y1, (x2 - x1) / 2, (y2 - y1) / 2, 0.0)[1]


def paint(canvas: np.ndarray, creature: Creature, box: tuple[int, int, int, int], light: int) -> None:
    """Draws an upright creature into `canvas` (float32 (SIZE, SIZE, 3)), lit by the scene, in place."""
    x1, y1, x2, y2 = box
    albedo, alpha = draw(creature, x2 - x1, y2 - y1, (x2 - x1) / 2, (y2 - y1) / 2, 0.0)
    lit = np.clip(albedo * _LAMP[light] + _HAZE[light], 0, 1)
    part = canvas[y1:y2, x1:x2]
    part += (lit - part) * alpha[..., None]


def render_target(scene: Scene, skip: tuple[int, ...] = ()) -> np.ndarray:
    """The picture to be made, float32 (SIZE, SIZE, 3) in 0..1; members in `skip` are left out."""
    canvas = background(scene.place, scene.light)
    for index in front_order(tuple(m.box for m in scene.members)):
        if index not in skip:
            paint(canvas, scene.members[index].creature, scene.members[index].box, scene.light)
    return canvas


def _reference_mask(member: Member) -> np.ndarray:
    """Where the subject of the reference is, bool (64, 64)."""
    side, half = REFERENCE_SIZE, REFERENCE_SIZE * _FILL
    x, y = _local(side, side, half, half, member.tilt)
    return _distance(member.creature.shape, x, y) <= 0


def render_reference(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """The reference: pixels uint8 (64, 64, 3) on mid grey, mask uint8 (64, 64)."""
    side, half = REFERENCE_SIZE, REFERENCE_SIZE * _FILL
    albedo, _ = draw(member.creature, side, side, half, half, member.tilt)
    subject = _reference_mask(member)
    pixels = np.where(subject[..., None], np.clip(albedo * np.array(member.lamp, np.float32), 0, 1) * 255, GREY)
    return (pixels + 0.5).astype(np.uint8), np.where(subject, np.uint8(255), np.uint8(0))


class Cutout(NamedTuple):
    """A cut-out placed by the instance rule (equal area, aspect kept, centred): source rows and columns, target
    size, place."""

    source: tuple[int, int, int, int]
    width: int
    height: int
    left: int
    top: int

    def window(self) -> tuple[slice, slice, slice, slice]:
        """Rows and columns on the canvas, then rows and columns of the cut-out."""
        x1, y1 = max(self.left, 0), max(self.top, 0)
        x2, y2 = min(self.left + self.width, SIZE), min(self.top + self.height, SIZE)
        own = slice(y1 - self.top, y2 - self.top), slice(x1 - self.left, x2 - self.left)
        return slice(y1, y2), slice(x1, x2), *own

    def resize(self, picture: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = self.source
        part = Image.fromarray(np.ascontiguousarray(picture[y1:y2, x1:x2]))
        return np.asarray(part.resize((self.width, self.height), Image.Resampling.BILINEAR))


def place(mask: np.ndarray, box: tuple[int, int, int, int]) -> Cutout:
    """Where a cut-out with this mask (uint8 (64, 64)) lands when it is pasted into a box."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x1, y1, x2, y2 = int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1
    scale = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]) / ((x2 - x1) * (y2 - y1))))
    w, h = max(1, int((x2 - x1) * scale)), max(1, int((y2 - y1) * scale))
    return Cutout((x1, y1, x2, y2), w, h, (box[0] + box[2]) // 2 - w // 2, (box[1] + box[3]) // 2 - h // 2)


def footprint(mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The pixels that a pasted cut-out covers, bool (SIZE, SIZE)."""
    cut = place(mask, box)
    rows, cols, own_rows, own_cols = cut.window()
    out = np.zeros((SIZE, SIZE), bool)
    out[rows, cols] = (cut.resize(mask) >= 128)[own_rows, own_cols]
    return out


def shown(members: tuple[Member, ...]) -> tuple[float, ...]:
    """Share of each cut-out that the composite shows."""
    covered = np.zeros((SIZE, SIZE), bool)
    shares = []
    for member in reversed(members):
        own = footprint(np.where(_reference_mask(member), np.uint8(255), np.uint8(0)), member.box)
        shares.append(float((own & ~covered).sum() / max(1, own.sum())))
        covered |= own
    return tuple(reversed(shares))


def paint_composite(
    members: tuple[Member, ...], views: list[tuple[np.ndarray, np.ndarray]], ground: np.ndarray | None = None
) -> np.ndarray:
    """The user's composite, uint8 (SIZE, SIZE, 3) on mid grey or on `ground`: cut-outs pasted bottom first, hard
    edges."""
    canvas = np.full((SIZE, SIZE, 3), GREY, np.uint8) if ground is None else ground.copy()
    for member, (pixels, mask) in zip(members, views, strict=True):
        cut = place(mask, member.box)
        rows, cols, own_rows, own_cols = cut.window()
        inside = (cut.resize(mask) >= 128)[own_rows, own_cols]
        canvas[rows, cols][inside] = cut.resize(pixels)[own_rows, own_cols][inside]
    return canvas


def render(scene: Scene) -> Picture:
    """Target, composite and references of a scene."""
    views = [render_reference(m) for m in scene.members]
    composite = paint_composite(scene.members, views)
    target = (render_target(scene) * 255 + 0.5).astype(np.uint8)
    return Picture(target, composite, np.stack([v[0] for v in views]), np.stack([v[1] for v in views]))


def render_pasted(scene: Scene) -> np.ndarray:
    """The composite over the true background, uint8: what a model that copies would make. DPO turns away from it."""
    ground = (background(scene.place, scene.light) * 255 + 0.5).astype(np.uint8)
    return paint_composite(scene.members, [render_reference(m) for m in scene.members], ground)


# ---- choosing a scene ----------------------------------------------------------------------------


def _member(rng: np.random.Generator, split: str, box: tuple[int, int, int, int]) -> Member:
    creature = _IDENTITIES[split][int(rng.integers(len(_IDENTITIES[split])))]
    gain, tint = rng.uniform(0.8, 1.1), rng.uniform(0.94, 1.06, 3)
    lamp = (float(gain * tint[0]), float(gain * tint[1]), float(gain * tint[2]))
    return Member(creature, box, float(rng.uniform(-20, 20)), lamp)


def _box(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int, int]:
    """A box on the 4 pixel grid, nearly square, sides in low..high."""
    w = int(rng.integers(low // 4, high // 4 + 1)) * 4
    h = int(np.clip(w + 4 * rng.integers(-1, 2), low, high))
    x, y = int(rng.integers(0, (SIZE - w) // 4 + 1)) * 4, int(rng.integers(0, (SIZE - h) // 4 + 1)) * 4
    return x, y, x + w, y + h


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int], gap: int = 0) -> float:
    """Intersection over the smaller area; boxes grown by `gap` pixels."""
    w = min(a[2], b[2]) - max(a[0], b[0]) + gap
    h = min(a[3], b[3]) - max(a[1], b[1]) + gap
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _ordinary(rng: np.random.Generator, split: str, tier: str) -> tuple[Member, ...]:
    """Two to four creatures: apart (basic) or with at least one overlap (complex)."""
    while True:
        count = int(rng.integers(2, 5))
        high = {2: 72, 3: 56, 4: 48}[count]
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(60):
            box = _box(rng, 40, high)
            worst = max((overlap(box, b) for b in boxes), default=0.0)
            if worst <= (0.0 if tier == "basic" else 0.4):
                boxes.append(box)
            if len(boxes) == count:
                break
        crossing = any(overlap(a, b) > 0.1 for i, a in enumerate(boxes) for b in boxes[:i])
        if len(boxes) == count and crossing == (tier == "complex"):
            return tuple(_member(rng, split, b) for b in boxes)


def _flexible(rng: np.random.Generator, split: str) -> tuple[Member, ...]:
    """A large creature painted over a small one that stands on the token grid; half of the time a third one beside
    them."""
    while True:
        big = _box(rng, 88, 112)
        side = TOKEN * int(rng.integers(3, 5))
        x, y = (int(v) * TOKEN for v in rng.integers(0, (SIZE - side) // TOKEN + 1, 2))
        small = (x, y, x + side, y + side)
        if not (big[0] <= x and big[1] <= y and x + side <= big[2] and y + side <= big[3]):
            continue
        members = [_member(rng, split, small)._replace(hidden=True), _member(rng, split, big)]
        if shown(tuple(members))[0] > 0:  # the composite must not give it away
            continue
        if rng.random() < 0.5:
            box = _box(rng, 40, 48)
            if overlap(box, small, gap=4) == 0 and overlap(box, big) < 0.75:
                members.append(_member(rng, split, box))
        return tuple(members)


def scene(seed: int, split: str, index: int, tier: str) -> Scene:
    """Scene `index` of a split; the same arguments give the same scene on every machine."""
    if tier not in TIERS:
        raise InputError(f"The tier {tier!r} is unknown; use one of {', '.join(TIERS)}.")
    if split not in SPLITS:
        raise InputError(f"The split {split!r} is unknown; use one of {', '.join(SPLITS)}.")
    rng = np.random.default_rng((seed, SPLITS.index(split), TIERS.index(tier), index))
    place, light = int(rng.integers(len(PLACES))), int(rng.integers(len(LIGHTS)))
    members = _flexible(rng, split) if tier == "flexible" else _ordinary(rng, split, tier)
    return Scene(tier, place, light, members)
