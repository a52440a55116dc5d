"""Which of several overlapping subjects belongs below: the authors' heuristic without its randomness."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_CROWDING = 0.1  # how much overlap by itself pushes a subject down
_NO_OVERLAP = 0.5  # the middle of what the authors draw at random here; it decides nothing visible


class Patch(NamedTuple):
    """A mask bool (h, w) whose top-left pixel is canvas pixel (x, y); the area around it is empty."""

    x: int
    y: int
    mask: np.ndarray


def overlap_order(patches: Sequence[Patch]) -> tuple[int, ...]:
    """Painting order, bottom first: the larger and the more overlapped go below.

    This is the order of ContextGen's released code without its random noise.

    With pixel areas a and intersections over unions IoU:
    - i wholly inside j: j is painted before i (of two equal masks, the lower index first); such a pair is no
    overlap;
    - otherwise, over all j with IoU > 0, in ascending j: p = sum(IoU_ij * a_i / (a_i + a_j)) / sum(IoU_ij),
      score_i = clamp(1 - p - 0.1 * sum(IoU_ij), 0, 1), rounded to 1e-9 by
      floor(score * 1e9 + 0.5) / 1e9 so that equal cases tie; 0.5 without overlaps;
    - topological order, among the free ones always the least (score, index); empty masks come last, by index.
    """
    areas = [int(np.count_nonzero(patch.mask)) for patch in patches]
    solid = [index for index, area in enumerate(areas) if area]
    below: dict[int, list[int]] = {index: [] for index in solid}  # painted before
    waiting = dict.fromkeys(solid, 0)
    overlaps: dict[int, list[tuple[int, float]]] = {index: [] for index in solid}
    for i in solid:
        for j in solid:
            if i >= j:
                continue
            shared = _intersection(patches[i], patches[j])
            if shared == min(areas[i], areas[j]):
                first, then = (j, i) if areas[j] > areas[i] else (i, j)
                below[first].append(then)
                waiting[then] += 1
            elif shared:
                iou = shared / (areas[i] + areas[j] - shared)
                overlaps[i].append((j, iou))
                overlaps[j].append((i, iou))
    scores = {i: _score(areas, i, overlaps[i]) for i in solid}
    free = [(scores[i], i) for i in solid if not waiting[i]]
    heapq.heapify(free)
    order: list[int] = []
    while free:
        _, i = heapq.heappop(free)
        order.append(i)
        for j in below[i]:
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(free, (scores[j], j))
    return (*order, *(index for index, area in enumerate(areas) if not area))


def _score(areas: Sequence[int], i: int, overlaps: Sequence[tuple[int, float]]) -> float:
    if not overlaps:
        return _NO_OVERLAP
    weight = portion = 0.0
    for j, iou in overlaps:
        weight += iou
        portion += iou * areas[i] / (areas[i] + areas[j])
    score = min(max(1 - portion / weight - _CROWDING * weight, 0.0), 1.0)
    return math.floor(score * 1e9 + 0.5) / 1e9


def _intersection(a: Patch, b: Patch) -> int:
    """Pixels in both."""
    x1, y1 = max(a.x, b.x), max(a.y, b.y)
    x2 = min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    y2 = min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    if x1 >= x2 or y1 >= y2:
        return 0
    first = a.mask[y1 - a.y : y2 - a.y, x1 - a.x : x2 - a.x]
    second = b.mask[y1 - b.y : y2 - b.y, x1 - b.x : x2 - b.x]
    return int(np.count_nonzero(first & second))
