"""Which subject stands where: the layout, its JSON form, and the boxes of other packs.

The JSON form, version 1 (array order = painting order, first = bottom; pixels of the given canvas)::

    {"v": 1, "canvas": {"w": 1024, "h": 768},
     "boxes": [{"id": "b1", "x": 20, "y": 35, "w": 65, "h": 66, "ref": "Anna", "label": "", "locked": false}],
     "editor": {}}

`ref` is a reference's name, its 1-based number, or null; it, `label` and `locked` may be left out. `editor`
holds the editor's own preferences and is ignored here, as is every other key. Without "v", or as a bare list
of boxes, the text counts as version 0: ids are made up and a missing canvas is the one the caller gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..errors import InputError
from ..input.bounded_json import MAX_JSON_BYTES, parse
from ..input.checks import (
    MAX_COORDINATE,
    MAX_LABEL,
    finite_number,
    has_control_characters,
    hundredths,
    plain_number,
    shorten,
)
from .box import Box
from .foreign_boxes import MAX_BOXES, LabelledBox, boxes_from_any
from .request_file import Request

__all__ = [
    "MAX_INSTANCES",
    "MAX_JSON_BYTES",
    "VERSION",
    "Box",
    "Instance",
    "LabelledBox",
    "Layout",
    "box_name",
    "boxes_from_any",
]

MAX_INSTANCES = MAX_BOXES
MIN_CANVAS = 64
MAX_CANVAS = 16384
MAX_ID = 64
MAX_REFERENCE_NAME = 100
MAX_REFERENCE_NUMBER = 9999
VERSION = 1


@dataclass(frozen=True)
class Instance:
    """One box, and the reference bound to it.

    box: pixels of the layout's canvas; may stick out of it.
    reference: a reference's name, or its 1-based number in the bundle, or None: the prompt describes it.
    """

    id: str
    box: Box
    reference: str | int | None = None
    label: str = ""
    locked: bool = False


@dataclass(frozen=True)
class Layout:
    """A canvas of width x height pixels and its instances in painting order: first = bottom, last = in front.

    Raises InputError, naming the box, for anything the JSON form could not carry.
    """

    width: int
    height: int
    instances: tuple[Instance, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", _canvas_side(self.width, "width"))
        object.__setattr__(self, "height", _canvas_side(self.height, "height"))
        object.__setattr__(self, "instances", tuple(self.instances))
        _check_count(len(self.instances))
        seen: dict[str, int] = {}
        for position, instance in enumerate(self.instances, 1):
            where = box_name(position, instance.id)
            _check_text(instance.id, where, "id", MAX_ID)
            if not instance.id:
                raise InputError(f"{where} has an empty id; give each box an id of 1 to {MAX_ID} characters.")
            if instance.id in seen:
                raise InputError(f"{where} has the same id as box {seen[instance.id]}; give each box its own id.")
            seen[instance.id] = position
            _check_box(instance.box, where, self.width, self.height)
            _check_reference(instance.reference, where)
            _check_text(instance.label, where, "label", MAX_LABEL)
            if not isinstance(instance.locked, bool):
                raise InputError(f"{where} has locked = {shorten(instance.locked)}; give true or false.")

    def scaled_to(self, width: int, height: int) -> Layout:
        """The same layout on a canvas of another size; x and y scale each by its own factor."""
        sx, sy = width / self.width, height / self.height
        return Layout(width, height, tuple(replace(i, box=i.box.scaled(sx, sy)) for i in self.instances))

    @classmethod
    def from_request(cls, request: Request) -> Layout:
        """The authors' request on its own square canvas; instance n is bound to reference number n."""
        instances = (
            Instance(f"b{n}", entry.box, n, (entry.label or entry.phrase)[:MAX_LABEL])
            for n, entry in enumerate(request.instances, 1)
        )
        return cls(request.width, request.width, tuple(instances))

    def to_json(self) -> str:
        """Compact JSON of the current version, coordinates to 1/100; the editor writes the same bytes."""
        boxes: list[dict[str, object]] = []
        for instance in self.instances:
            x, y, x2, y2 = _rounded(instance.box)
            numbers = (x, y, hundredths(x2 - x), hundredths(y2 - y))
            entry: dict[str, object] = {"id": instance.id}
            entry.update(zip("xywh", (_short_number(v) for v in numbers), strict=True))
            entry.update(ref=instance.reference, label=instance.label, locked=instance.locked)
            boxes.append(entry)
        document = {"v": VERSION, "canvas": {"w": self.width, "h": self.height}, "boxes": boxes}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, value: object, width: int = 1024, height: int = 1024) -> Layout:
        """Read any released version, from text, UTF-8 bytes, or the parsed object.

        width, height: the canvas where the text names none (empty text, version 0).
        Raises InputError with one sentence naming the box, the value and the remedy.
        """
        literals: tuple[str, ...] = ()
        if isinstance(value, (str, bytes)):
            if len(value) <= MAX_JSON_BYTES and not value.strip():
                return cls(width, height)
            value, literals = parse(value, "the layout")
        layout = _read(_migrated(value, width, height))
        if literals:
            raise InputError(f"the layout contains {literals[0]}, which is not JSON; give a finite number.")
        return layout


