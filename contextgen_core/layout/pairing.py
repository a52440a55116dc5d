"""Which detection belongs to which reference; boxes as masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .box import Box
from .foreign_boxes import LabelledBox
from .matching import assign, same_label, words

WAYS = ("label", "order", "appearance")


class Pairing(NamedTuple):
    """`chosen`: for each reference the index of its detection, or None. `left_over`: detections nobody took, by
    index."""

    chosen: tuple[int | None, ...]
    left_over: tuple[int, ...]


def _result(chosen: Sequence[int | None], detections: int) -> Pairing:
    taken = {index for index in chosen if index is not None}
    return Pairing(tuple(chosen), tuple(index for index in range(detections) if index not in taken))


def by_order(references: int, detections: Sequence[LabelledBox]) -> Pairing:
    """The first detection belongs to the first reference, and so on."""
    return _result([n if n < len(detections) else None for n in range(references)], len(detections))


def by_label(names: Sequence[str], detections: Sequence[LabelledBox]) -> Pairing:
    """Each reference takes the detection named like it: first those whose label is exactly its name, then those whose
    label ends the name ("red cup": a "cup"); the higher score first, each detection once. Nameless ones pair with
    nobody."""
    chosen: list[int | None] = [None] * len(names)
    free = set(range(len(detections)))
    for exact in (True, False):
        for row, name in enumerate(names):
            fitting = [
                column
                for column in free
                if words(name)
                and words(detections[column].label)
                and (
                    words(name) == words(detections[column].label)
                    if exact
                    else same_label(name, detections[column].label)
                )
            ]
            if chosen[row] is None and fitting:
                chosen[row] = min(fitting, key=lambda column: (-(detections[column].score or 0.0), column))
                free.discard(chosen[row])
    return _result(chosen, len(detections))


def by_appearance(similarity: NDArray[np.floating], least: float = -1.0) -> Pairing:
    """The assignment with the greatest total similarity. similarity: (references, detections), cosine -1..1; pairs
    below `least` are never made. Raises InputError for numbers that are not finite."""
    values = np.asarray(similarity, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(
            "the similarities are not a finite matrix of references by detections; check the vision model."
        )
    # assign() maximises a sum of gains >= 0 and reads negative ones as forbidden: move the cosines to 0..2 first.
    gains = np.where(values < least, -1.0, values.clip(-1, 1) + 1)
    return _result(assign(gains), values.shape[1])


def boxes_to_masks(boxes: Sequence[Box], width: int, height: int) -> NDArray[np.uint8]:
    """Boxes in pixels as masks uint8 (N, height, width): a pixel is selected if its centre lies in the box; a box
    smaller than that selects the pixel it lies in."""
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, box in zip(masks, boxes, strict=True):
        left, right = _span(box.x1, box.x2, width)
        top, bottom = _span(box.y1, box.y2, height)
        mask[top:bottom, left:right] = 255
    return masks


def _span(start: float, stop: float, size: int) -> tuple[int, int]:
    if stop <= 0 or start >= size:
        return 0, 0
    first, last = int(np.ceil(start - 0.5)), int(np.ceil(stop - 0.5))
    if last <= first:
        first = int(np.floor((start + stop) / 2))
        last = first + 1
    return max(0, min(first, size - 1)), max(1, min(last, size))
