"""Who sees whom, as the engine takes it: groups of queries that share their keys.

A method describes the attention of a block by groups, exactly and as finely as it likes; how few calls they become is
the engine's matter (:mod:`contextgen_core.attention.program`). A row belongs to at most one group and a key to at most
one part of a group. Rows in no group, and rows of groups without keys, get zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """A half-open range of tokens of the joint sequence (text first)."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def indices(self) -> np.ndarray:
        return np.arange(self.start, self.stop)


Index = Span | np.ndarray  # a range or sorted indices of joint tokens


class KeyPart(NamedTuple):
    """Keys that a group reads, with the logarithm that is added to their logits (a reference's strength)."""

    index: Index  # pyright: ignore[reportIncompatibleMethodOverride] - tuple's own index is of no use here
    log_weight: float = 0.0


class Group(NamedTuple):
    """Queries that share their keys."""

    queries: Index
    keys: tuple[KeyPart, ...]


Groups = tuple[Group, ...] | None  # of one block; None: everyone sees everyone


def indices(index: Index) -> np.ndarray:
    """The tokens of an index, int64, ascending."""
    return index.indices() if isinstance(index, Span) else index


def compact(index: Index) -> Index:
    """The same tokens, as a range where they lie side by side: a view instead of a copy."""
    if isinstance(index, Span) or (len(index) and index[-1] - index[0] + 1 != len(index)):
        return index
    return Span(int(index[0]), int(index[-1]) + 1) if len(index) else Span(0, 0)


def seen(groups: Groups, length: int) -> np.ndarray:
    """The groups as a dense mask, bool (length, length): True where the row sees the column. For tests and parity."""
    return ~np.isneginf(log_weights(groups, length))


def log_weights(groups: Groups, length: int) -> np.ndarray:
    """What is added to each logit, float32 (length, length): -inf where the row does not see the column."""
    if groups is None:
        return np.zeros((length, length), np.float32)
    added = np.full((length, length), -np.inf, np.float32)
    for group in groups:
        rows = indices(group.queries)
        for part in group.keys:
            added[np.ix_(rows, indices(part.index))] = part.log_weight
    return added


def pairs(groups: Groups, length: int) -> int:
    """How many query-key pairs the groups of a block over ``length`` tokens have."""
    if groups is None:
        return length**2
    return sum(group.queries.size * sum(part.index.size for part in group.keys) for group in groups)
