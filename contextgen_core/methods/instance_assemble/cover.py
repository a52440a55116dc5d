"""Which tokens each instance reads and where its result goes: index sets for all instances at once.

Instances are independent of each other, so none needs a call of its own. Their sequences, each ``layout tokens |
tokens of the box | tokens of its picture``, are laid end to end, sorted by length; sequences of similar length share
one padded attention call. A phrase and a picture have a layout token each. What was read is averaged over the boxes
that cover a token, in an order that does not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .cells import COORDINATES, grid_points
from .content import Place
from .plan import PhraseBox, PhrasePlan

SPREAD = 2  # the longest sequence of a bucket has at most so many times the tokens of its shortest


class Bucket(NamedTuple):
    """Sequences of similar length: so many, each padded to ``length`` tokens.

    mask  additive (sequences, 1, 1, length), -inf at padding, the logarithm of a picture's strength at its tokens; None
          where it would be 0 throughout
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
class Pictures:
    """The pictures of a moment's instances, for the encoder and the step.

    select   their tokens among the conditioning's packed pictures, None where these are all
    points   (pictures, 72) the encoder's points; places: (R, 2) the middles of their R tokens in shares of the canvas
    pooling  (pictures, R) the mean over each picture's tokens
    gathered where each of their tokens lies among the sequences
    """

    select: Tensor | None
    points: Tensor
    places: Tensor
    pooling: Tensor
    gathered: Tensor


