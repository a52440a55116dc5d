"""The authors' dataset format (IMIG), read and written; scenes of the small world can be stored in it and come back.

A subset is a folder with `filtered_prompts.json` and pictures (facts of the authors' `MigDataset`):

- base items (imig-basic, imig-complex): `index`, `prompt`, `reference_images` [{`index`, `bbox`, `phrase`}]; the
picture is
  `data/<index:06d>.jpg`, the crops `instance_data/<index:06d>_<k>.jpg`, their masks
  `masked_instance_data/<index:06d>_<k>_mask.png`, repaints of the crops `kontext_data/` with masks in
  `masked_kontext_data/`, same names;
- composite items (imig-composite, imig-multicomposite): `prompt`, `instance` [phrases], `indices`, `bbox`
[{`bbox`, `score`} or null];
  the picture is `composite_images/<index:06d>.jpg`, references `references/<index>.jpg` with masks in
  `reference_masks/`.

Boxes are xyxy in pixels of the stored picture. Pictures may be .jpg, .png or .webp.

In shards (:mod:`stream`) a base item is `<index>.json`, its record, beside `<index>.target.png` and, for subject k,
`<index>.<k>.reference.png`, `.mask.png`, `.repaint.png` and `.repaint_mask.png`. `<index>.unwanted.png` is a picture
that DPO turns away from; a folder has it as `unwanted/<index:06d>.png`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..input.picture_file import open_picture
from ..layout.box import Box
from .small_world import world
from .stream import PackedSample, Source

PROMPTS = "filtered_prompts.json"
MOST_BYTES = 2**30  # of the prompt file
_ENDINGS = (".jpg", ".png", ".webp", ".jpeg")


@dataclass(frozen=True)
class Subject:
    """One instance: its reference picture and mask, its box in the target, and the repainted reference if there is
    one."""

    reference: Source
    mask: Source | None
    box: Box
    phrase: str = ""
    repaint: Source | None = None
    repaint_mask: Source | None = None


@dataclass(frozen=True)
class Item:
    """One training picture with its words and subjects, bottom of the composite first. unwanted: what DPO turns away
    from, where the set says it."""

    target: Source
    prompt: str
    subjects: tuple[Subject, ...]
    unwanted: Source | None = None


def read_subset(folder: Path) -> tuple[Item, ...]:
    """Every usable item of a subset. Items without pictures or boxes are left out; a folder without any is an error."""
    path = folder / PROMPTS
    if not path.is_file():
        raise InputError(
            f"There is no {PROMPTS} in {str(folder)!r}; give the folder of one IMIG subset, such as imig-basic."
        )
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{str(path)!r} is larger than 1 GiB; that is not a prompt file of IMIG.")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not valid JSON; fetch the subset again.") from error
    if not isinstance(records, list):
        raise InputError(f"{str(path)!r} does not hold a list; fetch the subset again.")
    items = tuple(item for number, record in enumerate(records) for item in _read_item(folder, number, record))
    if not items:
        raise InputError(
            f"None of the {len(records)} items in {str(folder)!r} has its pictures; unpack the subset's archives there."
        )
    return items


def _read_item(folder: Path, number: int, record: Any) -> Iterator[Item]:
    if not isinstance(record, dict):
        return
    reader = _base_item if "reference_images" in record else _composite_item
    try:
        item = reader(folder, number, record)
    except (KeyError, TypeError, ValueError):
        return
    if item is not None and item.subjects:
        yield item


def _picture(folder: Path, name: str) -> Path | None:
    """The picture of that name below a folder, whatever its ending; names that leave the folder are refused."""
    for ending in _ENDINGS:
        path = folder / f"{name}{ending}"
        if path.is_file() and folder.resolve() in path.resolve().parents:
            return path
    return None


def _base_item(folder: Path, number: int, record: dict[str, Any]) -> Item | None:
    index = int(record.get("index", number))

    def find(kind: str, k: int | None = None) -> Source | None:
        subfolder, ending = _PLACES[kind]
        return _picture(folder / subfolder, f"{index:06d}{'' if k is None else f'_{k}'}{ending}")

    return _base(record, find)


_PLACES = {
    "target": ("data", ""),
    "unwanted": ("unwanted", ""),
    "reference": ("instance_data", ""),
    "mask": ("masked_instance_data", "_mask"),
    "repaint": ("kontext_data", ""),
    "repaint_mask": ("masked_kontext_data", "_mask"),
}


def packed_item(sample: PackedSample) -> Item:
    """A base item that came in a shard. Raises InputError for a record that is none."""

    def find(kind: str, k: int | None = None) -> Source | None:
        return sample.files.get(f"{kind}.png" if k is None else f"{k}.{kind}.png")

    try:
        item = _base(sample.record, find)
    except (KeyError, TypeError, ValueError, InputError):
        item = None
    if item is None or not item.subjects:
        raise InputError(f"{sample.where} is no item of IMIG with its pictures; make the shard again.")
    return item


def _base(record: Mapping[str, Any], find: Callable[..., Source | None]) -> Item | None:
    """find(kind, k): a picture of the item, or of its subject number k."""
    target = find("target")
    if target is None:
        return None
    subjects = []
    for place, entry in enumerate(record["reference_images"]):
        k = int(entry.get("index", place))
        reference = find("reference", k)
        if reference is None:
            continue
        box, phrase = _box(entry["bbox"]), str(entry.get("phrase", ""))
        repaint = find("repaint", k), find("repaint_mask", k)
        subjects.append(Subject(reference, find("mask", k), box, phrase, *repaint))
    return Item(target, str(record["prompt"]), tuple(subjects), find("unwanted"))


def _composite_item(folder: Path, number: int, record: dict[str, Any]) -> Item | None:
    index = int(record.get("index", number))
    target = _picture(folder / "composite_images", f"{index:06d}")
    if target is None:
        return None
    subjects = []
    for phrase, own, box in zip(record["instance"], record["indices"], record["bbox"], strict=True):
        reference = _picture(folder / "references", str(own))
        if box is None or reference is None:
            continue
        subjects.append(
            Subject(reference, _picture(folder / "reference_masks", f"{own}_mask"), _box(box["bbox"]), str(phrase))
        )
    return Item(target, str(record["prompt"]), tuple(subjects))


def _box(values: Any) -> Box:
    x1, y1, x2, y2 = (float(v) for v in values)
    return Box(x1, y1, x2, y2)


# ---- the small world in this format --------------------------------------------------------------


def write_world(folder: Path, scenes: Iterable[world.Scene]) -> int:
    """Stores scenes as a base subset (PNG, so nothing is lost); returns how many. The references are whole, with
    their masks."""
    for name in ("data", "instance_data", "masked_instance_data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    records = []
    for index, scene in enumerate(scenes):
        picture = world.render(scene)
        Image.fromarray(picture.target).save(folder / "data" / f"{index:06d}.png")
        entries = []
        for k, member in enumerate(world.shown_members(scene)):
            Image.fromarray(picture.references[k]).save(folder / "instance_data" / f"{index:06d}_{k}.png")
            Image.fromarray(picture.masks[k]).save(folder / "masked_instance_data" / f"{index:06d}_{k}_mask.png")
            entries.append({"index": k, "bbox": list(member.box), "phrase": member.creature.name})
        records.append({"index": index, "prompt": scene.caption, "tier": scene.tier, "reference_images": entries})
    (folder / PROMPTS).write_text(json.dumps(records, indent=1), encoding="utf-8")
    return len(records)


def read_picture(source: Source, mode: str = "RGB") -> np.ndarray:
    """uint8 (H, W[, 3]) in one of Pillow's modes. Raises InputError where it cannot be read, or is too large."""
    try:
        return np.asarray(open_picture(source, upright=False).convert(mode))
    except InputError as error:
        raise InputError(f"In the training set, at {source}: {error.message}") from None


def read_mask(source: Source | None, shape: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W), 255 = subject; all subject where there is no mask."""
    if source is None:
        return np.full(shape, 255, np.uint8)
    grey = read_picture(source, "L")
    same = grey.shape == shape
    return grey if same else np.asarray(Image.fromarray(grey).resize((shape[1], shape[0])))
