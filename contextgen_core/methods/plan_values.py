"""Reads the values of a plan as it comes out of a conditioning: of the types that it was written with, and bounded.

A plan is written as nested tuples and read by the annotations of the NamedTuples that it is made of. Any other node may
have written or changed it, and it decides how much is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..layout.tokens import TokenBox

Fields = TypeVar("Fields", bound=tuple[Any, ...])

MAX_GRID = 1024  # tokens along a side: 16384 pixels
MAX_ENTRIES = 1000
MAX_TEXT = 1 << 16  # tokens of a text
_MOST = 1 << 24  # of any number
_LONGEST = 1 << 20  # letters or bytes


def record(kind: type[Fields], value: object) -> Fields:
    """A NamedTuple from a plain tuple of all its fields. Raises ValueError."""
    hints = _hints(kind)
    if not isinstance(value, tuple) or len(value) != len(hints):
        raise ValueError(kind.__name__)
    return kind(*(_read(hint, part) for hint, part in zip(hints, value, strict=True)))


def records(kind: type[Fields], values: object) -> tuple[Fields, ...]:
    """Several of them. Raises ValueError."""
    if not isinstance(values, tuple) or len(values) > MAX_ENTRIES:
        raise ValueError(kind.__name__)
    return tuple(record(kind, value) for value in values)


def check_whole(*values: object, low: int = 1, high: int = MAX_GRID) -> None:
    """Checks whole numbers from low to high. Raises ValueError."""
    for value in values:
        if type(value) is not int or not low <= value <= high:
            raise ValueError("a number")


def check_windows(entries: Iterable[Any]) -> None:
    """Checks strength, start and end of entries that have them. Raises ValueError."""
    for entry in entries:
        if not (0 <= entry.strength <= _MOST and 0 <= entry.start <= 1 and 0 <= entry.end <= 1):
            raise ValueError("strength or window")


def check_bits(value: bytes, count: int) -> None:
    """Checks ``count`` bytes of 0 or 1. Raises ValueError."""
    if len(value) != count or value.translate(None, b"\0\1"):
        raise ValueError("bits")


def check_inside_grid(box: TokenBox, width: int, height: int) -> None:
    """Checks a box on a grid of tokens; it may be empty. Raises ValueError."""
    if not (0 <= box.x1 <= width and 0 <= box.x2 <= width and 0 <= box.y1 <= height and 0 <= box.y2 <= height):
        raise ValueError("a box beyond the grid")


@lru_cache(maxsize=64)
def _hints(kind: type[Any]) -> tuple[Any, ...]:
    return tuple(get_type_hints(kind).values())


def _read(hint: Any, value: object) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not NoneType)
        return _read(hint, value)
    if origin is tuple:
        if not isinstance(value, tuple) or len(value) != len(arguments):
            raise ValueError("a tuple")
        return tuple(_read(argument, part) for argument, part in zip(arguments, value, strict=True))
    if hasattr(hint, "_fields"):
        return record(hint, value)
    if hint is float and type(value) is int:
        value = float(value) if abs(value) <= _MOST else math.nan
    if type(value) is not hint:
        raise ValueError(hint)
    if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= _MOST):
        raise ValueError("a number that is not finite, or too large")
    if (isinstance(value, int) and abs(value) > _MOST) or (isinstance(value, (str, bytes)) and len(value) > _LONGEST):
        raise ValueError("too large")
    return value
