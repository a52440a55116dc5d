"""The checks that every number and text from outside goes through, and how errors show a value."""

from __future__ import annotations

import math
import unicodedata

from ..errors import InputError

MAX_COORDINATE = 1e6
MAX_LABEL = 200


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
    text = repr(value) if isinstance(value, str) else " ".join(repr(value).split())  # an array's has many lines
    if not text.isprintable():
        text = ascii(text)[1:-1]
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
