"""Folders like SIGMA-SET: pictures with several subjects, and for each its identity picture, regions and name.

The authors' files are not public, so the form is ours. A folder holds `items.jsonl`, a line for each picture:

    {"picture": "pictures/000000.png", "background": "a meadow at noon", "caption": "a fox and a drum on a meadow",
     "focal": 1.0, "subjects": [
       {"name": "a fox", "identity": "identities/000000_0.png", "box": [x1, y1, x2, y2],
        "mask": "masks/000000_0.png", "depth": "depth/000000.png",
        "box3d": {"center": [x, y, z], "size": [w, h, d], "yaw": 0, "pitch": 0, "roll": 0}}]}

Paths lie below the folder. The identity picture shows the subject posed or lit otherwise than the picture does: RGBA,
or on a plain ground. Boxes are in pixels of the picture. mask (white = subject, at least half) and depth (near bright,
0 = nothing) have the picture's size; both are optional and depth needs the mask. box3d is a cuboid in the camera of
`contextgen_core.methods.sigma_gen.cuboids`, focal its focal length in widths of the picture; both are optional.

In shards (:mod:`stream`) an item is `<key>.json`, the same object, and names its pictures by what stands behind the
key: `<key>.picture.png` is `"picture": "picture.png"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..composite.references import Reference
from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import MAX_LABEL, finite_number, shorten
from ..input.picture_file import open_picture
from ..layout.box import Box
from ..masks import flood_subject
from ..methods.sigma_gen.control import MOST, Cell, identity_stack, nearest
from ..methods.sigma_gen.cuboids import Cuboid, depths, grey_of
from ..methods.sigma_gen.method import plan_of
from .batch import Batch
from .config import Config, RoutingConfig, subjects_at
from .routing import Regions, box_regions, dilated, draw_kind, jittered, route
from .small_world import world
from .small_world.pixels import Encoders, encoders_of
from .stream import PackedSample, Source, opened

ITEMS = "items.jsonl"
Folder = Path | Mapping[str, Source]
MOST_ITEMS = 1_000_000
MOST_WORDS = 4000  # characters of a caption
GROUND = 0.06  # of the value range: how plain the ground of an identity picture without alpha is


@dataclass(frozen=True)
class SetSubject:
    """One subject of a picture; regions that the folder lacks are None."""

    name: str
    identity: Source
    box: Box
    mask: Source | None
    depth: Source | None
    cuboid: Cuboid | None


@dataclass(frozen=True)
class SetItem:
    """One picture. where: how errors name it; focal: in widths of the picture."""

    where: str
    picture: Source
    background: str
    caption: str
    focal: float
    subjects: tuple[SetSubject, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of regions that all its subjects have."""
        whole = all(s.mask and s.depth for s in self.subjects)
        return (
            *(("mask",) if whole else ()),
            *(("silhouette",) if all(s.mask for s in self.subjects) else ()),
            *(("cuboid",) if all(s.cuboid for s in self.subjects) else ()),
            "box",
            "ellipse",
        )


# ---- reading -------------------------------------------------------------------------------------


def read_set(folder: Path) -> tuple[SetItem, ...]:
    """Every item of a folder. Raises InputError, naming line and field, for the first that is not as described."""
    path = folder / ITEMS
    if not path.is_file():
        raise InputError(f"There is no {ITEMS} in {str(folder)!r}; give a folder like SIGMA-SET (docs/training.md).")
    items = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > MOST_ITEMS:
                raise InputError(f"{ITEMS} has more than {MOST_ITEMS} lines; divide the folder.")
            if line.strip():
                where = f"{ITEMS}, line {number}"
                items.append(_item(folder, parse(line, where).value, where))
    if not items:
        raise InputError(f"{ITEMS} in {str(folder)!r} has no items; give a folder with at least one.")
    return tuple(items)


