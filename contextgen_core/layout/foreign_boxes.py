"""Boxes as other packs spell them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import MAX_LABEL, finite_number, has_control_characters, plain_number, shorten
from .box import Box

MAX_BOXES = 50
MAX_BOX_TEXT = 1 << 20
_GRID = 1000.0  # core's "elements" stand on a grid of 0..1000 in both axes

BoxFormat = Literal["xywh", "xyxy"]


@dataclass(frozen=True)
class LabelledBox:
    """A detected or drawn box in pixels of the canvas asked for; label of at most 200 characters."""

    box: Box
    label: str = ""
    score: float | None = None


class _Target(NamedTuple):
    width: int
    height: int
    format: BoxFormat | None
    limit: int


def boxes_from_any(
    value: object,
    width: int,
    height: int,
    *,
    format: BoxFormat | None = None,
    frame: int = 0,
    limit: int = MAX_BOXES,
) -> list[LabelledBox]:
    """Boxes in pixels of a width x height canvas, from whatever other nodes give.

    Understood without `format`, because they say what they are:
      {x, y, width, height} or {x, y, w, h} or {x1, y1, x2, y2}, in pixels, with label and score
      a list of those; a list of such lists, one per frame: `frame` is taken, a single one serves all frames
      core's elements, {"bbox": [ymin, xmin, ymax, xmax]} on a 0..1000 grid, alone or listed
      Florence-2's {"bboxes": [xyxy, ...], "labels": [...]}, alone or listed one per image
      Impact Pack's SEGS, ((height, width), [SEG, ...]), scaled from its own picture size
      InstanceAssemble's {"width", "height", "annos": [{"bbox": xyxy, "category_name", "caption"}]}, scaled from its
        own size; the label is "category, caption"
      this pack's layout JSON, scaled from its own canvas
      the JSON text of any of these; None and empty text give no boxes
    Understood only with `format`: bare rows of four numbers (BBOX tuples, lists per frame, arrays, tensors);
    and {"bbox": four numbers} then means pixels in that format.
    A box may stick out of the canvas. Raises InputError, naming the box, for anything else, for more boxes
    than `limit`, and for a box without area, not finite, or wholly outside the canvas.
    """
    if format not in (None, "xywh", "xyxy"):
        raise InputError(f'the box format is {shorten(format)}; give "xywh" or "xyxy".')
    if isinstance(value, (str, bytes)):
        if len(value) <= MAX_BOX_TEXT and not value.strip():
            return []
        value, literals = parse(value, "the boxes text", MAX_BOX_TEXT)
        if literals:
            raise InputError(f"the boxes text contains {literals[0]}, which is not JSON; give finite numbers.")
    target = _Target(width, height, format, limit)
    entries, target, scale = _entries(_unwrapped(value), target, frame)
    _check_count(entries, limit)
    boxes: list[LabelledBox] = []
    for position, entry in enumerate(entries, 1):
        found = _labelled(entry, f"box {position}", target)
        boxes.append(LabelledBox(found.box.scaled(*scale), found.label, found.score))
        check_inside(boxes[-1].box, f"box {position}", width, height)
    return boxes


def _check_count(entries: Sequence[object], limit: int) -> None:
    if len(entries) > limit:
        raise InputError(f"there are {len(entries)} boxes, the limit is {limit}; keep the most important ones.")


def _unwrapped(value: object) -> object:
    """Arrays and tensors as nested lists, without importing their library."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "tolist"):
        count = 1
        for side in shape:
            count *= int(side)
        if count > 1 << 20:
            raise InputError(f"the boxes are an array of shape {tuple(shape)}; give at most {MAX_BOXES} rows of four.")
        value = value.tolist()  # type: ignore[attr-defined]
    return value


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _is_row(value: object) -> bool:
    """Four numbers; what Impact's SEG (a longer tuple with fields) is not."""
    row = _unwrapped(value)
    return isinstance(row, (list, tuple)) and len(row) == 4 and all(plain_number(v) is not None for v in row)


