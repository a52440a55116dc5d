"""Where each subject stands, and how deep: boxes, ellipses, masks and 3D boxes of one layout, mixed as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...input.checks import shorten
from ...layout.layout import box_name
from .control import Cell, box_region, ellipse_region, nearest
from .cuboids import seen_solids

if TYPE_CHECKING:
    from ...layout.layout import Layout

SHAPES = {"box": box_region, "ellipse": ellipse_region}
ORDERS = ("layout", "all visible")
SCALES = ("as given", "nearest white")
STRETCH = 0.02  # by which the sides' ratio of a picture may differ from the layout's


@dataclass(frozen=True, eq=False)
class ControlOptions:
    """How the two pictures are drawn; regions are those of the boxes with a reference, in the layout's order.

    cell    of one identity, in pixels
    shape   of a region without a mask: box or ellipse; one for all, or one for each. That of a 3D box is its
            silhouette, whatever covers it
    masks   regions drawn exactly, bool (N, h, w), one for each box with a reference; an empty one leaves it to the
            shape. Another size than the canvas' is scaled to it
    depth   near bright, 0 = nothing: uint8 (h, w) of the whole scene, or (N, h, w) with one for each box with a
            reference, an empty one (all 0) where it has none. Without it that of the layout's 3D boxes
    scale   of the depth: as given, or so that the nearest point of all is white
    whole   keep the depth outside of the regions
    order   of the subjects: the layout's, or one in which all of them are visible in a plane, if there is one
    """

    cell: Cell = Cell()
    shape: str | Sequence[str] = "box"
    masks: np.ndarray | None = None
    depth: np.ndarray | None = None
    scale: str = SCALES[0]
    whole: bool = False
    order: str = ORDERS[0]

    def __post_init__(self) -> None:
        for name, value, options in (
            *(("shape", shape, tuple(SHAPES)) for shape in self.shapes),
            ("order", self.order, ORDERS),
            ("scale of the depth", self.scale, SCALES),
        ):
            if value not in options:
                raise InputError(f"the {name} is {shorten(value)}; choose one of {', '.join(options)}.")

    @property
    def shapes(self) -> tuple[str, ...]:
        return (self.shape,) if isinstance(self.shape, str) else tuple(self.shape)


def regions_and_depth(
    layout: Layout, subjects: Sequence[int], options: ControlOptions
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Of the instances with these numbers: their regions, bool (N, H, W); the depth plane uint8 (H, W), near bright,
    None without any; and warnings.

    Raises InputError for as many shapes, masks or depths as fit nobody, and for pictures of another form than the
    layout's.
    """
    shapes = options.shapes if len(options.shapes) > 1 else options.shapes * len(subjects)
    if len(shapes) != len(subjects):
        raise InputError(
            f"there are {len(shapes)} shapes for {len(subjects)} boxes with a reference; give one for each."
        )
    silhouettes, rendered = seen_solids(layout, subjects)
    regions = np.stack(
        [
            silhouettes[number] if number in silhouettes else _drawn(layout, number, shape)
            for number, shape in zip(subjects, shapes, strict=True)
        ]
    )
    if options.masks is not None:
        regions = _with_masks(regions, options.masks, layout)
    if options.depth is None:
        return regions, rendered, []
    given = options.depth if options.depth.ndim == 3 else options.depth[None]
    scaled = np.stack([_fitted(one, layout.width, layout.height, "depth picture", "depth") for one in given])
    if options.scale != SCALES[0] and scaled.any():
        scaled = np.floor(scaled * (255 / scaled.max()) + 0.5).astype(np.uint8)
    if len(scaled) == 1:
        return regions, scaled[0], _flat(scaled[0], "the depth")
    if len(scaled) != len(subjects):
        raise InputError(
            f"there are {len(scaled)} depth pictures for {len(subjects)} boxes with a reference; give one for each, or"
            " one for the whole scene.",
            input="depth",
        )
    warnings = []
    for number, depth, region in zip(subjects, scaled, regions, strict=True):
        if depth.any() and region.any():
            where = box_name(number + 1, layout.instances[number].id)
            warnings += _flat(depth[region], f"the depth of {where}")
    own = [_of_subject(depth, region, rendered) for depth, region in zip(scaled, regions, strict=True)]
    return regions, np.max(own, axis=0), warnings  # the nearest wins


def _drawn(layout: Layout, number: int, shape: str) -> np.ndarray:
    instance = layout.instances[number]
    return SHAPES[shape](instance.box, layout.width, layout.height, instance.rotation)


def _with_masks(regions: np.ndarray, masks: np.ndarray, layout: Layout) -> np.ndarray:
    if len(masks) != len(regions):
        raise InputError(f"there are {len(masks)} masks for {len(regions)} boxes with a reference; give one for each.")
    drawn = [
        _fitted(mask, layout.width, layout.height, "mask", "masks") if mask.any() else region
        for mask, region in zip(masks, regions, strict=True)
    ]
    return np.stack(drawn)


def _fitted(picture: np.ndarray, width: int, height: int, what: str, source: str) -> np.ndarray:
    """A plane at the layout's size by its nearest pixels. Raises InputError where that would distort it."""
    rows, columns = picture.shape
    if abs(columns * height / (rows * width) - 1) > STRETCH:
        raise InputError(
            f"a {what} is {columns} x {rows} pixels, the layout {width} x {height}; give one with sides of the same"
            " ratio.",
            input=source,
        )
    return nearest(picture, width, height)


def _of_subject(depth: np.ndarray, region: np.ndarray, rendered: np.ndarray | None) -> np.ndarray:
    """A subject's depth inside its region; of its 3D box, if it has one, where no picture is given."""
    if not depth.any() and rendered is not None:
        depth = rendered
    return np.where(region, depth, 0).astype(np.uint8)


def _flat(depth: np.ndarray, what: str) -> list[str]:
    low, high = int(depth.min()), int(depth.max())
    return [f"{what} is {low} everywhere and says nothing about pose."] if low == high else []
