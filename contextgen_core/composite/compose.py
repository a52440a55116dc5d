"""The composite: every subject cut out, placed into its box, painted bottom to top on grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import InputError
from ..input.checks import shorten
from ..layout.layout import FITS, MAX_STRENGTH, Instance, Layout, box_name
from ..layout.tokens import TOKEN
from .ordering import Patch, overlap_order
from .placement import Cutout, paste_rect, placed
from .references import GREY, Reference

__all__ = ["FITS", "MISSING", "ORDERS", "Scene", "compose", "paste_rect"]

ORDERS = ("drawn", "automatic")
MISSING = LEAVE_OUT, ERROR = "leave out", "error"
CUT_OFF_WARNING = 0.1  # share of a subject beyond the canvas from which on it is worth a sentence
MOSTLY_HIDDEN = 0.05


@dataclass(frozen=True, eq=False)
class Scene:
    """A layout with its references bound and painted.

    layout: as it was given, but that hidden instances have lost their words: nothing may be bound to them.
    references: aligned with layout.instances, with the instance's strength in them; None for an instance described by
        the prompt alone, and for a hidden one.
    composite: uint8 (H, W, 3) of the layout's canvas, grey 128 where nothing is painted.
    painted: indices of the instances with a reference, bottom first.
    visible: per instance, the share 0..1 of its subject's pixels that ends up in the composite, neither
        covered nor beyond the canvas; 0 without a reference; 1 under an own composite, where it is unknown.
    warnings: full sentences.
    """

    layout: Layout
    references: tuple[Reference | None, ...]
    composite: np.ndarray
    painted: tuple[int, ...]
    visible: tuple[float, ...]
    warnings: tuple[str, ...]
    fit: str


def compose(
    layout: Layout,
    references: Sequence[Reference],
    fit: str = "instance",
    order: str = "drawn",
    own_composite: np.ndarray | None = None,
    missing: str = ERROR,
) -> Scene:
    """Bind references to boxes and paint the composite.

    fit: how a subject fills its box, see placement. order: "drawn" keeps the layout's order, "automatic" puts
        the larger and the more overlapped below. A reference may be bound to several boxes.
    own_composite: uint8 (h, w, 3 or 4), used instead, resized to the canvas, grey where its alpha is empty.
    missing: "leave out" hides the boxes of references that are not in the bundle, with a warning.
    Raises InputError for an unknown fit, order or missing, and for a reference that is missing (unless left out).
    """
    if fit not in FITS:
        raise InputError(f"the fit is {shorten(fit)}; choose one of {', '.join(FITS)}.")
    if order not in ORDERS:
        raise InputError(f"the order is {shorten(order)}; choose one of {', '.join(ORDERS)}.")
    if missing not in MISSING:
        raise InputError(f"missing is {shorten(missing)}; choose one of {', '.join(MISSING)}.")
    absent: list[str] = []
    if missing == LEAVE_OUT and references:
        layout, absent = _without_missing(layout, references)
    layout = _without_hidden_words(layout)
    bound = _bound(layout, references)
    warnings = [*absent, *_box_warnings(layout), *_unused_warnings(layout, references, bound)]
    bound = tuple(map(_strengthened, layout.instances, bound))
    drawn = tuple(index for index, reference in enumerate(bound) if reference is not None)
    if own_composite is not None:
        composite = _own(own_composite, layout.width, layout.height)
        visible = tuple(0.0 if reference is None else 1.0 for reference in bound)
        return Scene(layout, bound, composite, drawn, visible, tuple(warnings), fit)
    cutouts = [
        None if reference is None else placed(instance, reference, layout, fit)
        for instance, reference in zip(layout.instances, bound, strict=True)
    ]
    painted = drawn
    if order == "automatic":
        patches = [_on_canvas(cutouts[index], layout) for index in drawn]
        painted = tuple(drawn[position] for position in overlap_order(patches))
    composite, counts = _painted(layout, cutouts, painted)
    totals = [0 if cutout is None else int(cutout.mask.sum()) for cutout in cutouts]
    visible = tuple(count / total if total else 0.0 for count, total in zip(counts, totals, strict=True))
    for index in drawn:
        warnings.extend(_subject_warnings(layout, index, bound, cutouts[index], visible[index]))
    return Scene(layout, bound, composite, painted, visible, tuple(warnings), fit)


# --- binding --------------------------------------------------------------------------------------


def _without_missing(layout: Layout, references: Sequence[Reference]) -> tuple[Layout, list[str]]:
    """The layout with the boxes hidden whose reference is not there, and a sentence on each."""
    instances, absent = [], []
    for position, instance in enumerate(layout.instances, 1):
        try:
            if instance.reference is not None and not instance.hidden:
                _found(instance, box_name(position, instance.id), references)
        except InputError as error:
            absent.append(f"{error.message} It is left out.")
            instance = replace(instance, hidden=True)
        instances.append(instance)
    return replace(layout, instances=tuple(instances)), absent


def _without_hidden_words(layout: Layout) -> Layout:
    if not any(instance.hidden and instance.label for instance in layout.instances):
        return layout
    instances = (replace(one, label="") if one.hidden else one for one in layout.instances)
    return replace(layout, instances=tuple(instances))


def _strengthened(instance: Instance, reference: Reference | None) -> Reference | None:
    if reference is None or instance.strength == 1:
        return reference
    return replace(reference, strength=min(MAX_STRENGTH, reference.strength * instance.strength))


def _bound(layout: Layout, references: Sequence[Reference]) -> tuple[Reference | None, ...]:
    return tuple(
        None
        if instance.reference is None or instance.hidden
        else _found(instance, box_name(position, instance.id), references)
        for position, instance in enumerate(layout.instances, 1)
    )


def _found(instance: Instance, where: str, references: Sequence[Reference]) -> Reference:
    wanted = instance.reference
    if not references:
        raise InputError(
            f"{where} uses reference {shorten(wanted)}, but no references are connected; connect a reference bundle."
        )
    if isinstance(wanted, int):
        if wanted <= len(references):
            return references[wanted - 1]
        raise InputError(
            f"{where} uses reference number {wanted}, but there are only {len(references)}; bind it to another one."
        )
    found = [reference for reference in references if reference.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{where} uses reference {shorten(wanted)}, but {len(found)} references have that name; rename them."
        )
    names = ", ".join(shorten(reference.name, 24) for reference in references[:8])
    more = ", ..." if len(references) > 8 else ""
    raise InputError(
        f"{where} uses reference {shorten(wanted)}, but the bundle holds only {names}{more}; bind it to one of those."
    )


# --- painting -------------------------------------------------------------------------------------


def _windows(x: int, y: int, mask: np.ndarray, layout: Layout) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The slices of the canvas and of the patch where both exist, rows first; empty when they do not meet."""
    h, w = mask.shape
    x1, y1 = min(max(x, 0), layout.width), min(max(y, 0), layout.height)
    x2, y2 = max(min(x + w, layout.width), x1), max(min(y + h, layout.height), y1)
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - y, y2 - y), slice(x1 - x, x2 - x))