def box_name(position: int, id: object = None) -> str:
    """How errors and warnings call a box: its 1-based position and, when it has a usable one, its id."""
    return f"box {position} ({shorten(id, 26)})" if isinstance(id, str) and id else f"box {position}"


# --- checks ---------------------------------------------------------------------------------------


def _check_count(count: int) -> None:
    if count > MAX_INSTANCES:
        raise InputError(f"the layout has {count} boxes, the limit is {MAX_INSTANCES}; remove {count - MAX_INSTANCES}.")


def _canvas_side(value: object, name: str) -> int:
    number = plain_number(value)
    if number is None or not MIN_CANVAS <= number <= MAX_CANVAS or number != int(number):
        raise InputError(
            f"the canvas {name} is {shorten(value)}; give a whole number from {MIN_CANVAS} to {MAX_CANVAS} pixels."
        )
    return int(number)


def _check_text(value: object, where: str, name: str, limit: int) -> None:
    if not isinstance(value, str):
        raise InputError(f"{where} has {name} = {shorten(value)}; give text.")
    if len(value) > limit:
        raise InputError(f"{where} has {name} of {len(value)} characters, the limit is {limit}; shorten it.")
    if has_control_characters(value):
        raise InputError(f"{where} has {name} with a control character, {shorten(value)}; remove it.")


def _check_reference(value: object, where: str) -> None:
    if value is None:
        return
    if isinstance(value, str) and value:
        _check_text(value, where, "ref", MAX_REFERENCE_NAME)
    elif isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REFERENCE_NUMBER:
        raise InputError(
            f"{where} has ref = {shorten(value)}; give a reference's name, its number starting at 1, or null."
        )


def _rounded(box: Box) -> tuple[float, float, float, float]:
    return hundredths(box.x1), hundredths(box.y1), hundredths(box.x2), hundredths(box.y2)


def _check_box(box: Box, where: str, width: int, height: int) -> None:
    # Judged as it will be written, to 1/100 pixel: what can be built can also be saved and read again.
    x1, y1, x2, y2 = _rounded(box)
    if max(*map(abs, (x1, y1, x2, y2)), x2 - x1, y2 - y1) > MAX_COORDINATE:
        raise InputError(
            f"{where} reaches from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}); keep coordinates within {MAX_COORDINATE:g}."
        )
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"{where} is {box.width:g} x {box.height:g} pixels; give it a width and height above 0.")
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise InputError(
            f"{where} reaches from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) and so lies wholly outside the "
            f"canvas of {width} x {height}; move it inside."
        )


# --- reading --------------------------------------------------------------------------------------


def _short_number(value: float) -> int | float:
    return int(value) if value == int(value) else value  # 20, not 20.0: JavaScript knows only one kind of number


