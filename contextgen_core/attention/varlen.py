"""Variable-length flash attention: many small attention calls of different lengths as one.

torch 2.10 and later carry it (CUDA, half precision); before that the flash-attn package does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """Calls packed end to end: where each one's queries and keys begin, int32 (calls + 1,), and the longest."""

    starts_q: Tensor
    starts_k: Tensor
    longest_q: int
    longest_k: int


def ragged(queries: list[int], keys: list[int], device: torch.device) -> Ragged:
    """From the number of queries and of keys of each call."""

    def starts(sizes: list[int]) -> Tensor:
        return torch.tensor([0, *sizes]).cumsum(0).to(device, torch.int32)

    return Ragged(starts(queries), starts(keys), max(queries), max(keys))


@lru_cache(maxsize=1)
def backend() -> Callable[..., Any] | None:
    """(q, k, v, ragged) over (tokens, H, D) -> (tokens, H, D) and (H, tokens); None where nothing is installed."""
    try:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn
    except ImportError:
        return _flash_attn()

    def attend(q: Tensor, k: Tensor, v: Tensor, packed: Ragged) -> tuple[Tensor, Tensor]:
        sizes = (packed.starts_q, packed.starts_k, packed.longest_q, packed.longest_k)
        out, lse = varlen_attn(q, k, v, *sizes, return_aux=AuxRequest(lse=True))
        # Documented as (tokens, H); the kernel beneath has (H, tokens) in several releases.
        return out, lse if tuple(lse.shape) == (q.shape[1], q.shape[0]) else lse.transpose(0, 1)

    return attend


def _flash_attn() -> Callable[..., Any] | None:
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except ImportError:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, packed: Ragged) -> tuple[Tensor, Tensor]:
        sizes = (packed.starts_q, packed.starts_k, packed.longest_q, packed.longest_k)
        out, lse, _ = flash_attn_varlen_func(q, k, v, *sizes, return_attn_probs=True)
        return out, lse

    return attend


def available(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and backend() is not None


def attend_packed(q: Tensor, k: Tensor, v: Tensor, packed: Ragged) -> tuple[Tensor, Tensor]:
    """Packed (B, H, tokens, D) three times -> (B, H, tokens, D) and float32 (B, H, tokens)."""
    attend = backend()
    if attend is None:
        raise RuntimeError("no variable-length attention is installed")
    made = [attend(*(x.transpose(0, 1) for x in sample), packed) for sample in zip(q, k, v, strict=True)]
    outs, lses = zip(*made, strict=True)
    return torch.stack([out.transpose(0, 1) for out in outs]), torch.stack(lses).float()
