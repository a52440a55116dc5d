"""How well a model keeps identities: held-out creatures, scenes with and without a hidden one, with and without
references.

A creature in a picture is compared with renderings of alternatives at the same place, in the same light, over the
pixels of its box that nothing in front covers:

- *exact*: the true creature is nearer than fifteen others (three each that differ in shape, pattern, first or second
  colour alone, and three at random): chance about 6 %;
- *random*, *shape*, *pattern*, *first*, *second*: it is nearer than the three of that kind (chance 25 %).

*IoU*: box of what differs from the empty scene against the true box, for creatures that stand apart and are not
camouflaged. Intervals are paired bootstraps over creatures. :func:`find_box` looks for creatures that touch, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from . import solids, world

KINDS = ("shape", "pattern", "first", "second", "random")
_ATTRIBUTES = {
    "shape": len(world.SHAPES),
    "pattern": len(world.PATTERNS),
    "first": len(world.COLOURS),
    "second": len(world.COLOURS),
}
SEEN = 0.25  # a creature of which less than this share is in sight is not judged
_THRESHOLD = 0.10  # difference from the empty scene (0..1, largest channel) that counts as found
_MARGIN = 8  # pixels around the asked box in which a creature is looked for
_THRESHOLD_AMONG_OTHERS = 0.25  # the same among other creatures: higher, because the autoencoder blurs edges


class Judgement(NamedTuple):
    """One creature in one picture. `nearer` by KINDS; iou is nan where it is not measured; psnr in dB on its
    visible pixels."""

    scene: int
    member: int
    hidden: bool
    nearer: tuple[bool, ...]
    psnr: float
    iou: float

    @property
    def exact(self) -> bool:
        return all(self.nearer)


def alternatives(creature: world.Creature, rng: np.random.Generator) -> dict[str, tuple[world.Creature, ...]]:
    """Three creatures of each kind, none equal to the true one."""
    out: dict[str, tuple[world.Creature, ...]] = {}
    for kind, size in _ATTRIBUTES.items():
        others = [creature._replace(**{kind: v}) for v in range(size)]
        others = [c for c in others if c != creature and c.first != c.second]
        out[kind] = tuple(others[i] for i in rng.permutation(len(others))[:3])
    every = [c for split in world.SPLITS for c in world.identities(split) if c != creature]
    out["random"] = tuple(every[i] for i in rng.permutation(len(every))[:3])
    return out


def judge(scene: world.Scene, picture: np.ndarray, number: int = 0) -> list[Judgement]:
    """Judges every creature of a scene that has a place to be and is in sight. picture uint8 (size, size, 3)."""
    image = picture.astype(np.float32) / 255
    out = []
    for index, member in enumerate(scene.members):
        view = None if member.told else _view(scene, index)
        if view is None:
            continue
        x1, y1, x2, y2 = member.box
        rng = np.random.default_rng((number, index, 77))
        best = _error(image, scene, index, member.creature, view)
        nearer = []
        kinds = alternatives(member.creature, rng)
        for kind in KINDS:
            nearer.append(best < min(_error(image, scene, index, c, view) for c in kinds[kind]))
        truth = _crop(scene, index, member.creature, view.behind)
        error = max(float(np.square(image[y1:y2, x1:x2] - truth)[view.subject].mean()), 1e-6)
        out.append(
            Judgement(
                number, index, member.hidden, tuple(nearer), -10 * float(np.log10(error)), box_iou(scene, index, image)
            )
        )
    return out


class _View(NamedTuple):
    """Of a member's box: the pixels that nothing in front covers, those of them that are the creature's (bool, of the
    box's size), and what stands behind (float (size, size, 3))."""

    region: np.ndarray
    subject: np.ndarray
    behind: np.ndarray


def _view(scene: world.Scene, index: int) -> _View | None:
    """None where too little of a creature is in sight."""
    member, order = scene.members[index], world.front_order(scene)
    x1, y1, x2, y2 = member.box
    whole = world.cover(member) >= 0.5
    region = _uncovered(scene, index)[y1:y2, x1:x2]
    if (whole & region).sum() < SEEN * whole.sum():
        return None
    return _View(region, whole & region, world.render_target(scene, skip=tuple(order[order.index(index) :])))


class Leak(NamedTuple):
    """What a creature took over from its nearest neighbour: the share of the attributes in which the two differ (shape,
    pattern, colours) in which it is nearer to the neighbour's than to its own; and the same for other values, which no
    creature needs to have: what confusion alone does."""

    scene: int
    member: int
    neighbour: float
    other: float


def leaks(scene: world.Scene, picture: np.ndarray, number: int = 0) -> list[Leak]:
    """Leakage between neighbours, of every creature that is in sight. picture uint8 (size, size, 3)."""
    image = picture.astype(np.float32) / 255
    centres = np.array([((m.box[0] + m.box[2]) / 2, (m.box[1] + m.box[3]) / 2) for m in scene.members])
    out = []
    for index, member in enumerate(scene.members):
        view = _view(scene, index) if len(scene.members) > 1 else None
        if view is None:
            continue
        apart = np.square(centres - centres[index]).sum(1)
        apart[index] = np.inf
        neighbour, own = scene.members[int(apart.argmin())].creature, member.creature
        true = _error(image, scene, index, own, view)
        rng = np.random.default_rng((number, index, 78))
        taken: tuple[list[bool], list[bool]] = ([], [])
        for kind, size in _ATTRIBUTES.items():
            theirs = getattr(neighbour, kind)
            if theirs == getattr(own, kind):
                continue
            values = [v for v in rng.permutation(size).tolist() if v not in (theirs, getattr(own, kind))]
            for where, value in zip(taken, (theirs, values[0]), strict=True):
                changed = own._replace(**{kind: value})
                if changed.first != changed.second:
                    where.append(_error(image, scene, index, changed, view) < true)
        if all(taken):
            out.append(Leak(number, index, *(float(np.mean(t)) for t in taken)))
    return out


def _error(image: np.ndarray, scene: world.Scene, index: int, creature: world.Creature, view: _View) -> float:
    """Mean squared difference of a picture from one with a given creature in a member's place."""
    x1, y1, x2, y2 = scene.members[index].box
    return float(np.square(image[y1:y2, x1:x2] - _crop(scene, index, creature, view.behind))[view.region].mean())


def _crop(scene: world.Scene, index: int, creature: world.Creature, behind: np.ndarray) -> np.ndarray:
    """The pixels of a member's box with a given creature in its place, before anything in front is painted, float
    (h, w, 3)."""
    x1, y1, x2, y2 = scene.members[index].box
    canvas = behind.copy()
    world.paint(canvas, scene.members[index], scene.light, creature)
    return canvas[y1:y2, x1:x2]


def box_iou(scene: world.Scene, index: int, image: np.ndarray) -> float:
    """IoU of the box of what stands out from the empty scene with the true box; nan where it cannot be told."""
    box = scene.members[index].box
    if any(_touch(box, m.box) for k, m in enumerate(scene.members) if k != index):
        return float("nan")
    empty = world.background(scene.place, scene.light, scene.size)
    truth = _found(world.render_target(scene), empty, box)
    if truth is None or _iou(truth, box) < 0.85:  # camouflaged
        return float("nan")
    found = _found(image, empty, box)
    return 0.0 if found is None else _iou(found, box)


def find_box(scene: world.Scene, index: int, image: np.ndarray) -> tuple[int, int, int, int] | None:
    """Where a creature stands in a picture (float (size, size, 3) in 0..1), xyxy half-open; None when it is not
    there.

    Other creatures may touch it: the picture is compared with the scene drawn without this one, away from what stands
    in front. The creature is there when the scene with it, at the asked place or at most 8 pixels from it, is nearer
    to the picture over its pixels than the scene without it; its box is that of the rows and columns, near the asked
    one, in which the picture differs from the scene without it. A neighbour drawn wrongly within 8 pixels counts as
    part of it.
    """
    without, open_ = world.render_target(scene, skip=(index,)), _uncovered(scene, index)
    member = scene.members[index]
    x1, y1, x2, y2 = member.box
    subject = world.cover(member) >= 0.5
    shifts = [
        (x, y)
        for x in range(x1 - _MARGIN, x1 + _MARGIN + 1, 4)
        for y in range(y1 - _MARGIN, y1 + _MARGIN + 1, 4)
        if min(x, y) >= 0 and max(x + x2 - x1, y + y2 - y1) <= scene.size
    ]
    if not any(_nearer_with(image, without, open_, member, subject, shift, scene.light) for shift in shifts):
        return None
    return _found(np.where(open_[..., None], image, without), without, member.box, _THRESHOLD_AMONG_OTHERS)


def _nearer_with(
    image: np.ndarray,
    without: np.ndarray,
    open_: np.ndarray,
    member: world.Member,
    subject: np.ndarray,
    corner: tuple[int, int],
    light: int,
) -> bool:
    """Whether a picture is nearer to the scene with the creature's box at (x, y) than to the scene without it, over
    the pixels of the creature (subject: bool, of the box's size) that nothing covers."""
    rows, cols = (slice(start, start + size) for start, size in zip(corner[::-1], subject.shape, strict=True))
    drawn = without.copy()
    world.paint(drawn, member._replace(box=(cols.start, rows.start, cols.stop, rows.stop)), light)
    pixels = subject & open_[rows, cols]
    with_, else_ = (np.square(image - scene)[rows, cols][pixels].sum() for scene in (drawn, without))
    return bool(with_ < else_)


def found_iou(scene: world.Scene, index: int, image: np.ndarray) -> float:
    """IoU of :func:`find_box` with the asked box, 0 when nothing is found; nan where even the wanted picture does not
    tell (camouflage, or too much of it covered)."""
    box = scene.members[index].box
    truth = find_box(scene, index, world.render_target(scene))
    if truth is None or _iou(truth, box) < 0.85:
        return float("nan")
    found = find_box(scene, index, image)
    return 0.0 if found is None else _iou(found, box)


def _uncovered(scene: world.Scene, index: int) -> np.ndarray:
    """The pixels that no creature in front of this one covers, bool (size, size)."""
    order = world.front_order(scene)
    out = np.ones((scene.size, scene.size), bool)
    for front in order[order.index(index) + 1 :]:
        x1, y1, x2, y2 = scene.members[front].box
        out[y1:y2, x1:x2] &= world.cover(scene.members[front]) == 0
    return out


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] + 8 and b[0] < a[2] + 8 and a[1] < b[3] + 8 and b[1] < a[3] + 8


