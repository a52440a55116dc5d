"""A world of drawn creatures, small enough to train on and to measure.

A creature is a shape, a pattern and two colours. Its reference shows it tilted, in its own light, on grey; the
composite is that tilted view pasted into its box by the product's own placement, in the order in which the user
painted; the picture to be made shows it upright, in the light that the words name, with the nearer creature in front.
So neither the composite nor the reference can be copied: pose and light follow the words.

    basic, complex   two to four creatures, apart or overlapping; the smaller box is nearer
    flexible         the user painted a large creature over a small one: the composite hides it wholly, and what it
                     looks like is known from its reference alone
    dense            six to nine creatures on a larger canvas, some tiny, some touching
    words            one to three creatures; some are told by the words alone: no reference, not in the composite
    solid            two to four creatures that stand on a ground plane, turned and leaning as their cuboids are, the
                     nearest in front: the pose comes from depth or silhouette

Each scene knows exact masks, depth and a cuboid for each creature (see :mod:`solids` for the camera).

Everything is a function of (seed, split, tier, index). Sizes are (width, height), boxes xyxy half-open in pixels of the
canvas. One identity in eight is held out: the train split never draws it, the test split draws nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...composite import placement
from ...composite.compose import compose
from ...composite.references import Reference
from ...errors import InputError
from ...layout.box import Box
from ...layout.layout import Instance, Layout
from ...methods.sigma_gen.cuboids import Cuboid
from . import solids

SIZE = 128  # canvas, pixels
DENSE_SIZE = 192
REFERENCE_SIZE = 64  # reference picture, pixels: 4x4 tokens
GREY = 128
TOKEN = 16
MOST = 9  # members of a scene
FILL = 0.39  # half size of a creature over the side of its reference: a square tilted by 20 degrees still fits

SHAPES = ("disc", "square", "triangle", "cross", "heart")
PATTERNS = ("halved", "banded", "spotted", "rimmed")
COLOURS = ("red", "yellow", "green", "blue", "violet", "white", "black")
PLACES = ("meadow", "desert", "shore", "snow")
LIGHTS = ("noon", "sunset", "night", "mist")
TIERS = ("basic", "complex", "flexible", "dense", "words", "solid")
SPLITS = ("train", "test")

RGB = np.array(
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
LAMP = np.array([(1.0, 1.0, 1.0), (1.05, 0.80, 0.62), (0.50, 0.56, 0.82), (0.62, 0.62, 0.62)], np.float32)
HAZE = np.array([(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.30, 0.31, 0.33)], np.float32)


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
    """A creature in a scene. `tilt` in degrees and `lamp` (RGB gains) belong to its reference alone.

    hidden: the composite shows nothing of it. told: only the words tell of it. solid: its cuboid, where it stands on
    the ground plane; its box then is that of the drawn creature."""

    creature: Creature
    box: tuple[int, int, int, int]
    tilt: float
    lamp: tuple[float, float, float]
    hidden: bool = False
    told: bool = False
    solid: Cuboid | None = None


class Scene(NamedTuple):
    """`members` in the order in which the user painted them: first = bottom of the composite. size: side of the
    canvas."""

    tier: str
    place: int
    light: int
    members: tuple[Member, ...]
    size: int = SIZE

    @property
    def caption(self) -> str:
        """Place and light, and the creatures that only words tell of."""
        return self.naming(tuple(m.told for m in self.members))

    def naming(self, named: tuple[bool, ...]) -> str:
        """The caption that names the creatures so marked."""
        return caption([m.creature for m, n in zip(self.members, named, strict=True) if n], self.place, self.light)


def caption(creatures: list[Creature], place: int, light: int) -> str:
    """The prompt that names these creatures, in words that the small text encoder reads."""
    subjects = ", ".join(f"a {c.name}" for c in creatures) or "creatures"
    return f"{subjects} on the {PLACES[place]} at {LIGHTS[light]}"


class Picture(NamedTuple):
    """target, composite: uint8 (size, size, 3); references: uint8 (N, 64, 64, 3) on grey; masks: uint8 (N, 64,
    64), 255 = subject; both of the members that are not told, in their order."""

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
    albedo = RGB[creature.first] * (1 - second) + RGB[creature.second] * second
    albedo = albedo * (1 - 0.12 * np.clip(y, -1, 1))[..., None]  # a little darker below: shows the pose
    eye = np.sqrt((np.abs(x) - 0.24) ** 2 + (y + 0.05) ** 2)
    for radius, shade in ((0.20, 0.06), (0.16, 1.0), (0.08, 0.06)):
        part = _soft(radius - eye, pixel)[..., None]
        albedo = albedo * (1 - part) + np.float32(shade) * part
    return albedo.astype(np.float32), _soft(-distance, pixel).astype(np.float32)


@lru_cache(maxsize=8)
def _backgrounds(size: int) -> np.ndarray:
    """Every place in every light: float32 (places, lights, size, size, 3) in 0..1."""
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    out = np.empty((len(PLACES), len(LIGHTS), size, size, 3), np.float32)
    for place in range(len(PLACES)):
        edge = _HORIZON[place] + 0.03 * np.sin(6.283 * (x * (1 + 0.5 * place) + 0.3 * place))
        ground = _soft(y - edge, 1 / size)[..., None]
        sky = _SKY[place] * (0.85 + 0.25 * y[..., None])
        land = _GROUND[place] * (1.1 - 0.25 * y[..., None])
        scene = sky * (1 - ground) + land * ground
        for light in range(len(LIGHTS)):
            out[place, light] = np.clip(scene * LAMP[light] + HAZE[light], 0, 1)
    return out


def background(place: int, light: int, size: int = SIZE) -> np.ndarray:
    """The empty scene, float32 (size, size, 3) in 0..1."""
    return _backgrounds(size)[place, light].copy()


def distance(member: Member, size: int) -> float:
    """How far away a creature is, in the camera's units: that of its cuboid, or the farther the larger its box."""
    if member.solid is not None:
        return member.solid.center[2]
    x1, y1, x2, y2 = member.box
    return 2 + 8 * (x2 - x1) * (y2 - y1) / size**2


