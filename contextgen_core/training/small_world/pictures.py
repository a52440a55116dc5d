"""Sheets of pictures: what was asked, what was shown, what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...pictures import enlarged, square_of
from ...tiny.autoencoder import Taesd
from ..recipes import Network
from ..sampling import sample_set
from . import world


def to_pixels(vae: Taesd, latents: Tensor, chunk: int = 32) -> np.ndarray:
    """(N, 16, H, W) latents -> uint8 (N, 8 H, 8 W, 3)."""
    parts = []
    with torch.no_grad():
        for k in range(0, len(latents), chunk):
            parts.append(
                (vae.decode(latents[k : k + chunk]).float().clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).numpy()
            )
    return np.concatenate(parts)


def sheet(columns: Sequence[np.ndarray], scale: int = 1) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3) side by side, one scene a row, 4 px of white between."""
    rows = []
    for row in zip(*columns, strict=True):
        gap = np.full((row[0].shape[0], 4, 3), 255, np.uint8)
        parts = [part for picture in row for part in (picture, gap)]
        line = np.concatenate(parts[:-1], axis=1)
        rows += [line, np.full((4, line.shape[1], 3), 255, np.uint8)]
    out = np.concatenate(rows[:-1])
    return enlarged(out, scale)


def reference_strip(picture: world.Picture) -> np.ndarray:
    """Up to four references in a square of the picture's size."""
    return square_of(picture.references)


def sample_sheet(
    network: Network, vae: Taesd, path: Path | None, references: bool, count: int = 6, steps: int = 10
) -> None:
    """Writes held-out scenes: composite, references, result, truth. Without a path it only takes part in sampling."""
    scenes = [world.scene(0, "test", i, "flexible" if i % 3 else "complex") for i in range(count)]
    pictures = [world.render(s) for s in scenes]
    latents = sample_set(network, network.reader.encode(vae, scenes, pictures), steps, references=references)
    if path is None:
        return
    columns = [
        np.stack([p.composite for p in pictures]),
        np.stack([reference_strip(p) for p in pictures]),
        to_pixels(vae, latents),
        np.stack([p.target for p in pictures]),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(columns)).save(path)