def _migrated(value: object, width: int, height: int) -> Mapping[str, object]:
    """The document in the form of the current version."""
    if isinstance(value, Mapping) and "v" in value:
        version = plain_number(value["v"])
        if version is None or version < 0 or version != version // 1:
            raise InputError(f"the layout has version {shorten(value['v'])}; give {VERSION}.")
        if version > VERSION:
            raise InputError(
                f"the layout was written by a newer version of this pack (layout version {shorten(version)}, "
                f"this one reads up to {VERSION}); update the pack."
            )
    elif isinstance(value, (Mapping, list, tuple)):
        version = 0
    else:
        raise InputError(f'the layout is {shorten(value)}; give an object with "canvas" and "boxes".')
    for migrate in _MIGRATIONS[int(version) :]:
        value = migrate(value, width, height)
    if not isinstance(value, Mapping):
        raise InputError(f"the layout is {shorten(value)}; give an object with canvas and boxes.")
    return value


def _from_version_0(value: object, width: int, height: int) -> object:
    """A bare list of boxes, or an object without "v": the canvas and the ids may be missing."""
    document = value if isinstance(value, Mapping) else {"boxes": value}
    boxes = document.get("boxes", [] if not document.keys() - {"v", "canvas", "editor"} else None)
    canvas = document.get("canvas", {"w": width, "h": height})
    if not isinstance(boxes, (list, tuple)):
        return {"canvas": canvas, "boxes": boxes}
    _check_count(len(boxes))
    taken = {b.get("id") for b in boxes if isinstance(b, Mapping) and isinstance(b.get("id"), str)}
    named: list[object] = []
    number = 0
    for entry in boxes:
        if isinstance(entry, Mapping) and "id" not in entry:
            number += 1
            while f"b{number}" in taken:
                number += 1
            entry = {**entry, "id": f"b{number}"}
        named.append(entry)
    return {"canvas": canvas, "boxes": named}


# Position n turns version n into n + 1. A released function is never changed: old workflows depend on it.
_MIGRATIONS: tuple[Callable[[object, int, int], object], ...] = (_from_version_0,)


def _read(document: Mapping[str, object]) -> Layout:
    canvas, boxes = document.get("canvas"), document.get("boxes")
    if not isinstance(canvas, Mapping):
        raise InputError(f'the layout has canvas = {shorten(canvas)}; give {{"w": width, "h": height}} in pixels.')
    width, height = _canvas_side(canvas.get("w"), "width"), _canvas_side(canvas.get("h"), "height")
    if not isinstance(boxes, (list, tuple)):
        raise InputError(f"the layout has boxes = {shorten(boxes)}; give a list of boxes.")
    _check_count(len(boxes))
    return Layout(width, height, tuple(_instance(position, entry) for position, entry in enumerate(boxes, 1)))


def _instance(position: int, entry: object) -> Instance:
    if not isinstance(entry, Mapping):
        raise InputError(f'box {position} is {shorten(entry)}; give an object with "x", "y", "w" and "h".')
    where = box_name(position, entry.get("id"))
    for name in ("id", "x", "y", "w", "h"):
        if name not in entry:
            raise InputError(f'{where} has no "{name}"; each box needs "id", "x", "y", "w" and "h".')
    x, y, w, h = (hundredths(finite_number(entry[name], where, name)) for name in "xywh")
    for name, size in (("w", w), ("h", h)):
        if size <= 0:
            raise InputError(f"{where} has {name} = {shorten(entry[name])}; give a width and height above 0.")
    box = Box(x, y, hundredths(x + w), hundredths(y + h))
    reference = entry.get("ref")
    number = plain_number(reference)
    if isinstance(number, float) and number == number // 1 and abs(number) <= MAX_REFERENCE_NUMBER:
        reference = int(number)  # 1.0 is 1 in JSON
    if reference == "":
        reference = None
    label, locked = entry.get("label", ""), entry.get("locked", False)
    return Instance(entry["id"], box, reference, label, locked)  # type: ignore[arg-type]  # Layout checks them
