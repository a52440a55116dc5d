"""One forward pass for each phrase, as *Conditioning Set Mask* binds words without a method: what binding in one pass
is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..layout.tokens import TOKEN
from ..methods.boundary import RunPosition
from .batch import Batch
from .latents import LatentSet, Reader
from .model import FlowNetwork
from .phrases import phrases_of


def covered(corners: Sequence[float], grid: int) -> np.ndarray:
    """Share of each token (grid, grid) that lies in a box of x1, y1, x2, y2 pixels."""
    edges = np.arange(grid + 1) * float(TOKEN)

    def along(low: float, high: float) -> np.ndarray:
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) / TOKEN

    x1, y1, x2, y2 = corners
    return along(y1, y2)[:, None] * along(x1, x2)[None]


class Passes(NamedTuple):
    """A picture's plan: the scene's own, and of its n phrases words (n, T, E), pooled (n, P) and areas (n, M)."""

    scene: Any
    words: Tensor
    pooled: Tensor
    areas: Tensor


def _collate(data: LatentSet, indices: np.ndarray, *_: Any, **__: Any) -> Batch:
    batch = data.batch(indices, False, composite=False)
    plans = []
    for scene, index in zip(batch.plans, map(int, indices), strict=True):
        phrases = phrases_of(data, index)
        areas = np.stack([covered(data.pixels[index, k], data.grid).ravel() for k in range(len(phrases))])
        words, pooled = (torch.stack(part) for part in ([w.tokens for w in phrases], [w.pooled for w in phrases]))
        plans.append(Passes(scene, words, pooled, torch.from_numpy(areas).float()))
    return replace(batch, plans=tuple(plans))


class PassNetwork:
    """The scene's words everywhere and each phrase in its box, each in a pass of its own; where boxes lie, the
    velocities are averaged, each with its mask as weight (ComfyUI's ``calc_cond_batch``)."""

    reader = Reader(_collate, lambda data: (np.asarray(data.creatures)[:, :, 0] >= 0).sum(1))

    def __init__(self, network: FlowNetwork) -> None:
        self.network, self.transformer = network, network.transformer

    def __call__(self, batch: Batch, noisy: Tensor, times: Tensor, position: RunPosition | None = None) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)"""
        plans: tuple[Passes, ...] = batch.plans
        scene = replace(batch, plans=tuple(plan.scene for plan in plans))
        total, weight = self.network(scene, noisy, times, position), torch.ones_like(noisy[:, :, :1])
        for k in range(len(plans[0].areas)):
            area = torch.stack([plan.areas[k] for plan in plans])[:, :, None]
            text = torch.stack([plan.words[k] for plan in plans])
            told = replace(scene, text=text, pooled=torch.stack([plan.pooled[k] for plan in plans]))
            total, weight = total + area * self.network(told, noisy, times, position), weight + area
        return total / weight
