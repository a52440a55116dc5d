"""Where a subject lands on the canvas, and how it gets its size.

Geometry (the editor's live preview computes the same; tests/vectors/paste_rect.json holds cases)::

    box       the instance's box clipped to the canvas: bw x bh, centre (cx, cy)         floats
    source    (sx1, sy1, sx2, sy2), the tight rectangle of mask >= 128: cw x ch          ints
    instance  k = sqrt(bw * bh / (cw * ch)); w = cw * k, h = ch * k; centred on the box, may leave it
    stretch   w = bw, h = bh; centred on the box, fills it
    image     k = min(bw / W, bh / H) for a picture of W x H; w = cw * k, h = ch * k; the whole picture is
              centred on the box: x = cx + (sx1 - W / 2) * k, y = cy + (sy1 - H / 2) * k
    turned    a box with a rotation is not clipped; the subject is fitted to it upright, then turned with it
    flip      mirrors the whole picture first, so that the subject's rectangle lies on the other side of it
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
from ..layout.layout import Instance, Layout, sine_cosine
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
) -> tuple[int, int, int, int]:
    """Where the subject's source rectangle lands: (x, y, w, h) in canvas pixels, w and h at least 1.

    box: already clipped to the canvas. image_size: (width, height) of the reference. subject: half-open
    source rectangle.
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
    columns, rows = max(1, math.floor(w + 0.5)), max(1, math.floor(h + 0.5))
    if x is None or y is None:
        x, y = cx - columns / 2, cy - rows / 2
    return math.floor(x + 0.5), math.floor(y + 0.5), columns, rows


def placed(instance: Instance, reference: Reference, layout: Layout, fit: str) -> Cutout:
    """Cut the subject out, resize it to its destination, mirror it and turn it.

    fit: of the layout; the instance's own goes before.
    """
    source = subject_box(reference.mask)
    if source is None:
        raise ValueError("a reference with an empty mask")  # Reference refuses it
    turned = instance.rotation != 0
    box = instance.box if turned else instance.box.clipped(layout.width, layout.height)
    mirrored = _mirrored(source, reference.size, instance.flip)
    x, y, w, h = paste_rect(instance.fit or fit, box, reference.size, mirrored)
    columns, rows = slice(source[0], source[2]), slice(source[1], source[3])
    pixels, mask = reference.pixels[rows, columns], reference.mask[rows, columns]
    # Pillow resizes RGBA premultiplied: no colour of the background bleeds over the subject's edge.
    picture = Image.fromarray(np.dstack([pixels, mask])).resize((w, h), Image.Resampling.BILINEAR)
    if "h" in instance.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if "v" in instance.flip:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if turned:
        x, y, picture = _turned(x, y, picture, instance)
    rgba = np.asarray(picture)
    return Cutout(x, y, rgba[..., :3], rgba[..., 3] >= HALF)


def _mirrored(source: tuple[int, int, int, int], size: tuple[int, int], flip: str) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = source
    if "h" in flip:
        x1, x2 = size[0] - x2, size[0] - x1
    if "v" in flip:
        y1, y2 = size[1] - y2, size[1] - y1
    return x1, y1, x2, y2


def _turned(x: int, y: int, picture: Image.Image, instance: Instance) -> tuple[int, int, Image.Image]:
    """An RGBA picture whose corner lies at (x, y), turned about the box's centre, on whole pixels of the canvas."""
    (cx, cy), (sin, cos) = instance.box.center, sine_cosine(instance.rotation)
    edges = [(u - cx, v - cy) for u in (x, x + picture.width) for v in (y, y + picture.height)]
    across = [cx + u * cos - v * sin for u, v in edges]
    down = [cy + u * sin + v * cos for u, v in edges]
    left, top = math.floor(min(across)), math.floor(min(down))
    size = (max(1, math.ceil(max(across)) - left), max(1, math.ceil(max(down)) - top))
    # From a place of the turned picture back to the upright one.
    u, v = left - cx, top - cy
    back = (cos, sin, cos * u + sin * v + cx - x, -sin, cos, -sin * u + cos * v + cy - y)
    # Pillow interpolates RGBA premultiplied here, too.
    return left, top, picture.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
