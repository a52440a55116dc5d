"""From a config to a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import tiny
from ..errors import InputError
from ..tiny_vae import Taesd, compact
from .config import Config
from .latents import LatentSet, make, training_scenes
from .run import Run

logger = logging.getLogger("contextgen")


def train(config: Config) -> int:
    """Runs a stage to its end, its time limit or a signal; returns the steps done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.stage == "scenes":
        return make_scenes(config)
    if config.stage == "autoencoder":
        from .autoencoder import AutoencoderTask

        return Run(config, AutoencoderTask(config)).go()
    from .tasks import TransformerTask

    return Run(config, TransformerTask(config, open_data(config))).go()


def open_data(config: Config) -> Any:
    """The data of a transformer stage."""
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder of the data.")
    if config.data.kind == "world":
        return LatentSet.load(Path(config.data.path))
    from .pixels import PixelSet

    return PixelSet(config)


def autoencoder(config: Config) -> Taesd:
    """The small autoencoder of a run: a trained file, or the pack's own."""
    if not config.model.autoencoder:
        return tiny.tiny_autoencoder()
    try:
        state = load_file(config.model.autoencoder)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"model.autoencoder {config.model.autoencoder!r} cannot be read; run configs/tiny_autoencoder.yaml first."
        ) from error
    return compact({k: v.float() for k, v in state.items() if not k.startswith("vae_")})


def make_scenes(config: Config) -> int:
    """The stage `scenes`: renders and encodes the training mixture into data.path; returns how many scenes."""
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder for the encoded scenes.")
    vae = autoencoder(config)
    parts = []
    for part in make(vae, training_scenes(config.data.seed, config.data.count), lose=config.dpo.lose == "pasted"):
        parts.append(part)
        logger.info("%d of %d scenes", sum(len(p) for p in parts), config.data.count)
    joined = LatentSet.join(parts)
    joined.save(Path(config.data.path))
    return len(joined)
