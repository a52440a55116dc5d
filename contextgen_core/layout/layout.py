"""Which subject stands where: the layout, its JSON form, and the boxes of other packs.

The JSON form, version 1 (array order = painting order, first = bottom; pixels of the given canvas)::

    {"v": 1, "canvas": {"w": 1024, "h": 768},
     "boxes": [{"id": "b1", "x": 20, "y": 35, "w": 65, "h": 66, "ref": "Anna", "label": "", "locked": false,
                "rot": 30, "flip": "h", "fit": "stretch", "strength": 1.5, "opacity": 0.5, "hidden": true,
                "group": "g1", "colour": "#ff8800", "solid": {...}}],
     "groups": [{"id": "g1", "label": "", "hidden": false, "locked": false}],
     "camera": {"focal": 1, "height": 1, "pitch": 0},
     "editor": {}}

`ref` is a reference's name, its 1-based number, or null. Only `id` and the four numbers must be there; what has its
default is left out, so that layouts written before a field existed keep their bytes. `editor` holds the editor's own
preferences and is ignored here, as are locks and labels of groups and every other key; `needs` names features without
which a layout must not be read. Without "v", or as a bare list of boxes, the text counts as version 0: ids are made up
and a missing canvas is the one the caller gives.
"""

from __future__ import annotations

import colorsys
import json
import math
import re
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
from .solid import Camera, Solid, project, read_camera, read_solid, short_number, write_solid

__all__ = [
    "MAX_INSTANCES",
    "MAX_JSON_BYTES",
    "VERSION",
    "Box",
    "Camera",
    "Instance",
    "LabelledBox",
    "Layout",
    "Solid",
    "box_colour",
    "box_name",
    "boxes_from_any",
]

MAX_INSTANCES = MAX_BOXES
MIN_CANVAS = 64
MAX_CANVAS = 16384
MAX_ID = 64
MAX_REFERENCE_NAME = 100
MAX_REFERENCE_NUMBER = 9999
MAX_STRENGTH = 4.0
MAX_TURNED = 4  # longest side of a turned box, in longer sides of the canvas: unlike others it is not clipped
VERSION = 1
KNOWN_NEEDS = ("rot", "flip", "fit", "strength", "opacity", "hidden", "groups", "solid", "camera")
FLIPS = ("", "h", "v", "hv")
FITS = ("instance", "stretch", "image")


@dataclass(frozen=True)
class Instance:
    """One box, and the reference bound to it.

    box: pixels of the layout's canvas, before it is turned; may stick out of it.
    reference: a reference's name, or its 1-based number in the bundle, or None: the prompt describes it.
    rotation: degrees clockwise about the box's centre, in (-180, 180]. flip: of the subject before it is turned, any
        of h (left and right) and v (top and bottom).
    fit: how the subject fills the box, None = as the whole layout's. strength: 0..4, times the reference's.
    opacity: 0..1, in the composite alone. hidden: neither painted nor bound.
    colour: #rrggbb, for the eye. solid: a box with depth, of which `box` is the projection.
    """

    id: str
    box: Box
    reference: str | int | None = None
    label: str = ""
    locked: bool = False
    rotation: float = 0.0
    flip: str = ""
    fit: str | None = None
    strength: float = 1.0
    opacity: float = 1.0
    hidden: bool = False
    colour: str | None = None
    solid: Solid | None = None

    @property
    def shade(self) -> tuple[int, int, int]:
        """The colour it is drawn in, RGB 0..255: its own, or the one that follows from its id."""
        if self.colour is None:
            return box_colour(self.id)
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue

    @property
    def region(self) -> Box:
        """The room it takes on the canvas, where its tokens lie: the box, or the bounds of the turned box."""
        if not self.rotation:
            return self.box
        (cx, cy), (sin, cos) = self.box.center, sine_cosine(self.rotation)
        width = self.box.width * abs(cos) + self.box.height * abs(sin)
        height = self.box.width * abs(sin) + self.box.height * abs(cos)
        return Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)


