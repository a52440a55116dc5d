"""What one training step reads: geometry, latents and words of a few pictures of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods.contextgen.sequence import Plan


@dataclass(frozen=True, eq=False)
class Batch:
    """B pictures with M = plan.width * plan.height target tokens each.

    target (B, M, 64): clean latents, packed; conditions (B, C, 64), or one (C_i, 64) per picture: the layout's
    tokens, then every reference's; text (B, T, E), pooled (B, P): the words; weight (B, M): how much each token's
    error counts, or None;
    lose (B, M, 64): the picture that DPO turns away from, or None."""

    plans: tuple[Plan, ...]
    target: Tensor
    conditions: Tensor | Sequence[Tensor]
    text: Tensor
    pooled: Tensor
    weight: Tensor | None = None
    lose: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        conditions = (
            self.conditions.to(device)
            if isinstance(self.conditions, Tensor)
            else [c.to(device) for c in self.conditions]
        )
        return Batch(
            self.plans,
            self.target.to(device),
            conditions,
            self.text.to(device),
            self.pooled.to(device),
            move(self.weight),
            move(self.lose),
        )
