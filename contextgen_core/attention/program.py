"""The groups of one block compiled for a device: what :func:`contextgen_core.attention.run` executes.

Everything that a block would otherwise work out again, index tensors above all, is done here, once per run.

Groups that share their first key part, and read further parts besides, form a family (ContextGen: all that reads text,
noise and layout; what else a row reads depends on the boxes it lies in). Of a family,

- ``merge`` makes one call of all queries over the shared part and one small call per further part for the rows that
  read it, joined through the log-sum-exp of their logits: no copy of the large keys at all;
- ``grouped`` makes one call per group, and one call under a small mask for all the smallest groups together, so that
  thirty-two overlapping boxes do not become hundreds of copies of the shared keys.

A group whose further keys are among its own queries (a reference that reads the text and itself) shares nothing worth
joining; such groups run as they are, neighbours of equal size as one batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import lse
from .groups import Group, Groups, Index, KeyPart, Span, compact, indices, log_weights

MAX_CALLS = 16  # calls of their own for the groups of a family; further (smaller) ones share one call under a mask
POOL_ROWS = 64  # a group with fewer query rows than this is not worth a copy of the keys

Rows = Span | Tensor  # a range, which is a view, or an index tensor


@dataclass(frozen=True)
class Part:
    """Keys of a call that share one log weight."""

    rows: Rows
    log_weight: float


@dataclass(frozen=True)
class Level:
    """Rows of a merged call, each once, that read further keys.

    rows     (R,) counted from the call's first query
    pieces   of each: how many of the rows, in order, and the keys they read
    weights  log weight of each row's further keys, (R,), or None where all are 0
    count    above 1: the one piece stands for so many of equal size, cut from its rows and keys, run as one batch
    """

    rows: Tensor
    pieces: tuple[tuple[int, Rows], ...]
    weights: Tensor | None
    count: int


@dataclass(frozen=True)
class Call:
    """One attention call: queries, key parts and, for pooled groups, the additive mask (rows, keys).

    With ``count`` above 1 it stands for so many calls of equal size, side by side: queries and the last key part
    are cut into that many pieces, the other part is shared by all. With ``levels`` some rows read further keys.
    """

    queries: Rows
    parts: tuple[Part, ...]
    mask: Tensor | None = None
    count: int = 1
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True)
class Program:
    """The attention of one block, ready to run over ``length`` tokens.

    Without ``calls`` it is one plain call, under the additive mask ``dense`` if there is one. Rows of no call stay
    zero (``partial``); under ``dense`` these are the rows ``idle``.
    """

    length: int
    calls: tuple[Call, ...] = ()
    partial: bool = False
    dense: Tensor | None = None
    idle: Tensor | None = None


def compile_blocks(
    blocks: Iterable[tuple[Groups, int]], kernel: str, device: torch.device, dtype: torch.dtype
) -> tuple[Program, ...]:
    """One :class:`Program` for each block's groups and number of tokens; equal blocks share one.

    ``kernel`` is one of those in :mod:`contextgen_core.attention` but auto; ``dtype`` the dtype of the queries.
    """
    known: dict[tuple[int, int], Program] = {}  # by identity: most blocks of a method are the very same
    equal: dict[Hashable, Program] = {}
    blocks = tuple(blocks)  # keeps the groups alive, and so their identities apart
    for groups, length in blocks:
        if (id(groups), length) in known:
            continue
        content = (_content(groups), length)
        if content not in equal:
            equal[content] = compile_block(groups, length, kernel, device, dtype)
        known[id(groups), length] = equal[content]
    return tuple(known[id(groups), length] for groups, length in blocks)


def _content(groups: Groups) -> Hashable:
    if groups is None:
        return None
    return tuple(
        (_name(group.queries), tuple((_name(part.index), part.log_weight) for part in group.keys)) for group in groups
    )


def _name(index: Index) -> Hashable:
    """Equal for equal tokens, in whichever form they stand."""
    index = compact(index)
    return index if isinstance(index, Span) else index.astype(np.int64).tobytes()


def compile_block(groups: Groups, length: int, kernel: str, device: torch.device, dtype: torch.dtype) -> Program:
    """The attention of one block over ``length`` tokens; see :func:`compile_blocks`."""
    if groups is None:
        return Program(length)
    lse.prepare(device, dtype)
    with torch.inference_mode(False):  # so that a program compiled while sampling also serves a training step
        tidy = _tidied(groups)
        idle = np.ones(length, bool)
        for group in tidy:
            idle[indices(group.queries)] = False
        if kernel == "dense":
            return _dense(tidy, idle, device, dtype)
        families = _families(tidy)
        calls: list[Call] = []
        for family in families:
            if kernel == "merge" and _mergeable(family):
                calls.append(_merged(family, device))
            else:
                calls += [_call(group, device, dtype) for group in _pooled(family)]
        return Program(length, _batched(calls), bool(idle.any()))


def _tidied(groups: Sequence[Group]) -> list[Group]:
    """The groups without empty parts, and without those that ask or read nothing."""
    tidy = []
    for queries, keys in groups:
        parts = tuple(KeyPart(compact(part.index), part.log_weight) for part in keys if part.index.size)
        if queries.size and parts:
            tidy.append(Group(compact(queries), parts))
    return tidy


def _dense(groups: Sequence[Group], idle: np.ndarray, device: torch.device, dtype: torch.dtype) -> Program:
    added = log_weights(tuple(groups), len(idle))
    added[idle] = 0  # any finite value: a row of nothing but -inf would be NaN
    rows = torch.from_numpy(np.flatnonzero(idle)).to(device) if idle.any() else None
    return Program(len(idle), partial=rows is not None, dense=torch.from_numpy(added).to(device, dtype), idle=rows)


# --- families -------------------------------------------------------------------------------------------------------


def _families(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that share their first key part and its weight, in order; one that reads itself stands alone."""
    families: dict[Hashable, list[Group]] = {}
    for number, group in enumerate(groups):
        first = group.keys[0]
        key = number if _reads_itself(group) else (_name(first.index), first.log_weight)
        families.setdefault(key, []).append(group)
    return list(families.values())


