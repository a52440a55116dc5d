"""Cuboids on a ground plane and the camera that sees them (the conventions of SIGMA-GEN's 3D boxes).

The camera is at the origin, x right, y down, z forward, level; the focal length is the side of the picture (a field of
view of 53 degrees), the principal point its middle. The ground is the plane y = 1. A cuboid is turned by
Ry(yaw) Rz(roll): its own x axis leans by `roll` in its picture plane, then turns about the vertical.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GROUND = 1.0


class Cuboid(NamedTuple):
    """centre (x, y, z) and full size (width, height, depth) in the camera's units; yaw and roll in degrees."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0
    roll: float = 0.0

    def rotation(self) -> np.ndarray:
        """float64 (3, 3): from the cuboid's axes to the camera's."""
        yaw, roll = np.deg2rad(self.yaw), np.deg2rad(self.roll)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        return turn @ lean

    def corners(self) -> np.ndarray:
        """float64 (8, 3), in the camera's coordinates."""
        signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
        return signs * self.size @ self.rotation().T + self.centre

    def _middle(self, picture: int) -> tuple[float, float, float, float]:
        """The creature inside, a flat thing in the cuboid's middle plane, seen as if face on but narrowed by the
        turn: centre and half sizes in pixels before it leans."""
        x, y, z = self.centre
        scale = picture / z
        half_w, half_h = self.size[0] / 2 * np.cos(np.deg2rad(self.yaw)) * scale, self.size[1] / 2 * scale
        return picture / 2 + x * scale, picture / 2 + y * scale, half_w, half_h

    def middle_box(self, picture: int) -> tuple[int, int, int, int]:
        """The whole pixels that hold that creature, xyxy half-open."""
        u, v, half_w, half_h = self._middle(picture)
        c, s = abs(np.cos(np.deg2rad(self.roll))), abs(np.sin(np.deg2rad(self.roll)))
        w, h = half_w * c + half_h * s, half_w * s + half_h * c
        left, top = round(u - w), round(v - h)
        return left, top, left + max(1, round(2 * w)), top + max(1, round(2 * h))

    def half_size(self, width: int, height: int) -> tuple[float, float]:
        """Half sizes in pixels, before it leans, of the creature whose box is width x height pixels: the inverse of
        `middle_box` at the same lean."""
        c, s = abs(np.cos(np.deg2rad(self.roll))), abs(np.sin(np.deg2rad(self.roll)))
        determinant = c * c - s * s
        return (c * width - s * height) / 2 / determinant, (c * height - s * width) / 2 / determinant


def standing(x: float, z: float, size: tuple[float, float, float], yaw: float, roll: float) -> Cuboid:
    """A cuboid whose lowest corner touches the ground."""
    upright = Cuboid((x, 0.0, z), size, yaw, roll)
    return Cuboid((x, float(GROUND - upright.corners()[:, 1].max()), z), size, yaw, roll)


def around(box: tuple[int, int, int, int], z: float, depth: float, picture: int) -> Cuboid:
    """An upright cuboid that faces the camera and whose middle plane, at distance z, fills a box."""
    scale = z / picture
    x1, y1, x2, y2 = box
    centre = ((x1 + x2 - picture) / 2 * scale, (y1 + y2 - picture) / 2 * scale, z)
    return Cuboid(centre, ((x2 - x1) * scale, (y2 - y1) * scale, depth))


def project(points: np.ndarray, picture: int) -> np.ndarray:
    """Points (..., 3) in front of the camera to pixels (..., 2): x right, y down, pixel edges at whole numbers."""
    return points[..., :2] / points[..., 2:] * picture + picture / 2
