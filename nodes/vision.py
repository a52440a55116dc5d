"""Features of picture parts with any CLIP_VISION of the host: CLIP, SigLIP, DINOv2, DINOv3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import numpy as np
import torch
from PIL import Image

from ..contextgen_core.errors import InputError
from ..contextgen_core.layout.box import Box
from ..contextgen_core.score.figures import cosine, masked_average

GREY = 128
MAX_PREFIX = 8  # class and register tokens before the patches
PATCHES, WHOLE = "patches inside the mask", "whole crop"
FEATURES = [PATCHES, WHOLE]


def features(model: Any, pixels: np.ndarray, mask: np.ndarray, kind: str) -> np.ndarray:
    """The feature vector (C,) of a subject.

    pixels: uint8 (H, W, 3). mask: uint8 (H, W), 255 = subject; what lies outside is painted grey. The picture is
    padded to a square instead of cropped or stretched, so that nothing is lost and the mask stays over its patches.
    """
    square, inside = _squared(pixels, mask)
    comfy.model_management.throw_exception_if_processing_interrupted()
    with torch.inference_mode():
        output = model.encode_image(torch.from_numpy(square).float().div(255)[None], crop=False)
    if kind == PATCHES:
        tokens = output["last_hidden_state"][0].float().cpu()  # (T, C)
        side = math.isqrt(tokens.shape[0])
        if tokens.shape[0] - side * side <= MAX_PREFIX:
            grid = tokens[tokens.shape[0] - side * side :].reshape(side, side, -1).numpy()
            return masked_average(grid, _shares(inside, side))
    pooled = output["image_embeds"]
    if pooled is None:
        raise InputError("this CLIP vision model gives no embedding of a whole picture; choose patch features.")
    return pooled[0].float().cpu().numpy().astype(np.float64).ravel()


def _squared(pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = mask.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, 3), GREY, np.uint8)
    inside = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = np.where(mask[..., None] >= 128, pixels, GREY)
    inside[top : top + height, left : left + width] = mask
    return square, inside


def _shares(mask: np.ndarray, side: int) -> np.ndarray:
    """How much of each patch the mask covers, 0..1, shape (side, side)."""
    return np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.BOX), np.float64) / 255


def crop(pixels: np.ndarray, mask: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture and its mask inside a box, at least one pixel."""
    height, width = mask.shape
    inner = box.clipped(width, height)
    x1, y1 = min(int(inner.x1), width - 1), min(int(inner.y1), height - 1)
    x2, y2 = max(x1 + 1, math.ceil(inner.x2)), max(y1 + 1, math.ceil(inner.y2))
    return np.ascontiguousarray(pixels[y1:y2, x1:x2]), np.ascontiguousarray(mask[y1:y2, x1:x2])


def similarities(rows: Sequence[np.ndarray], columns: Sequence[np.ndarray]) -> np.ndarray:
    """The cosine of every pair, shape (rows, columns)."""
    values = [[cosine(a, b) for b in columns] for a in rows]
    return np.array(values, np.float64).reshape(len(rows), len(columns))