def _found(
    image: np.ndarray, empty: np.ndarray, box: tuple[int, int, int, int], threshold: float = _THRESHOLD
) -> tuple[int, int, int, int] | None:
    """Box of the rows and columns, near `box`, in which at least three pixels stand out."""
    x1, y1 = max(box[0] - _MARGIN, 0), max(box[1] - _MARGIN, 0)
    window = np.abs(image - empty).max(-1)[y1 : box[3] + _MARGIN, x1 : box[2] + _MARGIN] > threshold
    rows, cols = np.flatnonzero(window.sum(1) >= 3), np.flatnonzero(window.sum(0) >= 3)
    if not len(rows) or not len(cols):
        return None
    return x1 + int(cols[0]), y1 + int(rows[0]), x1 + int(cols[-1]) + 1, y1 + int(rows[-1]) + 1


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


class Somewhere(NamedTuple):
    """A creature that only words tell of, looked for in the whole picture. `nearer` by KINDS, of the thing that is most
    like it; nothing there: all False."""

    scene: int
    member: int
    nearer: tuple[bool, ...]

    @property
    def exact(self) -> bool:
        return all(self.nearer)


def judge_told(scene: world.Scene, picture: np.ndarray, number: int = 0) -> list[Somewhere]:
    """Looks for each told creature among the things that stand apart in a picture, uint8 (size, size, 3): wherever
    something stands out from the empty scene, the creature and its rivals are drawn into the box of it, and the
    creature counts as there if in some box it is nearer than all of them."""
    image = picture.astype(np.float32) / 255
    empty = world.background(scene.place, scene.light, scene.size)
    boxes = things(image, empty)
    out = []
    for index, member in enumerate(scene.members):
        if not member.told:
            continue
        kinds = alternatives(member.creature, np.random.default_rng((number, index, 77)))
        best = (False,) * len(KINDS)
        for box in boxes:
            x1, y1, x2, y2 = box
            own, placed = image[y1:y2, x1:x2], member._replace(box=box, solid=None)

            def error(creature: world.Creature, own: np.ndarray = own, placed: world.Member = placed) -> float:
                left, top, right, bottom = placed.box
                canvas = empty.copy()
                world.paint(canvas, placed, scene.light, creature)
                return float(np.square(own - canvas[top:bottom, left:right]).mean())

            true = error(member.creature)
            nearer = tuple(true < min(error(c) for c in kinds[kind]) for kind in KINDS)
            best = max(best, nearer, key=sum)
        out.append(Somewhere(number, index, best))
    return out


