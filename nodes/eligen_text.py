"""Phrases through FLUX.1's text encoder, for the nodes that bind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch

from ..contextgen_core.errors import InputError
from ..contextgen_core.input.checks import shorten

LOAD = "load clip_l and t5xxl with DualCLIPLoader (type flux)"


def padded(node: str, clip: Any, tokens: int) -> Any:
    """A clone of the text encoders that pads T5 to so many tokens; tokenizers that do not know the option ignore it."""
    if clip is None:
        raise InputError(f"there is no text encoder; {LOAD}.", node, "clip")
    clip = clip.clone()
    clip.set_tokenizer_option("t5xxl_min_length", tokens)
    return clip


def encode_phrases(node: str, clip: Any, phrases: Sequence[str], limit: int, width: int) -> list[torch.Tensor]:
    """The vectors of each phrase alone, (1, T, width) each; a phrase that comes again is encoded once.

    limit  tokens of the longest phrase, its end token included
    width  of the conditioning's vectors, which the phrases must share

    Raises InputError, naming the node, for a phrase too long and for the text encoder of another model.
    """
    encoded: dict[str, torch.Tensor] = {}
    for phrase in phrases:
        if phrase not in encoded:
            comfy.model_management.throw_exception_if_processing_interrupted()
            _check_length(node, clip, phrase, limit)
            [[vectors, _], *_] = clip.encode_from_tokens_scheduled(clip.tokenize(phrase))
            if vectors.ndim != 3 or vectors.shape[2] != width:
                raise InputError(
                    f"this text encoder gives {vectors.shape[-1]} numbers a token, the conditioning has {width};"
                    " take the one that encoded the prompt.",
                    node,
                    "clip",
                )
            encoded[phrase] = vectors[:1]
    return [encoded[phrase] for phrase in phrases]


def _check_length(node: str, clip: Any, phrase: str, limit: int) -> None:
    tokens = clip.tokenize(phrase, tokenizer_options={"t5xxl_min_length": 0})
    if "t5xxl" not in tokens or "g" in tokens:  # SD3's three encoders have a T5, too
        raise InputError(f"this text encoder ({', '.join(tokens)}) is not FLUX.1's; {LOAD}.", node, "clip")
    count = sum(len(part) for part in tokens["t5xxl"])
    if count > limit:
        raise InputError(
            f"the label {shorten(phrase)} takes {count} tokens, there is room for {limit}; shorten it.", node, "layout"
        )
