"""What SIGMA-GEN reads of the small world's scenes: identity cells and control pictures, encoded once and kept beside
the scenes' other latents.

A scene is drawn again from its key, so nothing of it need be stored but the latents. Each scene gets several control
pictures, each with its own kind of region, inexactness and order of the stack: with three of them and some fifteen
thousand scenes a short training hardly meets one twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...layout.box import Box
from ...methods.sigma_gen.control import Cell, identity_stack
from ...methods.sigma_gen.cuboids import depths, grey_of
from ...methods.sigma_gen.method import Plan
from ...tiny.autoencoder import Taesd
from ..batch import Batch
from ..config import Config, RoutingConfig
from ..latents import CHANNELS, Reader, encode, encode_scenes
from ..parts import autoencoder
from ..routing import Regions, box_regions, dilated, draw_kind, jittered, route
from . import world
from .beside import SetBeside, make_beside

FOLDER = "sigma_gen"  # within a set's
_FIELDS: dict[str, tuple[int, int] | None] = {"cells": (1, 0), "control": None, "orders": (2, -1)}


def folder_of(planes: str) -> str:
    """Where control pictures lie within a set's folder, by `routing.planes`."""
    return FOLDER if planes == "both" else f"{FOLDER}_{planes}"


@dataclass(frozen=True, eq=False, kw_only=True)
class RoutedSet(SetBeside):
    """Encoded scenes with SIGMA-GEN's pictures, V control pictures a scene.

    cells float16 (N, K, C, 64): the identity cell of each reference, C tokens, in the layout's order; control float16
    (N, V, M, 64); orders int8 (N, V, K): the reference in each row of the stack, -1 beyond the last."""

    cells: np.ndarray
    control: np.ndarray
    orders: np.ndarray

    @classmethod
    def load(cls, folder: Path, planes: str = "both") -> RoutedSet:
        """Reads a set and what the stage `controls` wrote into it."""
        return cls.read(folder, folder_of(planes), _FIELDS, "controls")


def routed_batch(
    data: Any,
    indices: np.ndarray,
    references: bool = True,
    box: float = 1.0,
    hidden: float = 1.0,
    *,
    composite: bool = True,
    named: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> Batch:
    """What SIGMA-GEN reads of scenes of a `RoutedSet` with equally many references: conditions are the identity stack
    and the control picture. rng chooses among a scene's control pictures; without it, it is the first."""
    batch = data.batch(indices, False, box, hidden, composite=False, named=named)
    count, tokens = int(data.count[indices[0]]), data.cells.shape[2]
    variants = np.zeros(len(indices), int)
    if rng is not None:
        variants = rng.integers(data.control.shape[1], size=len(indices))
    orders = data.orders[indices, variants][:, :count]
    stack = data.cells[indices[:, None], orders].reshape(len(indices), count * tokens, CHANNELS)
    pictures = [torch.from_numpy(a.astype(np.float32)) for a in (stack, data.control[indices, variants])]
    side = round(tokens**0.5)
    plan = Plan(data.grid, data.grid, side, count * side)
    return replace(batch, plans=(plan,) * len(indices), conditions=torch.cat(pictures, dim=1))


# ---- drawing -------------------------------------------------------------------------------------


def regions(scene: world.Scene, kind: str, settings: RoutingConfig, rng: np.random.Generator | None = None) -> Regions:
    """The regions of the members that have a reference, in the layout's order; inexact where there is a `rng`."""
    scene = scene._replace(members=world.shown_members(scene))
    side = scene.size
    if kind in ("box", "ellipse"):
        boxes = [Box(*m.box) for m in scene.members]
        if rng is not None:
            boxes = [jittered(box, rng, settings, side) for box in boxes]
        return box_regions(boxes, side, side, kind)
    if kind == "cuboid":
        distances = depths(world.cuboids(scene), float(side), side, side)
        masks, depth = np.isfinite(distances), grey_of(distances.min(axis=0))
    else:
        masks, depth = world.masks(scene), None if kind == "silhouette" else grey_of(world.depth(scene))
    return Regions(masks if rng is None else dilated(masks, rng, settings), depth)


def encode_routed(
    vae: Taesd,
    scenes: Sequence[world.Scene],
    settings: RoutingConfig,
    kinds: Sequence[str] | None = None,
    seeds: Sequence[tuple[int, ...]] | None = None,
) -> dict[str, np.ndarray]:
    """`cells`, `control` and `orders` of scenes of one canvas size.

    kinds: one exact control picture of each; else, as in training, settings.variants inexact ones by seeds, one a
    scene."""
    most = max(len(scene.members) for scene in scenes)
    cell, side = Cell(settings.cell, settings.cell), settings.cell
    n, variants = len(scenes), len(kinds or ()) or settings.variants
    cells = np.zeros((n, most, (side // world.TOKEN) ** 2, CHANNELS), np.float16)
    orders = np.full((n, variants, most), -1, np.int8)
    pictures = np.zeros((n, variants, scenes[0].size, scenes[0].size, 3), np.uint8)
    for i, scene in enumerate(scenes):
        _, references = world.request(scene)
        count = len(references)
        if not count:
            continue
        stack = identity_stack(references, cell)
        cells[i, :count] = encode(vae, stack[None])[0].view(count, -1, CHANNELS).half().numpy()
        for v in range(variants):
            rng = None if seeds is None else np.random.default_rng((*seeds[i], v))
            kind = kinds[v] if kinds else draw_kind(_some(rng), settings.regions)
            picture, order = route(regions(scene, kind, settings, rng), settings, rng)
            pictures[i, v], orders[i, v, :count] = picture, order
    control = encode(vae, pictures.reshape(-1, *pictures.shape[2:])).half().numpy()
    return {"cells": cells, "control": control.reshape(n, variants, -1, CHANNELS), "orders": orders}


def _some(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise InputError("Kinds of regions are drawn by a seed; give seeds or kinds.")
    return rng


def encode_scenes_routed(
    vae: Taesd,
    scenes: Sequence[world.Scene],
    pictures: Sequence[world.Picture],
    keys: Sequence[tuple[int, int, int]] | None = None,
    *,
    settings: RoutingConfig,
    kind: str = "box",
) -> RoutedSet:
    """Scenes to be judged: as `encode_scenes`, with the exact control picture of one kind of region."""
    plain = encode_scenes(vae, scenes, pictures, keys=keys)
    return RoutedSet.of(plain, encode_routed(vae, scenes, settings, [kind]))


ROUTED = Reader(routed_batch, lambda data: np.asarray(data.count), RoutedSet.load)


# ---- the stage -----------------------------------------------------------------------------------


def make_controls(config: Config) -> int:
    """The stage `controls`: draws and encodes the control pictures of encoded scenes; returns of how many."""
    return make_beside(config, folder_of(config.routing.planes), _FIELDS, _portion)


def _portion(config: Config, keys: np.ndarray) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    scenes = [world.scene(int(s), "train", int(k), world.TIERS[t]) for s, t, k in keys]
    seeds = [(config.seed, *(int(v) for v in key)) for key in keys]
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        return encode_routed(autoencoder(config), scenes, config.routing, seeds=seeds)
