"""The words of the small world as vectors: the text encoder of the small model, without any weights.

The small model knows four places, four kinds of light, and creatures: "a red and blue banded disc". Each of its words
is a fixed pseudo-random vector made from a hash of the word, so there is nothing to store and every machine agrees.
A place and a light are one token each. A creature is one token, the sum of what its phrase says: its shape, its
pattern and its colours, each colour by the place it has in the phrase, so that "red and blue" is not "blue and red".
Words the model does not know are passed over. A prompt and a single phrase are read alike, and nothing is taken for
granted: where no place is named, any may be meant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WIDTH = 64  # numbers per word
TOKENS = 12  # words read of a text: places, lights, then creatures; what it leaves empty is zero

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
SHAPES: tuple[tuple[str, ...], ...] = (
    ("disc", "discs", "disk", "circle", "ball", "round"),
    ("square", "squares", "box"),
    ("triangle", "triangles"),
    ("cross", "crosses", "plus"),
    ("heart", "hearts"),
)
PATTERNS: tuple[tuple[str, ...], ...] = (
    ("halved", "half"),
    ("banded", "striped", "stripes"),
    ("spotted", "dotted", "spots", "dots"),
    ("rimmed", "rim", "edged"),
)
COLOURS: tuple[tuple[str, ...], ...] = (
    ("red",),
    ("yellow",),
    ("green",),
    ("blue",),
    ("violet", "purple"),
    ("white",),
    ("black",),
)
_CREATURES = ("creature", "creatures", "one", "thing")  # a noun for a creature whose shape is left open
_KINDS = {"place": PLACES, "light": LIGHTS, "shape": SHAPES, "pattern": PATTERNS, "colour": COLOURS}


def _vocabulary() -> dict[str, tuple[str, str]]:
    """Each word's kind and the word that stands for it and its likes."""
    out = {word: (kind, group[0]) for kind, groups in _KINDS.items() for group in groups for word in group}
    for word in _CREATURES:
        out[word] = ("shape", "")
    return out


_VOCABULARY = _vocabulary()


class Words(NamedTuple):
    """tokens float32 (12, 64), zero where nothing is said; pooled float32 (64,): the mean of the tokens of
    place and light plus the mean of those of creatures."""

    tokens: Tensor
    pooled: Tensor


def _vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


@lru_cache(maxsize=1024)
def _word(word: str) -> np.ndarray:
    return _vector(word)


def encode_words(text: str) -> Words:
    """A prompt or a single phrase, as the small model reads it."""
    scene, creatures = _said(re.findall(r"[a-z]+", text.lower()))
    return _vectors([_word(word) for word in scene[:TOKENS]], [_creature(said) for said in creatures[:TOKENS]])


def _said(words: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The places and lights, and the words of each creature; in the order of the text."""
    scene: list[str] = []
    creatures: list[tuple[str, ...]] = []
    colours: list[str] = []
    pattern: list[str] = []
    for word in words:
        kind, meaning = _VOCABULARY.get(word, ("", ""))
        if kind in ("place", "light"):
            scene.append(meaning)
            colours, pattern = [], []  # "white snow" is no creature
        elif kind == "colour":
            colours.append(meaning)
        elif kind == "pattern":
            pattern = [meaning]
        elif kind == "shape":
            said = (*(f"{rank} {c}" for rank, c in zip(("first", "second"), colours, strict=False)), *pattern)
            said += (meaning,) if meaning else ()
            if said:
                creatures.append(said)
            colours, pattern = [], []
    return scene, creatures


def _creature(said: Sequence[str]) -> np.ndarray:
    return np.sum([_word(word) for word in said], axis=0, dtype=np.float32) / 2  # four words: about unit variance


def _vectors(scene: Sequence[np.ndarray], creatures: Sequence[np.ndarray]) -> Words:
    tokens, pooled = np.zeros((TOKENS, WIDTH), np.float32), np.zeros(WIDTH, np.float32)
    for token, vector in zip(tokens, [*scene, *creatures], strict=False):  # beyond the last place nothing is read
        token[:] = vector
    for part in (scene, creatures):
        if part:
            pooled += np.mean(part, axis=0, dtype=np.float32)
    return Words(torch.from_numpy(tokens), torch.from_numpy(pooled))
