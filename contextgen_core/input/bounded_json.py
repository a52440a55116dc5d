"""JSON from strangers: bounded in size and nesting before it reaches the parser."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from ..errors import InputError
from .checks import shorten

MAX_JSON_BYTES = 65536
MAX_NESTING = 8

_STRINGS = re.compile(r'"(?:[^"\\]|\\[\s\S])*"')
_LONGEST_INT = 300  # digits; beyond it int() becomes slow and finally refuses


class Parsed(NamedTuple):
    """`value` as json.loads gives it. `literals`: the NaN and Infinity met, which are not JSON; they stand
    in `value` as floats, so that a reader can name the place first."""

    value: object
    literals: tuple[str, ...]


def nesting(text: str) -> int:
    """Deepest level of open brackets outside strings, at least what a parser would reach."""
    depth = deepest = 0
    for character in re.sub(r"[^\[\]{}]", "", _STRINGS.sub("", text)):
        depth += 1 if character in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def parse(text: str | bytes, what: str, max_bytes: int = MAX_JSON_BYTES) -> Parsed:
    """Parse text; `what` opens the sentence of an InputError, as in "the layout"."""
    # A character is at least one byte, so nothing larger than the limit is ever encoded or scanned.
    size = len(text)
    if isinstance(text, str) and size <= max_bytes:
        size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise InputError(f"{what} is {size} bytes of text, the limit is {max_bytes}; remove what is not a box.")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{what} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    depth = nesting(text)
    if depth > MAX_NESTING:
        raise InputError(f"{what} is nested {depth} levels deep, the limit is {MAX_NESTING}; flatten it.")
    literals: list[str] = []

    def literal(name: str) -> float:
        literals.append(name)
        return float(name.replace("Infinity", "inf"))

    def integer(digits: str) -> int | float:
        return int(digits) if len(digits) <= _LONGEST_INT else float(digits)

    try:
        value = json.loads(text, parse_constant=literal, parse_int=integer)
    except ValueError as error:
        # The place is the part of the parser's message that helps; its wording differs between versions.
        place = f"line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number"
        start = shorten(text.strip())
        raise InputError(f"{what} is not JSON (it fails at {place}): {start}; correct it or empty the field.") from None
    return Parsed(value, tuple(literals))