def _on_canvas(cutout: Cutout | None, layout: Layout) -> Patch:
    if cutout is None:
        return Patch(0, 0, np.zeros((0, 0), bool))
    canvas, patch = _windows(cutout.x, cutout.y, cutout.mask, layout)
    return Patch(canvas[1].start, canvas[0].start, cutout.mask[patch])


def _painted(layout: Layout, cutouts: Sequence[Cutout | None], painted: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """The composite, and how many pixels of it each instance owns."""
    composite = np.full((layout.height, layout.width, 3), GREY, np.uint8)
    owner = np.zeros((layout.height, layout.width), np.uint8)  # 0 = nobody, else index + 1
    for index in painted:
        cutout = cutouts[index]
        if cutout is None:
            continue
        canvas, patch = _windows(cutout.x, cutout.y, cutout.mask, layout)
        mask = cutout.mask[patch]
        pixels, opacity = cutout.pixels[patch], layout.instances[index].opacity
        if opacity < 1:
            below = composite[canvas].astype(np.float32)
            pixels = (below + (pixels - below) * np.float32(opacity) + 0.5).astype(np.uint8)
        np.copyto(composite[canvas], pixels, where=mask[..., None])
        owner[canvas][mask] = index + 1
    counts = np.bincount(owner.ravel(), minlength=len(cutouts) + 1)
    return composite, [int(count) for count in counts[1:]]


def _own(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (3, 4):
        raise InputError(
            f"the own composite has shape {picture.shape} {picture.dtype}; give uint8 (height, width, 3 or 4)."
        )
    rgb = np.ascontiguousarray(picture[..., :3])
    if rgb.shape[:2] != (height, width):
        rgb = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))
    if picture.shape[2] == 3:
        return rgb.copy()
    alpha = Image.fromarray(np.ascontiguousarray(picture[..., 3]))
    share = np.asarray(alpha.resize((width, height), Image.Resampling.NEAREST), np.float32)[..., None] / 255
    return (GREY + (rgb.astype(np.float32) - GREY) * share + 0.5).astype(np.uint8)


