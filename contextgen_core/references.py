"""References: a picture of one subject, its mask, and the form in which the model reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Reference:
    """One subject as the user gave it.

    pixels: uint8 (H, W, 3) RGB. mask: uint8 (H, W), 255 = subject. Sides 16..16384.
    tokens: the most tokens (16 x 16 pixels each) it may take; 0 = the official size rule.
    strength: 0..4, factor on its attention weights, 1 = unchanged. start, end: the part of sampling in which it is read, 0..1.
    crop: cut the picture to the subject (plus a small margin) before resizing; the official code never does.
    """

    name: str
    pixels: np.ndarray
    mask: np.ndarray
    tokens: int = 0
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    crop: bool = False


@dataclass(frozen=True, eq=False)
class PreparedReference:
    """A reference as the VAE and the attention read it; h and w are multiples of 16.

    pixels: uint8 (h, w, 3), grey 128 outside the subject. mask: uint8 (h, w), as resized, not binarised.
    valid: bool (h/16, w/16), the tokens anyone may attend to.
    """

    name: str
    pixels: np.ndarray
    mask: np.ndarray
    valid: np.ndarray
