"""Sampling with a network under training: plain Euler on FLUX's shifted grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..backbones.flux import shifted_sigmas, unpack
from ..hosts.diffusers import FlowPosition
from .batch import Batch
from .latents import LatentSet
from .recipes import Network


def start_noise(indices: np.ndarray, shape: tuple[int, int], seed: int) -> Tensor:
    """Noise (B, M, 64) that depends on the seed and on each scene's number alone."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + int(i))) for i in indices]
    )


@torch.no_grad()
def sample(network: Network, batch: Batch, noise: Tensor, steps: int = 10) -> Tensor:
    """Packed clean latents (B, M, 64) from noise."""
    x = noise
    sigmas = shifted_sigmas(steps, noise.shape[1]).to(x)
    values = sigmas.tolist()
    for k, (now, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        position = FlowPosition(values[k], values, noise.shape[1])
        x = x + (after - now) * network(batch, x, now.expand(len(x)), position)
    return x


def sample_set(
    network: Network,
    data: LatentSet,
    steps: int = 10,
    seed: int = 0,
    references: bool = True,
    chunk: int = 32,
    *,
    composite: bool = True,
    named: bool = False,
) -> Tensor:
    """Latents (N, 16, H, W) of every scene of a set, in its order. Without references: as the base sees it, with the
    composite or by the words alone. named: captions name every creature."""
    side = 2 * data.grid
    out = torch.zeros(len(data), 16, side, side)
    groups = network.reader.buckets(data) if references else (np.arange(len(data)),)
    for group in groups:
        for k in range(0, len(group), chunk):
            indices = group[k : k + chunk]
            every = np.full((len(indices), data.told.shape[1]), named)
            batch = network.reader.collate(data, indices, references, composite=composite, named=every)
            noise = start_noise(indices, (batch.target.shape[1], batch.target.shape[2]), seed)
            out[torch.from_numpy(indices)] = unpack(sample(network, batch, noise, steps), data.grid, data.grid)
    return out
