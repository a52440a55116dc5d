"""Which tokens of the canvas belong to a reference (``preprocess_region`` of the authors' processor).

A region is drawn on the grid of the autoencoder's cells (8 x 8 pixels) first. A token of 2 x 2 cells belongs to it
where more than half of it is covered; exactly half is out. Regions may overlap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from ...backbones.flux import CHANNELS
from ...errors import InputError
from ...input.checks import shorten
from ...layout.tokens import TOKEN

CELL = 8  # pixels along one side of a cell


def box_region(corners: Sequence[float], width: int, height: int, fractions: bool = False) -> np.ndarray:
    """The region of a box, bool (height / 16, width / 16).

    corners        left, top, right, bottom in pixels of the canvas, or in 0..1 of it with ``fractions``; rounded down
                   to cells and clipped
    width, height  of the canvas in pixels, multiples of 16
    """
    columns, rows = width // CELL, height // CELL
    counts = (columns, rows, columns, rows)
    cells = [v * count if fractions else v // CELL for v, count in zip(corners, counts, strict=True)]
    x1, y1, x2, y2 = (min(max(int(cell), 0), count) for cell, count in zip(cells, counts, strict=True))
    covered = np.zeros((rows, columns), np.int64)
    covered[y1:y2, x1:x2] = 255
    return _more_than_half(covered)


def are_fractions(corners: Sequence[float]) -> bool:
    """Whether the authors' program takes four numbers of a request for fractions of the canvas, not pixels."""
    return all(0 <= v <= 1 for v in corners)


def mask_region(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """The region of a mask picture of any size, uint8 (h, w) or (h, w, 3) whose red counts; 255 = inside."""
    plane = np.ascontiguousarray(mask if mask.ndim == 2 else mask[..., 0])
    cells = Image.fromarray(plane).resize((width // CELL, height // CELL), Image.Resampling.BILINEAR)
    return _more_than_half(np.asarray(cells, np.int64))


def _more_than_half(cells: np.ndarray) -> np.ndarray:
    """0..255 per cell -> bool per token."""
    rows, columns = (side * CELL // TOKEN for side in cells.shape)
    shares = torch.from_numpy(cells.reshape(rows, 2, columns, 2)).float().div(255)
    quarters = shares.permute(0, 2, 1, 3).reshape(rows, columns, 4)
    # The mean over a latent's channels, which all hold the same: soft masks often cover exactly half of a token, and
    # then the rounding of this very sum decides.
    return (quarters.repeat(1, 1, CHANNELS).mean(dim=-1) > 0.5).numpy()


def giving_way(
    regions: np.ndarray, gives_way: Mapping[int, Collection[int]], names: Sequence[str] | None = None
) -> np.ndarray:
    """The regions of the first stage: each loses the tokens that it shares with those it gives way to.

    regions    bool (references, M)
    gives_way  for each reference that gives way, numbers of the others (both from 0)
    names      of the references in sentences

    Raises InputError where references give way to each other in a circle over a common token, which would then belong
    to nobody: in the authors' program its row of the mask is empty.
    """
    first = regions.copy()
    for number, others in gives_way.items():
        first[number] &= ~regions[list(others)].any(axis=0)
    lost = np.flatnonzero(regions.any(axis=0) & ~first.any(axis=0))
    if len(lost):
        called = names or [f"reference {n + 1}" for n in range(len(regions))]
        found = [name for name, holds in zip(called, regions[:, lost[0]], strict=True) if holds]
        raise InputError(
            f"{', '.join(found[:-1])} and {found[-1]} give way to each other, so {len(lost)} tokens that they share"
            " would belong to nobody; let one of them keep what they share."
        )
    return first


def giving_way_to_the_front(count: int) -> dict[int, tuple[int, ...]]:
    """Each of ``count`` references gives way to all that lie in front of it; the last one is in front."""
    return {number: tuple(range(number + 1, count)) for number in range(count - 1)}


def ways_from_text(text: str, boxes: Sequence[str], references: Sequence[str]) -> dict[int, list[int]]:
    """Who gives way to whom, from lines like "cat: dog, 3" (or the same behind semicolons).

    boxes, references  what each reference may be called: the number of its box, its name
    """
    ways: dict[int, list[int]] = {}
    for line in re.split(r"[;\n]", text):
        if not line.strip():
            continue
        left, colon, right = line.partition(":")
        others = [word for word in right.split(",") if word.strip()]
        if not colon or not others:
            raise InputError(f'the line {shorten(line.strip())} names no one after a colon; write it like "cat: dog".')
        number = _called(left.strip(), boxes, references)
        for word in others:
            other = _called(word.strip(), boxes, references)
            if other == number:
                raise InputError(f"{shorten(left.strip())} gives way to itself; name another box.")
            ways.setdefault(number, []).append(other)
    return ways


def _called(word: str, boxes: Sequence[str], references: Sequence[str]) -> int:
    if word in boxes:
        return list(boxes).index(word)
    found = [number for number, name in enumerate(references) if name == word]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{shorten(word)} stands in {len(found)} boxes; write the number of the box that is meant.")
    known = ", ".join(f"{box} ({shorten(name, 24)})" for box, name in zip(boxes, references, strict=True))
    raise InputError(f"no box with a reference is called {shorten(word)}; choose among {known}.")
