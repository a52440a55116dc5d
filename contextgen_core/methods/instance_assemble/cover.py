"""Which tokens each instance reads and where its result goes: index sets for all instances at once.

Instances are independent of each other, so none needs a call of its own. Their sequences, each ``layout token | tokens
of the box``, are laid end to end, sorted by length; sequences of similar length share one padded attention call. What
was read is averaged over the boxes that cover a token, in an order that does not depend on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .plan import PhrasePlan

SPREAD = 2  # the longest sequence of a bucket has at most so many times the tokens of its shortest


class Bucket(NamedTuple):
    """Sequences of similar length: so many, each padded to ``length`` tokens.

    mask  additive (sequences, 1, 1, length), -inf at padding; None where nothing is padded
    """

    sequences: int
    length: int
    mask: Tensor | None


class Rank(NamedTuple):
    """The r-th box of each token that has so many: the covered tokens, where its result lies, its weight (n, 1)."""

    tokens: Tensor
    sources: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Cover:
    """The instances of one moment on one device.

    numbers  of the plan's boxes, in the plan's order: those that have tokens; layout tokens stand in this order
    select   the same as an index, None where these are all of the plan's boxes
    tokens   noise tokens in any box, sorted
    gather   the sequences end to end: indices into ``layout tokens | covered tokens``
    layout   where each layout token lies there
    buckets  how the sequences share calls, in the order of ``gather``
    ranks    what is averaged for each covered token
    factor   (tokens, 1) of the averaged result, None where every strength is 1
    points   (instances, 72) the encoder's points
    ids      (instances, 3) position ids of the layout tokens; covered: those of the covered tokens
    """

    numbers: tuple[int, ...]
    select: Tensor | None
    tokens: Tensor
    gather: Tensor
    layout: Tensor
    buckets: tuple[Bucket, ...]
    ranks: tuple[Rank, ...]
    factor: Tensor | None
    points: Tensor
    ids: Tensor
    covered: Tensor


def box_tokens(plan: PhrasePlan, active: Sequence[int], front: bool = False) -> dict[int, np.ndarray]:
    """The tokens of each active box, without those that have none.

    front  a token belongs to the front-most box alone instead of to every box that covers it
    """
    tokens = {number: plan.boxes[number].indices(plan.columns) for number in active}
    if front:
        owner = np.full(plan.rows * plan.columns, -1)
        for number in active:
            owner[tokens[number]] = number
        tokens = {number: cells[owner[cells] == number] for number, cells in tokens.items()}
    return {number: cells for number, cells in tokens.items() if len(cells)}


def buckets_of(lengths: Sequence[int]) -> list[range]:
    """Ranges of ascending lengths that share a call."""
    ranges, first = [], 0
    for at, length in enumerate(lengths):
        if length > SPREAD * lengths[first]:
            ranges.append(range(first, at))
            first = at
    return [*ranges, range(first, len(lengths))] if lengths else []


def make_cover(
    plan: PhrasePlan,
    active: Sequence[int],
    points: np.ndarray,
    *,
    front: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Cover | None:
    """The index sets of the boxes ``active``; None where none of them has a token.

    points  float32 (active boxes, 72)
    """
    tokens = box_tokens(plan, active, front)
    if not tokens:
        return None
    numbers = tuple(tokens)
    order = sorted(range(len(numbers)), key=lambda i: len(tokens[numbers[i]]))  # stable: equal inputs, equal order
    cells = [tokens[numbers[i]] for i in order]
    covered = np.unique(np.concatenate(cells))
    lengths = [1 + len(c) for c in cells]
    rows: list[np.ndarray] = []
    padding: list[tuple[int, int, np.ndarray | None]] = []
    starts = np.empty(len(cells), np.int64)  # of each sequence, in the plan's order
    sources: list[np.ndarray] = []
    at = 0
    for members in buckets_of(lengths):
        longest = lengths[members[-1]]
        for i in members:
            starts[order[i]] = at
            sources.append(at + 1 + np.arange(len(cells[i])))
            row = np.concatenate([[order[i]], len(cells) + np.searchsorted(covered, cells[i])])
            row = np.pad(row, (0, longest - len(row)), constant_values=order[i])
            rows.append(row)
            at += len(row)
        sizes = np.array([lengths[i] for i in members])
        hidden = np.arange(longest)[None, :] >= sizes[:, None]
        padding.append((len(members), longest, hidden if hidden.any() else None))
    strengths = np.array([plan.boxes[numbers[i]].strength for i in order], np.float64)
    ranks, factor = _ranks(cells, sources, strengths, covered)
    chosen = [active.index(number) for number in numbers]
    boxes = [plan.boxes[number] for number in numbers]

    def index(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    def numbers_of(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device, dtype)

    ids = np.array([(0.0, *box.centre) for box in boxes], np.float32)
    positions = np.stack([np.zeros_like(covered), covered // plan.columns, covered % plan.columns], 1)
    return Cover(
        numbers=numbers,
        select=None if len(numbers) == len(plan.boxes) else index(np.array(numbers)),
        tokens=index(covered),
        gather=index(np.concatenate(rows)),
        layout=index(starts),
        buckets=tuple(Bucket(n, length, _additive(h, device, dtype)) for n, length, h in padding),
        ranks=tuple(Rank(index(t), index(s), numbers_of(w)[:, None]) for t, s, w in ranks),
        factor=None if factor is None else numbers_of(factor)[:, None],
        points=torch.from_numpy(points[chosen]).to(device),
        ids=torch.from_numpy(ids).to(device),
        covered=torch.from_numpy(positions.astype(np.float32)).to(device),
    )


def _additive(hidden: np.ndarray | None, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    if hidden is None:
        return None
    values = np.where(hidden, np.float32(-np.inf), np.float32(0.0))
    return torch.from_numpy(values).to(device, dtype)[:, None, None, :]


def _ranks(
    cells: Sequence[np.ndarray], sources: Sequence[np.ndarray], strengths: np.ndarray, covered: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], np.ndarray | None]:
    """Pairs of token and source, the r-th of each token in the r-th entry, with their weights.

    A box of strength s counts s in the mean and what it adds is scaled by s: with all strengths 1 the authors' plain
    mean, and a strength that goes to 0 takes its box away without a jump. What a box adds is affine in its attention,
    so the mean is taken of the attention with weights that sum to 1, and ``factor`` scales what is projected from it.
    """
    token = np.searchsorted(covered, np.concatenate(cells))
    source = np.concatenate(sources)
    strength = np.repeat(strengths, [len(c) for c in cells])
    total = np.bincount(token, strength, len(covered))
    scaled = np.bincount(token, strength**2, len(covered))
    if (strengths == 1).all():
        weight, factor = 1 / total[token], None
    else:
        safe = np.where(scaled > 0, scaled, 1.0)
        weight, factor = strength**2 / safe[token], scaled / np.where(total > 0, total, 1.0)
    by_token = np.argsort(token, kind="stable")
    token, source, weight = token[by_token], source[by_token], weight[by_token]
    first = np.searchsorted(token, token)  # of each token's pairs
    rank = np.arange(len(token)) - first
    picks = [rank == r for r in range(int(rank.max()) + 1)]
    return [(token[p], source[p], weight[p]) for p in picks], factor