def _reads_itself(group: Group) -> bool:
    queries, further = group.queries, group.keys[1:]
    if isinstance(queries, Span):
        inside = all(
            queries.start <= index.start and index.stop <= queries.stop
            if isinstance(index, Span)
            else queries.start <= index[0] and index[-1] < queries.stop
            for index, _ in further
        )
    else:
        inside = all(np.isin(indices(index), queries).all() for index, _ in further)
    return bool(further) and inside


def _mergeable(family: Sequence[Group]) -> bool:
    """Whether somebody reads the shared part alone and somebody more: then that part is what the family is about."""
    alone = [len(group.keys) == 1 for group in family]
    return any(alone) and not all(alone)


def _pooled(family: Sequence[Group]) -> list[Group | _Pool]:
    """The groups, but for the smallest of those with further keys: these become one, under a mask."""
    further = sorted((group for group in family if len(group.keys) > 1), key=lambda group: -group.queries.size)
    large = [group for group in further[:MAX_CALLS] if group.queries.size >= POOL_ROWS]
    small = further[len(large) :]
    if len(small) < 2:
        return list(family)
    return [*(group for group in family if len(group.keys) == 1), *large, _Pool(tuple(small))]


@dataclass(frozen=True)
class _Pool:
    """Small groups that run as one call over the union of their keys."""

    groups: tuple[Group, ...]

    def call(self, device: torch.device, dtype: torch.dtype) -> Call:
        queries = np.concatenate([indices(group.queries) for group in self.groups])
        keys = np.unique(np.concatenate([indices(part.index) for group in self.groups for part in group.keys]))
        added = np.full((len(queries), len(keys)), -np.inf, np.float32)
        at = 0
        for group in self.groups:
            rows = slice(at, at + group.queries.size)
            for part in group.keys:
                added[rows, np.searchsorted(keys, indices(part.index))] = part.log_weight
            at = rows.stop
        order = np.argsort(queries)
        mask = torch.from_numpy(added[order]).to(device, dtype)  # in the query's dtype, as every backend wants it
        return Call(_rows(queries[order], device), (Part(_rows(keys, device), 0.0),), mask)


# --- calls ----------------------------------------------------------------------------------------------------------


def _rows(index: Index, device: torch.device) -> Rows:
    index = compact(index)
    return index if isinstance(index, Span) else torch.from_numpy(np.array(index, np.int64)).to(device)


