"""Who sees whom, as the engine takes it: groups of queries that share their keys."""

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
    """Queries that share their keys. ``hidden`` (rows x keys, True = may not see) exists for pooled groups only."""

    queries: Index
    keys: tuple[KeyPart, ...]
    hidden: np.ndarray | None = None