def packed_item(sample: PackedSample) -> SetItem:
    """An item that came in a shard. Raises InputError, naming place and field, for one that is not as described."""
    return _item(sample.files, sample.record, sample.where)


def _item(folder: Folder, value: object, where: str) -> SetItem:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} holds {shorten(value)}; give an object.")
    subjects = value.get("subjects")
    if not isinstance(subjects, Sequence) or isinstance(subjects, str) or not 1 <= len(subjects) <= MOST:
        raise InputError(f"{where} has subjects = {shorten(subjects)}; give a list of 1 to {MOST}.")
    focal = finite_number(value.get("focal", 1.0), where, "focal")
    if focal <= 0:
        raise InputError(f"{where} has focal = {focal:g}; give a number above 0, in widths of the picture.")
    return SetItem(
        where,
        _file(folder, value, "picture", where),
        _words(value, "background", where),
        _words(value, "caption", where),
        focal,
        tuple(_subject(folder, s, f"{where}, subject {k}") for k, s in enumerate(subjects, 1)),
    )


def _subject(folder: Folder, value: object, where: str) -> SetSubject:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {shorten(value)}; give an object.")
    corners = _numbers(value, "box", 4, where)
    x1, y1, x2, y2 = corners
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"{where} has box = {list(corners)}; give left, top, right, bottom of an area.")
    mask, depth = (_file(folder, value, name, where) if name in value else None for name in ("mask", "depth"))
    if depth and not mask:
        raise InputError(f"{where} has depth without mask; give the mask, too.")
    name = _words(value, "name", where)
    if len(name) > MAX_LABEL:
        raise InputError(f"{where} has a name of {len(name)} characters, the limit is {MAX_LABEL}; shorten it.")
    return SetSubject(
        name, _file(folder, value, "identity", where), Box(*corners), mask, depth, _cuboid(value.get("box3d"), where)
    )


def _cuboid(value: object, where: str) -> Cuboid | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError(f"{where} has box3d = {shorten(value)}; give an object with center and size.")
    center, size = (_numbers(value, name, 3, f"{where}, box3d") for name in ("center", "size"))
    angles = (finite_number(value.get(name, 0.0), f"{where}, box3d", name) for name in ("yaw", "pitch", "roll"))
    try:
        return Cuboid((center[0], center[1], center[2]), (size[0], size[1], size[2]), *angles)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _numbers(value: Mapping[Any, Any], name: str, count: int, where: str) -> tuple[float, ...]:
    numbers = value.get(name)
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or len(numbers) != count:
        raise InputError(f"{where} has {name} = {shorten(numbers)}; give a list of {count} numbers.")
    return tuple(finite_number(number, where, name) for number in numbers)


def _words(value: Mapping[Any, Any], name: str, where: str) -> str:
    words = value.get(name)
    if not isinstance(words, str) or not words.strip() or len(words) > MOST_WORDS:
        raise InputError(f"{where} has {name} = {shorten(words)}; give a text of 1 to {MOST_WORDS} characters.")
    return words.strip()


def _file(folder: Folder, value: Mapping[Any, Any], name: str, where: str) -> Source:
    given = value.get(name)
    if not isinstance(given, str) or not given or "\0" in given:
        raise InputError(f"{where} has {name} = {shorten(given)}; give the path of a picture below the folder.")
    if not isinstance(folder, Path):
        if given not in folder:
            raise InputError(f"{where} has {name} = {shorten(given)}, which is not in it; make the shard again.")
        return folder[given]
    path = folder / given
    if folder.resolve() not in path.resolve().parents:
        raise InputError(f"{where} has {name} = {shorten(given)}, which leaves the folder; give a path below it.")
    if not path.is_file():
        raise InputError(f"{where} has {name} = {shorten(given)}, which is no file; unpack the set whole.")
    return path


