"""Rectangles, and the checks every number and text from outside goes through."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from .errors import InputError

MAX_COORDINATE = 1e6
MAX_LABEL = 200


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

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1; 0 when both are empty."""
        w = min(self.x2, other.x2) - max(self.x1, other.x1)
        h = min(self.y2, other.y2) - max(self.y1, other.y1)
        if w <= 0 or h <= 0:
            return 0.0
        return w * h / (self.area + other.area - w * h)


def hundredths(value: float) -> float:
    """Round to 1/100 as JavaScript does it too, floor(v * 100 + 0.5) / 100; Python's round() does not."""
    return math.floor(value * 100 + 0.5) / 100


def shorten(value: object, limit: int = 40) -> str:
    """A value as errors show it: the spelling of JSON where there is one, never longer than limit."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 70 digits"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        value = value[: limit + 1]
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def plain_number(value: object) -> int | float | None:
    """A Python number from a number, NumPy scalar or zero-dimensional tensor; None for all else and bools."""
    if not isinstance(value, (int, float)) and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value


def finite_number(value: object, where: str, name: str, limit: float = MAX_COORDINATE) -> float:
    """A finite float with |value| <= limit, or InputError: `where` names the box, `name` the field."""
    number = plain_number(value)
    if number is None:
        raise InputError(f"{where} has {name} = {shorten(value)}; give a number.")
    # An int beyond the range of a float must not reach float(): compare first. NaN fails the comparison too.
    if not -limit <= number <= limit:
        raise InputError(
            f"{where} has {name} = {shorten(number)}; give a finite number between -{limit:.0f} and {limit:.0f}."
        )
    return float(number)


def has_control_characters(text: str) -> bool:
    """True for control characters and lone surrogates, which no name needs and no file format carries."""
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
