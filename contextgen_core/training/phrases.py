"""Scenes as methods read them that bind a phrase to a box: each creature's name is the phrase of its box."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..layout.box import Box
from ..layout.tokens import TOKEN
from ..tiny.text import Words, encode_words
from .batch import Batch, Phrases
from .latents import LatentSet, Reader
from .small_world import world


def phrase_reader(method: Phrases) -> Reader:
    """Reads all members of scenes as phrases in boxes; neither composite nor references."""

    def collate(
        data: LatentSet,
        indices: np.ndarray,
        references: bool = True,
        box: float = 1.0,
        hidden: float = 1.0,
        *,
        composite: bool = True,
        named: np.ndarray | None = None,
    ) -> Batch:
        batch = data.batch(indices, False, box, hidden, composite=False, named=named)
        phrases = [phrases_of(data, int(i)) for i in indices]
        plans = []
        for i, words in zip(indices, phrases, strict=True):
            boxes = [Box(*map(int, corners)) for corners in data.pixels[i, : len(words)]]
            plans.append(method.plan(boxes, data.grid * TOKEN, words[0]))
        return replace(batch, plans=tuple(plans), vectors=method.join(phrases))

    return Reader(collate, lambda data: (np.asarray(data.creatures)[:, :, 0] >= 0).sum(1), phrases=method)


def phrases_of(data: LatentSet, index: int) -> list[Words]:
    """What the members of a scene are called."""
    return [_words(world.Creature(*map(int, c))) for c in data.creatures[index, : data.members(index)]]


@lru_cache(maxsize=4096)
def _words(creature: world.Creature) -> Words:
    return encode_words(creature.name)
