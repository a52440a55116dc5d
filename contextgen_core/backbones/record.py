"""A model family, as methods and hosts need to know it."""

from __future__ import annotations

from typing import NamedTuple


class Backbone(NamedTuple):
    """What a family of models is and can do.

    name        in sentences, like "FLUX.1"
    double      blocks with separate text and image streams; single: blocks with one joint stream
    width       of a token's hidden state
    axes        position axes of a token
    channels    of the VAE's latents
    pooled      width of the pooled text vector, 0 where there is none
    references  whether condition pictures can join the sequence, and leave it after a block
    groups      whether attention can be split into groups
    after       whether a step can follow a block
    segments    whether tokens can have their own modulation
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
