"""Attention together with the log-sum-exp of its logits, and how pieces of attention join through it.

Over disjoint sets of keys, softmax attention is a mean of the pieces' results weighted by exp(log-sum-exp). Tensors
are (B, H, S, D); a log-sum-exp is float32 (B, H, S).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROWS = 512  # query rows at a time where no fused kernel hands out its log-sum-exp


def fused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch has a fused kernel here that also returns the log-sum-exp."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return False  # they do not differentiate through the log-sum-exp
    return q.device.type in ("cpu", "cuda")


def attend_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp; fused where torch has it (CPU, CUDA), otherwise in chunks of queries."""
    if not fused(q, k, v):
        return _chunked(q, k, v)
    if q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False)
        return out, lse.float()
    if q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256 and q.shape[-1] % 8 == 0:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False)[:2]
    else:
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
    return out, lse[..., : q.shape[2]]  # padded to whole tiles on some devices


def _chunked(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for part in q.split(ROWS, dim=2):
        logits = (part @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # B H rows Sk
        lse = logits.logsumexp(dim=-1)
        outs.append((logits - lse[..., None]).exp().to(v.dtype) @ v)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


def merge_lse(pieces: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Joins attention over disjoint sets of keys: [(out, lse), ...] -> out."""
    total = torch.stack([lse for _, lse in pieces]).logsumexp(dim=0)
    joined = sum(out.float() * (lse - total)[..., None].exp() for out, lse in pieces)
    return joined.to(pieces[0][0].dtype)  # type: ignore[union-attr]


def join_rows(out: Tensor, lse: Tensor, rows: Tensor, added: Tensor, added_lse: Tensor, more: bool) -> None:
    """Joins further keys of some rows into ``out`` and ``lse``, in place.

    rows  indices (R,) of the rows, each once; added, added_lse: (B, H, R, D) and (B, H, R)
    more  whether ``lse`` is still needed afterwards
    """
    seen_lse = lse.index_select(2, rows)
    share = torch.sigmoid(added_lse - seen_lse)[..., None]  # exp(a) / (exp(a) + exp(b))
    joined = torch.lerp(out.index_select(2, rows).float(), added.float(), share)
    out.index_copy_(2, rows, joined.to(out.dtype))
    if more:
        lse.index_copy_(2, rows, torch.logaddexp(seen_lse, added_lse))