# --- warnings -------------------------------------------------------------------------------------


def _box_warnings(layout: Layout) -> list[str]:
    found: list[str] = []
    for position, instance in enumerate(layout.instances, 1):
        if instance.hidden:
            continue
        box = instance.region.clipped(layout.width, layout.height)
        if box.width < TOKEN or box.height < TOKEN:
            found.append(
                f"{box_name(position, instance.id)} is {box.width:.4g} x {box.height:.4g} pixels inside the "
                f"canvas, smaller than a token of {TOKEN} x {TOKEN}; enlarge it."
            )
        elif not instance.rotation and box.area < (1 - CUT_OFF_WARNING) * instance.box.area:
            found.append(
                f"{box_name(position, instance.id)} has only {box.area / instance.box.area:.0%} of its area "
                "inside the canvas; its subject is fitted to that part."
            )
    return found


def _unused_warnings(layout: Layout, references: Sequence[Reference], bound: Sequence[Reference | None]) -> list[str]:
    # What is bound to hidden boxes alone is left out on purpose.
    meant = {instance.reference for instance in layout.instances if instance.hidden}
    used = {id(reference) for reference in bound}
    used |= {id(reference) for n, reference in enumerate(references, 1) if n in meant or reference.name in meant}
    return [
        f"reference {shorten(reference.name)} is bound to no box and has no effect."
        for reference in references
        if id(reference) not in used
    ]


def _subject_warnings(
    layout: Layout, index: int, bound: Sequence[Reference | None], cutout: Cutout | None, visible: float
) -> list[str]:
    reference = bound[index]
    if cutout is None or reference is None:
        return []
    name = f"{box_name(index + 1, layout.instances[index].id)} with reference {shorten(reference.name)}"
    total = int(cutout.mask.sum())
    inside = int(_on_canvas(cutout, layout).mask.sum())
    if not total:
        return [f"{name} leaves no pixel of its subject at this size; enlarge it."]
    if not inside:
        return [f"{name} has its subject wholly outside the canvas; move it inside."]
    found: list[str] = []
    if inside < (1 - CUT_OFF_WARNING) * total:
        found.append(f"{name} has {1 - inside / total:.0%} of its subject cut off by the edge of the canvas.")
    covered = visible * total / inside
    if not covered:
        found.append(f"{name} is fully hidden behind the subjects in front of it; move it, or bring it forward.")
    elif covered < MOSTLY_HIDDEN:
        found.append(f"{name} shows only {covered:.1%} of its subject, the rest is covered by others in front of it.")
    return found
