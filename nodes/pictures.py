"""What methods' conditioning nodes share: the empty latent of a layout, and its pictures through the VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import numpy as np
import torch

from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
from .sockets import to_image

CHANNELS = 16
SCALE = 8  # pixels along one side of a latent pixel


def empty_latent(scene: Scene, batch: int) -> torch.Tensor:
    """Zeros of the layout's size, (batch, 16, H / 8, W / 8), on the host's intermediate device."""
    shape = (batch, CHANNELS, scene.layout.height // SCALE, scene.layout.width // SCALE)
    return torch.zeros(shape, device=comfy.model_management.intermediate_device())


def encode_pictures(node: str, vae: Any, pictures: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """uint8 (h, w, 3) each -> latents (1, 16, h / 8, w / 8); a picture that comes again is encoded once.

    The host's VAE gives the mean, so it is always the same. Raises InputError, naming the node, for another VAE.
    """
    if vae is None:
        raise InputError("there is no VAE; load FLUX.1's ae.safetensors with Load VAE.", node, "vae")
    channels = getattr(vae, "latent_channels", CHANNELS)
    if channels != CHANNELS:
        raise InputError(
            f"this VAE makes latents of {channels} channels, FLUX.1 needs {CHANNELS}; load FLUX.1's "
            "ae.safetensors with Load VAE.",
            node,
            "vae",
        )
    encoded: dict[int, torch.Tensor] = {}
    for picture in pictures:
        if id(picture) not in encoded:
            comfy.model_management.throw_exception_if_processing_interrupted()
            encoded[id(picture)] = _encode(node, vae, picture)
    return [encoded[id(picture)] for picture in pictures]


def _encode(node: str, vae: Any, pixels: np.ndarray) -> torch.Tensor:
    latent = vae.encode(to_image(pixels))
    height, width = pixels.shape[:2]
    wanted = (1, CHANNELS, height // SCALE, width // SCALE)
    if tuple(latent.shape) != wanted:
        raise InputError(
            f"this VAE turns {width} x {height} pixels into a latent of shape {tuple(latent.shape)}, "
            f"FLUX.1 needs {wanted}; load FLUX.1's ae.safetensors with Load VAE.",
            node,
            "vae",
        )
    return latent
