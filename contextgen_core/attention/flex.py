"""The visibility rule as a block mask for flex-attention: one fused call, hidden blocks are never computed.

Each token gets two sets of marks as bits of an int64: those it carries as a key and those it reads as a query. A
query sees a key where the two sets meet. Which 128 x 128 blocks are empty, full or mixed then follows from the
marks of whole blocks, without forming anything of sequence x sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from ..errors import InputError
from ..methods.contextgen.schedule import BlockPlan, Rule
from ..methods.contextgen.sequence import TokenSequence
from ..methods.contextgen.visibility import key_weights
from .groups import Span

BLOCK = 128
MAX_REFERENCES = 30  # two bits for text and base, one for a reference's readers and one for itself
_TEXT, _BASE = np.int64(1), np.int64(2)


@dataclass(frozen=True, eq=False)
class FlexMask:
    """A rule for ``rows`` of the joint sequence as queries and the whole sequence as keys."""

    rows: Span
    mask: BlockMask
    score: Any


def token_marks(sequence: TokenSequence, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """What each joint token reads as a query and carries as a key, int64 (S,) each."""
    if len(sequence.reference_spans) > MAX_REFERENCES:
        raise InputError(
            f"The flex kernel takes at most {MAX_REFERENCES} references, here are {len(sequence.reference_spans)};"
            " choose the kernel auto."
        )
    reads, carries = np.zeros((2, sequence.length), np.int64)
    base = slice(*sequence.base_span)
    reads[base], carries[base] = _BASE, _BASE
    carries[: sequence.text] |= _TEXT
    for place, (number, span) in enumerate(sequence.reference_spans.items()):
        readers, itself = np.int64(1) << (2 + 2 * place), np.int64(1) << (3 + 2 * place)
        keys = sequence.reference_keys(number)
        carries[keys] = itself
        reads[slice(*span)] = _TEXT | itself
        if rule is Rule.CLA or number not in sequence.active:
            continue
        rows = sequence.box_rows(number)
        carries[keys] |= readers
        reads[rows] |= readers
        if rule is Rule.ICA_PAPER:
            carries[rows] |= readers
            reads[rows] = (reads[rows] & ~_BASE) | _TEXT
    return reads, carries


def block_marks(marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Marks that any token and that every token of each block has; the rest of the last block has none."""
    padded = np.zeros(-(-len(marks) // BLOCK) * BLOCK, np.int64)
    padded[: len(marks)] = marks
    whole = padded.reshape(-1, BLOCK)
    return np.bitwise_or.reduce(whole, axis=1), np.bitwise_and.reduce(whole, axis=1)


def block_kinds(reads: np.ndarray, carries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mixed, full), bool (query blocks, key blocks); a block in neither is empty.

    A block counts as full where one mark is common to all of it, so a few full ones pass as mixed.
    """
    some_reads, all_reads = block_marks(reads)
    some_carries, all_carries = block_marks(carries)
    full = (all_reads[:, None] & all_carries[None, :]) != 0
    return ((some_reads[:, None] & some_carries[None, :]) != 0) & ~full, full


def _table(kinds: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Per query block: how many key blocks, and which, those first (1, 1, rows), (1, 1, rows, columns)."""
    order = np.argsort(~kinds, axis=1, kind="stable").astype(np.int32)
    counts = kinds.sum(axis=1).astype(np.int32)
    return torch.from_numpy(counts)[None, None].to(device), torch.from_numpy(order)[None, None].to(device)


def flex_mask(sequence: TokenSequence, block: BlockPlan, device: torch.device) -> FlexMask:
    """The rule of one block that has references; rows that nobody reads are no queries."""
    reads, carries = token_marks(sequence, block.rule)
    start, stop = sequence.noise_span if block.idle_base else (0, sequence.length)
    if block.idle_references:
        stop = min(stop, sequence.base_span.stop)
    reads = reads[start:stop]
    mixed, full = block_kinds(reads, carries)
    reads_on, carries_on = torch.from_numpy(reads.copy()).to(device), torch.from_numpy(carries).to(device)
    weights = torch.from_numpy(key_weights(sequence)).to(device)

    def visible(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (reads_on[query] & carries_on[key]) != 0

    def weighted(score: Tensor, _b: Tensor, _h: Tensor, _query: Tensor, key: Tensor) -> Tensor:
        return score + weights[key]

    mask = BlockMask.from_kv_blocks(
        *_table(mixed, device),
        *_table(full, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(stop - start, sequence.length),
    )
    return FlexMask(Span(start, stop), mask, weighted if bool(weights.any()) else None)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def attend(q: Tensor, k: Tensor, v: Tensor, rule: FlexMask, compiled: bool | None = None) -> Tensor:
    """(B, H, S, D) three times -> (B, H, rows, D). Not compiled, flex-attention is dense: for tests only."""
    call = _compiled() if (q.device.type == "cuda" if compiled is None else compiled) else flex_attention
    return call(q.narrow(2, rule.rows.start, rule.rows.size), k, v, score_mod=rule.score, block_mask=rule.mask)