def _entries(value: object, target: _Target, frame: int) -> tuple[Sequence[object], _Target, tuple[float, float]]:
    """The single boxes of one frame, still in their own spelling, and the scale (x, y) to the canvas."""
    if value is None:
        return [], target, (1.0, 1.0)
    if isinstance(value, Mapping):
        return _mapping_entries(value, target)
    if not isinstance(value, (list, tuple)):
        raise InputError(f"the boxes are {shorten(type(value).__name__)}; give bounding boxes, segments or JSON text.")
    segments = _segments(value)
    if segments is not None:
        (height, width), items = segments
        return items, target, (target.width / width, target.height / height)
    if _is_row(value):
        return [value], target, (1.0, 1.0)
    first = _unwrapped(value[0]) if value else None
    per_frame = isinstance(first, Mapping) and "bboxes" in first
    per_frame = per_frame or (_is_list(first) and not hasattr(first, "bbox") and not _is_row(first))
    if not per_frame:
        return value, target, (1.0, 1.0)
    if len(value) == 1:
        frame = 0
    if not 0 <= frame < len(value):
        raise InputError(
            f"the boxes have {len(value)} frames and frame {frame} was asked for; give a frame below that."
        )
    chosen = _unwrapped(value[frame])
    if isinstance(chosen, Mapping):
        return _mapping_entries(chosen, target)
    if not isinstance(chosen, (list, tuple)):
        raise InputError(f"frame {frame} of the boxes is {shorten(chosen)}; give a list of boxes for each frame.")
    return chosen, target, (1.0, 1.0)


def _mapping_entries(
    value: Mapping[object, object], target: _Target
) -> tuple[Sequence[object], _Target, tuple[float, float]]:
    if len(value) == 1:  # Florence-2 wraps its answer in its task, as in {"<OD>": {...}}
        key, inner = next(iter(value.items()))
        if isinstance(key, str) and key.startswith("<") and isinstance(inner, Mapping):
            value = inner
    annotations = value.get("annos")
    if isinstance(annotations, (list, tuple)):
        return _annotated(value, annotations, target)
    for key in ("boxes", "elements"):
        items = value.get(key)
        if isinstance(items, (list, tuple)):
            return items, target, _canvas_scale(value.get("canvas"), target)
    rows = _unwrapped(value.get("bboxes"))
    if isinstance(rows, (list, tuple)):
        _check_count(rows, target.limit)
        labels, scores = _unwrapped(value.get("labels")), _unwrapped(value.get("scores"))
        if labels is None and target.format is None:
            raise InputError('the boxes are bare rows under "bboxes"; choose the boxes format, xywh or xyxy.')
        entries = [
            {"bbox": row, "label": _at(labels, position), "score": _at(scores, position)}
            for position, row in enumerate(rows)
        ]
        # Florence-2 has one spelling; only rows that do not say so need the declared one.
        return entries, target if labels is None else target._replace(format="xyxy"), (1.0, 1.0)
    return [value], target, (1.0, 1.0)


def _annotated(
    value: Mapping[object, object], annotations: Sequence[object], target: _Target
) -> tuple[Sequence[object], _Target, tuple[float, float]]:
    """InstanceAssemble's request file, and what its demo saves."""
    _check_count(annotations, target.limit)
    width, height = (finite_number(value.get(name), "the boxes' file", name) for name in ("width", "height"))
    if width < 1 or height < 1:
        raise InputError(f"the boxes' file is for {width:g} x {height:g} pixels; give a size of at least 1 x 1.")
    entries = []
    for position, entry in enumerate(annotations, 1):
        if not isinstance(entry, Mapping):
            raise InputError(f"box {position} is {shorten(entry)}; give an object with bbox and category_name.")
        words = [entry.get(key) for key in ("category_name", "caption")]
        label = ", ".join(word.strip() for word in words if isinstance(word, str) and word.strip())
        entries.append({"bbox": entry.get("bbox"), "label": label})
    return entries, target._replace(format="xyxy"), (target.width / width, target.height / height)


def _at(values: object, position: int) -> object:
    return values[position] if isinstance(values, (list, tuple)) and position < len(values) else None


def _canvas_scale(canvas: object, target: _Target) -> tuple[float, float]:
    if not isinstance(canvas, Mapping):
        return 1.0, 1.0
    width = finite_number(canvas.get("w"), "the boxes' canvas", "w")
    height = finite_number(canvas.get("h"), "the boxes' canvas", "h")
    if width < 1 or height < 1:
        raise InputError(f"the boxes' canvas is {width:g} x {height:g} pixels; give a size of at least 1 x 1.")
    return target.width / width, target.height / height


def _segments(value: Sequence[object]) -> tuple[tuple[float, float], Sequence[object]] | None:
    """((height, width), segments) when value is Impact's SEGS, else None."""
    if len(value) != 2 or not _is_list(value[1]):
        return None
    header, items = _unwrapped(value[0]), value[1]
    if not isinstance(header, (list, tuple)) or len(header) != 2 or not isinstance(items, (list, tuple)):
        return None
    if any(plain_number(v) is None for v in header):
        return None
    height, width = (
        finite_number(v, "the segments' header", n) for v, n in zip(header, ("height", "width"), strict=True)
    )
    if width < 1 or height < 1:
        raise InputError(f"the segments' header gives a picture of {width:g} x {height:g} pixels; give its real size.")
    return (height, width), items


