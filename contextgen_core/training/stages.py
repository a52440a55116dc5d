"""From a config to a run."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..errors import InputError
from .config import Config
from .latents import LatentSet
from .run import Run
from .tasks import TransformerTask

logger = logging.getLogger("contextgen")


def train(config: Config) -> int:
    """Runs a stage; returns the steps done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder of the encoded scenes.")
    return Run(config, TransformerTask(config, LatentSet.load(Path(config.data.path)))).go()