def _call(group: Group | _Pool, device: torch.device, dtype: torch.dtype) -> Call:
    if isinstance(group, _Pool):
        return group.call(device, dtype)
    return Call(_rows(group.queries, device), _parts(group.keys, device))


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


def _batched(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Neighbours of equal size that read one shared part and themselves become one call over a batch."""
    joined: list[Call] = []
    for call in calls:
        last = joined[-1] if joined else None
        if last is not None and _shares_and_reads_itself(last) and _shares_and_reads_itself(call):
            before, rows = last.queries, call.queries
            if last.parts[0] == call.parts[0] and isinstance(before, Span) and isinstance(rows, Span):
                if before.stop == rows.start and before.size == rows.size * last.count:
                    both = Span(before.start, rows.stop)
                    joined[-1] = Call(both, (last.parts[0], Part(both, 0.0)), count=last.count + 1)
                    continue
        joined.append(call)
    return tuple(joined)


def _shares_and_reads_itself(call: Call) -> bool:
    """Whether a call reads a range and then exactly its own rows, with nothing to weigh."""
    if call.mask is not None or call.levels or len(call.parts) != 2 or any(part.log_weight for part in call.parts):
        return False
    shared, own = (part.rows for part in call.parts)
    return isinstance(shared, Span) and isinstance(own, Span) and own == call.queries


# --- merge ----------------------------------------------------------------------------------------------------------


def _merged(family: Sequence[Group], device: torch.device) -> Call:
    """All queries of a family over the part they share; the further parts as levels."""
    shared = family[0].keys[0]
    queries = np.sort(np.concatenate([indices(group.queries) for group in family]))
    readers: dict[Hashable, tuple[KeyPart, list[np.ndarray]]] = {}
    for group in family:
        for part in group.keys[1:]:
            key = (_name(part.index), part.log_weight)
            readers.setdefault(key, (part, []))[1].append(indices(group.queries))
    further = [(part, np.searchsorted(queries, np.sort(np.concatenate(rows)))) for part, rows in readers.values()]
    further.sort(key=lambda item: int(indices(item[0].index)[0]))
    # Weights count against each other only, so the shared part's becomes 0.
    further = [(part._replace(log_weight=part.log_weight - shared.log_weight), rows) for part, rows in further]
    levels = tuple(_level(members, device) for members in _disjoint(further, len(queries)))
    return Call(_rows(queries, device), (Part(_rows(shared.index, device), 0.0),), levels=levels)


Further = list[tuple[KeyPart, np.ndarray]]


def _disjoint(further: Further, length: int) -> list[Further]:
    """The further parts in as few levels as keep each row once in a level, first come, first served."""
    levels: list[tuple[np.ndarray, Further]] = []
    for part, rows in further:
        free = next((level for level in levels if not level[0][rows].any()), None)
        if free is None:
            free = (np.zeros(length, bool), [])
            levels.append(free)
        free[0][rows] = True
        free[1].append((part, rows))
    return [members for _, members in levels]


def _level(members: Further, device: torch.device) -> Level:
    sizes = [len(rows) for _, rows in members]
    weights = np.repeat(np.array([part.log_weight for part, _ in members], np.float32), sizes)
    even = len(members) > 1 and len(set(sizes)) == 1 and len({part.index.size for part, _ in members}) == 1
    if even:
        together = np.concatenate([indices(part.index) for part, _ in members])
        pieces = ((sum(sizes), _in_order(together, device)),)
    else:
        pieces = tuple((size, _rows(part.index, device)) for size, (part, _) in zip(sizes, members, strict=True))
    return Level(
        rows=torch.from_numpy(np.concatenate([rows for _, rows in members])).to(device),
        pieces=pieces,
        weights=torch.from_numpy(weights).to(device) if weights.any() else None,
        count=len(members) if even else 1,
    )


def _in_order(index: np.ndarray, device: torch.device) -> Rows:
    """Like :func:`_rows` for indices that need not ascend or differ."""
    if (np.diff(index) == 1).all():
        return Span(int(index[0]), int(index[-1]) + 1)
    return torch.from_numpy(np.array(index, np.int64)).to(device)
