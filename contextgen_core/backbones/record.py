"""A model family, as methods and hosts need to know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

Grid = tuple[int, int]  # rows and columns of a picture in tokens


class Positions(Protocol):
    """Position ids of a family that numbers texts and pictures by their sizes. ``grids``: the noise's, references'."""

    def text(self, lengths: Sequence[int], grids: Sequence[Grid]) -> Tensor:
        """Of several texts, each as if it were alone: float32 (tokens, axes)."""
        ...

    def image(self, grids: Sequence[Grid]) -> Tensor:
        """Of all pictures, one after another: float32 (tokens, axes)."""
        ...


class Backbone(NamedTuple):
    """What a family of models is and can do.

    name        in sentences, like "FLUX.1"
    double      blocks with separate text and image streams; single: blocks with one joint stream
    width       of a token's hidden state
    axes        position axes of a token
    channels    of the VAE's latents
    pooled      width of the pooled text vector, 0 where there is none
    references  whether a method's condition pictures can join the sequence, with its ids, and leave it after a block
    groups      whether attention can be split into groups
    after       whether a step can follow a block
    segments    whether tokens can have their own modulation
    text        numbers of a text token's vector, 0: not known
    positions   ids of texts and pictures where they follow from their sizes, None: all text has the same id
    """

    name: str
    double: int
    single: int
    width: int
    axes: int = 3
    channels: int = 16
    pooled: int = 768
    references: bool = True
    groups: bool = True
    after: bool = True
    segments: bool = True
    text: int = 0
    positions: Positions | None = None
