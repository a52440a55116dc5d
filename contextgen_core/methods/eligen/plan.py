"""What EliGen's conditioning carries beside the encoded phrases: how long each is, and which tokens it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from ...errors import InputError
from ..plan_values import MAX_TEXT, check_bits, check_whole, check_windows, records

_PLAN_TAG = "eligen-plan-1"
MAX_PHRASES = 32
MAX_STRENGTH = 10.0


class PhraseReading(NamedTuple):
    """How the picture reads a phrase; the fields are those of :class:`PhraseTokens`."""

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


class PhraseTokens(NamedTuple):
    """One phrase.

    tokens    of its text, padding included: padding is read like words
    inside    one byte (0 or 1) for each noise token, row-major: 1 where the phrase is bound
    strength  multiplies the attention weight of its tokens in the picture's rows before normalisation; 1 = unchanged
    start     share of the sampling run (0..1) from which on it is read; end: until which
    """

    tokens: int
    inside: bytes
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class EliGenPlan:
    """The noise's grid in tokens, and the phrases in the order of their vectors."""

    width: int
    height: int
    phrases: tuple[PhraseTokens, ...] = ()

    @property
    def noise_tokens(self) -> int:
        return self.width * self.height

    @property
    def phrase_tokens(self) -> int:
        return sum(phrase.tokens for phrase in self.phrases)

    @cached_property
    def inside(self) -> np.ndarray:
        """bool (phrases, noise tokens)."""
        rows = [np.frombuffer(phrase.inside, np.uint8) for phrase in self.phrases]
        return np.array(rows, bool).reshape(len(self.phrases), self.noise_tokens)

    def with_lengths(self, tokens: Sequence[int]) -> EliGenPlan:
        """The same phrases, each of so many text tokens: known once they are encoded."""
        phrases = zip(self.phrases, tokens, strict=True)
        return replace(self, phrases=tuple(phrase._replace(tokens=int(count)) for phrase, count in phrases))

    def as_tuple(self) -> tuple[object, ...]:
        """Nested tuples of str, int, float and bytes."""
        return (_PLAN_TAG, self.width, self.height, tuple(tuple(phrase) for phrase in self.phrases))

    @classmethod
    def from_tuple(cls, value: object) -> EliGenPlan:
        """Inverse of :meth:`as_tuple`. Raises InputError for anything else."""
        try:
            tag, width, height, phrases = cast(tuple[Any, ...], value)
            if tag != _PLAN_TAG:
                raise ValueError(tag)
            check_whole(width, height)
            plan = cls(width, height, records(PhraseTokens, phrases))
            for phrase in plan.phrases:
                check_whole(phrase.tokens, low=0, high=MAX_TEXT)
                check_bits(phrase.inside, plan.noise_tokens)
            check_windows(plan.phrases)
        except (TypeError, ValueError) as error:
            raise InputError(
                "The phrases in this conditioning are of another version of the pack; run the graph again from"
                " EliGenConditioning."
            ) from error
        return plan


def phrase_tokens(
    tokens: int, inside: np.ndarray, strength: float = 1.0, start: float = 0.0, end: float = 1.0
) -> PhraseTokens:
    """A phrase from the tokens that it holds, bool (rows, columns)."""
    return PhraseTokens(tokens, inside.astype(np.uint8).tobytes(), strength, start, end)
