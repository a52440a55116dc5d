"""3D boxes as silhouettes and depth, by casting one ray through the middle of each pixel.

The camera stands at the origin and looks along +z; x points right, y down, in any one unit of length. The centre of
projection is the middle of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...layout.solid import NEAR, Camera, Solid, rotation, seen_from

if TYPE_CHECKING:
    from ...layout.layout import Layout

EXPONENT = 0.6  # of the depth's grey, as in pictures that the authors made for their follow-up; 1 is plain 1 / z


@dataclass(frozen=True)
class Cuboid:
    """A box in space.

    center  (x, y, z); size: full lengths along its own x, y, z, all above 0
    yaw, pitch, roll  degrees about y, x and z; the rotation is Ry(yaw) Rx(pitch) Rz(roll)

    Raises InputError for a number that is not finite and for a length of 0 or less.
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.center, *self.size, self.yaw, self.pitch, self.roll)
        if len(numbers) != 9 or not all(math.isfinite(number) for number in numbers):
            raise InputError(f"a 3D box has the numbers {numbers}; give nine finite ones: centre, size, three angles.")
        if min(self.size) <= 0:
            raise InputError(f"a 3D box has the size {self.size}; give three lengths above 0.")

    @property
    def rotation(self) -> np.ndarray:
        """float64 (3, 3), from the box's axes to the camera's."""
        return rotation(self.yaw, self.pitch, self.roll)

    def corners(self) -> np.ndarray:
        """float64 (8, 3); bits 0, 1, 2 of a corner's number say whether it is on the +x, +y, +z side."""
        sides = np.array([[(number >> axis & 1) - 0.5 for axis in range(3)] for number in range(8)])
        return np.array(self.center) + (sides * self.size) @ self.rotation.T


def cuboid_of(solid: Solid, camera: Camera) -> Cuboid:
    """A layout's solid as this camera sees it. Its focal length in pixels is ``camera.focal`` times the width."""
    centre, turned = seen_from(solid, camera)
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -turned[1, 2]))))
    if abs(turned[1, 2]) > 1 - 1e-12:  # straight up or down: turn and lean are the same
        yaw, roll = 0.0, math.degrees(math.atan2(-turned[0, 1], turned[0, 0]))
    else:
        yaw = math.degrees(math.atan2(turned[0, 2], turned[2, 2]))
        roll = math.degrees(math.atan2(turned[1, 0], turned[1, 1]))
    x, y, z = centre.tolist()
    return Cuboid((x, y, z), (solid.width, solid.height, solid.depth), yaw, pitch, roll)


def depths(cuboids: Sequence[Cuboid], focal: float, width: int, height: int) -> np.ndarray:
    """Distance z of each box's first surface, float32 (N, height, width), inf where its silhouette is not.

    focal  in pixels, above 0

    A box that the near plane cuts begins there. Raises InputError for another focal length.
    """
    if not (math.isfinite(focal) and focal > 0):
        raise InputError(f"the focal length is {focal}; give a number of pixels above 0, like the picture's width.")
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    rays = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)  # z is 1: a ray's parameter is depth
    return np.stack([_depth(cuboid, rays) for cuboid in cuboids]) if cuboids else np.zeros((0, height, width), "f4")


def _depth(cuboid: Cuboid, rays: np.ndarray) -> np.ndarray:
    """The slab test, in the box's own axes."""
    origin = -np.array(cuboid.center) @ cuboid.rotation
    directions = rays @ cuboid.rotation
    half = np.array(cuboid.size) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-half - origin) / directions, (half - origin) / directions
    # A ray along a slab (0 / 0 on its very border) is not held back by it.
    enters = np.where(np.isnan(one), -np.inf, np.minimum(one, other)).max(axis=-1)
    leaves = np.where(np.isnan(one), np.inf, np.maximum(one, other)).min(axis=-1)
    first = np.maximum(enters, NEAR)
    return np.where(leaves >= first, first, np.inf).astype(np.float32)


def seen_solids(layout: Layout, numbers: Sequence[int]) -> tuple[dict[int, np.ndarray], np.ndarray | None]:
    """Of the instances with these numbers that have a solid: the whole silhouette of each, bool (H, W), and the depth
    of all of them together as grey, uint8 (H, W); None where there is none."""
    solids = {number: solid for number in numbers if (solid := layout.instances[number].solid) is not None}
    if not solids:
        return {}, None
    cuboids = [cuboid_of(solid, layout.camera) for solid in solids.values()]
    z = depths(cuboids, layout.camera.focal * layout.width, layout.width, layout.height)
    return dict(zip(solids, np.isfinite(z), strict=True)), grey_of(z.min(axis=0))


def grey_of(depth: np.ndarray, exponent: float = EXPONENT) -> np.ndarray:
    """Depth z (H, W), inf where nothing is, as uint8: the nearest point 255, all else at least 1, nothing 0.

    ``255 * (nearest / z) ** exponent``, rounded half up.
    """
    seen = np.isfinite(depth)
    if not seen.any():
        return np.zeros(depth.shape, np.uint8)
    z = np.where(seen, depth, 1).astype(np.float64)
    grey = np.floor(255 * (z[seen].min() / z) ** exponent + 0.5)
    return np.where(seen, np.maximum(1, grey), 0).astype(np.uint8)
