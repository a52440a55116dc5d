"""The pictures of the small world's boxes as InstanceAssemble reads them: encoded once and kept beside the scenes.

A box's picture is what the product makes of its reference: cut out, fitted to the box, on grey. So training sees what
Layout Composer will give.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...composite.compose import compose
from ...methods.instance_assemble.content import Place
from ...methods.instance_assemble.plan import PhraseOptions, bind
from ...tiny.autoencoder import Taesd
from ..config import Config
from ..latents import CHANNELS, REFERENCE_GRID, encode, encode_scenes
from ..parts import autoencoder
from . import world
from .beside import SetBeside, make_beside

FOLDER = "instance_assemble"  # within a set's
_FIELDS = {"content": (1, 0), "places": (1, 0)}
_TOKENS = REFERENCE_GRID**2  # the most of a picture: the budget of its reference


@dataclass(frozen=True, eq=False, kw_only=True)
class PicturedSet(SetBeside):
    """Encoded scenes with the picture of each box that has a reference.

    content float16 (N, K, T, 64): its latents, packed, zeros behind its own; places float32 (N, K, 6): rows and columns
    of its tokens, then left, top, right and bottom in shares of the canvas; all 0 where there is none."""

    content: np.ndarray
    places: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> PicturedSet:
        """Reads a set and what the stage `contents` wrote into it."""
        return cls.read(folder, FOLDER, _FIELDS, "contents")

    def picture(self, index: int, k: int) -> tuple[Place, torch.Tensor] | None:
        """Where the picture of a scene's k-th member lies, and its tokens (n, 64); None without one."""
        if k >= self.places.shape[1] or not self.places[index, k].any():
            return None
        rows, columns, *sides = self.places[index, k].tolist()
        place = Place(int(rows), int(columns), *sides)
        return place, torch.from_numpy(self.content[index, k, : place.size].astype(np.float32))


def encode_contents(vae: Taesd, scenes: Sequence[world.Scene]) -> dict[str, np.ndarray]:
    """`content` and `places` of scenes of one canvas size."""
    most = max(len(scene.members) for scene in scenes)
    places = np.zeros((len(scenes), most, 6), np.float32)
    shaped: dict[tuple[int, ...], list[tuple[int, int, np.ndarray]]] = defaultdict(list)
    for i, scene in enumerate(scenes):
        layout, references = world.request(scene)
        if not references:
            continue
        bound = bind(compose(layout, references), PhraseOptions(content="both"))
        pictures = iter(bound.pictures)
        for k, box in enumerate(bound.plan.boxes):
            if box.picture is not None:
                places[i, k] = box.picture[:6]
                picture = next(pictures)
                shaped[picture.shape].append((i, k, picture))
    content = np.zeros((len(scenes), most, _TOKENS, CHANNELS), np.float16)
    for alike in shaped.values():
        tokens = encode(vae, np.stack([picture for _, _, picture in alike]), 64).half().numpy()
        for (i, k, _), own in zip(alike, tokens, strict=True):
            content[i, k, : len(own)] = own
    return {"content": content, "places": places}


def encode_scenes_pictured(
    vae: Taesd,
    scenes: Sequence[world.Scene],
    pictures: Sequence[world.Picture],
    keys: Sequence[tuple[int, int, int]] | None = None,
) -> PicturedSet:
    """Scenes to be judged: as `encode_scenes`, with the pictures of their boxes."""
    plain = encode_scenes(vae, scenes, pictures, keys=keys)
    return PicturedSet.of(plain, encode_contents(vae, scenes))


def make_contents(config: Config) -> int:
    """The stage `contents`: draws and encodes the pictures of the boxes of encoded scenes; returns of how many."""
    return make_beside(config, FOLDER, _FIELDS, _portion)


def _portion(config: Config, keys: np.ndarray) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    scenes = [world.scene(int(s), "train", int(k), world.TIERS[t]) for s, t, k in keys]
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        return encode_contents(autoencoder(config), scenes)
