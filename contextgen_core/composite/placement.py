"""Where a subject lands on the canvas, and how it gets its size.

Geometry (the editor's live preview computes the same; tests/vectors/paste_rect.json holds cases)::

    box       the instance's box clipped to the canvas: bw x bh, centre (cx, cy)         floats
    source    (sx1, sy1, sx2, sy2), the tight rectangle of mask >= 128: cw x ch          ints
    instance  k = sqrt(bw * bh / (cw * ch)); w = cw * k, h = ch * k; centred on the box, may leave it
    stretch   w = bw, h = bh; centred on the box, fills it
    image     k = min(bw / W, bh / H) for a picture of W x H; w = cw * k, h = ch * k; the whole picture is
              centred on the box: x = cx + (sx1 - W / 2) * k, y = cy + (sy1 - H / 2) * k
    ints      w = max(1, floor(w + 0.5)), then x = floor(cx - w / 2 + 0.5); in "image" x = floor(x + 0.5);
              h and y alike

The rules are those of ContextGen's released code: instance-fit, instance-fit-distort and image-fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..layout.box import Box
from ..layout.layout import Instance, Layout
from .references import HALF, Reference, subject_box


class Cutout(NamedTuple):
    """A placed subject: x, y of its top-left corner on the canvas, pixels uint8 (h, w, 3), mask bool."""

    x: int
    y: int
    pixels: np.ndarray
    mask: np.ndarray


def paste_rect(
    fit: str,
    box: Box,
    image_size: tuple[int, int],
    subject: tuple[int, int, int, int],
    *,
    official: bool = False,
) -> tuple[int, int, int, int]:
    """Where the subject's source rectangle lands: (x, y, w, h) in canvas pixels, w and h at least 1.

    box: already clipped to the canvas. image_size: (width, height) of the reference. subject: half-open
    source rectangle. official: sizes and centres truncated instead of rounded.
    """
    cw, ch = subject[2] - subject[0], subject[3] - subject[1]
    cx, cy = box.center
    x = y = None
    if fit == "stretch":
        w, h = box.width, box.height
    elif fit == "instance":
        scale = math.sqrt(box.width * box.height / (cw * ch))
        w, h = cw * scale, ch * scale
    else:
        scale = min(box.width / image_size[0], box.height / image_size[1])
        w, h = cw * scale, ch * scale
        x = cx + (subject[0] - image_size[0] / 2) * scale
        y = cy + (subject[1] - image_size[1] / 2) * scale
    half = 0.0 if official else 0.5
    columns, rows = max(1, math.floor(w + half)), max(1, math.floor(h + half))
    if x is None or y is None:
        if official:
            return math.floor(cx) - columns // 2, math.floor(cy) - rows // 2, columns, rows
        x, y = cx - columns / 2, cy - rows / 2
    return math.floor(x + half), math.floor(y + half), columns, rows


def placed(instance: Instance, reference: Reference, layout: Layout, fit: str, official: bool) -> Cutout:
    """Cut the subject out and resize it to its destination."""
    source = subject_box(reference.mask, 1 if official else HALF)
    if source is None:
        raise ValueError("a reference with an empty mask")  # Reference refuses it
    if official:  # the end index was used exclusively
        x1, y1, x2, y2 = source
        source = (x1, y1, max(x2 - 1, x1 + 1), max(y2 - 1, y1 + 1))
    box = instance.box.clipped(layout.width, layout.height)
    x, y, w, h = paste_rect(fit, box, reference.size, source, official=official)
    columns, rows = slice(source[0], source[2]), slice(source[1], source[3])
    pixels, mask = reference.pixels[rows, columns], reference.mask[rows, columns]
    if official:
        small = np.clip(bilinear(pixels, w, h), 0, 255)
        return Cutout(x, y, (small + 0.5).astype(np.uint8), bilinear(mask[..., None], w, h)[..., 0] > 0)
    # Pillow resizes RGBA premultiplied: no colour of the background bleeds over the subject's edge.
    picture = Image.fromarray(np.dstack([pixels, mask])).resize((w, h), Image.Resampling.BILINEAR)
    rgba = np.asarray(picture)
    return Cutout(x, y, rgba[..., :3], rgba[..., 3] >= HALF)


def bilinear(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear resize without antialiasing, pixel centres aligned: (h, w, c) -> float (height, width, c)."""
    source = values.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        length = source.shape[axis]
        place = (np.arange(size, dtype=np.float32) + 0.5) * (length / size) - 0.5
        place = place.clip(0, length - 1)
        low = np.floor(place).astype(np.int64)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, length - 1)
        source = source.take(low, axis) * (1 - share) + source.take(high, axis) * share
    return source
