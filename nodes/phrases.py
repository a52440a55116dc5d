"""Phrases of boxes: through the CLIP at hand, and what a user says about each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import comfy.model_management
import torch

from ..contextgen_core.errors import InputError
from ..contextgen_core.input.checks import shorten

MAX_LINES = 1000


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


def box_lines(text: str) -> dict[int, list[float]]:
    """What each box's line says, by its number from 1: [strength], or [strength, start, end]. Raises InputError, naming
    the line."""
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise InputError(f"there are {len(lines)} lines, the limit is {MAX_LINES}; remove some.")
    said: dict[int, list[float]] = {}
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        number, colon, rest = line.partition(":")
        try:
            box, values = int(number), [float(word) for word in rest.replace(",", " ").split()]
        except ValueError:
            box, values = 0, []
        if not colon or box < 1 or len(values) not in (1, 3) or not all(map(math.isfinite, values)):
            raise InputError(
                f"line {position} is {shorten(line)}; give the box's number, a colon and its strength, as in 3: 0.8, or"
                " its strength, start and end, as in 3: 0.8 0 0.2."
            )
        said[box] = values
    return said
