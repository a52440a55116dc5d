"""EliGen under training: phrases as further text that its own part of the picture reads, on the model's every layer.

A low-rank adapter on all linear layers of all blocks, as the authors train it; nothing else is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..backbones import rotate
from ..backbones.layers import FLUX_DOUBLE, FLUX_SINGLE
from ..hosts.diffusers import FluxHost, Streams, noise_ids
from ..layout.box import Box
from ..layout.tokens import TOKEN
from ..methods.boundary import Bound, RunPosition
from ..methods.eligen.masks import box_cells, cells_to_tokens
from ..methods.eligen.method import ELIGEN, EliGenSettings
from ..methods.eligen.plan import EliGenPlan, phrase_tokens
from ..methods.eligen.visibility import PhraseSequence, dense_mask, readable
from ..tiny.text import Words
from .batch import Batch, Phrases
from .model import run_state, softmax_product
from .phrases import phrase_reader

PHRASES = "phrases"  # the encoded phrases end to end, as hosts want them
TARGETS = "|".join(
    rf"{blocks}\.\d+\.({'|'.join(layer.name.replace('.', chr(92) + '.') for layer in layers)})"
    for blocks, layers in (("transformer_blocks", FLUX_DOUBLE), ("single_transformer_blocks", FLUX_SINGLE))
)


def _plan(boxes: Sequence[Box], side: int, words: Words) -> EliGenPlan:
    grid = side // TOKEN
    inside = (cells_to_tokens(box_cells(box, side, side, grid, grid)) for box in boxes)
    return EliGenPlan(grid, grid, tuple(phrase_tokens(len(words.tokens), tokens) for tokens in inside))


def _join(phrases: Sequence[Sequence[Words]]) -> Mapping[str, Tensor]:
    return {PHRASES: torch.stack([torch.cat([words.tokens for words in row]) for row in phrases])}


READER = phrase_reader(Phrases(_plan, _join))


@dataclass(frozen=True, eq=False)
class _DenseCall:
    """The state of one forward pass, in place of the host's own: every sample in the same products, under the dense
    mask, which costs little where pictures are small.

    bias (B, S, S): 0 where a token may read another, else -inf."""

    bias: Tensor
    rotary: tuple[Tensor, Tensor]

    def rotate(self, x: Tensor) -> Tensor:
        return rotate(x, self.rotary)

    def block(self, block: int, module: Any, original: Callable[..., Streams], arguments: Mapping[str, Any]) -> Streams:
        return original(**arguments)

    def attention(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = q.shape[1]
        bias = self.bias if heads == 1 else self.bias.repeat_interleave(heads, 0)
        out = softmax_product(q.flatten(0, 1), k.flatten(0, 1), bias, v.flatten(0, 1))
        return out.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


class EliGenNetwork(nn.Module):
    """The transformer with EliGen on it. kernel: "batched" (small pictures), or one of the product's own."""

    def __init__(
        self,
        transformer: Any,
        kernel: str = "grouped",
        guidance: float | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.kernel, self.guidance, self.reader = kernel, guidance, READER
        self._host = [FluxHost(transformer)]  # in a list: not a submodule

    def forward(self, batch: Batch, noisy: Tensor, times: Tensor, position: RunPosition | None = None) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)."""
        guidance = None if self.guidance is None else torch.full_like(times, self.guidance)
        if self.kernel == "batched":
            text = torch.cat([batch.vectors[PHRASES].to(batch.text), batch.text], dim=1)
            call = self._call(batch.plans, batch.text.shape[1], noisy.device)
            return run_state(self.transformer, call, batch, noisy, text, times, guidance)
        settings = EliGenSettings(kernel=self.kernel)
        return self._host[0].velocity(
            [(Bound(ELIGEN, plan, settings),) for plan in batch.plans],
            noisy,
            text=batch.text,
            pooled=batch.pooled,
            timestep=times,
            guidance=guidance,
            vectors=batch.vectors,
            position=position,
        )

    def _call(self, plans: Sequence[EliGenPlan], text: int, device: torch.device) -> _DenseCall:
        masks = [dense_mask(PhraseSequence(plan, text, tuple(readable(plan)))) for plan in plans]
        first = plans[0]
        ids = functional.pad(noise_ids(first.height, first.width), (0, 0, first.phrase_tokens + text, 0))
        cos, sin = self.transformer.pos_embed(ids.to(device))
        bias = np.where(np.stack(masks), np.float32(0), np.float32(-np.inf))
        return _DenseCall(torch.from_numpy(bias).to(device), (cos.float()[None], sin.float()[None]))