@dataclass(frozen=True)
class Layout:
    """A canvas of width x height pixels and its instances in painting order: first = bottom, last = in front.

    Raises InputError, naming the box, for anything the JSON form could not carry.
    """

    width: int
    height: int
    instances: tuple[Instance, ...] = ()
    camera: Camera = Camera()

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
            _check_layer(instance, where, max(self.width, self.height))

    def scaled_to(self, width: int, height: int) -> Layout:
        """The same layout on a canvas of another size; x and y scale each by its own factor. Solids stay where they are
        in the scene and are seen anew."""
        sx, sy = width / self.width, height / self.height
        if (width, height) == (self.width, self.height):
            return self
        instances = tuple(_scaled(i, sx, sy, (width, height), self.camera) for i in self.instances)
        return Layout(width, height, instances, self.camera)

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
            entry.update(zip("xywh", (short_number(v) for v in numbers), strict=True))
            entry.update(ref=instance.reference, label=instance.label, locked=instance.locked)
            entry.update(_layer_entry(instance))
            if instance.solid is not None:
                entry["solid"] = write_solid(instance.solid, numbers)
            boxes.append(entry)
        document: dict[str, object] = {"v": VERSION, "canvas": {"w": self.width, "h": self.height}, "boxes": boxes}
        if self.camera != Camera():
            document["camera"] = {name: short_number(value) for name, value in vars(self.camera).items()}
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


def box_colour(id: str) -> tuple[int, int, int]:
    """The colour of a box where it has none of its own, RGB 0..255; the first 32 ids differ (b1, b2, ...).

    The editor's rule too; tests/vectors/box_colour.json holds both to it.
    """
    number = re.search(r"[0-9]+$", id)
    index = (int(number[0][-6:]) - 1 if number else sum(map(ord, id))) % 32
    lightness = (0.66, 0.54, 0.76)[index % 3]
    channels = colorsys.hls_to_rgb((210 + index * 137.5) % 360 / 360, lightness, 0.85)
    red, green, blue = (math.floor(channel * 255 + 0.5) for channel in channels)
    return red, green, blue


def sine_cosine(degrees: float) -> tuple[float, float]:
    """Sine and cosine, exact for quarter turns: a box turned by 90 degrees keeps whole edges."""
    quarter, rest = divmod(degrees, 90)
    if rest == 0:
        return ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0))[int(quarter) % 4]
    return math.sin(math.radians(degrees)), math.cos(math.radians(degrees))


def _scaled(instance: Instance, sx: float, sy: float, size: tuple[int, int], camera: Camera) -> Instance:
    if instance.solid is not None:
        seen = project(instance.solid, camera, *size)
        if seen is not None:
            return replace(instance, box=seen)
    box, longest = instance.box.scaled(sx, sy), MAX_TURNED * max(size)
    if instance.rotation and max(box.width, box.height) > longest:
        (cx, cy), half = box.center, longest / 2
        w, h = min(box.width / 2, half), min(box.height / 2, half)
        box = Box(cx - w, cy - h, cx + w, cy + h)
    return replace(instance, box=box, solid=None)


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


def _check_layer(instance: Instance, where: str, canvas: int) -> None:
    if not -180 < instance.rotation <= 180:
        raise InputError(f"{where} has rot = {shorten(instance.rotation)}; give degrees above -180, up to 180.")
    if instance.rotation and max(instance.box.width, instance.box.height) > MAX_TURNED * canvas:
        raise InputError(
            f"{where} is turned and {instance.box.width:g} x {instance.box.height:g} pixels; "
            f"keep a turned box within {MAX_TURNED * canvas} pixels."
        )
    for name, value, choices in (("flip", instance.flip, FLIPS), ("fit", instance.fit, (None, *FITS))):
        if value not in choices:
            raise InputError(f"{where} has {name} = {shorten(value)}; give {', '.join(map(shorten, choices))}.")
    for name, value, most in (("strength", instance.strength, MAX_STRENGTH), ("opacity", instance.opacity, 1.0)):
        if not 0 <= value <= most:
            raise InputError(f"{where} has {name} = {shorten(value)}; give a number from 0 to {most:g}.")
    if not isinstance(instance.hidden, bool):
        raise InputError(f"{where} has hidden = {shorten(instance.hidden)}; give true or false.")
    colour = instance.colour
    if colour is not None and not (isinstance(colour, str) and re.fullmatch(r"#[0-9a-f]{6}", colour)):
        raise InputError(f'{where} has colour = {shorten(colour)}; give six hexadecimal digits, such as "#ff8800".')


# --- reading --------------------------------------------------------------------------------------


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
    return {**document, "canvas": canvas, "boxes": named}


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
    needs = document.get("needs") or ()
    if not isinstance(needs, (list, tuple)) or not all(isinstance(need, str) and need in KNOWN_NEEDS for need in needs):
        raise InputError(f"the layout needs {shorten(needs)}, which this version does not know; update the pack.")
    hidden = _hidden_groups(document.get("groups"))
    instances = tuple(_instance(position, entry, hidden) for position, entry in enumerate(boxes, 1))
    return Layout(width, height, instances, read_camera(document.get("camera")))