@dataclass(frozen=True)
class Cover:
    """The instances of one moment on one device.

    numbers  of the plan's boxes, in the plan's order: those that have tokens
    select   their phrases among the conditioning's as an index, None where these are all
    tokens   noise tokens in any box, sorted
    gather   the sequences end to end: indices into ``layout tokens | covered tokens | tokens of pictures``
    layout   where each layout token lies there: those of phrases in the plan's order, then those of pictures
    buckets  how the sequences share calls, in the order of ``gather``
    ranks    what is averaged for each covered token
    factor   (tokens, 1) of the averaged result, None where every strength is 1
    points   (phrases, 72) the encoder's points
    ids      (layout tokens, 3) their position ids; read: those of the covered tokens and of pictures
    pictures None where no instance has one
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
    read: Tensor
    pictures: Pictures | None = None


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
    plan: PhrasePlan, active: Sequence[int], *, front: bool, device: torch.device, dtype: torch.dtype
) -> Cover | None:
    """The index sets of the boxes ``active``; None where none of them has a token."""
    tokens = box_tokens(plan, active, front)
    if not tokens:
        return None
    numbers = tuple(tokens)
    boxes = [plan.boxes[number] for number in numbers]
    worded, shown = ([n for n, box in enumerate(boxes) if has(box)] for has in (_has_phrase, _has_picture))
    heads: list[list[int]] = [[] for _ in boxes]  # the layout tokens of each instance
    for at, n in enumerate([*worded, *shown]):
        heads[n].append(at)
    covered = np.unique(np.concatenate(list(tokens.values())))
    first = sum(map(len, heads)) + len(covered)  # of the pictures' tokens among what is gathered from
    theirs = dict(zip(shown, _runs([_size(boxes[n]) for n in shown], first), strict=True))
    cells = [tokens[number] for number in numbers]
    sequences = [
        np.concatenate([heads[n], first - len(covered) + np.searchsorted(covered, cells[n]), theirs.get(n, ())])
        for n in range(len(boxes))
    ]
    order = sorted(range(len(boxes)), key=lambda n: len(sequences[n]))  # stable: equal inputs, equal order
    rows: list[np.ndarray] = []
    buckets: list[Bucket] = []
    starts = np.empty(len(boxes), np.int64)  # of each instance's sequence
    at = 0
    for members in buckets_of([len(sequences[n]) for n in order]):
        longest = len(sequences[order[members[-1]]])
        bias = np.full((len(members), longest), -np.inf, np.float32)
        for row, n in enumerate(order[member] for member in members):
            starts[n] = at
            length = len(sequences[n])
            rows.append(np.pad(sequences[n], (0, longest - length), constant_values=heads[n][0]))
            bias[row, :length] = 0
            if n in theirs:
                bias[row, length - _size(boxes[n]) : length] = np.log(_place(boxes[n]).strength)
            at += longest
        mask = None
        if bias.any():
            mask = torch.from_numpy(bias).to(device, dtype)[:, None, None, :]
        buckets.append(Bucket(len(members), longest, mask))

    def index(values: np.ndarray | Sequence[int]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(device)

    def numbers_of(values: np.ndarray, kind: torch.dtype = dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device, kind)

    sources = [starts[n] + len(heads[n]) + np.arange(len(cells[n])) for n in order]
    strengths = np.array([boxes[n].strength for n in order], np.float64)
    ranks, factor = _ranks([cells[n] for n in order], sources, strengths, covered)
    centres = np.array([(0.0, *boxes[n].centre) for n in (*worded, *shown)], np.float32)
    on_grid = [np.stack([np.zeros_like(covered), covered // plan.columns, covered % plan.columns], 1)]
    # A picture's tokens lie between those of the canvas, where its pixels would.
    canvas = np.array([plan.columns, plan.rows])
    places = [_place(boxes[n]).middles() for n in shown]
    on_grid += [np.c_[np.ones(len(xy)), (xy * canvas - 0.5)[:, ::-1]] for xy in places]
    points = [grid_points(box.corners) for box in boxes]
    pictures = None
    if shown:
        ends = {n: starts[n] + len(sequences[n]) for n in shown}
        gathered = [np.arange(ends[n] - _size(boxes[n]), ends[n]) for n in shown]
        pooling = np.zeros((len(shown), sum(map(len, places))), np.float32)
        for row, run in enumerate(_runs([len(xy) for xy in places])):
            pooling[row, run] = 1 / len(run)
        pictures = Pictures(
            select=_selected(plan, [numbers[n] for n in shown], _size, index),
            points=numbers_of(np.stack([points[n] for n in shown]), torch.float32),
            places=numbers_of(np.concatenate(places), torch.float32),
            pooling=numbers_of(pooling, torch.float32),
            gathered=index(np.concatenate(gathered)),
        )
    return Cover(
        numbers=numbers,
        select=_selected(plan, [numbers[n] for n in worded], _has_phrase, index),
        tokens=index(covered),
        gather=index(np.concatenate(rows)),
        layout=index([starts[n] + heads[n].index(at) for at, n in enumerate([*worded, *shown])]),
        buckets=tuple(buckets),
        ranks=tuple(Rank(index(t), index(s), numbers_of(w)[:, None]) for t, s, w in ranks),
        factor=None if factor is None else numbers_of(factor)[:, None],
        points=numbers_of(np.array([points[n] for n in worded]).reshape(-1, COORDINATES), torch.float32),
        ids=numbers_of(centres, torch.float32),
        read=numbers_of(np.concatenate(on_grid), torch.float32),
        pictures=pictures,
    )


def _has_phrase(box: PhraseBox) -> bool:
    return box.phrase


def _has_picture(box: PhraseBox) -> bool:
    return box.picture is not None


def _place(box: PhraseBox) -> Place:
    if box.picture is None:
        raise ValueError(f"{box.name} has no picture")
    return box.picture


def _size(box: PhraseBox) -> int:
    """Tokens of its picture."""
    return 0 if box.picture is None else box.picture.size


def _runs(sizes: Sequence[int], first: int = 0) -> list[np.ndarray]:
    """Consecutive numbers, cut into runs of these sizes."""
    ends = first + np.cumsum(sizes, dtype=np.int64)
    return [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _selected(
    plan: PhrasePlan, chosen: Sequence[int], size: Callable[[PhraseBox], int], index: Callable[[np.ndarray], Tensor]
) -> Tensor | None:
    """What belongs to the chosen boxes in a vector that holds ``size`` entries for each of the plan's; None: all."""
    runs = _runs([size(box) for box in plan.boxes])
    wanted = np.concatenate([runs[number] for number in chosen]) if chosen else np.empty(0, np.int64)
    return None if len(wanted) == sum(map(len, runs)) else index(wanted)


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
