"""A visibility rule compiled for one sequence and device: what :func:`contextgen_core.attention.run` executes.

Everything that a block would otherwise work out again, index tensors above all, is made here, once per run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..methods.contextgen.schedule import BlockPlan, Rule, Schedule
from ..methods.contextgen.sequence import TokenSequence
from ..methods.contextgen.visibility import dense_mask, key_weights, query_groups, reference_part
from .groups import Group, Index, KeyPart, Span
from .varlen import Ragged, ragged

if TYPE_CHECKING:
    from .flex import FlexMask

Rows = Span | Tensor  # a range, which is a view, or an index tensor


@dataclass(frozen=True)
class Part:
    """Keys of a call that share one log weight."""

    rows: Rows
    log_weight: float


@dataclass(frozen=True)
class Call:
    """One attention call: queries, key parts and, for pooled groups, the additive mask (rows, keys).

    With ``count`` above 1 it stands for so many calls of equal size, side by side: queries and the last key part
    are cut into that many pieces, the other part is shared by all.
    """

    queries: Rows
    parts: tuple[Part, ...]
    mask: Tensor | None = None
    count: int = 1


@dataclass(frozen=True)
class Level:
    """Rows of the first call (each once) that read further keys, piece by piece: merge and varlen kernels.

    rows     (R,) counted from the first query of that call
    keys     the keys of all pieces
    pieces   of each: how many rows, its keys
    weights  log weight of each row's further keys, (R,), or None where all are 0
    count    above 1: so many pieces of equal size, run as one batch
    packed   how the pieces lie in one variable-length call, for the varlen kernel
    """

    rows: Tensor
    keys: Rows
    pieces: tuple[tuple[int, Rows], ...]
    weights: Tensor | None
    count: int
    packed: Ragged | None


@dataclass(frozen=True)
class Packed:
    """Calls with queries and keys of different lengths, packed into one variable-length call."""

    queries: Rows
    keys: Rows
    ragged: Ragged


@dataclass(frozen=True)
class Program:
    """The attention of one block, ready to run over ``length`` tokens.

    Without calls, dense and flex it is one plain call. Rows in no call stay zero (``partial``). ``levels`` add the
    references to the rows of the first call.
    """

    length: int
    calls: tuple[Call, ...] = ()
    levels: tuple[Level, ...] = ()
    packed: Packed | None = None
    partial: bool = False
    dense: Tensor | None = None
    flex: FlexMask | None = None


def _indices(index: Index) -> np.ndarray:
    return index.indices() if isinstance(index, Span) else index


def _rows(index: Index, device: torch.device) -> Rows:
    if isinstance(index, Span):
        return index
    if len(index) and (np.diff(index) == 1).all():
        return Span(int(index[0]), int(index[-1]) + 1)  # contiguous after all: a view instead of a copy
    return torch.from_numpy(np.ascontiguousarray(index)).to(device)


def _parts(keys: Sequence[KeyPart], device: torch.device) -> tuple[Part, ...]:
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
    return tuple(Part(_rows(part.index, device), part.log_weight) for part in joined)


def _call(group: Group, device: torch.device, dtype: torch.dtype) -> Call:
    queries = _rows(group.queries, device)
    if group.hidden is None:
        return Call(queries, _parts(group.keys, device))
    weights = np.concatenate([np.full(part.index.size, part.log_weight, np.float32) for part in group.keys])
    mask = _additive(group.hidden, weights, device, dtype)
    return Call(queries, _parts([part._replace(log_weight=0.0) for part in group.keys], device), mask)


def _batched(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Neighbouring references that keep equally many tokens become one call over a batch."""
    made: list[Call] = []
    for call in calls:
        last = made[-1] if made else None
        if last is not None and _own(last) and _own(call) and last.parts[0] == call.parts[0]:
            before, rows = last.queries, call.queries
            if isinstance(before, Span) and isinstance(rows, Span) and before.stop == rows.start:
                if before.size == rows.size * last.count:
                    both = Span(before.start, rows.stop)
                    made[-1] = Call(both, (last.parts[0], Part(both, 0.0)), count=last.count + 1)
                    continue
        made.append(call)
    return tuple(made)


def _own(call: Call) -> bool:
    """Whether a call is a reference reading text and itself, with nothing to weigh."""
    if call.mask is not None or len(call.parts) != 2 or any(part.log_weight for part in call.parts):
        return False
    own = call.parts[1].rows
    return isinstance(own, Span) and isinstance(call.queries, Span) and own == call.queries


