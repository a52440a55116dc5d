"""A rectangle in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Box:
    """A half-open rectangle x1 <= x < x2, y1 <= y < y2 in pixels, origin top-left.

    Coordinates are finite floats. Zero area is allowed, because clipping can produce it; an inverted or
    non-finite rectangle raises InputError.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        corners = tuple(float(v) for v in (self.x1, self.y1, self.x2, self.y2))
        if not all(math.isfinite(v) for v in corners):
            raise InputError(f"a box has the corners {corners}; give finite numbers.")
        if corners[2] < corners[0] or corners[3] < corners[1]:
            raise InputError(f"a box has the corners {corners}; give left, top, right, bottom in this order.")
        for name, value in zip(("x1", "y1", "x2", "y2"), corners, strict=True):
            object.__setattr__(self, name, value)

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """(x, y)."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def scaled(self, sx: float, sy: float) -> Box:
        """Multiply x by sx and y by sy (both positive)."""
        return Box(self.x1 * sx, self.y1 * sy, self.x2 * sx, self.y2 * sy)

    def clipped(self, width: float, height: float) -> Box:
        """The part inside 0..width, 0..height; of zero area when there is none."""
        return Box(
            min(max(self.x1, 0.0), width),
            min(max(self.y1, 0.0), height),
            min(max(self.x2, 0.0), width),
            min(max(self.y2, 0.0), height),
        )