def read_pixels(path: Source, mode: str, where: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 (H, W[, C]) of a picture in one of Pillow's modes; size (width, height) it must have."""
    try:
        image = open_picture(path, upright=False)
    except InputError as error:
        raise InputError(f"{where}: {error.message}") from None
    if size is not None and image.size != size:
        raise InputError(
            f"{where}: {path.name} is {image.width} x {image.height}, the picture {size[0]} x {size[1]}; give one of"
            " the same size."
        )
    return np.asarray(image.convert(mode))


# ---- drawing -------------------------------------------------------------------------------------


def identity(subject: SetSubject, number: int, where: str) -> Reference:
    """The identity picture with the mask of its subject: its alpha, or what stands on a plain ground."""
    rgba = read_pixels(subject.identity, "RGBA", where)
    pixels, alpha = np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    mask = alpha if alpha.min() < 255 else flood_subject(pixels, GROUND)
    return Reference(f"{number} {subject.name}"[:MAX_LABEL], pixels, mask)


def item_regions(
    item: SetItem, kind: str, size: tuple[int, int], rng: np.random.Generator, r: RoutingConfig
) -> Regions:
    """Regions of an item at the picture's own size (width, height), inexact as training wants them."""
    width, height = size
    if kind in ("box", "ellipse"):
        boxes = [jittered(s.box, rng, r, max(size)) for s in item.subjects]
        return box_regions(boxes, width, height, kind)
    if kind == "cuboid":
        distances = depths([s.cuboid for s in item.subjects if s.cuboid], item.focal * width, width, height)
        return Regions(dilated(np.isfinite(distances), rng, r), grey_of(distances.min(axis=0)))
    masks = [read_pixels(s.mask, "L", item.where, size) >= 128 for s in item.subjects if s.mask]
    if not all(mask.any() for mask in masks):
        raise InputError(f"{item.where} has a mask that selects nothing; draw it, or leave the subject out.")
    depth = None
    if kind == "mask":
        planes = [read_pixels(s.depth, "L", item.where, size) for s in item.subjects if s.depth]
        depth = np.max([np.where(m, plane, 0) for m, plane in zip(masks, planes, strict=True)], axis=0)
    return Regions(dilated(np.stack(masks), rng, r), depth)


class RoutedPictures:
    """The items of the folders or shards in `data.folders` (or of data.path alone), composed and encoded anew for each
    step."""

    def __init__(self, config: Config) -> None:
        root = Path(config.data.path)
        folders = {root / name: share for name, share in (config.data.folders or {"": 1.0}).items()}
        self.stream = opened(folders, "sigma_set", config.seed, config.batch, config.data.window, alike=True)
        if self.stream is None:
            sets = [read_set(folder) for folder in folders]
            self.items = tuple(item for items in sets for item in items)
            share = [s / len(items) for s, items in zip(folders.values(), sets, strict=True) for _ in items]
            self.shares = np.array(share) / sum(share)
            self.counts = np.array([len(item.subjects) for item in self.items])
        if config.data.size % world.TOKEN or config.routing.cell % world.TOKEN:
            raise InputError(
                f"data.size is {config.data.size} and routing.cell {config.routing.cell}; give multiples of"
                f" {world.TOKEN}."
            )
        self.encoders: Encoders = encoders_of(config)

    def __len__(self) -> int:
        return len(self.items if self.stream is None else self.stream)

    def draw(self, rng: np.random.Generator, config: Config, done: float = 0.0, number: int = 0) -> Batch:
        """A batch of items with equally many subjects, as many as the curriculum allows when `done` (0..1) of the run
        is over: random ones, or those that the stream gives to batch `number` of the run."""
        least, most = subjects_at(config.data.curriculum, done)
        if self.stream is not None:
            items = [packed_item(sample) for sample in self.stream.batch(number, least, most)]
        else:
            items = self._chosen(rng, config.batch, least, most)
        samples = [self._sample(item, rng, config) for item in items]
        target, conditions, text, pooled = (torch.stack(part) for part in zip(*(s[1:] for s in samples), strict=True))
        return Batch(tuple(s[0] for s in samples), target, conditions, text, pooled)

    def _chosen(self, rng: np.random.Generator, count: int, least: float, most: float) -> list[SetItem]:
        share = np.where((self.counts >= least) & (self.counts <= most), self.shares, 0)
        if not share.any():
            raise InputError(f"No picture has {least} to {most:g} subjects; correct data.curriculum.")
        same = np.flatnonzero(self.counts == self.counts[rng.choice(len(self.items), p=share / share.sum())])
        share = self.shares[same] / self.shares[same].sum()
        return [self.items[k] for k in rng.choice(same, count, p=share)]

    def _sample(self, item: SetItem, rng: np.random.Generator, config: Config) -> tuple[Any, ...]:
        side, routing = config.data.size, config.routing
        target = read_pixels(item.picture, "RGB", item.where)
        size = target.shape[1], target.shape[0]
        regions = item_regions(item, draw_kind(rng, routing.regions, item.kinds), size, rng, routing)
        masks = np.stack([nearest(mask, side, side) for mask in regions.masks])
        depth = None if regions.depth is None else nearest(regions.depth, side, side)
        control, order = route(Regions(masks, depth), routing, rng)
        references = [identity(s, k, item.where) for k, s in enumerate(item.subjects, 1)]
        stack = identity_stack([references[k] for k in order], Cell(routing.cell, routing.cell))
        resized = np.asarray(Image.fromarray(target).resize((side, side), Image.Resampling.LANCZOS))
        clean, tokens, routes = (self.encoders.pictures(p[None])[0] for p in (resized, stack, control))
        text, pooled = self.encoders.words(prompt(item, rng))
        return plan_of(stack, control), clean, torch.cat([tokens, routes]), text, pooled


def prompt(item: SetItem, rng: np.random.Generator) -> str:
    """The published templates, half of the time each."""
    if rng.random() < 0.5:
        return f"Place these subjects in {item.background}"
    return f"Place these subjects to compose: {item.caption}"


# ---- the small world in this form ----------------------------------------------------------------


def write_world(folder: Path, scenes: Iterable[world.Scene]) -> int:
    """Stores scenes of the small world as such a folder (PNG, so nothing is lost); returns how many."""
    for name in ("pictures", "identities", "masks", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for index, scene in enumerate(scenes):
        scene = scene._replace(members=world.shown_members(scene))
        picture, name = world.render(scene), f"{index:06d}"
        Image.fromarray(picture.target).save(folder / "pictures" / f"{name}.png")
        Image.fromarray(grey_of(world.depth(scene))).save(folder / "depth" / f"{name}.png")
        subjects = []
        for k, (member, mask, solid) in enumerate(
            zip(scene.members, world.masks(scene), world.cuboids(scene), strict=True)
        ):
            rgba = np.dstack([picture.references[k], picture.masks[k]])
            Image.fromarray(rgba).save(folder / "identities" / f"{name}_{k}.png")
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / "masks" / f"{name}_{k}.png")
            angles = {"yaw": solid.yaw, "pitch": solid.pitch, "roll": solid.roll}
            subjects.append(
                {
                    "name": member.creature.name,
                    "identity": f"identities/{name}_{k}.png",
                    "box": list(member.box),
                    "mask": f"masks/{name}_{k}.png",
                    "depth": f"depth/{name}.png",
                    "box3d": {"center": list(solid.center), "size": list(solid.size), **angles},
                }
            )
        place = f"the {world.PLACES[scene.place]} at {world.LIGHTS[scene.light]}"
        caption = scene.naming((True,) * len(scene.members))
        item = {"picture": f"pictures/{name}.png", "background": place, "caption": caption, "focal": 1.0}
        lines.append(json.dumps({**item, "subjects": subjects}))
    (folder / ITEMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
