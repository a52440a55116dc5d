"""Phrases of boxes through the CLIP at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import comfy.model_management
import torch

from ..contextgen_core.errors import InputError
from ..contextgen_core.input.checks import shorten


class PooledPhrases(NamedTuple):
    """``vectors`` (1, phrases, width) of pooled text; ``cut``: for each phrase whether CLIP did not read all of it."""

    vectors: torch.Tensor
    cut: tuple[bool, ...]


def pool_phrases(node: str, clip: Any, phrases: Sequence[str]) -> PooledPhrases:
    """Each phrase as one pooled vector. T5, which does not add to it, is given nothing to read.

    Raises InputError, naming the node, without a CLIP or with one that pools nothing.
    """
    if clip is None:
        raise InputError("there is no CLIP; load the text encoders with DualCLIPLoader.", node, "clip")
    vectors, cut = [], []
    for phrase in phrases:
        comfy.model_management.throw_exception_if_processing_interrupted()
        tokens = {key: [] if "t5" in key else value for key, value in clip.tokenize(phrase).items()}
        _, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        if not isinstance(pooled, torch.Tensor) or pooled.ndim != 2:
            raise InputError(
                "these text encoders give no pooled vector, which a phrase needs; load CLIP-L (for Stable Diffusion 3"
                " CLIP-G, too) with DualCLIPLoader.",
                node,
                "clip",
            )
        if not bool(torch.isfinite(pooled).all()):
            raise InputError(
                f"the text encoders make numbers that are not finite of {shorten(phrase)}; load them in another dtype.",
                node,
                "clip",
            )
        vectors.append(pooled[0].float())
        cut.append(any(len(chunks) > 1 for chunks in tokens.values()))
    return PooledPhrases(torch.stack(vectors)[None], tuple(cut))
