"""The words of the small world as vectors: the text encoder of the small model, without any weights.

The small model knows four places, four kinds of light, and creatures: "a red and blue banded disc". Each of its words
is a fixed pseudo-random vector made from a hash of the word, so there is nothing to store and every machine agrees.
A place and a light are one token each. A creature is one token, the sum of what its phrase says: its shape, its
pattern and its colours, each colour by the place it has in the phrase, so that "red and blue" is not "blue and red".
Words the model does not know are passed over. A prompt and a single phrase are read alike.

There are two editions of this encoder (`Form`), and a transformer's weights say by which one they were trained.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

WIDTH = 64  # numbers per word

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


class Form(Enum):
    """An edition of the encoder: its name in the metadata of weights.

    SCENE reads the place and the light that are named first, four tokens; where none is named, a meadow at noon is
    meant. CREATURES reads everything above, twelve tokens, and takes nothing for granted."""

    SCENE = "scene"
    CREATURES = "creatures"

    @property
    def tokens(self) -> int:
        return 4 if self is Form.SCENE else 12


class Words(NamedTuple):
    """tokens float32 (form.tokens, 64), zero where nothing is said; pooled float32 (64,): the mean of the tokens of
    place and light plus the mean of those of creatures."""

    tokens: Tensor
    pooled: Tensor


def _vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


@lru_cache(maxsize=65536)
def _word(word: str) -> np.ndarray:
    return _vector(word)


def encode_words(text: str, form: Form = Form.CREATURES) -> Words:
    """A prompt or a single phrase, as the small model reads it."""
    words = re.findall(r"[a-z]+", text.lower())
    scene, creatures = _said(words)
    if form is Form.SCENE:
        named = dict(reversed(scene))
        scene = [(kind, named.get(kind, _KINDS[kind][0][0])) for kind in ("place", "light")]
        creatures = []
    return _vectors(
        [_word(word) for _, word in scene[: form.tokens]], [_creature(c) for c in creatures][: form.tokens], form
    )


def _said(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]]:
    """(kind, word) of each place and light, and the words of each creature; in the order of the text."""
    scene: list[tuple[str, str]] = []
    creatures: list[tuple[str, ...]] = []
    colours: list[str] = []
    pattern: list[str] = []
    for word in words:
        kind, meaning = _VOCABULARY.get(word, ("", ""))
        if kind in ("place", "light"):
            scene.append((kind, meaning))
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


def _vectors(scene: Sequence[np.ndarray], creatures: Sequence[np.ndarray], form: Form) -> Words:
    tokens = np.zeros((form.tokens, WIDTH), np.float32)
    every = [*scene, *creatures][: form.tokens]
    if every:
        tokens[: len(every)] = every
    pooled = np.zeros(WIDTH, np.float32)
    for part in (scene, creatures):
        if len(part):
            pooled += np.mean(part, axis=0, dtype=np.float32)
    return Words(torch.from_numpy(tokens), torch.from_numpy(pooled))


def form_of(metadata: dict[str, str] | None) -> Form:
    """The edition that a weight file's metadata names; SCENE where it names none. Raises InputError for one that is
    not known."""
    name = (metadata or {}).get("text", Form.SCENE.value)
    try:
        return Form(name)
    except ValueError:
        raise InputError(
            f"The small model's weights were trained with the words {name!r}, which this version does not know; update"
            " the pack."
        ) from None
