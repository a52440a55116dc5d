"""The words of the small world as vectors: the text encoder of the small model, without any weights.

The small model knows four places and four kinds of light; everything else comes from the layout and the
references. Each of its words is a fixed pseudo-random vector made from a hash of the word, so there is nothing to
store and every machine agrees. Words it does not know are passed over; where a prompt names no place or no light,
a meadow at noon is meant.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WIDTH = 64  # numbers per word
TOKENS = 4  # words the small model reads: place, light, and two empty places

PLACES: tuple[tuple[str, ...], ...] = (
    ("meadow", "grass", "field", "lawn", "park", "garden"),
    ("desert", "sand", "dune", "dunes"),
    ("shore", "sea", "ocean", "beach", "lake", "coast"),
    ("snow", "winter", "ice", "snowy", "arctic"),
)
LIGHTS: tuple[tuple[str, ...], ...] = (
    ("noon", "midday", "day", "daylight", "sunny"),
    ("sunset", "dusk", "evening", "sundown", "sunrise", "dawn"),
    ("night", "midnight", "moonlight", "moonlit"),
    ("mist", "fog", "foggy", "misty", "haze"),
)


class Words(NamedTuple):
    """tokens float32 (4, 64); pooled float32 (64,), the mean of the named words."""

    tokens: Tensor
    pooled: Tensor


def _vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


def _first_named(words: list[str], groups: tuple[tuple[str, ...], ...]) -> str:
    for word in words:
        for group in groups:
            if word in group:
                return group[0]
    return groups[0][0]


def encode_words(text: str) -> Words:
    """The place and the light that a text names (the first of each counts), as the small model reads them."""
    words = re.findall(r"[a-z]+", text.lower())
    vectors = [_vector(_first_named(words, PLACES)), _vector(_first_named(words, LIGHTS))]
    tokens = np.zeros((TOKENS, WIDTH), np.float32)
    tokens[: len(vectors)] = vectors
    return Words(torch.from_numpy(tokens), torch.from_numpy(np.mean(vectors, axis=0, dtype=np.float32)))
