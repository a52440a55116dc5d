"""Attention together with the log-sum-exp of its logits, and how pieces of attention join through it.

Over disjoint sets of keys, softmax attention is a mean of the pieces' results weighted by exp(log-sum-exp). Tensors
are (B, H, S, D); a log-sum-exp is float32 (B, H, S).

torch's public attention returns no log-sum-exp but for compiled flex-attention and for variable lengths on CUDA. The
operators beneath it do and are private, so each is tried out on a small input first, and left alone unless its outputs
have the names, shapes and values that they should have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

log = logging.getLogger("contextgen")

ROWS = 512  # query rows at a time where no fused kernel returns its log-sum-exp
FLASH_WIDTH = 256  # widest head of flash attention on CUDA; a multiple of 8
OUTPUT, LOGSUMEXP = ("output",), ("logsumexp", "log_sumexp")


class _Operator(NamedTuple):
    """An operator that passed its trial, with the places of its two results."""

    call: Callable[..., Any]
    out: int
    lse: int


class _Kind(NamedTuple):
    """What decides which operator serves a call: the trial is run once for each."""

    device: str
    dtype: torch.dtype
    flash: bool


_tried: dict[_Kind, _Operator | None] = {}


def _kind(device: torch.device, dtype: torch.dtype, width: int) -> _Kind:
    half = dtype in (torch.float16, torch.bfloat16)
    return _Kind(device.type, dtype, half and width <= FLASH_WIDTH and width % 8 == 0)


def fused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch may have a fused kernel here that also returns the log-sum-exp."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return False  # they do not differentiate through the log-sum-exp
    return q.device.type in ("cpu", "cuda")


def prepare(device: torch.device, dtype: torch.dtype) -> None:
    """Tries the operators for this device and dtype, so that no compiled graph has to stop for it."""
    if device.type in ("cpu", "cuda"):
        for width in (64, 65):  # one for each kind
            _operator(device, dtype, width)


def attend_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp; fused where torch has it (CPU, CUDA), otherwise in chunks of queries."""
    if not fused(q, k, v):
        return _chunked(q, k, v)
    kind = _kind(q.device, q.dtype, q.shape[-1])
    operator = _tried[kind] if kind in _tried else _operator(q.device, q.dtype, q.shape[-1])
    if operator is None:
        return _chunked(q, k, v)
    results = operator.call(q, k, v)
    lse = results[operator.lse]
    return results[operator.out], lse[..., : q.shape[2]].float()  # padded to whole tiles on some devices


def _chunked(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for part in q.split(ROWS, dim=2):
        logits = (part @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # B H rows Sk
        lse = logits.logsumexp(dim=-1)
        outs.append((logits - lse[..., None]).exp().to(v.dtype) @ v)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


# --- trial ----------------------------------------------------------------------------------------------------------


def _candidate(kind: _Kind) -> tuple[str, dict[str, Any]]:
    """The operator for such calls and its arguments besides query, key and value."""
    if kind.device == "cpu":
        return "_scaled_dot_product_flash_attention_for_cpu", {}
    if kind.flash:
        return "_scaled_dot_product_flash_attention", {}
    return "_scaled_dot_product_efficient_attention", {"attn_bias": None, "compute_log_sumexp": True}


def _operator_tried(device: torch.device, dtype: torch.dtype, width: int) -> _Operator | None:
    """The operator for such calls, or None where torch has none that does what it should; tried once."""
    kind = _kind(device, dtype, width)
    if kind not in _tried:
        try:
            _tried[kind] = _trial(kind, device, width)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # absent, another signature, no kernel
            if isinstance(error, torch.cuda.OutOfMemoryError):  # says nothing of the operator
                raise
            log.info("attention with its log-sum-exp runs in chunks on %s, %s: %s", device.type, dtype, error)
            _tried[kind] = None
    return _tried[kind]


# Never traced; the annotations of disable fit its use as a decorator with arguments alone.
_operator: Callable[[torch.device, torch.dtype, int], _Operator | None] = cast(Any, torch.compiler.disable)(
    _operator_tried
)


def _trial(kind: _Kind, device: torch.device, width: int) -> _Operator:
    name, arguments = _candidate(kind)
    operator = getattr(torch.ops.aten, name).default
    names = [result.name for result in operator._schema.returns]
    out_at, lse_at = (next((i for i, name in enumerate(names) if name in wanted), -1) for wanted in (OUTPUT, LOGSUMEXP))
    if min(out_at, lse_at) < 0:
        raise ValueError(f"{name} returns {', '.join(names)}")

    def call(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return operator(q, k, v, **arguments)

    with torch.inference_mode():
        q, k, v = (_sample(rows, width, shift, device, kind.dtype) for rows, shift in ((3, 0.0), (5, 1.0), (5, 2.0)))
        results = call(q, k, v)
        if len(results) != len(names):
            raise ValueError(f"{name} gives {len(results)} results, not {len(names)}")
        out, lse = results[out_at], results[lse_at]
        want, want_lse = _chunked(q.float(), k.float(), v.float())
        if out.shape != want.shape or lse.dim() != 3 or lse.shape[-1] < want_lse.shape[-1]:
            raise ValueError(f"{name} gives shapes {tuple(out.shape)} and {tuple(lse.shape)}")
        error = max(
            float((out.float() - want).abs().max()),
            float((lse[..., : want_lse.shape[-1]].float() - want_lse).abs().max()),
        )
        if not error < 4 * torch.finfo(kind.dtype).eps ** 0.75:
            raise ValueError(f"{name} is off by {error:.2g}")
    return _Operator(call, out_at, lse_at)


def _sample(rows: int, width: int, shift: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, 2, rows, width) of values in -1..1, the same ones always: the user's random state is left alone."""
    values = torch.arange(2 * rows * width, dtype=torch.float32, device=device) * 0.7 + shift
    return values.sin().reshape(1, 2, rows, width).to(dtype)


# --- joining --------------------------------------------------------------------------------------------------------


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
