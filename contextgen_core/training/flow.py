"""The objectives as formulas: rectified flow, its weighted error, SFT and DPO losses. Tensors in, tensors out.

x_t = (1 - t) x_0 + t noise, velocity = noise - x_0, t = sigmoid(normal) (facts: paper section 4 and the authors'
training code).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sample_times(count: int, generator: torch.Generator, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    """t = sigmoid(mean + deviation * normal), (count,), in 0..1 (1 = pure noise)."""
    return torch.sigmoid(mean + deviation * torch.randn(count, generator=generator))


def mix(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Noisy latents x_t, (B, M, C)."""
    t = times.view(-1, 1, 1)
    return (1 - t) * clean + t * noise


def errors(velocity: Tensor, clean: Tensor, noise: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared velocity error of each sample, (B,).

    weight (B, M) counts tokens unequally; it is divided by the mean over the batch, so equal weights change nothing."""
    squared = (velocity - (noise - clean)).square().mean(-1)  # B M
    if weight is None:
        return squared.mean(-1)
    return (squared * (weight / weight.mean())).mean(-1)


def dpo_logits(win: Tensor, lose: Tensor, anchor_win: Tensor, anchor_lose: Tensor, beta: float) -> Tensor:
    """The DPO logit of each pair, (B,), from the four errors (B,): policy and anchor, on the wanted and the
    unwanted picture."""
    return -(beta / 2) * ((win - lose) - (anchor_win - anchor_lose))


def dpo_loss(win: Tensor, lose: Tensor, anchor_win: Tensor, anchor_lose: Tensor, beta: float) -> Tensor:
    """-log sigmoid of the logit, averaged over pairs: the authors' loss."""
    return -functional.logsigmoid(dpo_logits(win, lose, anchor_win, anchor_lose, beta)).mean()
