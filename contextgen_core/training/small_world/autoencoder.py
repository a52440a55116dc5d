"""Training the small autoencoder: encoder and decoder together; latents are batch-normalised and noised, so that they
are easy to model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...tiny.autoencoder import LATENT_CHANNELS, NARROW, Block, Taesd, TaesdShape, full_state, grown
from ..config import Config
from ..parts import autoencoder
from . import world

CROP = 64  # pixels
NOISE = 0.1  # the largest standard deviation of the noise on the normalised latents


class NormalisedTaesd(nn.Module):
    """A TAESD whose latents are batch-normalised (no affine part) while it learns; the statistics are folded in
    afterwards."""

    def __init__(self, shape: TaesdShape) -> None:
        super().__init__()
        self.net = Taesd(shape)
        self.norm = nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)

    def forward(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """pictures (B, 3, H, W) in [0, 1]; noise (B, 16, H/8, W/8), added to the latents; returns the decoded
        pictures."""
        return self.net.decode(self.norm(self.net.encode(pictures)) + noise)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the raw latents, each (16,)."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        if mean is None or variance is None:
            raise RuntimeError("the normalisation keeps no statistics")
        return mean, (variance + self.norm.eps).sqrt()


def initialise(net: NormalisedTaesd) -> None:
    """He initialisation, small residual branches, a grey picture at first: with torch's default the deep ReLU
    stack starts several times slower."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Block):
                module.conv[4].weight.mul_(0.3)  # type: ignore[union-attr, operator]
        last = net.net.taesd_decoder[-1]
        last.weight.mul_(0.2)  # type: ignore[union-attr, operator]
        last.bias.fill_(0.5)  # type: ignore[union-attr, operator]


def crops(pictures: np.ndarray, references: np.ndarray, batch: int, rng: np.random.Generator) -> Tensor:
    """A batch of float crops (batch, 3, CROP, CROP) in [0, 1]: three of four from pictures (N, H, W, 3), one from
    references
    (M, CROP, CROP, 3)."""
    whole = batch // 4
    out = np.empty((batch, CROP, CROP, 3), np.uint8)
    out[:whole] = references[rng.integers(len(references), size=whole)]
    limit = pictures.shape[1] - CROP + 1
    for k in range(whole, batch):
        y, x = rng.integers(limit, size=2)
        out[k] = pictures[rng.integers(len(pictures)), y : y + CROP, x : x + CROP]
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255


def material(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to crop from: targets and composites of `count` training scenes, and their references."""
    pictures, references = [], []
    for index in range(count):
        picture = world.render(world.scene(seed, "train", index, world.TIERS[index % 3]))
        pictures += [picture.target, picture.composite] if index % 2 else [picture.target]
        references.append(picture.references)
    return np.stack(pictures), np.concatenate(references)


def psnr(net: Taesd, count: int = 48, seed: int = 0) -> float:
    """Mean PSNR in dB over targets of held-out scenes. net takes pictures in [0, 1]."""
    scenes = (world.scene(seed, "test", i, world.TIERS[i % 3]) for i in range(count))
    values = []
    for scene in scenes:
        picture = torch.from_numpy(world.render(scene).target).permute(2, 0, 1).float()[None] / 255
        with torch.no_grad():
            error = (net.decode(net.encode(picture)).clamp(0, 1) - picture).square().mean()
        values.append(-10 * float(torch.log10(error)))
    return float(np.mean(values))


class _Objective(nn.Module):
    """L1 plus ten times L2 of the reconstruction."""

    def __init__(self, net: NormalisedTaesd) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        difference = self.net(pictures, noise) - pictures
        mean_square = difference.square().mean()
        loss = difference.abs().mean() + 10 * mean_square
        return loss, {"psnr": -10 * torch.log10(mean_square.detach())}


class AutoencoderTask:
    """The stage `autoencoder`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        net = NormalisedTaesd(NARROW)
        if config.model.autoencoder:
            net.net = grown(autoencoder(config), NARROW)
        else:
            initialise(net)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: nn.Module = _Objective(self.net)
        self.pictures, self.references = material(config.data.seed, config.data.count)

    def inputs(self, seed: int, part: int, done: float = 0.0, number: int = 0) -> tuple[Any, ...]:
        batch = self.config.batch
        pictures = crops(self.pictures, self.references, batch, np.random.default_rng(seed))
        generator = torch.Generator().manual_seed(seed)
        level = torch.rand(batch, 1, 1, 1, generator=generator) * NOISE
        noise = torch.randn(batch, LATENT_CHANNELS, CROP // 8, CROP // 8, generator=generator) * level
        device = next(self.model.parameters()).device
        return pictures.to(device), noise.to(device)

    def extra(self) -> dict[str, Tensor]:
        return {}

    def restore_extra(self, extra: dict[str, Tensor]) -> None:
        return None

    def finish(self, output: Path | None) -> None:
        """Writes the padded TAESD that hosts load."""
        if output is None:
            return
        padded = full_state(self.net.net.state_dict(), *self.net.statistics())
        save_file(
            {k: v.half().contiguous() for k, v in padded.items()}, output / "autoencoder.safetensors", {"format": "pt"}
        )

    def sample(self, path: Path | None) -> None:
        return None
