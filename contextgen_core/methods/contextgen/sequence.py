"""Where every token stands: the plan of one picture, its spans, its position ids and the tokens that are kept.

The image tokens of ContextGen are, in this order, ``noise | layout | reference 1 | ... | reference N``; the text
stands before them. One token is 16x16 pixels, row-major (paper, section 3; ``pipeline`` of the authors' code).

A :class:`Plan` is pure geometry: plain numbers and bytes, hashable, comparable, free of tensors. Everything else
here is derived from a plan and from the text length of the call at hand; nothing is remembered by size.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ...attention.groups import Span
from ...errors import InputError
from ...layout.tokens import TOKEN, TokenBox, token_box
from ..plan_values import check_bits, check_inside_grid, check_whole, check_windows, records

if TYPE_CHECKING:
    from ...composite.compose import Scene
    from .references import PreparedReference

_PLAN_TAG = "contextgen-plan-1"


class ReferenceTokens(NamedTuple):
    """One reference on the token grid.

    ``valid`` holds one byte (0 or 1) per token, row-major: 1 where the subject's mask touches the token.
    ``strength`` multiplies the attention weight of its tokens before normalisation (0..4, 1 = unchanged).
    ``start`` and ``end`` are shares of the sampling run (0..1) between which the reference is read.
    """

    name: str
    width: int
    height: int
    valid: bytes
    box: TokenBox
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    @property
    def tokens(self) -> int:
        return self.width * self.height

    @property
    def readable(self) -> bool:
        """Whether any noise token ever reads this reference."""
        return self.strength > 0 and any(self.valid) and not self.box.empty and self.end > self.start


@dataclass(frozen=True)
class Plan:
    """The geometry of one picture: the target's grid (in tokens) and the references in sequence order."""

    width: int
    height: int
    references: tuple[ReferenceTokens, ...] = ()

    @property
    def noise_tokens(self) -> int:
        return self.width * self.height

    @cached_property
    def image_tokens(self) -> int:
        """Noise, layout and every reference token, before anything is pruned."""
        return 2 * self.noise_tokens + sum(r.tokens for r in self.references)

    def as_tuple(self) -> tuple[object, ...]:
        """Nested tuples of str, int, float and bytes: what may travel in a conditioning and be compared by ``!=``."""
        references = tuple((*r[:4], tuple(r.box), *r[5:]) for r in self.references)
        return (_PLAN_TAG, self.width, self.height, references)

    @classmethod
    def from_tuple(cls, value: object) -> Plan:
        """Inverse of :meth:`as_tuple`. Raises InputError for anything that :meth:`as_tuple` cannot have made."""
        try:
            tag, width, height, references = cast(tuple[Any, ...], value)
            if tag != _PLAN_TAG:
                raise ValueError(tag)
            check_whole(width, height)
            plan = cls(width, height, records(ReferenceTokens, references))
            for reference in plan.references:
                check_whole(reference.width, reference.height)
                check_bits(reference.valid, reference.tokens)
                check_inside_grid(reference.box, width, height)
            check_windows(plan.references)
        except (TypeError, ValueError) as error:
            raise InputError(
                "The layout in this conditioning was made by another version of the pack; run the graph again from"
                " ContextGenConditioning."
            ) from error
        return plan


