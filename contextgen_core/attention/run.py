"""Runs groups of queries with their keys exactly, without ever forming a tensor of sequence x sequence.

A :class:`Program` is the groups of one block compiled for a device: index tensors built once per run. Three kernels
execute it; all give the same result up to rounding:

``grouped``  one plain call per query group through the caller's own backend (SDPA, sage, flash, xformers, ...).
``merge``    one call of all queries over the keys that their groups share, one small call for each set of further
             keys, joined through the log-sum-exp of their logits: no copy of the large keys at all.
``dense``    one call under the additive S x S mask. The specification, for tests and comparison only.

Tensors are (B, H, S, D) for query, key and value, and (B, S, H*D) for the result.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .lse import attend_lse, join_rows, merge_lse
from .program import Call, Level, Part, Program, Rows

log = logging.getLogger("contextgen")

KERNELS = ("auto", "grouped", "merge", "dense")


class Attend(Protocol):
    """A backend: (B, H, Sq, D), (B, H, Sk, D), (B, H, Sk, D), additive mask or None -> (B, Sq, H*D)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor: ...


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
    """torch's own attention as a backend."""
    return _join_heads(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def _join_heads(out: Tensor) -> Tensor:
    return out.transpose(1, 2).flatten(2)  # B H S D -> B S (H D)


# --- choice ---------------------------------------------------------------------------------------------------------


def choose_kernel(kernel: str, sample: Tensor, grad: bool = False, torch_backend: bool = True) -> str:
    """The kernel that runs: ``kernel`` itself, or what ``auto`` stands for here (measured: bench/README.md).

    sample         any tensor with the device and dtype of the queries
    grad           gradients will be wanted
    torch_backend  the caller attends with torch's own kernels, so ours are no change of the user's choice

    Raises InputError for an unknown name.
    """
    if kernel not in KERNELS:
        raise InputError(f"The attention kernel {kernel!r} is unknown; choose one of {', '.join(KERNELS)}.")
    if kernel == "auto":
        chosen, why = "grouped", "gradients are wanted"
        if not grad:
            if not torch_backend:
                why = "the host's own attention backend does the work"
            elif sample.device.type not in ("cpu", "cuda"):
                why = f"no kernel on {sample.device.type} returns its log-sum-exp"
            else:
                chosen, why = "merge", "it copies no keys"
        _log_choice(chosen, why)
        return chosen
    return kernel


@lru_cache(maxsize=8)
def _log_choice(kernel: str, why: str) -> None:
    log.info("attention kernel %s: %s", kernel, why)  # remembered by its arguments, so said once


# --- execution ------------------------------------------------------------------------------------------------------


def run(program: Program, q: Tensor, k: Tensor, v: Tensor, attend: Attend = sdpa) -> Tensor:
    """Executes a program: (B, H, S, D) three times -> (B, S, H*D). S must be the program's length."""
    if q.shape[2] != program.length:
        raise RuntimeError(f"attention over {q.shape[2]} tokens reached a program for {program.length}")
    if program.dense is not None:
        out = attend(q, k, v, program.dense)
        return out if program.idle is None else out.index_fill(1, program.idle, 0.0)
    if not program.calls and not program.partial:
        return attend(q, k, v, None)
    batch, heads, length, width = q.shape
    make = q.new_zeros if program.partial else q.new_empty
    out = make((batch, length, heads * width))
    for call in program.calls:
        _write(out, call.queries, _run_call(call, q, k, v, attend))
    return out


def _run_call(call: Call, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
    queries = _take(q, call.queries)
    if call.levels:
        return _run_merged(queries, call.parts[0], call.levels, k, v)
    if call.count > 1:
        return _run_batch(call, queries, k, v, attend)
    if len({part.log_weight for part in call.parts}) > 1:
        pieces = [attend_lse(queries, _take(k, part.rows), _take(v, part.rows)) for part in call.parts]
        weighed = [(out, lse + part.log_weight) for (out, lse), part in zip(pieces, call.parts, strict=True)]
        return _join_heads(merge_lse(weighed))
    keys = [part.rows for part in call.parts]
    return attend(queries, _gather(k, keys), _gather(v, keys), call.mask)


def _run_batch(call: Call, queries: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
    shared, own = (part.rows for part in call.parts)

    def keys(x: Tensor) -> Tensor:
        every = _take(x, shared)[:, None].expand(-1, call.count, -1, -1, -1).flatten(0, 1)
        return torch.cat([every, _split(_take(x, own), call.count)], dim=2)

    out = attend(_split(queries, call.count), keys(k), keys(v), None)  # (B n) S/n (H D)
    return out.unflatten(0, (-1, call.count)).flatten(1, 2)


def _run_merged(q: Tensor, base: Part, levels: tuple[Level, ...], k: Tensor, v: Tensor) -> Tensor:
    """All queries over the shared keys, then the rows of each level over their further keys, joined in place."""
    out, lse = attend_lse(q, _take(k, base.rows), _take(v, base.rows))
    for number, level in enumerate(levels):
        added, added_lse = _run_level(level, q.index_select(2, level.rows), k, v)
        if level.weights is not None:
            added_lse = added_lse + level.weights
        join_rows(out, lse, level.rows, added, added_lse, more=number + 1 < len(levels))
    return _join_heads(out)


def _run_level(level: Level, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    if level.count > 1:
        keys, values = (_split(_take(x, level.pieces[0][1]), level.count) for x in (k, v))
        out, lse = attend_lse(_split(q, level.count), keys, values)
        return _unsplit(out, level.count), _unsplit(lse, level.count)
    queries = q.split([size for size, _ in level.pieces], dim=2)
    made = [
        attend_lse(rows, _take(k, keys), _take(v, keys)) for rows, (_, keys) in zip(queries, level.pieces, strict=True)
    ]
    if len(made) == 1:
        return made[0]
    return torch.cat([out for out, _ in made], dim=2), torch.cat([lse for _, lse in made], dim=2)


def _split(x: Tensor, count: int) -> Tensor:
    return x.unflatten(2, (count, -1)).transpose(1, 2).flatten(0, 1)  # B H (n S) D -> (B n) H S D


def _unsplit(x: Tensor, count: int) -> Tensor:
    return x.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)  # (B n) H S ... -> B H (n S) ...


def _take(x: Tensor, rows: Rows) -> Tensor:
    return x.index_select(2, rows) if isinstance(rows, Tensor) else x.narrow(2, rows.start, rows.size)


def _gather(x: Tensor, rows: Sequence[Rows]) -> Tensor:
    return _take(x, rows[0]) if len(rows) == 1 else torch.cat([_take(x, r) for r in rows], dim=2)


def _write(out: Tensor, rows: Rows, value: Tensor) -> None:
    if isinstance(rows, Tensor):
        out.index_copy_(1, rows, value)
    else:
        out.narrow(1, rows.start, rows.size).copy_(value)
