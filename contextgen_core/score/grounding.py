"""Layout Grounding Score: is each instance where it was asked for, and does it look as described?

From the paper of InstanceAssemble (arXiv 2509.16691) and its benchmark DenseLayout. A detector is asked for the
instance's category; its IoU is that of the best detection with the asked box, without one-to-one matching, and counts
as 0 below 0.5. Where it counts and the description says more than the category, a judge sees the crop of the
*detected* box and answers three questions: are colour, texture and shape as described (what is not mentioned counts as
yes)? "yes" anywhere in the answer makes the attribute's score the IoU, anything else 0.

The published figures are four sums divided by the number of all boxes. So a box without a description counts as 0 in
the attributes, and a data set with many of them has low ones whatever is drawn. Both readings are given: over all
boxes, as published, and attributes over the described boxes alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import finite_number, shorten
from ..layout.box import Box
from ..layout.matching import iou_matrix

ATTRIBUTES = ("colour", "texture", "shape")
THRESHOLD = 0.5
MAX_RECORDS_BYTES = 256 << 20
MAX_ANNOTATIONS = 1000

Picture = NDArray[np.uint8]  # (H, W, 3)


class Detector(Protocol):
    """Finds things of a category; ``prompt`` is that of the whole picture, for finders that know its scenery."""

    def __call__(self, picture: Picture, category: str, prompt: str) -> Sequence[Box]:
        """Boxes in pixels of the picture."""
        ...


PRESENCE = "presence"


class Judge(Protocol):
    """Answers whether one attribute of what a crop shows is as described, or (PRESENCE) whether it shows the category
    at all: yes, or anything else."""

    def __call__(self, crop: Picture, category: str, description: str, attribute: str) -> str: ...


class Asked(NamedTuple):
    """An instance as it was asked for; box: pixels of the record's canvas."""

    box: Box
    category: str
    caption: str = ""

    @property
    def described(self) -> bool:
        return self.caption not in ("", self.category)


class Record(NamedTuple):
    """A picture of the data set. width, height: of its canvas in pixels."""

    id: str
    prompt: str
    width: int
    height: int
    instances: tuple[Asked, ...]


class Grounded(NamedTuple):
    """An instance as it came out. iou: the best 0..1; attributes: whether each is as described, None without a
    description; all False where the instance is not located."""

    iou: float
    attributes: tuple[bool, bool, bool] | None = None

    @property
    def located(self) -> bool:
        return self.iou >= THRESHOLD


@dataclass(frozen=True)
class Figures:
    """Of many instances. spatial and the attributes are sums over boxes, divided by the number of all boxes, as
    published; ``described_*`` by the number of described boxes, None without any."""

    pictures: int
    boxes: int
    described: int
    spatial: float
    colour: float
    texture: float
    shape: float
    described_colour: float | None
    described_texture: float | None
    described_shape: float | None


def ground(picture: Picture, record: Record, detect: Detector, judge: Judge) -> tuple[Grounded, ...]:
    """The record's instances in a picture, whose size may differ from the record's canvas."""
    height, width = picture.shape[:2]
    found: dict[str, Sequence[Box]] = {}
    out = []
    for asked in record.instances:
        if asked.category not in found:
            found[asked.category] = detect(picture, asked.category, record.prompt)
        boxes = found[asked.category]
        overlaps = iou_matrix([asked.box.scaled(width / record.width, height / record.height)], boxes)[0]
        best = int(overlaps.argmax()) if len(boxes) else -1
        iou = float(overlaps[best]) if len(boxes) else 0.0
        answers = None
        if asked.described:
            answers = (False, False, False)
            if iou >= THRESHOLD:
                crop = crop_of(picture, boxes[best])
                said = [judge(crop, asked.category, asked.caption, attribute) for attribute in ATTRIBUTES]
                answers = ("yes" in said[0].lower(), "yes" in said[1].lower(), "yes" in said[2].lower())
        out.append(Grounded(iou, answers))
    return tuple(out)


