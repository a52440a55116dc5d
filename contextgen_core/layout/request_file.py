"""The authors' request file, segment_info.json: captions, boxes, and the pictures bound to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import finite_number, shorten
from .box import Box
from .foreign_boxes import MAX_BOXES, check_inside, corner_box, four_numbers

MAX_REQUEST_BYTES = 16 << 20


@dataclass(frozen=True)
class RequestInstance:
    """image, mask: paths as written in the file, not opened here. box: on a square of the request's width."""

    image: str
    box: Box
    mask: str | None = None
    label: str = ""
    phrase: str = ""


@dataclass(frozen=True)
class Request:
    """One entry of segment_info.json. width: side of the square that the boxes refer to."""

    caption: str
    width: int
    instances: tuple[RequestInstance, ...]
    layout_image: str | None = None


def read_requests(value: object) -> list[Request]:
    """Read the authors' segment_info.json: a path, its text, or the parsed list or single request.

    Raises InputError naming the request and the box.
    """
    if isinstance(value, os.PathLike) or (isinstance(value, str) and not value.lstrip().startswith(("[", "{"))):
        value = _read_bounded(Path(value))
    if isinstance(value, (str, bytes)):
        value, literals = parse(value, "the request file", MAX_REQUEST_BYTES)
        if literals:
            raise InputError(f"the request file contains {literals[0]}, which is not JSON; give finite numbers.")
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)):
        raise InputError(f"the request file holds {shorten(items)}; give a list of requests.")
    return [_request(item, f"request {position}") for position, item in enumerate(items, 1)]


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_REQUEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"the request file {shorten(str(path), 80)} cannot be read ({reason}); check it.") from None


def _text(item: Mapping[object, object], key: str, where: str, *, required: bool = False) -> str:
    text = item.get(key)
    if text is None and not required:
        return ""
    if not isinstance(text, str):
        raise InputError(f"{where} has {key} = {shorten(text)}; give text.")
    return text


def _request(item: object, where: str) -> Request:
    if not isinstance(item, Mapping):
        raise InputError(f"{where} is {shorten(item)}; give an object with caption, width and instances.")
    width = finite_number(item.get("width"), where, "width", 16384)
    if width < 1 or width != int(width):
        raise InputError(f"{where} has width = {shorten(width)}; give a whole number of pixels.")
    instances = item.get("instances")
    if not isinstance(instances, (list, tuple)):
        raise InputError(f"{where} has instances = {shorten(instances)}; give a list.")
    if len(instances) > MAX_BOXES:
        raise InputError(f"{where} has {len(instances)} instances, the limit is {MAX_BOXES}; remove some.")
    return Request(
        _text(item, "caption", where),
        int(width),
        tuple(_request_instance(entry, f"{where}, box {i}", int(width)) for i, entry in enumerate(instances, 1)),
        _text(item, "layout_image", where) or None,
    )


def _request_instance(entry: object, where: str, side: int) -> RequestInstance:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} is {shorten(entry)}; give an object with image and bbox.")
    box = corner_box(*four_numbers(entry.get("bbox"), where), where)
    check_inside(box, where, side, side)
    return RequestInstance(
        _text(entry, "image", where, required=True),
        box,
        _text(entry, "mask", where) or None,
        _text(entry, "label", where),
        _text(entry, "phrase", where),
    )
