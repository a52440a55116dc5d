"""The frozen parts of a run: its autoencoder, and the words that its transformer reads."""

from __future__ import annotations

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..errors import InputError
from ..tiny import model as tiny
from ..tiny.autoencoder import Taesd, compact
from ..tiny.text import Form, form_of
from .config import Config


def words_form(config: Config) -> Form:
    """The edition of the words that the transformer of a run reads: the newest for a base, else that of its weights."""
    if config.model.kind != "tiny" or not config.model.weights or config.stage == "base":
        return Form.CREATURES
    if config.model.weights == "shipped":
        return tiny.text_form()
    try:
        with safe_open(config.model.weights, "pt") as file:
            return form_of(file.metadata())
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"model.weights {config.model.weights!r} cannot be read; train the stage before it or correct the path."
        ) from error


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