def things(image: np.ndarray, empty: np.ndarray, least: int = 24) -> list[tuple[int, int, int, int]]:
    """Boxes (xyxy half-open) of the connected regions, at least `least` pixels wide and high, in which a picture
    differs from the empty scene; both float (size, size, 3) in 0..1."""
    from scipy import ndimage

    labels: Any = ndimage.label(np.abs(image - empty).max(-1) > _THRESHOLD)[0]  # type: ignore[index]
    found: list[tuple[slice, slice]] = ndimage.find_objects(labels)
    boxes = ((c.start, r.start, c.stop, r.stop) for r, c in found)
    return [b for b in boxes if min(b[2] - b[0], b[3] - b[1]) >= least]


def scenery(scene: world.Scene, picture: np.ndarray) -> tuple[int, int]:
    """Which place and light a picture (uint8 (size, size, 3)) shows: the nearest empty scene, where no creature was
    asked for."""
    image = picture.astype(np.float32) / 255
    open_ = ~world.masks(scene).any(0)
    errors = [
        np.square(image - world.background(place, light, scene.size))[open_].sum()
        for place in range(len(world.PLACES))
        for light in range(len(world.LIGHTS))
    ]
    place, light = divmod(int(np.argmin(errors)), len(world.LIGHTS))
    return place, light


