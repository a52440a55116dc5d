"""A box with depth: a cuboid in the scene, and the camera that sees it.

Scene units: x to the right, z away from the camera, y upwards; the ground is y = 0, the camera stands above the origin.
Angles in degrees. The box of an instance with a solid is the solid's projection, clipped to the canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from ..errors import InputError
from ..input.checks import MAX_COORDINATE, finite_number, hundredths, plain_number, shorten
from .box import Box

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