def _hidden_groups(groups: object) -> frozenset[str]:
    """The ids of groups whose boxes are all hidden."""
    if groups is None:
        return frozenset()
    if not isinstance(groups, (list, tuple)) or len(groups) > MAX_INSTANCES:
        raise InputError(f"the layout has groups = {shorten(groups)}; give a list of at most {MAX_INSTANCES}.")
    hidden = set()
    for position, group in enumerate(groups, 1):
        where = f"group {position}"
        if not isinstance(group, Mapping) or not group.get("id"):
            raise InputError(f'{where} of the layout is {shorten(group)}; give an object with an "id".')
        _check_text(group["id"], where, "id", MAX_ID)
        _check_text(group.get("label", ""), where, "label", MAX_LABEL)
        for name in ("hidden", "locked"):
            if not isinstance(group.get(name, False), bool):
                raise InputError(f"{where} has {name} = {shorten(group[name])}; give true or false.")
        if group.get("hidden", False):
            hidden.add(group["id"])
    return frozenset(hidden)


def _instance(position: int, entry: object, hidden_groups: frozenset[str]) -> Instance:
    if not isinstance(entry, Mapping):
        raise InputError(f'box {position} is {shorten(entry)}; give an object with "x", "y", "w" and "h".')
    where = box_name(position, entry.get("id"))
    for name in ("id", "x", "y", "w", "h"):
        if name not in entry:
            raise InputError(f'{where} has no "{name}"; each box needs "id", "x", "y", "w" and "h".')
    x, y, w, h = (hundredths(finite_number(entry[name], where, name)) for name in "xywh")
    for name, size in (("w", w), ("h", h)):
        if size <= 0:
            raise InputError(f"{where} has {name} = {shorten(entry[name])}; give a width and height of at least 0.01.")
    box = Box(x, y, hundredths(x + w), hundredths(y + h))
    reference = entry.get("ref")
    number = plain_number(reference)
    if isinstance(number, float) and number == number // 1 and abs(number) <= MAX_REFERENCE_NUMBER:
        reference = int(number)  # 1.0 is 1 in JSON
    if reference == "":
        reference = None
    label, locked = entry.get("label", ""), entry.get("locked", False)
    layer = _layer(entry, where)
    if entry.get("group") in hidden_groups:
        layer["hidden"] = True
    solid = read_solid(entry.get("solid"), box, where)
    return Instance(entry["id"], box, reference, label, locked, **layer, solid=solid)  # type: ignore[arg-type]  # Layout checks them


def _layer(entry: Mapping[str, object], where: str) -> dict[str, object]:
    """The fields that may be left out, under their names in Instance; Layout checks their ranges."""
    rot = finite_number(entry.get("rot", 0), where, "rot")
    if abs(rot) > 360:
        raise InputError(f"{where} has rot = {shorten(entry['rot'])}; give degrees from -360 to 360.")
    angle = hundredths((hundredths(rot) + 180) % 360 - 180)
    group, colour = entry.get("group"), entry.get("colour")
    if group is not None:
        _check_text(group, where, "group", MAX_ID)
        if not group:
            raise InputError(f"{where} has an empty group; name one, or leave it out.")
    return {
        "rotation": 180.0 if angle == -180 else angle,
        "flip": entry.get("flip", ""),
        "fit": entry.get("fit"),
        "strength": hundredths(finite_number(entry.get("strength", 1), where, "strength")),
        "opacity": hundredths(finite_number(entry.get("opacity", 1), where, "opacity")),
        "hidden": entry.get("hidden", False),
        "colour": colour.lower() if isinstance(colour, str) else colour,
    }


def _layer_entry(instance: Instance) -> dict[str, object]:
    """What of these differs from its default, under its name in the JSON, in the editor's order."""
    defaults = Instance("", Box(0, 0, 1, 1))
    keys = {"rotation": "rot"}
    entry: dict[str, object] = {}
    for name in ("rotation", "flip", "fit", "strength", "opacity", "hidden", "colour"):
        value = getattr(instance, name)
        if value != getattr(defaults, name):
            entry[keys.get(name, name)] = short_number(value) if isinstance(value, float) else value
    return entry
