"""From a config to a run."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .coco import PhraseSet
from .config import Config
from .latents import LatentMix, LatentSet, encode_scenes, training_scenes
from .parts import autoencoder
from .recipes import recipe_of
from .run import Run
from .sigma_set import RoutedPictures
from .small_world import world
from .small_world.autoencoder import AutoencoderTask
from .small_world.contents import make_contents
from .small_world.controls import make_controls
from .small_world.pixels import PixelSet
from .tasks import TransformerTask

logger = logging.getLogger("contextgen")
_PORTION = 500  # scenes that a worker renders at a time


def train(config: Config) -> int:
    """Runs a stage to its end, its time limit or a signal; returns the steps done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.stage == "scenes":
        return make_scenes(config)
    if config.stage == "controls":
        return make_controls(config)
    if config.stage == "contents":
        return make_contents(config)
    if config.stage == "autoencoder":
        return Run(config, AutoencoderTask(config)).go()
    return Run(config, TransformerTask(config, open_data(config))).go()


def open_data(config: Config) -> Any:
    """The data of a transformer stage."""
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder of the data.")
    if config.data.kind == "world":
        folders = {Path(config.data.path) / name: share for name, share in config.data.folders.items()}
        folders = folders or {Path(config.data.path): 1.0}
        reader = recipe_of(config).reader(config)
        sets, shares = tuple(map(reader.open, folders)), tuple(folders.values())
        return LatentMix(sets, shares, reader)
    if config.data.kind == "coco":
        return PhraseSet(config, recipe_of(config).reader(config).phrases)
    return RoutedPictures(config) if config.data.kind == "sigma_set" else PixelSet(config)


def make_scenes(config: Config) -> int:
    """The stage `scenes`: renders and encodes the training mixture into data.path, on all cores; returns how many
    scenes."""
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder for the encoded scenes.")
    autoencoder(config)  # a missing file is told before anything starts
    count = config.data.count
    starts = range(0, count, _PORTION)
    portions = [config] * len(starts), starts, [min(start + _PORTION, count) for start in starts]
    workers = min(config.threads or os.cpu_count() or 1, len(starts))
    parts = []
    with ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext() as pool:
        for part in (pool.map if pool else map)(_scenes, *portions):
            parts.append(part)
            logger.info("%d of %d scenes", sum(len(p) for p in parts), count)
    joined = LatentSet.join(parts)
    joined.save(Path(config.data.path))
    return len(joined)


def _scenes(config: Config, start: int, stop: int) -> LatentSet:
    """Scenes start..stop of the mixture, encoded."""
    torch.set_num_threads(1)
    keys, scenes = zip(*training_scenes(config.data.seed, config.data.tiers, start, stop), strict=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        return encode_scenes(
            autoencoder(config), scenes, [world.render(s) for s in scenes], config.dpo.lose == "pasted", keys
        )
