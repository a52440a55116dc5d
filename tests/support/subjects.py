"""References with random pixels for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from contextgen_core.composite.references import Reference


def picture(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square_mask(width: int, height: int, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 255
    return mask


def reference(width: int = 64, height: int = 48, **changes: Any) -> Reference:
    fields: dict[str, Any] = {
        "name": "Anna",
        "pixels": picture(width, height),
        "mask": square_mask(width, height, width // 4, height // 4, width // 2, height // 2),
    }
    return Reference(**{**fields, **changes})
