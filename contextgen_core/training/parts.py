"""The frozen part of a run: its autoencoder."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import InputError
from ..tiny import model as tiny
from ..tiny.autoencoder import Taesd, compact
from .config import Config


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
