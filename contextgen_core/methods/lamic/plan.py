"""The geometry of one picture as LAMIC takes it: plain numbers and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from ...errors import InputError
from ..plan_values import MAX_TEXT, check_bits, check_whole, check_windows, records

_TAG = "lamic-plan-1"


class LamicReference(NamedTuple):
    """One reference with its phrase and its region.

    width, height  of its picture in tokens
    text           tokens of its phrase
    region         one byte (0 or 1) per token of the canvas, row-major: 1 where the reference belongs
    first_region   the same for the first stage, in which a region may give way to others
    strength       multiplies the attention weight of its picture's tokens before normalisation (0..4, 1 = unchanged)
    start, end     shares of the sampling run (0..1) between which its picture is read
    """

    name: str
    width: int
    height: int
    text: int
    region: bytes
    first_region: bytes
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    @property
    def tokens(self) -> int:
        return self.width * self.height

    @property
    def log_strength(self) -> float:
        """What is added to the logits of its picture's tokens; strength 0 takes the picture away instead."""
        return math.log(self.strength) if self.strength else 0.0


@dataclass(frozen=True)
class LamicPlan:
    """The canvas (in tokens), the references in order, and the tokens of the text that speaks of the whole scene."""

    width: int
    height: int
    scene_text: int
    references: tuple[LamicReference, ...]

    @property
    def noise_tokens(self) -> int:
        return self.width * self.height

    @property
    def text_tokens(self) -> int:
        """Tokens of all phrases and the scene's text, padding not counted."""
        return sum(reference.text for reference in self.references) + self.scene_text

    @cached_property
    def reference_tokens(self) -> int:
        return sum(reference.tokens for reference in self.references)

    def regions(self, first: bool) -> np.ndarray:
        """Which reference's region covers which noise token, bool (references, M); ``first`` = in the first stage."""
        rows = [np.frombuffer(r.first_region if first else r.region, np.uint8) for r in self.references]
        return np.stack(rows).astype(bool) if rows else np.zeros((0, self.noise_tokens), bool)

    def as_tuple(self) -> tuple[object, ...]:
        """Nested tuples of str, int, float and bytes: what may travel in a conditioning and be compared by ``!=``."""
        return (_TAG, self.width, self.height, self.scene_text, tuple(tuple(r) for r in self.references))

    @classmethod
    def from_tuple(cls, value: object) -> LamicPlan:
        """Inverse of :meth:`as_tuple`. Raises InputError for anything that :meth:`as_tuple` cannot have given."""
        try:
            tag, width, height, scene_text, references = cast(tuple[Any, ...], value)
            if tag != _TAG:
                raise ValueError(tag)
            check_whole(width, height)
            check_whole(scene_text, low=0, high=MAX_TEXT)
            plan = cls(width, height, scene_text, records(LamicReference, references))
            for reference in plan.references:
                check_whole(reference.width, reference.height)
                check_whole(reference.text, low=0, high=MAX_TEXT)
                for region in (reference.region, reference.first_region):
                    check_bits(region, plan.noise_tokens)
            check_windows(plan.references)
        except (TypeError, ValueError) as error:
            raise InputError(
                "The layout in this conditioning was written by another version of the pack; run the graph again from"
                " LAMICConditioning."
            ) from error
        return plan
