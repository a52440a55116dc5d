"""Phrases through the text encoder of FLUX.1 or Qwen-Image, for the nodes that bind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch

from ..contextgen_core.errors import InputError
from ..contextgen_core.input.checks import shorten

FLUX, QWEN = "t5xxl", "qwen25_7b"  # in the host's names of text encoders
LOAD = "load clip_l and t5xxl with DualCLIPLoader (type flux), or qwen_2.5_vl_7b with CLIPLoader (type qwen_image)"


def padded(node: str, clip: Any, tokens: int) -> Any:
    """A clone of the text encoders that pads T5 to so many tokens; tokenizers that do not know the option ignore it."""
    if clip is None:
        raise InputError(f"there is no text encoder; {LOAD}.", node, "clip")
    clip = clip.clone()
    clip.set_tokenizer_option("t5xxl_min_length", tokens)
    return clip


def without_padding(node: str, embedding: torch.Tensor, values: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """A conditioning entry without the tokens that its text mask leaves out, and without that mask.

    Texts of several are joined into one sequence, where padding between them would be read. Other masks stay.
    """
    mask = values.get("attention_mask")
    if mask is None or tuple(mask.shape) != tuple(embedding.shape[:2]):
        return embedding, values
    read = int(mask[0].sum())
    if not mask[:, :read].all() or mask[:, read:].any():
        raise InputError(
            "its text mask leaves out tokens that are not at the end, or not the same ones in all its texts; encode"
            " each prompt alone.",
            node,
            "conditioning",
        )
    return embedding[:, :read], {key: value for key, value in values.items() if key != "attention_mask"}


def encode_phrases(node: str, clip: Any, phrases: Sequence[str], limit: int, width: int) -> list[torch.Tensor]:
    """The vectors of each phrase alone, (1, T, width) each; a phrase that comes again is encoded once.

    limit  tokens of the longest phrase for FLUX.1, its end token included; Qwen-Image takes what a label can hold
    width  of the conditioning's vectors, which the phrases must share

    Raises InputError, naming the node, for a phrase too long and for the text encoder of another model.
    """
    encoded: dict[str, torch.Tensor] = {}
    for phrase in phrases:
        if phrase not in encoded:
            comfy.model_management.throw_exception_if_processing_interrupted()
            _check_length(node, clip, phrase, limit)
            [[vectors, values], *_] = clip.encode_from_tokens_scheduled(clip.tokenize(phrase))
            if vectors.ndim != 3 or vectors.shape[2] != width:
                raise InputError(
                    f"this text encoder gives {vectors.shape[-1]} numbers a token, the conditioning has {width};"
                    " take the one that encoded the prompt.",
                    node,
                    "clip",
                )
            encoded[phrase] = without_padding(node, vectors[:1], values)[0]
    return [encoded[phrase] for phrase in phrases]


def _check_length(node: str, clip: Any, phrase: str, limit: int) -> None:
    tokens = clip.tokenize(phrase, tokenizer_options={"t5xxl_min_length": 0})
    if set(tokens) == {QWEN}:
        return
    if FLUX not in tokens or "g" in tokens:  # SD3's three encoders have a T5, too
        raise InputError(
            f"this text encoder ({', '.join(tokens)}) is neither FLUX.1's nor Qwen-Image's; {LOAD}.", node, "clip"
        )
    count = sum(len(part) for part in tokens[FLUX])
    if count > limit:
        raise InputError(
            f"the label {shorten(phrase)} takes {count} tokens, there is room for {limit}; shorten it.", node, "layout"
        )
