"""A picture of who sees whom."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ...pictures import colour
from .schedule import Rule
from .sequence import Plan, TokenSequence
from .settings import Settings, references_read
from .visibility import dense_mask

MAX_PICTURED = 6144  # tokens; a visibility picture is square in them


def draw_visibility(plan: Plan, text: int, side: int = 512) -> np.ndarray:
    """Who sees whom in the layers that attend by identity, uint8 (side, side, 3): row = query, column = key.

    White: the parts that see each other in every layer (text, noise, layout); colour n: what sees reference n; black:
    hidden. Text, noise, layout and references stand in this order, thin lines between them. Raises ValueError for
    sequences of more than 6144 tokens.
    """
    sequence = TokenSequence(plan, text, references_read(plan, Settings()), pruned=False)
    if sequence.length > MAX_PICTURED:
        raise ValueError(f"{sequence.length} tokens are too many for a picture; at most {MAX_PICTURED}")
    mask = dense_mask(sequence, Rule.ICA)
    shades = np.zeros((sequence.length, 3), np.uint8)
    shades[: sequence.base_span.stop] = 255
    for number, span in sequence.reference_spans.items():
        shades[slice(*span)] = colour(number)
    picture = Image.fromarray(mask[..., None] * shades[None]).resize((side, side), Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)
    edges = [sequence.noise_span.start, sequence.layout_span.start, sequence.base_span.stop]
    edges += [span.stop for span in sequence.reference_spans.values()]
    for edge in edges:
        at = round(edge * side / sequence.length)
        draw.line((at, 0, at, side), fill=(128, 128, 128))
        draw.line((0, at, side, at), fill=(128, 128, 128))
    return np.array(picture)
