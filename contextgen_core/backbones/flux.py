"""FLUX.1's latents as tokens, and its sampling grid."""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS = 16  # of a latent


def pack(latents: Tensor) -> Tensor:
    """(B, 16, H, W) latents -> (B, H/2 * W/2, 64) tokens; channel-major inside a token, as FLUX packs them."""
    b, c, h, w = latents.shape
    tokens = latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)  # B H/2 W/2 C 2 2
    return tokens.reshape(b, h // 2 * (w // 2), c * 4)


def unpack(tokens: Tensor, width: int, height: int) -> Tensor:
    """(B, height * width, 64) tokens -> (B, 16, 2 height, 2 width) latents; the inverse of `pack`, sizes in tokens."""
    b, _, channels = tokens.shape
    latents = tokens.reshape(b, height, width, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)  # B C H 2 W 2
    return latents.reshape(b, channels // 4, 2 * height, 2 * width)


def shift(sigmas: Tensor, tokens: int) -> Tensor:
    """FLUX's shift of sigmas 0..1 by the number of noise tokens."""
    mu = torch.tensor(0.5 + 0.65 / 3840 * (tokens - 256))
    return torch.exp(mu) / (torch.exp(mu) + (1 / sigmas - 1))


def shifted_sigmas(steps: int, tokens: int) -> Tensor:
    """The sampling grid, (steps + 1,), from 1 to 0: linspace(1, 1/steps), FLUX's shift by the number of noise
    tokens, then 0."""
    shifted = shift(torch.linspace(1, 1 / steps, steps, dtype=torch.float64), tokens)
    return torch.cat([shifted, shifted.new_zeros(1)]).float()
