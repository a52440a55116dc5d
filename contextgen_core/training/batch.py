"""What one training step reads: latents and words of a few pictures of one size, and what a method binds to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout.box import Box
from ..tiny.text import Words


@dataclass(frozen=True, eq=False)
class Batch:
    """B pictures with M target tokens each.

    plans: for each picture what its method makes of the scene (`contextgen_core.methods`); target (B, M, 64): clean
    latents, packed; conditions (B, C, 64), or one (C_i, 64) per picture: the latents of condition pictures, C = 0 where
    the method reads none; text (B, T, E), pooled (B, P): the words; weight (B, M): how much each token's error counts,
    or None; lose (B, M, 64): the picture that DPO turns away from, or None; vectors: what the plans' phrases were
    encoded to, by the name that the method gives them, each (B, n, ..): one row a further token; positive: which
    pictures are of the positive conditioning, the others stand for what guidance leads away from; empty: all are."""

    plans: tuple[Any, ...]
    target: Tensor
    conditions: Tensor | Sequence[Tensor]
    text: Tensor
    pooled: Tensor
    weight: Tensor | None = None
    lose: Tensor | None = None
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    positive: tuple[bool, ...] = ()

    @property
    def tokens(self) -> int:
        """Of the first picture: words, phrases, target and conditions."""
        conditions = self.conditions[0].shape[-2]
        return self.text.shape[1] + self.target.shape[1] + conditions + sum(v.shape[1] for v in self.vectors.values())

    def to(self, device: torch.device) -> Batch:
        conditions = self.conditions
        return replace(
            self,
            target=self.target.to(device),
            conditions=conditions.to(device) if isinstance(conditions, Tensor) else [c.to(device) for c in conditions],
            text=self.text.to(device),
            pooled=self.pooled.to(device),
            weight=None if self.weight is None else self.weight.to(device),
            lose=None if self.lose is None else self.lose.to(device),
            vectors={name: vector.to(device) for name, vector in self.vectors.items()},
        )


class Phrases(NamedTuple):
    """How a method binds phrases to boxes.

    plan(boxes, side, words) gives a picture's plan: boxes in pixels of a square canvas of so many pixels, any of the
    phrases; join(phrases of each picture) gives `Batch.vectors`."""

    plan: Callable[[Sequence[Box], int, Words], Any]
    join: Callable[[Sequence[Sequence[Words]]], Mapping[str, Tensor]]
