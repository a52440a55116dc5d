"""A box with depth: a cuboid in the scene, and the camera that sees it.

Scene units: x to the right, z away from the camera, y upwards; the ground is y = 0, the camera stands above the origin.
Angles in degrees. The box of an instance with a solid is the solid's projection, clipped to the canvas.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..errors import InputError
from ..input.checks import MAX_COORDINATE, finite_number, hundredths, plain_number, shorten
from .box import Box

NEAR = 0.05  # nothing closer to the camera's plane is seen
SAME = 0.015  # pixels within which a box still is the one that a solid was projected to


@dataclass(frozen=True)
class Camera:
    """focal: focal length in widths of the canvas. height: above the ground. pitch: positive looks down."""

    focal: float = 1.0
    height: float = 1.0
    pitch: float = 0.0


@dataclass(frozen=True)
class Solid:
    """x, z: where its middle stands; y: its bottom above the ground; width, height, depth: above 0."""

    x: float
    z: float
    width: float
    height: float
    depth: float
    y: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


_KEYS = {"x": "x", "z": "z", "y": "y", "w": "width", "h": "height", "d": "depth"}
_KEYS |= {name: name for name in ("yaw", "pitch", "roll")}


def read_solid(value: object, box: Box, where: str) -> Solid | None:
    """The solid of a box, None where there is none or where the box was moved by a reader that knows no solids.

    Raises InputError naming the box and the field.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError(f"{where} has solid = {shorten(value)}; give an object with x, z, w, h, d and at.")
    at = value.get("at")
    if not isinstance(at, Sequence) or isinstance(at, str) or len(at) != 4:
        raise InputError(f"{where} has solid.at = {shorten(at)}; give the four numbers x, y, w, h of the box.")
    corner = [finite_number(side, where, "solid.at") for side in at]
    numbers = {}
    for key, name in _KEYS.items():
        if key not in value and key in ("x", "z", "w", "h", "d"):
            raise InputError(f'{where} has a solid without "{key}"; give x, z, w, h and d.')
        numbers[name] = finite_number(value.get(key, 0.0), where, f"solid.{key}")
    solid = Solid(**numbers)
    if min(solid.width, solid.height, solid.depth) <= 0:
        raise InputError(
            f"{where} has a solid of {solid.width:g} x {solid.height:g} x {solid.depth:g}; give sizes above 0."
        )
    sides = (box.x1, box.y1, hundredths(box.x2 - box.x1), hundredths(box.y2 - box.y1))
    return solid if all(abs(a - b) < SAME for a, b in zip(sides, corner, strict=True)) else None


def write_solid(solid: Solid, corner: Sequence[float]) -> dict[str, object]:
    """The solid as it stands in the layout's JSON; corner: x, y, w, h of the box, as they are written."""
    written: dict[str, object] = {key: short_number(getattr(solid, name)) for key, name in _KEYS.items()}
    return {**written, "at": [short_number(side) for side in corner]}


def read_camera(value: object) -> Camera:
    """The layout's camera; what is left out is the default."""
    if value is None:
        return Camera()
    if not isinstance(value, Mapping):
        raise InputError(f"the layout has camera = {shorten(value)}; give an object with focal, height and pitch.")
    numbers = {}
    for field in fields(Camera):
        number = plain_number(value.get(field.name, field.default))
        low, high = (-89.0, 89.0) if field.name == "pitch" else (0.0, 1000.0)
        if number is None or not low <= number <= high or (number == 0 and field.name != "pitch"):
            raise InputError(
                f"the layout has camera.{field.name} = {shorten(value.get(field.name))}; "
                f"give a number {'from -89 to' if field.name == 'pitch' else 'above 0, up to'} {high:g}."
            )
        numbers[field.name] = float(number)
    return Camera(**numbers)


def short_number(value: float) -> int | float:
    """20, not 20.0: JavaScript knows only one kind of number."""
    return int(value) if value == int(value) and abs(value) <= MAX_COORDINATE else value


# --- projection -----------------------------------------------------------------------------------


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """float64 (3, 3), Ry(yaw) Rx(pitch) Rz(roll): from a box's axes to x right, y down, z forward."""
    (cy, sy), (cp, sp), (cr, sr) = (
        (math.cos(angle), math.sin(angle)) for angle in (math.radians(degrees) for degrees in (yaw, pitch, roll))
    )
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def seen_from(solid: Solid, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Centre float64 (3,) and rotation float64 (3, 3) of a solid in the camera's axes: x right, y down, z forward.

    The lowest corner of the turned solid is y above the ground, the middle of what it stands on at x, z.
    """
    turned = rotation(solid.yaw, solid.pitch, solid.roll)
    half = np.array([solid.width, solid.height, solid.depth]) / 2
    centre = np.array([solid.x, camera.height - solid.y - np.abs(turned[1]) @ half, solid.z])
    looking = rotation(0.0, camera.pitch)
    return looking @ centre, looking @ turned


Point = tuple[float, float]


def outline(solid: Solid, camera: Camera, width: int, height: int) -> list[Point]:
    """A solid's silhouette as a convex polygon in pixels, not cut off by the canvas; empty behind the near plane."""
    centre, turned = seen_from(solid, camera)
    sides = np.array([[(number >> axis & 1) - 0.5 for axis in range(3)] for number in range(8)])
    corners = centre + (sides * (solid.width, solid.height, solid.depth)) @ turned.T
    points = [corner for corner in corners if corner[2] >= NEAR]
    for number, axis in itertools.product(range(8), range(3)):
        one, other = corners[number], corners[number ^ 1 << axis]
        if one[2] < NEAR < other[2]:  # the near plane cuts this edge
            points.append(one + (NEAR - one[2]) / (other[2] - one[2]) * (other - one))
    focal = camera.focal * width
    return _hull([(width / 2 + focal * x / z, height / 2 + focal * y / z) for x, y, z in np.array(points).tolist()])


def project(solid: Solid, camera: Camera, width: int, height: int) -> Box | None:
    """The box around what the canvas shows of a silhouette, to 1/100 pixel; None where it shows nothing."""
    polygon = outline(solid, camera, width, height)
    for axis, side, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        polygon = _cut(polygon, axis, side, sign)
    if not polygon:
        return None
    x1, y1, x2, y2 = (hundredths(pick(point[axis] for point in polygon)) for pick in (min, max) for axis in (0, 1))
    return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _hull(points: Sequence[Point]) -> list[Point]:
    """Convex hull, in order."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    halves = []
    for run in (ordered, ordered[::-1]):
        half: list[Point] = []
        for x, y in run:
            while len(half) > 1 and _turn(half[-2], half[-1], (x, y)) <= 0:
                half.pop()
            half.append((x, y))
        halves += half[:-1]
    return halves


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _cut(polygon: Sequence[Point], axis: int, side: float, sign: int) -> list[Point]:
    """What of a convex polygon lies on one side of a line along an axis."""
    kept: list[Point] = []
    for one, other in zip(polygon, (*polygon[1:], *polygon[:1]), strict=True):
        a, b = sign * (one[axis] - side), sign * (other[axis] - side)
        if a >= 0:
            kept.append(one)
        if (a < 0) != (b < 0):
            share = a / (a - b)
            kept.append((one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])))
    return kept


def horizon(camera: Camera, width: int, height: int) -> float:
    """Where the ground ends, y in pixels; it may lie outside of the canvas."""
    return height / 2 - camera.focal * width * math.tan(math.radians(camera.pitch))
