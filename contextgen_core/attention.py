"""Runs a visibility rule exactly, without ever forming a tensor of sequence x sequence.

A :class:`Program` is a rule compiled for one sequence and device: index tensors made once per run. Three kernels
execute it; all three give the same result up to rounding:

``grouped``  one plain call per query group through the caller's own backend (SDPA, sage, flash, xformers, ...).
``merge``    one call of all ordinary queries over text, noise and layout, one small call per reference for the
             noise in its box, joined through the log-sum-exp of their logits: no copy of the large keys at all.
``dense``    one call under the additive S x S mask. The specification, for tests and comparison only.

Tensors are (B, H, S, D) for query, key and value, and (B, S, H*D) for the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .schedule import BlockPlan, Rule, Schedule
from .sequence import Span, TokenSequence
from .visibility import Group, Index, KeyPart, dense_mask, key_weights, query_groups, reference_part

KERNELS = ("auto", "grouped", "merge", "dense")


class Attend(Protocol):
    """A backend: (B, H, Sq, D), (B, H, Sk, D), (B, H, Sk, D), additive mask or None -> (B, Sq, H*D)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor: ...


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
    """torch's own attention as a backend."""
    return _join_heads(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def _join_heads(out: Tensor) -> Tensor:
    return out.transpose(1, 2).flatten(2)  # B H S D -> B S (H D)


# --- log-sum-exp attention ------------------------------------------------------------------------------------------


def lse_supported(q: Tensor) -> bool:
    """Whether torch has a fused kernel here that also returns the log-sum-exp of its logits."""
    if torch.is_grad_enabled() and q.requires_grad:
        return False  # the fused kernels do not differentiate through the log-sum-exp
    return q.device.type in ("cpu", "cuda")


def attend_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its logits: (B, H, Sq, D) and float32 (B, H, Sq).

    Fused where torch has it (CPU; CUDA in half precision), otherwise in chunks of queries.
    """
    if lse_supported(q):
        if q.device.type == "cpu":
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False)
            return out, lse.float()
        if q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256 and q.shape[-1] % 8 == 0:
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False)[:2]
            return out, lse[..., : q.shape[2]]
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
        return out, lse[..., : q.shape[2]]
    return _attend_lse_chunked(q, k, v)


def _attend_lse_chunked(q: Tensor, k: Tensor, v: Tensor, rows: int = 512) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for part in q.split(rows, dim=2):
        logits = (part @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # B H rows Sk
        lse = logits.logsumexp(dim=-1)
        outs.append((logits - lse[..., None]).exp().to(v.dtype) @ v)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


def merge_lse(pieces: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Joins attention over disjoint sets of keys: [(B, H, S, D), (B, H, S)] -> (B, H, S, D)."""
    total = torch.stack([lse for _, lse in pieces]).logsumexp(dim=0)
    joined = sum(out.float() * (lse - total)[..., None].exp() for out, lse in pieces)
    return joined.to(pieces[0][0].dtype)  # type: ignore[union-attr]


# --- compiled form --------------------------------------------------------------------------------------------------

Rows = tuple[int, int] | Tensor  # (start, length) or an index tensor


@dataclass(frozen=True)
class _Part:
    """Keys of a call that share one log weight."""

    rows: Rows
    log_weight: float


@dataclass(frozen=True)
class _Call:
    """One attention call: queries, key parts and, for pooled groups, the additive mask (rows, keys)."""

    queries: Rows
    parts: tuple[_Part, ...]
    mask: Tensor | None = None


@dataclass(frozen=True)
class _Insert:
    """Merge kernel: noise rows of one box (counted from the first query of the base call) and the keys they add."""

    rows: Tensor
    part: _Part


@dataclass(frozen=True)
class Program:
    """The attention of one block, ready to run over ``length`` tokens.

    ``calls`` empty and ``dense`` None mean one plain call. Rows in no call stay zero (``partial``). ``inserts``
    add the references to the rows of the first call (merge kernel).
    """

    length: int
    calls: tuple[_Call, ...] = ()
    inserts: tuple[_Insert, ...] = ()
    partial: bool = False
    dense: Tensor | None = None


def _rows(index: Index, device: torch.device) -> Rows:
    if isinstance(index, Span):
        return index.start, index.size
    if len(index) and int(index[-1]) - int(index[0]) + 1 == len(index):
        return int(index[0]), len(index)  # contiguous after all: a view instead of a copy
    return torch.from_numpy(np.ascontiguousarray(index)).to(device)


def _parts(keys: Sequence[KeyPart], device: torch.device) -> tuple[_Part, ...]:
    """Key parts on the device; neighbouring ranges of equal weight become one, which is then a mere view."""
    joined = [keys[0]]
    for part in keys[1:]:
        last = joined[-1]
        if (
            isinstance(last.index, Span)
            and isinstance(part.index, Span)
            and last.index.stop == part.index.start
            and last.log_weight == part.log_weight
        ):
            joined[-1] = last._replace(index=Span(last.index.start, part.index.stop))
        else:
            joined.append(part)
    return tuple(_Part(_rows(part.index, device), part.log_weight) for part in joined)


def _call(group: Group, device: torch.device, dtype: torch.dtype) -> _Call:
    queries = _rows(group.queries, device)
    if group.hidden is None:
        return _Call(queries, _parts(group.keys, device))
    weights = np.concatenate([np.full(part.index.size, part.log_weight, np.float32) for part in group.keys])
    mask = _additive(group.hidden, weights, device, dtype)
    return _Call(queries, _parts([part._replace(log_weight=0.0) for part in group.keys], device), mask)


def _additive(hidden: np.ndarray, weights: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 or log strength where a row may see a key, -inf where not; in the query's dtype, as every backend wants it."""
    return torch.from_numpy(np.where(hidden, np.float32(-math.inf), weights[None, :])).to(device, dtype)


def _compile(
    sequence: TokenSequence, block: BlockPlan, kernel: str, device: torch.device, dtype: torch.dtype
) -> Program:
    present = block.references and bool(sequence.reference_spans)
    length = sequence.length if present else sequence.base_span.stop
    if kernel == "dense" and present:
        hidden = ~dense_mask(sequence, block.rule)
        return Program(length, dense=_additive(hidden, key_weights(sequence), device, dtype))
    merging = kernel == "merge" and block.rule is Rule.ICA and present
    groups = query_groups(sequence, replace(block, rule=Rule.CLA) if merging else block)
    if groups is None:
        return Program(length)
    inserts = ()
    if merging:
        first = sequence.text if block.idle_base else 0
        inserts = tuple(
            _Insert(
                torch.from_numpy(sequence.box_rows(number) - first).to(device),
                _parts([reference_part(sequence, number)], device)[0],
            )
            for number in sequence.active
        )
    calls = tuple(_call(group, device, dtype) for group in groups)
    return Program(length, calls, inserts, sum(g.queries.size for g in groups) < length)


@lru_cache(maxsize=16)
def compile_programs(
    sequence: TokenSequence, schedule: Schedule, kernel: str, device: torch.device, dtype: torch.dtype
) -> tuple[Program, ...]:
    """One :class:`Program` per block. The arguments determine the result entirely, so it is remembered by them.

    ``kernel`` is one of grouped, merge, dense; ``dtype`` the dtype of the queries.
    """
    made: dict[BlockPlan, Program] = {}
    with torch.inference_mode(False):  # so that a program made while sampling also serves a training step
        for block in schedule.blocks:
            if block not in made:
                made[block] = _compile(sequence, block, kernel, device, dtype)
    return tuple(made[block] for block in schedule.blocks)


# --- execution ------------------------------------------------------------------------------------------------------


def run(program: Program, q: Tensor, k: Tensor, v: Tensor, attend: Attend = sdpa) -> Tensor:
    """Executes a program: (B, H, S, D) three times -> (B, S, H*D). S must be the program's length."""
    if q.shape[2] != program.length:
        raise RuntimeError(f"attention over {q.shape[2]} tokens reached a program for {program.length}")
    if program.dense is not None:
        return attend(q, k, v, program.dense)
    if not program.calls:
        return attend(q, k, v, None)
    batch, heads, length, width = q.shape
    make = q.new_zeros if program.partial else q.new_empty
    out = make((batch, length, heads * width))
    for number, call in enumerate(program.calls):
        inserts = program.inserts if number == 0 else ()
        _write(out, call.queries, _run_call(call, inserts, q, k, v, attend))
    return out


def _run_call(
    call: _Call, inserts: tuple[_Insert, ...], q: Tensor, k: Tensor, v: Tensor, attend: Attend
) -> Tensor:
    queries = _take(q, call.queries)
    if inserts:
        return _run_merged(queries, call.parts[0], inserts, k, v)
    if len({part.log_weight for part in call.parts}) > 1:
        pieces = [_weighted(queries, part, k, v) for part in call.parts]
        return _join_heads(merge_lse(pieces))
    keys = [part.rows for part in call.parts]
    return attend(queries, _gather(k, keys), _gather(v, keys), call.mask)


def _run_merged(q: Tensor, base: _Part, inserts: tuple[_Insert, ...], k: Tensor, v: Tensor) -> Tensor:
    """All queries over the base keys, then each box's rows over its reference's keys, joined in place."""
    out, lse = attend_lse(q, _take(k, base.rows), _take(v, base.rows))
    for insert in inserts:
        seen, seen_lse = out.index_select(2, insert.rows), lse.index_select(2, insert.rows)
        added, added_lse = _weighted(q.index_select(2, insert.rows), insert.part, k, v)
        total = torch.logaddexp(seen_lse, added_lse)
        share, added_share = (seen_lse - total).exp()[..., None], (added_lse - total).exp()[..., None]
        out.index_copy_(2, insert.rows, (seen * share + added * added_share).to(out.dtype))
        lse.index_copy_(2, insert.rows, total)
    return _join_heads(out)


def _weighted(q: Tensor, part: _Part, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = attend_lse(q, _take(k, part.rows), _take(v, part.rows))
    return out, lse + part.log_weight if part.log_weight else lse


def _take(x: Tensor, rows: Rows) -> Tensor:
    return x.index_select(2, rows) if isinstance(rows, Tensor) else x.narrow(2, *rows)


def _gather(x: Tensor, rows: Sequence[Rows]) -> Tensor:
    return _take(x, rows[0]) if len(rows) == 1 else torch.cat([_take(x, r) for r in rows], dim=2)


def _write(out: Tensor, rows: Rows, value: Tensor) -> None:
    if isinstance(rows, Tensor):
        out.index_copy_(1, rows, value)
    else:
        out.narrow(1, *rows).copy_(value)


def choose_kernel(kernel: str, sample: Tensor, grad: bool = False) -> str:
    """The kernel that ``auto`` stands for: ``merge`` where a fused log-sum-exp exists and no gradient is wanted."""
    if kernel != "auto":
        return kernel
    return "merge" if sample.device.type in ("cpu", "cuda") and not grad else "grouped"