def _additive(hidden: np.ndarray, weights: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 or log strength where a row may see a key, -inf where not; in the query's dtype, as every backend wants it."""
    return torch.from_numpy(np.where(hidden, np.float32(-math.inf), weights[None, :])).to(device, dtype)


def _levels(sequence: TokenSequence, first: int, pack: bool, device: torch.device) -> tuple[Level, ...]:
    """The references as further keys of the rows in their boxes: as many levels as boxes lie on one spot."""
    levels: list[tuple[np.ndarray, list[int]]] = []
    for number in sequence.active:
        rows = sequence.box_rows(number)
        free = next((level for level in levels if not level[0][rows].any()), None)
        if free is None:
            free = (np.zeros(sequence.length, bool), [])
            levels.append(free)
        free[0][rows] = True
        free[1].append(number)
    return tuple(_level(sequence, members, first, pack, device) for _, members in levels)


def _level(sequence: TokenSequence, members: list[int], first: int, pack: bool, device: torch.device) -> Level:
    rows = [sequence.box_rows(number) - first for number in members]
    parts = [reference_part(sequence, number) for number in members]
    sizes, keys = [len(r) for r in rows], [_indices(part.index) for part in parts]
    even = len(members) > 1 and len(set(sizes)) == 1 and len({len(k) for k in keys}) == 1
    weights = np.repeat(np.array([part.log_weight for part in parts], np.float32), sizes)
    return Level(
        rows=torch.from_numpy(np.concatenate(rows)).to(device),
        keys=_rows(np.concatenate(keys), device),
        pieces=tuple((size, _rows(part.index, device)) for size, part in zip(sizes, parts, strict=True)),
        weights=torch.from_numpy(weights).to(device) if weights.any() else None,
        count=len(members) if even else 1,
        packed=ragged(sizes, [len(k) for k in keys], device) if pack else None,
    )


def _pack(groups: Sequence[Group], device: torch.device) -> Packed:
    keys = [np.concatenate([_indices(part.index) for part in g.keys]) for g in groups]
    queries = [_indices(g.queries) for g in groups]
    packed = ragged([len(q) for q in queries], [len(k) for k in keys], device)
    return Packed(_rows(np.concatenate(queries), device), _rows(np.concatenate(keys), device), packed)


def _compile(
    sequence: TokenSequence, block: BlockPlan, kernel: str, device: torch.device, dtype: torch.dtype
) -> Program:
    present = block.references and bool(sequence.reference_spans)
    length = sequence.length if present else sequence.base_span.stop
    if kernel == "dense" and present:
        hidden = ~dense_mask(sequence, block.rule)
        return Program(length, dense=_additive(hidden, key_weights(sequence), device, dtype))
    if kernel == "flex" and present:
        from .flex import flex_mask  # not in every torch, and slow to import

        mask = flex_mask(sequence, block, device)
        return Program(length, flex=mask, partial=mask.rows.size < length)
    merging = kernel in ("merge", "varlen") and block.rule is Rule.ICA and present
    groups = query_groups(sequence, replace(block, rule=Rule.CLA) if merging else block)
    if groups is None:
        return Program(length)
    partial = sum(g.queries.size for g in groups) < length
    levels: tuple[Level, ...] = ()
    if merging:
        levels = _levels(sequence, sequence.text if block.idle_base else 0, kernel == "varlen", device)
    packed = None
    rest = groups[1:]
    if kernel == "varlen" and len(rest) > 1 and not any(p.log_weight for g in rest for p in g.keys):
        if all(g.hidden is None for g in rest):
            packed, groups = _pack(rest, device), groups[:1]
    calls = _batched([_call(group, device, dtype) for group in groups])
    return Program(length, calls, levels, packed, partial)


@lru_cache(maxsize=16)
def compile_programs(
    sequence: TokenSequence, schedule: Schedule, kernel: str, device: torch.device, dtype: torch.dtype
) -> tuple[Program, ...]:
    """One :class:`Program` per block. The arguments determine the result entirely, so it is remembered by them.

    ``kernel`` is one of those in :mod:`contextgen_core.attention` but auto; ``dtype`` the dtype of the queries.
    """
    made: dict[BlockPlan, Program] = {}
    with torch.inference_mode(False):  # so that a program made while sampling also serves a training step
        for block in schedule.blocks:
            if block not in made:
                made[block] = _compile(sequence, block, kernel, device, dtype)
    return tuple(made[block] for block in schedule.blocks)