def crop_of(picture: Picture, box: Box) -> Picture:
    """The pixels of a box, at least one."""
    height, width = picture.shape[:2]
    inside = box.clipped(width, height)
    x, y = min(int(inside.x1), width - 1), min(int(inside.y1), height - 1)
    return picture[y : max(y + 1, round(inside.y2)), x : max(x + 1, round(inside.x2))]


def sums(instances: Sequence[Grounded]) -> dict[str, float]:
    """What instances add to the score: boxes, described, and the sums of IoU by `spatial` and the attributes."""
    described = [one for one in instances if one.attributes is not None]
    found = {"boxes": float(len(instances)), "described": float(len(described))}
    found["spatial"] = sum((one.iou for one in instances if one.located), 0.0)
    for number, name in enumerate(ATTRIBUTES):
        found[name] = sum((one.iou for one in described if one.attributes and one.attributes[number]), 0.0)
    return found


def figures(pictures: Iterable[Sequence[Grounded]]) -> Figures:
    """The score of many pictures. Raises InputError where they have no instance."""
    pictures = list(pictures)
    whole = sums([one for picture in pictures for one in picture])
    boxes, described = int(whole["boxes"]), int(whole["described"])
    if not boxes:
        raise InputError("there is no instance to score; give records with boxes.")
    attributes = [whole[name] for name in ATTRIBUTES]
    return Figures(
        len(pictures),
        boxes,
        described,
        whole["spatial"] / boxes,
        *(value / boxes for value in attributes),
        *(value / described if described else None for value in attributes),
    )


def table(value: Figures) -> str:
    """For people: both readings of the score, one below the other."""
    whole = asdict(value)
    head = ("", "spatial", *ATTRIBUTES)
    rows = [
        ("all boxes, as published", value.spatial, *(whole[name] for name in ATTRIBUTES)),
        ("described boxes alone", None, *(whole[f"described_{name}"] for name in ATTRIBUTES)),
    ]
    lines = [f"{value.pictures} pictures, {value.boxes} boxes, {value.described} of them described"]
    lines.append("".join(f"{name:>26}" if not number else f"{name:>10}" for number, name in enumerate(head)))
    for label, *cells in rows:
        lines.append(f"{label:>26}" + "".join(f"{'-' if cell is None else f'{cell:.4f}':>10}" for cell in cells))
    return "\n".join(lines)


# --- records --------------------------------------------------------------------------------------------------------


def read_records(path: Path) -> list[Record]:
    """DenseLayout's records: a JSON list, JSON Lines, or the data set's own Parquet file (needs pyarrow).

    Each has id, prompt, width, height and annos, a list of bbox [x1, y1, x2, y2] in pixels, category_name, caption.
    Raises InputError naming the record.
    """
    if path.suffix.lower() == ".parquet":
        entries = _parquet(path)
    else:
        try:
            with path.open("rb") as file:
                text = file.read(MAX_RECORDS_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path.name} cannot be read ({error.strerror or error}).") from None
        if len(text) > MAX_RECORDS_BYTES:  # else the lines that were read would pass for all
            raise InputError(f"{path.name} is larger than {MAX_RECORDS_BYTES >> 20} MiB; divide it.")
        entries = _json(text, path.name)
    records = [_record(entry, position) for position, entry in enumerate(entries, 1)]
    seen: set[str] = set()
    for position, record in enumerate(records, 1):
        if record.id in seen:
            raise InputError(f"record {position} has the id {shorten(record.id)} of an earlier one; make ids unique.")
        seen.add(record.id)
    return records