def front_order(scene: Scene) -> tuple[int, ...]:
    """Indices from back to front in the target: the farther behind, ties by index."""
    far = [distance(m, scene.size) for m in scene.members]
    return tuple(sorted(range(len(far)), key=lambda i: (-far[i], i)))


def _upright(member: Member, creature: Creature) -> tuple[np.ndarray, np.ndarray]:
    """Albedo and cover of a creature in a member's box as the target shows it: filling the box, or posed as the
    member's cuboid is."""
    x1, y1, x2, y2 = member.box
    half, lean = ((x2 - x1) / 2, (y2 - y1) / 2), 0.0
    if member.solid is not None:
        half, lean = solids.half_size(member.solid, x2 - x1, y2 - y1), member.solid.roll
    return draw(creature, x2 - x1, y2 - y1, *half, lean)


def cover(member: Member) -> np.ndarray:
    """Cover of the creature in its box as the target shows it, float32 (box height, box width)."""
    return _upright(member, member.creature)[1]


def lit(albedo: np.ndarray, light: int) -> np.ndarray:
    """Colours (..., 3) in 0..1 as they look under a light."""
    return np.clip(albedo * LAMP[light] + HAZE[light], 0, 1)


def paint(canvas: np.ndarray, member: Member, light: int, creature: Creature | None = None) -> None:
    """Draws a member (or another creature in its place) into `canvas` (float32 (size, size, 3)), lit by the scene,
    in place."""
    x1, y1, x2, y2 = member.box
    albedo, alpha = _upright(member, creature or member.creature)
    part = canvas[y1:y2, x1:x2]
    part += (lit(albedo, light) - part) * alpha[..., None]


def render_target(scene: Scene, skip: tuple[int, ...] = ()) -> np.ndarray:
    """The picture to be made, float32 (size, size, 3) in 0..1; members in `skip` are left out."""
    canvas = background(scene.place, scene.light, scene.size)
    for index in front_order(scene):
        if index not in skip:
            paint(canvas, scene.members[index], scene.light)
    return canvas


def masks(scene: Scene) -> np.ndarray:
    """The pixels in which the target shows each member, bool (N, size, size): exact, and no pixel twice."""
    out = np.zeros((len(scene.members), scene.size, scene.size), bool)
    for index in front_order(scene):
        x1, y1, x2, y2 = scene.members[index].box
        own = cover(scene.members[index]) >= 0.5
        out[:, y1:y2, x1:x2] &= ~own
        out[index, y1:y2, x1:x2] = own
    return out


def depth(scene: Scene) -> np.ndarray:
    """Distance along the camera's axis of what the target shows, float32 (size, size); infinite where there is no
    creature. A creature bulges towards the camera by a tenth of its height."""
    out = np.full((scene.size, scene.size), np.inf, np.float32)
    for member, own in zip(scene.members, masks(scene), strict=True):
        far = distance(member, scene.size)
        x1, y1, x2, y2 = member.box
        x = (np.arange(x1, x2, dtype=np.float32) + 0.5 - (x1 + x2) / 2) * 2 / (x2 - x1)
        y = (np.arange(y1, y2, dtype=np.float32) + 0.5 - (y1 + y2) / 2) * 2 / (y2 - y1)
        bulge = np.sqrt(np.clip(1 - x[None] ** 2 - y[:, None] ** 2, 0, 1))
        height = far * (y2 - y1) / scene.size
        inside = own[y1:y2, x1:x2]
        out[y1:y2, x1:x2][inside] = (far - 0.1 * height * bulge)[inside]
    return out


