"""Creatures as flat things in cuboids that stand on a ground plane.

The camera is level, at height 1 over the ground (the plane y = 1); its focal length is the side of the picture (a field
of view of 53 degrees), its principal point the middle. A creature lies in its cuboid's middle plane: it leans by the
cuboid's roll, and the cuboid's turn about the vertical narrows it.
"""

from __future__ import annotations

import math

from ...methods.sigma_gen.cuboids import Cuboid

GROUND = 1.0


def standing(x: float, z: float, size: tuple[float, float, float], yaw: float, roll: float) -> Cuboid:
    """A cuboid whose lowest corner touches the ground."""
    lowest = float(Cuboid((x, 0.0, z), size, yaw, 0.0, roll).corners()[:, 1].max())
    return Cuboid((x, GROUND - lowest, z), size, yaw, 0.0, roll)


def around(box: tuple[int, int, int, int], z: float, depth: float, picture: int) -> Cuboid:
    """An upright cuboid that faces the camera and whose middle plane, at distance z, fills a box."""
    scale = z / picture
    x1, y1, x2, y2 = box
    center = ((x1 + x2 - picture) / 2 * scale, (y1 + y2 - picture) / 2 * scale, z)
    return Cuboid(center, ((x2 - x1) * scale, (y2 - y1) * scale, depth))


def middle_box(cuboid: Cuboid, picture: int) -> tuple[int, int, int, int]:
    """The whole pixels that hold the creature in a cuboid, xyxy half-open; picture: side in pixels."""
    x, y, z = cuboid.center
    scale = picture / z
    half_w, half_h = cuboid.size[0] / 2 * math.cos(math.radians(cuboid.yaw)) * scale, cuboid.size[1] / 2 * scale
    c, s = _lean(cuboid)
    w, h = half_w * c + half_h * s, half_w * s + half_h * c
    left, top = round(picture / 2 + x * scale - w), round(picture / 2 + y * scale - h)
    return left, top, left + max(1, round(2 * w)), top + max(1, round(2 * h))


def half_size(cuboid: Cuboid, width: int, height: int) -> tuple[float, float]:
    """Half sizes in pixels, before it leans, of the creature whose box is width x height pixels: the inverse of
    `middle_box` at the same lean."""
    c, s = _lean(cuboid)
    determinant = c * c - s * s
    return (c * width - s * height) / 2 / determinant, (c * height - s * width) / 2 / determinant


def _lean(cuboid: Cuboid) -> tuple[float, float]:
    lean = math.radians(cuboid.roll)
    return abs(math.cos(lean)), abs(math.sin(lean))