def _json(text: bytes, name: str) -> Sequence[object]:
    if text.lstrip()[:1] == b"[":
        value, literals = parse(text, name, MAX_RECORDS_BYTES)
        entries: object = value
    else:
        lines = [parse(line, f"line {n} of {name}") for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        entries = [value for value, _ in lines]
        literals = tuple(literal for _, its in lines for literal in its)
    if literals:
        raise InputError(f"{name} contains {literals[0]}, which is not JSON; give finite numbers.")
    if not isinstance(entries, list):
        raise InputError(f"{name} holds {shorten(entries)}; give a list of records.")
    return entries


def _parquet(path: Path) -> Sequence[object]:
    try:
        from pyarrow import parquet  # with the bulk extra alone
    except ImportError:
        raise InputError(f"{path.name} needs pyarrow; install it, or give the records as JSON.") from None
    try:
        columns = ["id", "prompt", "width", "height", "annos"]
        return parquet.read_table(path, columns=columns).to_pylist()  # without its pictures
    except Exception as error:  # noqa: BLE001 - the library has errors of many kinds
        raise InputError(f"{path.name} cannot be read ({str(error)[:120]}).") from None


def _record(entry: object, position: int) -> Record:
    where = f"record {position}"
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} is {shorten(entry)}; give an object with prompt, width, height and annos.")
    annos = entry.get("annos")
    if isinstance(annos, str):  # some exports write the list as text
        annos = _json(annos.encode(), where)
    if not isinstance(annos, (list, tuple)) or len(annos) > MAX_ANNOTATIONS:
        raise InputError(f"{where} has annos = {shorten(annos)}; give a list of at most {MAX_ANNOTATIONS}.")
    sides = [finite_number(entry.get(name), where, name) for name in ("width", "height")]
    if min(sides) < 1:
        raise InputError(f"{where} is {sides[0]:g} x {sides[1]:g} pixels; give sides of at least 1.")
    name, prompt = entry.get("id", position), entry.get("prompt", "")
    instances = tuple(_asked(anno, f"{where}, box {number}") for number, anno in enumerate(annos, 1))
    return Record(str(name), str(prompt), int(sides[0]), int(sides[1]), instances)


def _asked(anno: object, where: str) -> Asked:
    box = anno.get("bbox") if isinstance(anno, Mapping) else None
    if not isinstance(anno, Mapping) or not isinstance(box, (list, tuple)) or len(box) != 4:
        raise InputError(f"{where} is {shorten(anno)}; give a bbox of four numbers and a category_name.")
    x1, y1, x2, y2 = (finite_number(value, where, "bbox") for value in box)
    if x2 < x1 or y2 < y1:
        raise InputError(f"{where} has the bbox {shorten(box)}; give left, top, right, bottom.")
    category, caption = (anno.get(name) or "" for name in ("category_name", "caption"))
    if not isinstance(category, str) or not category.strip() or not isinstance(caption, str):
        raise InputError(f"{where} has the category_name {shorten(category)}; give text.")
    return Asked(Box(x1, y1, x2, y2), category.strip(), caption.strip())


# --- results that a run can go on from ------------------------------------------------------------------------------


class ResultsLog:
    """A JSON Lines file to which each picture's result is added at once; a run that was broken off goes on behind it.

    settings  what decides the results (detector, judge); a file that was written with others is refused
    """

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        self.path, self.settings = path, dict(settings)

    def read(self) -> dict[str, tuple[Grounded, ...]]:
        """The results so far by record id; a last line that was cut off is dropped from the file.

        Raises InputError for a file of another run.
        """
        if not self.path.exists():
            self.path.write_text(json.dumps({"settings": self.settings}) + "\n", encoding="utf-8")
            return {}
        whole = self.path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        lines = kept.splitlines()
        try:
            head = json.loads(lines[0]) if lines else None
            if not lines or head != {"settings": self.settings}:
                raise InputError(
                    f"{self.path.name} was written with {shorten(head)} and not with {self.settings}; choose another"
                    " file, or remove it."
                )
            results = {entry["id"]: _results(entry["instances"]) for entry in map(json.loads, lines[1:])}
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path.name} holds no results of this command; choose another file.") from error
        if len(kept) != len(whole):
            with self.path.open("r+b") as file:
                file.truncate(len(kept))
        return results

    def add(self, id: str, instances: Sequence[Grounded]) -> None:
        line = json.dumps({"id": id, "instances": [list(one) for one in instances]})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def _results(entries: Iterable[Sequence[object]]) -> tuple[Grounded, ...]:
    def read() -> Iterator[Grounded]:
        for iou, attributes in entries:
            if attributes is None:
                yield Grounded(float(iou))  # type: ignore[arg-type]
            else:
                colour, texture, shape = (bool(value) for value in attributes)  # type: ignore[union-attr]
                yield Grounded(float(iou), (colour, texture, shape))  # type: ignore[arg-type]

    return tuple(read())