def cuboids(scene: Scene) -> tuple[Cuboid, ...]:
    """One cuboid a member, in the camera of :mod:`solids`: the one it stands in, or for a flat scene an upright one
    whose middle plane fills its box."""
    return tuple(
        m.solid or solids.around(m.box, distance(m, scene.size), 0.25 * distance(m, scene.size), scene.size)
        for m in scene.members
    )


# ---- what the user gives -------------------------------------------------------------------------


def _reference_mask(member: Member) -> np.ndarray:
    """Where the subject of the reference is, bool (64, 64)."""
    side, half = REFERENCE_SIZE, REFERENCE_SIZE * FILL
    x, y = _local(side, side, half, half, member.tilt)
    return _distance(member.creature.shape, x, y) <= 0


def render_reference(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """The reference: pixels uint8 (64, 64, 3) on mid grey, mask uint8 (64, 64)."""
    side, half = REFERENCE_SIZE, REFERENCE_SIZE * FILL
    albedo, _ = draw(member.creature, side, side, half, half, member.tilt)
    subject = _reference_mask(member)
    pixels = np.where(subject[..., None], np.clip(albedo * np.array(member.lamp, np.float32), 0, 1) * 255, GREY)
    return (pixels + 0.5).astype(np.uint8), np.where(subject, np.uint8(255), np.uint8(0))


def shown_members(scene: Scene) -> tuple[Member, ...]:
    """The members that have a reference, in their order."""
    return tuple(m for m in scene.members if not m.told)


def request(scene: Scene) -> tuple[Layout, tuple[Reference, ...]]:
    """What a user of the product would give for a scene: boxes in painting order, and the references bound to them."""
    return _request(scene, [render_reference(m) for m in shown_members(scene)])


def _request(scene: Scene, views: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Layout, tuple[Reference, ...]]:
    members = shown_members(scene)
    references = tuple(
        Reference(f"{number} {m.creature.name}", *view, tokens=(REFERENCE_SIZE // TOKEN) ** 2)
        for number, (m, view) in enumerate(zip(members, views, strict=True), 1)
    )
    boxes = (Instance(f"b{n}", Box(*m.box), n, m.creature.name) for n, m in enumerate(members, 1))
    return Layout(scene.size, scene.size, tuple(boxes)), references


def shown(members: tuple[Member, ...], size: int = SIZE) -> tuple[float, ...]:
    """Share that the composite shows of the cut-out of each member that has one."""
    blank = np.zeros((REFERENCE_SIZE, REFERENCE_SIZE, 3), np.uint8)  # only the masks matter
    scene = Scene("", 0, 0, members, size)
    views = [(blank, np.where(_reference_mask(m), np.uint8(255), np.uint8(0))) for m in shown_members(scene)]
    return compose(*_request(scene, views)).visible


def render(scene: Scene) -> Picture:
    """Target, composite and references of a scene."""
    layout, references = request(scene)
    target = (render_target(scene) * 255 + 0.5).astype(np.uint8)
    side = (len(references), REFERENCE_SIZE, REFERENCE_SIZE)
    return Picture(
        target,
        compose(layout, references).composite,
        np.stack([r.pixels for r in references]) if references else np.zeros((*side, 3), np.uint8),
        np.stack([r.mask for r in references]) if references else np.zeros(side, np.uint8),
    )


def render_pasted(scene: Scene) -> np.ndarray:
    """The composite over the true background, uint8: what a model that copies would make. DPO turns away from it."""
    layout, references = request(scene)
    canvas = (background(scene.place, scene.light, scene.size) * 255 + 0.5).astype(np.uint8)
    covered = np.zeros(canvas.shape[:2], bool)
    for instance, reference in zip(layout.instances, references, strict=True):
        cut = placement.placed(instance, reference, layout, "instance")
        x1, y1 = max(cut.x, 0), max(cut.y, 0)
        x2, y2 = min(cut.x + cut.mask.shape[1], scene.size), min(cut.y + cut.mask.shape[0], scene.size)
        covered[y1:y2, x1:x2] |= cut.mask[y1 - cut.y : y2 - cut.y, x1 - cut.x : x2 - cut.x]
    np.copyto(canvas, compose(layout, references).composite, where=covered[..., None])
    return canvas


# ---- choosing a scene ----------------------------------------------------------------------------


def _member(rng: np.random.Generator, split: str, box: tuple[int, int, int, int]) -> Member:
    creature = _IDENTITIES[split][int(rng.integers(len(_IDENTITIES[split])))]
    gain, tint = rng.uniform(0.8, 1.1), rng.uniform(0.94, 1.06, 3)
    lamp = (float(gain * tint[0]), float(gain * tint[1]), float(gain * tint[2]))
    return Member(creature, box, float(rng.uniform(-20, 20)), lamp)


def _box(rng: np.random.Generator, low: int, high: int, size: int = SIZE) -> tuple[int, int, int, int]:
    """A box on the 4 pixel grid, nearly square, sides in low..high."""
    w = int(rng.integers(low // 4, high // 4 + 1)) * 4
    h = int(np.clip(w + 4 * rng.integers(-1, 2), low, high))
    x, y = int(rng.integers(0, (size - w) // 4 + 1)) * 4, int(rng.integers(0, (size - h) // 4 + 1)) * 4
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


def _dense(rng: np.random.Generator, split: str) -> tuple[Member, ...]:
    """Six to nine creatures, a third of them tiny; some touch, none covers another by more than a third."""
    while True:
        count = int(rng.integers(6, MOST + 1))
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(80):
            low, high = (24, 36) if rng.random() < 0.33 else (40, 64)
            box = _box(rng, low, high, DENSE_SIZE)
            if max((overlap(box, b) for b in boxes), default=0.0) <= 0.33:
                boxes.append(box)
            if len(boxes) == count:
                break
        touching = any(overlap(a, b, gap=2) > 0 for i, a in enumerate(boxes) for b in boxes[:i])
        if len(boxes) == count and touching:
            return tuple(_member(rng, split, b) for b in boxes)


def _words(rng: np.random.Generator, split: str) -> tuple[Member, ...]:
    """One to three creatures that stand apart, at least one of them told by the words alone."""
    while True:
        count = int(rng.integers(1, 4))
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(60):
            box = _box(rng, 40, {1: 88, 2: 72, 3: 60}[count])
            if not any(overlap(box, b, gap=2) for b in boxes):
                boxes.append(box)
            if len(boxes) == count:
                told = rng.random(count) < 0.7
                told[int(rng.integers(count))] = True
                return tuple(_member(rng, split, b)._replace(told=bool(t)) for b, t in zip(boxes, told, strict=True))


def _solid(rng: np.random.Generator, split: str) -> tuple[Member, ...]:
    """Two to four creatures on the ground plane, turned by up to 50 degrees and leaning by up to 25, each mostly in
    sight."""
    while True:
        members: list[Member] = []
        count = int(rng.integers(2, 5))
        for _ in range(60):
            solid = solids.standing(
                x=float(rng.uniform(-2.2, 2.2)),
                z=float(rng.uniform(2.4, 5.0)),
                size=(float(rng.uniform(0.7, 1.3)), float(rng.uniform(0.7, 1.3)), float(rng.uniform(0.3, 0.5))),
                yaw=float(rng.uniform(-50, 50)),
                roll=float(rng.uniform(-25, 25)),
            )
            box = solids.middle_box(solid, SIZE)
            if min(box[:2]) < 0 or max(box[2:]) > SIZE or min(box[2] - box[0], box[3] - box[1]) < 24:
                continue
            if any(overlap(box, m.box) > 0.5 for m in members):
                continue
            members.append(_member(rng, split, box)._replace(solid=solid))
            if len(members) == count:
                return tuple(members)


_CHOOSE = {"flexible": _flexible, "dense": _dense, "words": _words, "solid": _solid}


def scene(seed: int, split: str, index: int, tier: str) -> Scene:
    """Scene `index` of a split; the same arguments give the same scene on every machine."""
    if tier not in TIERS:
        raise InputError(f"The tier {tier!r} is unknown; use one of {', '.join(TIERS)}.")
    if split not in SPLITS:
        raise InputError(f"The split {split!r} is unknown; use one of {', '.join(SPLITS)}.")
    rng = np.random.default_rng((seed, SPLITS.index(split), TIERS.index(tier), index))
    place, light = int(rng.integers(len(PLACES))), int(rng.integers(len(LIGHTS)))
    members = _CHOOSE[tier](rng, split) if tier in _CHOOSE else _ordinary(rng, split, tier)
    return Scene(tier, place, light, members, DENSE_SIZE if tier == "dense" else SIZE)