def plan_from_scene(scene: Scene, prepared: SequenceOf[PreparedReference | None]) -> Plan:
    """The plan of a scene; ``prepared`` is aligned with the scene's instances, None where none is bound."""
    grid = (scene.layout.width // TOKEN, scene.layout.height // TOKEN)
    references = tuple(
        reference_tokens(
            reference.name,
            ready.valid,
            token_box(instance.region, *grid),
            float(reference.strength),
            float(reference.start),
            float(reference.end),
        )
        for instance, reference, ready in zip(scene.layout.instances, scene.references, prepared, strict=True)
        if reference is not None and ready is not None
    )
    return Plan(*grid, references)


def reference_tokens(
    name: str, valid: np.ndarray, box: TokenBox, strength: float = 1.0, start: float = 0.0, end: float = 1.0
) -> ReferenceTokens:
    """A reference from its validity mask, bool of shape (rows, columns) in tokens."""
    height, width = valid.shape
    return ReferenceTokens(name, width, height, valid.astype(np.uint8).tobytes(), box, strength, start, end)


def position_ids(plan: Plan) -> np.ndarray:
    """Position ids of all image tokens, float32 of shape (image_tokens, 3): axis 0, row, column.

    Noise is (0, y, x) and the layout (1, y, x). References walk down the diagonal from the layout's corner:
    reference n is (1, H + y, W + x) where W and H add up the layout and all earlier references, read or not
    (authors' code; the paper prints the axes swapped). Text tokens are (0, 0, 0) and not included.
    """

    def grid(width: int, height: int, axis: int, left: int, top: int) -> np.ndarray:
        ids = np.empty((height, width, 3), np.float32)
        ids[..., 0] = axis
        ids[..., 1] = np.arange(top, top + height, dtype=np.float32)[:, None]
        ids[..., 2] = np.arange(left, left + width, dtype=np.float32)[None, :]
        return ids.reshape(-1, 3)  # (h w) 3

    parts = [grid(plan.width, plan.height, 0, 0, 0), grid(plan.width, plan.height, 1, 0, 0)]
    left, top = plan.width, plan.height
    for reference in plan.references:
        parts.append(grid(reference.width, reference.height, 1, left, top))
        left, top = left + reference.width, top + reference.height
    return np.concatenate(parts)


@dataclass(frozen=True)
class TokenSequence:
    """The joint sequence of one call: ``text | noise | layout | references that are read``.

    ``active`` names the references that somebody reads in this step. With ``pruned`` (the product) only their
    valid tokens are in the sequence; without it (the authors' form, for comparison) every token of every
    reference stays, and the visibility rule alone hides the rest. Both give the same velocity.
    """

    plan: Plan
    text: int
    active: tuple[int, ...]
    pruned: bool = True

    @property
    def noise_span(self) -> Span:
        return Span(self.text, self.text + self.plan.noise_tokens)

    @property
    def layout_span(self) -> Span:
        return Span(self.noise_span.stop, self.noise_span.stop + self.plan.noise_tokens)

    @property
    def base_span(self) -> Span:
        """Text, noise and layout: everything but the references."""
        return Span(0, self.layout_span.stop)

    @cached_property
    def reference_spans(self) -> dict[int, Span]:
        """Where each reference that is in the sequence stands, by its number in the plan."""
        spans, at = {}, self.base_span.stop
        for number in self.active if self.pruned else range(len(self.plan.references)):
            reference = self.plan.references[number]
            size = sum(reference.valid) if self.pruned else reference.tokens
            spans[number] = Span(at, at + size)
            at += size
        return spans

    def reference_keys(self, number: int) -> np.ndarray:
        """Joint indices of the tokens of a reference that may be read."""
        span = self.reference_spans[number]
        if self.pruned:
            return span.indices()
        return span.start + np.flatnonzero(np.frombuffer(self.plan.references[number].valid, np.uint8))

    @cached_property
    def length(self) -> int:
        return self.base_span.stop + sum(span.size for span in self.reference_spans.values())

    @cached_property
    def kept(self) -> np.ndarray | None:
        """Which of the plan's image tokens are in the sequence (sorted indices), or None when all are."""
        if not self.pruned:
            return None
        at = 2 * self.plan.noise_tokens
        parts = [np.arange(at)]
        for number, reference in enumerate(self.plan.references):
            if number in self.reference_spans:
                parts.append(at + np.flatnonzero(np.frombuffer(reference.valid, np.uint8)))
            at += reference.tokens
        kept = np.concatenate(parts)
        return None if len(kept) == self.plan.image_tokens else kept

    def box_rows(self, number: int) -> np.ndarray:
        """Joint indices of the noise tokens inside the box of a reference, ascending."""
        box = self.plan.references[number].box
        rows = np.arange(box.y1, box.y2)[:, None] * self.plan.width + np.arange(box.x1, box.x2)[None, :]
        return self.text + rows.reshape(-1)


def active_references(plan: Plan, in_window: Callable[[ReferenceTokens], bool] | None = None) -> tuple[int, ...]:
    """Numbers of the references that somebody reads; ``in_window`` tells which are in their part of the run."""
    return tuple(
        number
        for number, reference in enumerate(plan.references)
        if reference.readable and (in_window is None or in_window(reference))
    )