# ---- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """Means over the creatures of one kind."""

    count: int
    exact: float
    random: float
    shape: float
    pattern: float
    first: float
    second: float
    psnr: float
    iou: float
    iou_half: float
    boxes: int


def score(judgements: Sequence[Judgement], hidden: bool) -> Score:
    """Means over hidden or over visible creatures."""
    chosen = [j for j in judgements if j.hidden == hidden]
    if not chosen:
        nan = float("nan")
        return Score(0, nan, nan, nan, nan, nan, nan, nan, nan, nan, 0)
    kinds = np.array([j.nearer for j in chosen], float).mean(0)
    ious = np.array([j.iou for j in chosen])
    ious = ious[~np.isnan(ious)]
    return Score(
        count=len(chosen),
        exact=float(np.mean([j.exact for j in chosen])),
        **{kind: float(kinds[i]) for i, kind in enumerate(KINDS)},
        psnr=float(np.mean([j.psnr for j in chosen])),
        iou=float(ious.mean()) if len(ious) else float("nan"),
        iou_half=float((ious >= 0.5).mean()) if len(ious) else float("nan"),
        boxes=len(ious),
    )


def bootstrap(values: np.ndarray, seed: int = 0, rounds: int = 4000) -> tuple[float, float, float]:
    """Mean and 95 % interval of paired differences (or of plain values)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(rounds, len(values)))].mean(1)
    return float(values.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def gap(full: Sequence[Judgement], other: Sequence[Judgement], hidden: bool, kind: str) -> tuple[float, float, float]:
    """Paired difference full minus other in one measure (one of KINDS, or `exact`), with its 95 % interval."""
    pairs = [(a, b) for a, b in zip(full, other, strict=True) if a.hidden == hidden]

    def value(j: Judgement) -> float:
        return float(j.exact if kind == "exact" else j.nearer[KINDS.index(kind)])

    return bootstrap(np.array([value(a) - value(b) for a, b in pairs]))


def test_scenes(hidden: int, ordinary: int, seed: int = 0) -> list[world.Scene]:
    """Held-out scenes: `hidden` of the flexible tier, `ordinary` half basic, half complex."""
    scenes = [world.scene(seed, "test", i, "flexible") for i in range(hidden)]
    return scenes + [world.scene(seed, "test", i, world.TIERS[i % 2]) for i in range(ordinary)]


def likeness_to_copy(scene: world.Scene, picture: np.ndarray) -> list[float]:
    """For each creature that the composite shows: where its picture lies between the truth (0) and the pasted
    cut-out (1).

    The pose and light of the truth follow the words, those of the paste follow the reference; so 0 is flexible, 1
    is a copy.
    picture uint8 (size, size, 3). Distances are root mean squares over the creature's box."""
    image = picture.astype(np.float32) / 255
    truth = world.render_target(scene)
    paste = world.render_pasted(scene).astype(np.float32) / 255
    out = []
    for member in scene.members:
        if member.hidden or member.told:
            continue
        x1, y1, x2, y2 = member.box
        part = (slice(y1, y2), slice(x1, x2))
        to_truth = float(np.sqrt(np.square(image[part] - truth[part]).mean()))
        to_paste = float(np.sqrt(np.square(image[part] - paste[part]).mean()))
        out.append(to_truth / max(to_truth + to_paste, 1e-6))
    return out


