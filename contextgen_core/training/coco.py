"""Pictures with a phrase for each box, as COCO stores annotations: for training that binds phrases.

One JSON file: `images` [{`id`, `file_name`, `width`, `height`, `caption` or `prompt`}], `annotations` [{`image_id`,
`bbox` [x, y, width, height] in pixels, `category_id` or `category`, optional `caption`}], `categories` [{`id`,
`name`}]. A phrase is the category, or "category, caption" where there is one, as InstanceAssemble's authors join them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from ..input.picture_file import open_picture
from ..layout.box import Box
from ..layout.tokens import TOKEN
from ..tiny.text import Words
from .batch import Batch, Phrases
from .config import Config
from .small_world.pixels import Encoders, encoders_of

MOST_BYTES = 2**30  # of the annotations
MOST_BOXES = 50  # of a picture; further ones are left out, as the authors do
FILE = "annotations.json"


@dataclass(frozen=True)
class Item:
    """One picture: its file, size in pixels, caption, and a phrase for each box (in pixels)."""

    picture: Path
    width: int
    height: int
    caption: str
    phrases: tuple[tuple[str, Box], ...]


def read_annotations(folder: Path) -> tuple[Item, ...]:
    """All pictures of a folder with at least one usable box. Raises InputError where there is none."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"There is no {FILE} in {str(folder)!r}; give the folder of pictures with their annotations.")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{str(path)!r} is larger than 1 GiB; divide it among several folders.")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = {entry["id"]: str(entry["name"]) for entry in tree.get("categories", ())}
        boxes: dict[Any, list[tuple[str, Box]]] = defaultdict(list)
        for entry in tree["annotations"]:
            x, y, width, height = (float(v) for v in entry["bbox"])
            category = str(entry.get("category") or names.get(entry.get("category_id"), "")).strip()
            caption = str(entry.get("caption") or "").strip()
            phrase = ", ".join(part for part in (category, caption) if part)
            if phrase and width > 0 and height > 0 and np.isfinite([x, y, width, height]).all():
                boxes[entry["image_id"]].append((phrase, Box(x, y, x + width, y + height)))
        items = tuple(
            Item(
                _inside(folder, str(entry["file_name"])),
                int(entry["width"]),
                int(entry["height"]),
                str(entry.get("caption") or entry.get("prompt") or ""),
                tuple(boxes[entry["id"]][:MOST_BOXES]),
            )
            for entry in tree["images"]
            if boxes.get(entry["id"])
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is not in COCO's form ({error}); see contextgen_core/training/coco.py."
        ) from None
    items = tuple(item for item in items if item.picture.is_file() and item.width > 0 and item.height > 0)
    if not items:
        raise InputError(f"No picture in {str(folder)!r} has a file and a box with words; unpack the pictures there.")
    return items


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if folder.resolve() not in path.resolve().parents:
        raise ValueError(f"{name!r} leaves the folder")
    return path


class PhraseSet:
    """The annotated pictures of `data.path`, or of the folders in it that `data.folders` names, by their shares."""

    def __init__(self, config: Config, phrases: Phrases | None) -> None:
        if phrases is None:
            raise InputError(f"{config.method.name} reads no phrases; data.kind coco is for methods that do.")
        if config.method.content != "phrases":
            raise InputError(
                f"method.content is {config.method.content!r}, but data.kind coco has no pictures for boxes; set it to"
                " phrases."
            )
        if config.data.size % TOKEN:
            raise InputError(f"data.size is {config.data.size}; give a multiple of {TOKEN}.")
        root = Path(config.data.path)
        folders = {root / name: share for name, share in config.data.folders.items()} or {root: 1.0}
        self.phrases = phrases
        self.subsets = [read_annotations(folder) for folder in folders]
        self._alike = [_by_count(subset) for subset in self.subsets]
        self.shares = np.array(list(folders.values())) / sum(folders.values())
        self.encoders: Encoders = encoders_of(config)

    def __len__(self) -> int:
        return sum(len(s) for s in self.subsets)

    def draw(self, rng: np.random.Generator, config: Config, done: float = 0.0, number: int = 0) -> Batch:
        """A batch of random pictures with equally many boxes."""
        chosen = int(rng.choice(len(self.subsets), p=self.shares))
        subset = self.subsets[chosen]
        first = subset[int(rng.integers(len(subset)))]
        alike = self._alike[chosen][len(first.phrases)]
        items = [first, *(subset[alike[int(rng.integers(len(alike)))]] for _ in range(config.batch - 1))]
        side = config.data.size
        told = tuple(bool(rng.random() >= config.data.caption_drop) for _ in items)
        prompts = [self._words(item.caption if tells else "") for item, tells in zip(items, told, strict=True)]
        words = [[self._words(phrase) for phrase, _ in item.phrases] for item in items]
        plans = []
        for item, own in zip(items, words, strict=True):
            boxes = [box.scaled(side / item.width, side / item.height) for _, box in item.phrases]
            plans.append(self.phrases.plan(boxes, side, own[0]))
        target = torch.stack([self.encoders.pictures(read_square(item, side)[None])[0] for item in items])
        return Batch(
            plans=tuple(plans),
            target=target,
            conditions=target[:, :0],
            text=torch.stack([p.tokens for p in prompts]),
            pooled=torch.stack([p.pooled for p in prompts]),
            vectors=self.phrases.join(words),
            positive=told,
        )

    def _words(self, text: str) -> Words:
        return Words(*self.encoders.words(text))


def _by_count(subset: tuple[Item, ...]) -> dict[int, list[int]]:
    """The items with each number of boxes, as indices."""
    found: dict[int, list[int]] = defaultdict(list)
    for number, item in enumerate(subset):
        found[len(item.phrases)].append(number)
    return dict(found)


def read_square(item: Item, side: int) -> np.ndarray:
    """Its picture as a square, uint8 (side, side, 3). Raises InputError where it cannot be read, or is too large."""
    image = open_picture(item.picture, upright=False).convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
