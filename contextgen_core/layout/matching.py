"""Which box belongs to which: overlaps, labels, and assignments one to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .box import Box

Matrix = NDArray[np.float64]


def iou_matrix(rows: Sequence[Box], columns: Sequence[Box]) -> Matrix:
    """Intersection over union, 0..1, of every pair; shape (rows, columns). Empty boxes give 0."""
    a = np.array([(b.x1, b.y1, b.x2, b.y2) for b in rows], np.float64).reshape(-1, 1, 4)
    b = np.array([(b.x1, b.y1, b.x2, b.y2) for b in columns], np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def words(label: str) -> tuple[str, ...]:
    """A label as it is compared: lower case, punctuation at the ends and repeated spaces dropped."""
    return tuple(word for word in (part.strip(".,;:!\"'()") for part in label.casefold().split()) if word)


def same_label(wanted: str, found: str) -> bool:
    """Whether a detector's label names the wanted thing: equal, or the end of the wanted one ("red cup" is a "cup"),
    as detectors are asked for the noun alone. An empty label fits everything."""
    a, b = words(wanted), words(found)
    return not a or not b or a[-len(b) :] == b


def assign(gains: Matrix) -> tuple[int | None, ...]:
    """The assignment of rows to columns, one to one, with the greatest sum; for each row its column, or None.

    gains: (rows, columns), finite; a negative entry forbids the pair.
    """
    if not gains.size:
        return (None,) * gains.shape[0]
    rows, columns = linear_sum_assignment(np.maximum(gains, 0), maximize=True)
    chosen: list[int | None] = [None] * gains.shape[0]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if gains[row, column] >= 0:
            chosen[row] = column
    return tuple(chosen)
