"""What is done to a sample, one step for each role's model, in this order:

    plan     (writer)     where subjects stand, and the words
    paint    (painter)    the picture; flexible: each subject alone
    look     (segmenter)  the subjects in the picture; flexible: in their own pictures
    edit     (editor)     each subject anew, and the picture without them; flexible: the picture from the subjects
    cut      (segmenter)  the subjects in their own pictures; flexible: in the picture
    measure  (depth)      distances, for 3D boxes (SIGMA-GEN's set alone)
    judge    (identity)   whether picture and own picture show the same subject; what is left becomes files

A step that finds nothing wrong gives the draft on; what it drops it says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ...composite.compose import compose
from ...composite.references import Reference
from ...errors import InputError
from ...input.checks import MAX_LABEL
from ...layout.box import Box
from ...layout.layout import Instance, Layout
from ...methods.sigma_gen.cuboids import Cuboid, grey_of
from .draft import FLEXIBLE, SIGMA, Cutting, Draft, Drop, Found, Part
from .models import Depth, Editor, Identity, Painter, Segmenter, Writer
from .plan import plan_boxes

FOCAL = 1.0  # of the camera that 3D boxes are seen by, in widths of the picture
_SAME = 0.9  # IoU of two boxes that are the same thing
_EDGE = 0.02  # share of a subject's nearest and farthest pixels that do not bound its 3D box


def plan(draft: Draft, writer: Writer) -> Draft:
    s = draft.settings
    rng = np.random.default_rng(draft.seed("layout"))
    count = int(rng.integers(s.subjects[0], s.subjects[1] + 1))
    boxes = plan_boxes(rng, draft.kind, count, s.size)
    story = writer.story(draft.seed("words"), draft.number, count)
    if len(story.phrases) != count or len({p.lower() for p in story.phrases}) != count:
        why = f"{count} different subjects were asked for, the writer gave {len(set(story.phrases))}."
        return draft.dropped([Drop("words", why)])
    phrases = [phrase[:MAX_LABEL] for phrase in story.phrases]
    instances = tuple(Instance(f"b{k}", b, k, p) for k, (b, p) in enumerate(zip(boxes, phrases, strict=True), 1))
    parts = tuple(Part(k, phrase, box) for k, (phrase, box) in enumerate(zip(phrases, boxes, strict=True)))
    return replace(draft, story=story, layout=Layout(s.size, s.size, instances), parts=parts)


def paint(draft: Draft, painter: Painter) -> Draft:
    story, layout = _planned(draft)
    if draft.kind != FLEXIBLE:
        return replace(draft, picture=painter.paint(story, layout, draft.seed("picture")))
    views = (painter.alone(p.phrase, draft.seed("view", p.number), draft.settings.view) for p in draft.parts)
    return replace(draft, parts=tuple(replace(p, view=view) for p, view in zip(draft.parts, views, strict=True)))


def look(draft: Draft, segmenter: Segmenter, follows: bool) -> Draft:
    """follows: whether the painter puts subjects where the layout says."""
    return _cut_views(draft, segmenter) if draft.kind == FLEXIBLE else _find(draft, segmenter, follows)


def edit(draft: Draft, editor: Editor) -> Draft:
    story, layout = _planned(draft)
    if draft.kind == FLEXIBLE:
        own = [p.own for p in draft.parts if p.own is not None]
        kept = {p.number for p in draft.parts}
        bound = replace(layout, instances=tuple(i for k, i in enumerate(layout.instances) if k in kept))
        picture = editor.unite(own, story, bound, draft.seed("picture"))
        return replace(draft, picture=picture, empty=editor.empty(picture, story, draft.seed("empty")))
    side, picture = draft.settings.view, _picture(draft)
    parts = tuple(
        replace(p, view=editor.repaint(_found(p).cut(picture), p.phrase, draft.seed("view", p.number), side))
        for p in draft.parts
    )
    empty = None if draft.kind == SIGMA else editor.empty(picture, story, draft.seed("empty"))
    return replace(draft, parts=parts, empty=empty)


def cut(draft: Draft, segmenter: Segmenter, follows: bool) -> Draft:
    return _find(draft, segmenter, follows) if draft.kind == FLEXIBLE else _cut_views(draft, segmenter)


def measure(draft: Draft, depth: Depth) -> Draft:
    if draft.kind != SIGMA:
        return draft
    distances = depth.measure(_picture(draft), [_found(p) for p in draft.parts])
    known = np.isfinite(distances) & (distances > 0)
    parts, drops = [], []
    for part in draft.parts:
        if known[_found(part).mask].any():
            parts.append(part)
        else:
            drops.append(Drop("depth", "nothing of it has a distance.", part.number))
    return replace(draft, depth=np.where(known, distances, np.inf).astype(np.float32)).kept(parts, drops)


def judge(draft: Draft, identity: Identity) -> Draft:
    least, picture = draft.settings.limits.identity, _picture(draft)
    shown = [_found(p).cut(picture).on_grey for p in draft.parts]
    vectors = identity.embed([*shown, *(_own(p).on_grey for p in draft.parts)])
    parts, drops = [], []
    for k, part in enumerate(draft.parts):
        one, other = vectors[k], vectors[len(shown) + k]
        likeness = None if one is None or other is None else round(float(one @ other), 6)
        if likeness is None:
            drops.append(Drop("identity", "one of its two pictures has no features to compare.", part.number))
        elif likeness < least:
            why = f"its two pictures are alike by {likeness:.3f}, at least {least:g} is asked for."
            drops.append(Drop("identity", why, part.number, likeness, least))
        else:
            parts.append(replace(part, likeness=likeness))
    draft = draft.kept(parts, drops)
    if not draft.lives:
        return draft
    return replace(draft, files=_sigma_files(draft) if draft.kind == SIGMA else _imig_files(draft))


# ---- finding and cutting ---------------------------------------------------------------------------


def _find(draft: Draft, segmenter: Segmenter, follows: bool) -> Draft:
    (story, _), picture, limits = _planned(draft), _picture(draft), draft.settings.limits
    parts, drops = [], []
    for part in draft.parts:
        found = segmenter.find(picture, part.phrase, story.place, part.planned if follows else None)
        drop = _lacks(part, found, picture.shape[:2], limits, follows)
        if drop is None and found is not None:
            twin = next((p for p in parts if p.found is not None and _iou(p.found.box, found.box) > _SAME), None)
            if twin is not None:
                drop = Drop("twin", f"what was taken for it is subject {twin.number}.", part.number)
        if drop is None:
            parts.append(replace(part, found=found))
        else:
            drops.append(drop)
    return draft.kept(parts, drops)


def _lacks(part: Part, found: Found | None, shape: tuple[int, int], limits: Any, follows: bool) -> Drop | None:
    """What is wrong with a subject in the picture."""
    if found is None or not found.mask.any():
        return Drop("found", "the picture does not show it.", part.number)
    box = found.box
    measured = {
        "area": (box.area / (shape[0] * shape[1]), limits.area, "its box covers {:.4f} of the picture"),
        "fill": (float(found.mask.sum()) / max(box.area, 1.0), limits.fill, "its mask fills {:.3f} of its box"),
        "iou": (_iou(box, part.planned), limits.iou if follows else 0.0, "its box has an IoU of {:.3f} with the plan"),
    }
    for name, (value, least, words) in measured.items():
        if value < least:
            why = f"{words.format(value)}, at least {least:g} is asked for."
            return Drop(name, why, part.number, round(value, 6), least)
    return None


def _cut_views(draft: Draft, segmenter: Segmenter) -> Draft:
    parts, drops = [], []
    for part in draft.parts:
        view = part.view
        found = None if view is None else segmenter.find(view, part.phrase, "", None)
        if view is None or found is None or not found.mask.any():
            drops.append(Drop("cut", "it cannot be cut out of its own picture.", part.number))
        else:
            mask = np.where(found.mask, np.uint8(255), np.uint8(0))
            parts.append(replace(part, own=Cutting(view, mask)))
    return draft.kept(parts, drops)


def _iou(a: Box, b: Box) -> float:
    w, h = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    both = max(w, 0.0) * max(h, 0.0)
    return both / (a.area + b.area - both) if both else 0.0


# ---- files -----------------------------------------------------------------------------------------


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode()


def _imig_files(draft: Draft) -> dict[str, bytes]:
    """As `contextgen_core.training.imig` reads a base item from a shard."""
    (story, layout), picture = _planned(draft), _picture(draft)
    entries: list[dict[str, Any]] = []
    files: dict[str, bytes] = {"target.png": _png(picture)}
    references, instances = [], []
    for k, part in enumerate(draft.parts):
        box, own = _found(part).box, _own(part)
        entries.append({"index": k, "bbox": _corners(box), "phrase": part.phrase, "identity": part.likeness})
        if draft.kind == FLEXIBLE:  # the subject's own picture came first: nothing of it is copied from the target
            files |= {f"{k}.reference.png": _png(own.pixels), f"{k}.mask.png": _png(own.mask)}
        else:
            crop = _found(part).cut(picture)
            files |= {f"{k}.reference.png": _png(crop.pixels), f"{k}.mask.png": _png(crop.mask)}
            files |= {f"{k}.repaint.png": _png(own.pixels), f"{k}.repaint_mask.png": _png(own.mask)}
        references.append(Reference(str(k + 1), own.pixels, own.mask))
        instances.append(Instance(f"b{k + 1}", box, k + 1, part.phrase))
    if draft.empty is None:
        raise InputError("the picture without its subjects is missing.")
    scene = compose(Layout(layout.width, layout.height, tuple(instances)), references, "instance")
    painted = (scene.composite != 128).any(-1, keepdims=True)
    files["unwanted.png"] = _png(np.where(painted, scene.composite, draft.empty))
    record = {"index": draft.number, "tier": draft.kind, "prompt": story.prompt, "reference_images": entries}
    return {"json": _json(record), **files}


def _sigma_files(draft: Draft) -> dict[str, bytes]:
    """As `contextgen_core.training.sigma_set` reads an item from a shard."""
    (story, _), picture, depth = _planned(draft), _picture(draft), draft.depth
    if depth is None:
        raise InputError("the picture's depth is missing.")
    files: dict[str, bytes] = {"picture.png": _png(picture), "depth.png": _png(grey_of(depth))}
    subjects = []
    for k, part in enumerate(draft.parts):
        found, own = _found(part), _own(part)
        files |= {f"{k}.identity.png": _png(np.dstack([own.pixels, own.mask])),
                  f"{k}.mask.png": _png(np.where(found.mask, np.uint8(255), np.uint8(0)))}  # fmt: skip
        solid = solid_of(depth, found.mask)
        subjects.append(
            {
                "name": part.phrase, "identity": f"{k}.identity.png", "box": _corners(found.box),
                "mask": f"{k}.mask.png", "depth": "depth.png",
                "box3d": {"center": list(solid.center), "size": list(solid.size)}, "likeness": part.likeness,
            }
        )  # fmt: skip
    record = {"picture": "picture.png", "background": story.place, "caption": story.prompt, "focal": FOCAL}
    return {"json": _json({**record, "subjects": subjects}), **files}


def solid_of(depth: np.ndarray, mask: np.ndarray) -> Cuboid:
    """The upright 3D box, facing the camera, around what a mask selects of a depth picture: the points that its pixels
    stand for, but for the nearest and farthest fiftieth. Only the side that is seen is known: it is at least a quarter
    as deep as it is wide. Rounded to 1e-6."""
    rows, cols = np.nonzero(mask & np.isfinite(depth))
    z = depth[rows, cols].astype(np.float64)
    near, far = np.quantile(z, _EDGE), np.quantile(z, 1 - _EDGE)
    height, width = depth.shape
    focal = FOCAL * width
    middle = (near + far) / 2
    x1, x2 = (cols.min() - width / 2) / focal * middle, (cols.max() + 1 - width / 2) / focal * middle
    y1, y2 = (rows.min() - height / 2) / focal * middle, (rows.max() + 1 - height / 2) / focal * middle
    deep = max(far - near, (x2 - x1) / 4)
    center, size = ((x1 + x2) / 2, (y1 + y2) / 2, near + deep / 2), (x2 - x1, y2 - y1, deep)
    rounded = [tuple(round(float(v), 6) for v in numbers) for numbers in (center, size)]
    return Cuboid((rounded[0][0], rounded[0][1], rounded[0][2]), (rounded[1][0], rounded[1][1], rounded[1][2]))


def _corners(box: Box) -> list[float]:
    return [round(v, 3) for v in (box.x1, box.y1, box.x2, box.y2)]


# ---- what earlier steps have left ------------------------------------------------------------------


def _planned(draft: Draft) -> tuple[Any, Layout]:
    if draft.story is None or draft.layout is None:
        raise InputError("the sample has no plan.")
    return draft.story, draft.layout


def _picture(draft: Draft) -> np.ndarray:
    if draft.picture is None:
        raise InputError("the sample has no picture.")
    return draft.picture


def _found(part: Part) -> Found:
    if part.found is None:
        raise InputError("the subject was not looked for.")
    return part.found


def _own(part: Part) -> Cutting:
    if part.own is None:
        raise InputError("the subject was not cut out.")
    return part.own


STEPS: tuple[tuple[str, Callable[..., Draft]], ...] = (
    ("writer", plan), ("painter", paint), ("segmenter", look), ("editor", edit), ("segmenter", cut), ("depth", measure),
    ("identity", judge),
)  # fmt: skip
