"""SIGMA-GEN's control pictures as training shows them: one kind of region in a picture, made inexact on purpose.

The paper (section on training): regions are exact masks with depth, silhouettes of 3D boxes with their depth, or 2D
boxes without; masks and boxes are dilated at random, boxes change their aspect by about 1 %, and with a probability of
0.1 one of the three channels is dropped. How far masks are dilated is not published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..layout.box import Box
from ..masks import grow
from ..methods.sigma_gen.control import box_region, control_picture, ellipse_region
from .config import RoutingConfig

TRAINED = ("mask", "cuboid", "box")  # the published kinds
KINDS = (*TRAINED, "silhouette", "ellipse")  # the others judge: masks without depth, and a shape that training lacks


class Regions(NamedTuple):
    """masks: bool (N, H, W), by subject, may overlap; depth: uint8 (H, W), near bright, 0 = nothing, or None."""

    masks: np.ndarray
    depth: np.ndarray | None


class Routing(NamedTuple):
    """A control picture uint8 (H, W, 3), and the subject of each row of the stack, (N,)."""

    picture: np.ndarray
    order: np.ndarray


def draw_kind(rng: np.random.Generator, shares: Mapping[str, float], kinds: Sequence[str] = KINDS) -> str:
    """One kind of region by its share among those that a picture has."""
    weights = np.array([shares.get(kind, 0.0) for kind in kinds])
    if not weights.sum() > 0:
        raise InputError(
            f"routing.regions names none of {', '.join(kinds)}, which is what the data has; give one of them a share."
        )
    return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def box_regions(boxes: Sequence[Box], width: int, height: int, kind: str = "box") -> Regions:
    """Regions that 2D boxes (pixels) cover, as boxes or as the ellipses in them."""
    shape = ellipse_region if kind == "ellipse" else box_region
    return Regions(np.stack([shape(box, width, height) for box in boxes]), None)


def jittered(box: Box, rng: np.random.Generator, settings: RoutingConfig, side: int) -> Box:
    """The box about its middle, its sides changed by up to `jitter` against each other and grown by up to `dilation`
    of the picture's side."""
    aspect, more = rng.uniform(-settings.jitter, settings.jitter), rng.uniform(0, settings.dilation) * side
    (cx, cy), w, h = box.center, box.width * (1 + aspect) / 2 + more, box.height * (1 - aspect) / 2 + more
    return Box(cx - w, cy - h, cx + w, cy + h)


def dilated(masks: np.ndarray, rng: np.random.Generator, settings: RoutingConfig) -> np.ndarray:
    """Each mask grown by its own random radius."""
    most = round(settings.dilation * max(masks.shape[1:]))
    radii = rng.integers(0, most + 1, len(masks))
    grown = (grow(np.where(m, np.uint8(255), np.uint8(0)), int(r)) > 0 for m, r in zip(masks, radii, strict=True))
    return np.stack(list(grown))


def route(regions: Regions, settings: RoutingConfig, rng: np.random.Generator | None) -> Routing:
    """The control picture of regions. With `rng` as in training: subjects in a random order of the stack, so that no
    cell has a meaning of its own, and at times without one of the channels."""
    count = len(regions.masks)
    order = np.arange(count) if rng is None else rng.permutation(count)
    picture = control_picture(regions.masks[order], regions.depth)
    if settings.planes == "one":
        picture[..., 1] = 0
    elif settings.planes == "unnamed":
        picture[..., :2] = np.where(picture[..., :2] > 0, np.uint8(10), np.uint8(0))
    if rng is not None and rng.random() < settings.drop:
        picture[..., int(rng.integers(3))] = 0
    return Routing(picture, order)
