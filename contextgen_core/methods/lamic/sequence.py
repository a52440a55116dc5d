"""Where every token of LAMIC stands: ``phrases | scene text | padding | noise | reference 1 | ... | reference N``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...attention.groups import Span
from .plan import LamicPlan


@dataclass(frozen=True)
class LamicSequence:
    """The joint sequence of one call.

    text    text tokens, padding included; at least the plan's
    active  numbers of the references whose pictures are in the sequence, ascending
    """

    plan: LamicPlan
    text: int
    active: tuple[int, ...]

    @cached_property
    def phrase_spans(self) -> tuple[Span, ...]:
        """T1..TN, one for each reference, active or not."""
        stops = np.cumsum([0, *(reference.text for reference in self.plan.references)]).tolist()
        return tuple(Span(start, stop) for start, stop in zip(stops, stops[1:], strict=False))

    @property
    def scene_span(self) -> Span:
        """X, the text that speaks of the whole scene."""
        return Span(self.plan.text_tokens - self.plan.scene_text, self.plan.text_tokens)

    @property
    def padding_span(self) -> Span:
        """P, everything behind the text."""
        return Span(self.plan.text_tokens, self.text)

    @property
    def text_span(self) -> Span:
        return Span(0, self.text)

    @property
    def noise_span(self) -> Span:
        return Span(self.text, self.text + self.plan.noise_tokens)

    @cached_property
    def picture_spans(self) -> dict[int, Span]:
        """V: where the picture of each active reference stands, by its number in the plan."""
        spans, at = {}, self.noise_span.stop
        for number in self.active:
            spans[number] = Span(at, at + self.plan.references[number].tokens)
            at = spans[number].stop
        return spans

    @property
    def length(self) -> int:
        return self.noise_span.stop + sum(span.size for span in self.picture_spans.values())

    @property
    def kept(self) -> np.ndarray | None:
        """Which of the plan's image tokens are in the sequence (sorted indices), or None when all are."""
        if len(self.active) == len(self.plan.references):
            return None
        at = self.plan.noise_tokens
        parts = [np.arange(at)]
        for number, reference in enumerate(self.plan.references):
            if number in self.active:
                parts.append(np.arange(at, at + reference.tokens))
            at += reference.tokens
        return np.concatenate(parts)


def image_ids(sequence: LamicSequence) -> np.ndarray:
    """Position ids of the image tokens in the sequence, float32 (n, 3): axis 0, row, column.

    Noise is (0, row, column). Every reference is (1, row, column) counted from the same origin: they lie on top of each
    other, and on Kontext's one picture slot.
    """
    plan = sequence.plan
    parts = [_grid(0, plan.width, plan.height)]
    parts += [_grid(1, plan.references[number].width, plan.references[number].height) for number in sequence.active]
    return np.concatenate(parts)


def _grid(axis: int, width: int, height: int) -> np.ndarray:
    ids = np.empty((height, width, 3), np.float32)
    ids[..., 0] = axis
    ids[..., 1] = np.arange(height, dtype=np.float32)[:, None]
    ids[..., 2] = np.arange(width, dtype=np.float32)[None, :]
    return ids.reshape(-1, 3)  # (h w) 3