# ---- pose and mix-ups ----------------------------------------------------------------------------

_LEANS = np.arange(-40, 41, 5)  # degrees that a creature's lean is told among, beside the true one


def lean_error(scene: world.Scene, index: int, picture: np.ndarray) -> float:
    """By how many degrees a creature in a cuboid leans otherwise than its cuboid does: it is drawn there at every lean
    from -40 to 40 degrees in steps of 5, and at the true one, and the nearest to the picture (uint8 (size, size, 3))
    counts, over the pixels that nothing covers. nan for a creature without cuboid, or of which too little is in
    sight."""
    member = scene.members[index]
    if member.solid is None:
        return float("nan")
    open_, whole = _uncovered(scene, index), world.cover(member) >= 0.5
    x1, y1, x2, y2 = member.box
    if (whole & open_[y1:y2, x1:x2]).sum() < 2 * SEEN * whole.sum():
        return float("nan")
    order = world.front_order(scene)
    behind = world.render_target(scene, skip=tuple(order[order.index(index) :]))
    drawn: dict[float, np.ndarray] = {}
    for lean in (*_LEANS.tolist(), member.solid.roll):
        solid = replace(member.solid, roll=lean)
        box = solids.middle_box(solid, scene.size)
        if min(box) < 0 or max(box) > scene.size:
            continue
        drawn[lean] = behind.copy()
        world.paint(drawn[lean], member._replace(solid=solid, box=box), scene.light)
    changed = np.any([np.abs(canvas - behind).max(-1) > 0 for canvas in drawn.values()], axis=0) & open_
    image = picture.astype(np.float32) / 255
    errors = {lean: float(np.square(image - canvas)[changed].sum()) for lean, canvas in drawn.items()}
    return abs(min(errors, key=errors.__getitem__) - member.solid.roll)


def swapped(scene: world.Scene, index: int, picture: np.ndarray) -> bool | None:
    """Whether a creature's place shows another of the scene's subjects rather than its own one: drawn there, that one
    is nearer to the picture (uint8 (size, size, 3)). None where it cannot be told: told by words, covered, or alone."""
    member = scene.members[index]
    rivals = {m.creature for m in scene.members if not m.told} - {member.creature}
    open_, whole = _uncovered(scene, index), world.cover(member) >= 0.5
    x1, y1, x2, y2 = member.box
    region = open_[y1:y2, x1:x2]
    if member.told or not rivals or (whole & region).sum() < SEEN * whole.sum():
        return None
    order = world.front_order(scene)
    behind = world.render_target(scene, skip=tuple(order[order.index(index) :]))
    there = picture[y1:y2, x1:x2].astype(np.float32) / 255

    def error(creature: world.Creature) -> float:
        return float(np.square(there - _crop(scene, index, creature, behind))[region].mean())

    return min(error(c) for c in sorted(rivals)) < error(member.creature)
