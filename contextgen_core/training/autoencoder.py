"""Training the small autoencoder: one loss, on crops of scenes, latents normalised and noised so that they are easy to model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..tiny_vae import LATENT_CHANNELS, Taesd, TaesdShape
from . import world

CROP = 64  # pixels


class NormalisedTaesd(nn.Module):
    """A TAESD whose latents are batch-normalised (no affine part) while it learns; the statistics are folded in afterwards."""

    def __init__(self, shape: TaesdShape) -> None:
        super().__init__()
        self.net = Taesd(shape)
        self.norm = nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)

    def forward(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """pictures (B, 3, H, W) in [0, 1]; noise (B, 16, H/8, W/8), added to the latents; returns the decoded pictures."""
        return self.net.decode(self.norm(self.net.encode(pictures)) + noise)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the raw latents, each (16,)."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        return self.norm.running_mean, (self.norm.running_var + self.norm.eps).sqrt()


def crops(pictures: np.ndarray, references: np.ndarray, batch: int, rng: np.random.Generator) -> Tensor:
    """A batch of float crops (batch, 3, CROP, CROP) in [0, 1]: three quarters from pictures (N, H, W, 3), one from references (M, CROP, CROP, 3)."""
    whole = batch // 4
    out = np.empty((batch, CROP, CROP, 3), np.uint8)
    out[:whole] = references[rng.integers(len(references), size=whole)]
    limit = pictures.shape[1] - CROP + 1
    for k in range(whole, batch):
        y, x = rng.integers(limit, size=2)
        out[k] = pictures[rng.integers(len(pictures)), y : y + CROP, x : x + CROP]
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255


def reconstruction_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """L1 + 2 L2."""
    difference = decoded - pictures
    return difference.abs().mean() + 2 * difference.square().mean()


def material(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to crop from: targets and composites of `count` training scenes, and their references."""
    pictures, references = [], []
    for index in range(count):
        scene = world.scene(seed, "train", index, world.TIERS[index % 3])
        picture = world.render(scene)
        pictures += [picture.target, picture.composite] if index % 2 else [picture.target]
        references.append(picture.references)
    return np.stack(pictures), np.concatenate(references)