def _labelled(entry: object, where: str, target: _Target) -> LabelledBox:
    """One box in pixels of its own canvas."""
    if _is_row(entry):
        return LabelledBox(_row_box(_unwrapped(entry), where, target.format))
    if not isinstance(entry, Mapping):
        bbox = getattr(entry, "bbox", None)
        if bbox is None:
            raise InputError(f"{where} is {shorten(entry)}; give x, y, width and height, or four numbers.")
        target = target._replace(format="xyxy")  # a segment has one spelling, whatever was declared
        entry = {
            "bbox": bbox,
            "label": getattr(entry, "label", None),
            "confidence": getattr(entry, "confidence", None),
        }
    if "bbox" in entry:
        row = _unwrapped(entry["bbox"])
        box = _element_box(row, where, target) if target.format is None else _row_box(row, where, target.format)
    else:
        box = _keyed_box(entry, where)
    return LabelledBox(box, _label(entry), _score(entry))


def _keyed_box(entry: Mapping[object, object], where: str) -> Box:
    for keys in (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("x1", "y1", "x2", "y2")):
        if all(key in entry for key in keys):
            a, b, c, d = (finite_number(entry[key], where, key) for key in keys)
            return corner_box(a, b, c, d, where) if keys[2] == "x2" else corner_box(a, b, a + c, b + d, where)
    raise InputError(
        f"{where} has the keys {shorten(', '.join(map(str, islice(entry, 8))))}; give x, y, width, height."
    )


def four_numbers(row: object, where: str) -> tuple[float, float, float, float]:
    if not isinstance(row, (list, tuple)) or len(row) != 4:
        raise InputError(f"{where} has bbox = {shorten(row)}; give four numbers.")
    a, b, c, d = (finite_number(v, where, f"bbox[{i}]") for i, v in enumerate(row))
    return a, b, c, d


def _row_box(row: object, where: str, format: BoxFormat | None) -> Box:
    a, b, c, d = four_numbers(row, where)
    if format is None:
        raise InputError(
            f"{where} is four bare numbers ({a:g}, {b:g}, {c:g}, {d:g}), which does not say what they mean; "
            "choose the boxes format, xywh or xyxy."
        )
    return corner_box(a, b, a + c, b + d, where) if format == "xywh" else corner_box(a, b, c, d, where)


def _element_box(row: object, where: str, target: _Target) -> Box:
    numbers = four_numbers(row, where)
    if not all(0 <= v <= _GRID for v in numbers):
        raise InputError(
            f"{where} has bbox = {shorten([*numbers][:4])} beyond the 0 to 1000 grid of elements; for pixels "
            "choose the boxes format, xywh or xyxy."
        )
    y1, x1, y2, x2 = (v / _GRID for v in numbers)
    # Core reads corners in either order here, and the same value must mean the same box in both nodes.
    return corner_box(
        min(x1, x2) * target.width,
        min(y1, y2) * target.height,
        max(x1, x2) * target.width,
        max(y1, y2) * target.height,
        where,
    )


def corner_box(x1: float, y1: float, x2: float, y2: float, where: str) -> Box:
    if x2 <= x1 or y2 <= y1:
        raise InputError(
            f"{where} reaches from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}); give it a width and height above 0, "
            "and check the boxes format."
        )
    return Box(x1, y1, x2, y2)


def check_inside(box: Box, where: str, width: int, height: int) -> None:
    if box.x2 <= 0 or box.y2 <= 0 or box.x1 >= width or box.y1 >= height:
        raise InputError(
            f"{where} reaches from ({box.x1:g}, {box.y1:g}) to ({box.x2:g}, {box.y2:g}) and so lies wholly "
            f"outside the canvas of {width} x {height}; check the boxes format and the canvas size."
        )


def _label(entry: Mapping[object, object]) -> str:
    """What a box is called; core's editor keeps it in the metadata. Control characters become spaces."""
    metadata = entry.get("metadata")
    for source in (entry, metadata if isinstance(metadata, Mapping) else {}):
        for key in ("label", "desc", "text"):
            text = source.get(key)
            if isinstance(text, str) and text.strip():
                text = text.strip()[:MAX_LABEL]
                return "".join(" " if has_control_characters(c) else c for c in text)
    return ""


def _score(entry: Mapping[object, object]) -> float | None:
    for key in ("score", "confidence"):
        number = plain_number(entry.get(key))
        if number is not None and -1e6 <= number <= 1e6:
            return float(number)
    return None
