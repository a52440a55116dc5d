"""Where subjects are to stand."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...layout.box import Box
from .draft import BASIC, COMPLEX, FLEXIBLE, SIGMA

_TRIES = 400
_GRID = 32  # boxes stand on a grid of so many steps a side
APART, MOST_OVERLAP, OVERLAPS = 0.0, 0.4, 0.1  # shares of the smaller box


def plan_boxes(rng: np.random.Generator, kind: str, count: int, size: int) -> list[Box]:
    """Nearly square boxes in painting order, bottom first, in pixels of a square canvas.

    basic: apart. complex, sigma_gen: at least two overlap (sigma_gen: as it comes), none by more than 0.4 of the
    smaller one. flexible: a large one painted over a small one, which it hides, the others beside them.

    Raises InputError where so many do not fit.
    """
    for _ in range(_TRIES):
        boxes = _flexible(rng, count) if kind == FLEXIBLE else _scattered(rng, kind, count)
        if boxes is not None:
            step = size / _GRID
            return [Box(x1 * step, y1 * step, x2 * step, y2 * step) for x1, y1, x2, y2 in boxes]
    raise InputError(f"{count} subjects do not fit into a picture of the kind {kind}; ask for fewer with --subjects.")


_Cells = tuple[int, int, int, int]


def _box(rng: np.random.Generator, low: int, high: int) -> _Cells:
    w = int(rng.integers(low, high + 1))
    h = int(np.clip(w + rng.integers(-1, 2), low, high))
    x, y = int(rng.integers(0, _GRID - w + 1)), int(rng.integers(0, _GRID - h + 1))
    return x, y, x + w, y + h


def _overlap(a: _Cells, b: _Cells) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _scattered(rng: np.random.Generator, kind: str, count: int) -> list[_Cells] | None:
    high = max(round(_GRID * 0.8 / max(count, 2) ** 0.5), 3)
    low, most = max(round(high * 0.7), 2), APART if kind == BASIC else MOST_OVERLAP
    boxes: list[_Cells] = []
    for _ in range(60):
        box = _box(rng, low, high)
        if max((_overlap(box, b) for b in boxes), default=0.0) <= most:
            boxes.append(box)
        if len(boxes) == count:
            break
    crossing = any(_overlap(a, b) > OVERLAPS for i, a in enumerate(boxes) for b in boxes[:i])
    wanted = {BASIC: not crossing, COMPLEX: crossing or count < 2, SIGMA: True}[kind]
    return boxes if len(boxes) == count and wanted else None


def _flexible(rng: np.random.Generator, count: int) -> list[_Cells] | None:
    token = _GRID // 8
    side = token * int(rng.integers(3, 5))
    x, y = (int(v) * token for v in rng.integers(0, (_GRID - side) // token + 1, 2))
    boxes = [(x, y, x + side, y + side), _box(rng, 22, 28)]
    if count >= 2 and not (boxes[1][0] < x and boxes[1][1] < y and x + side < boxes[1][2] and y + side < boxes[1][3]):
        return None
    for _ in range(60):
        if len(boxes) >= count:
            return boxes[:count]
        box = _box(rng, 8, 12)
        if not _overlap(box, boxes[0]) and all(_overlap(box, b) < 0.75 for b in boxes[1:]):
            boxes.append(box)
    return None
