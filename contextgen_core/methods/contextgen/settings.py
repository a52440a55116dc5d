"""ContextGen (ICLR 2026): layout attention in the outer blocks, identity attention in the middle ones.

Conditions are one composite layout picture and one picture per reference. Their position ids are diagonal
(:func:`contextgen_core.sequence.position_ids`); the rules are those of :mod:`contextgen_core.visibility`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .schedule import Rule, Schedule, make_schedule
from .sequence import Plan, ReferenceTokens, TokenSequence, active_references, position_ids


@dataclass(frozen=True)
class Settings:
    """How the method runs on a model; the defaults are the authors' results at our cost.

    rule        Rule.ICA is the authors' code, Rule.ICA_PAPER the printed formula, Rule.CLA reads no reference
    ica_blocks  half-open range of blocks that attend by identity, double blocks first; None = the authors'
    start, end  share of the sampling run (0..1) in which references are read at all
    kernel      auto, grouped, merge or dense (see :mod:`contextgen_core.attention`)
    round_ids   round position ids to bfloat16 as the authors' pipeline does (bites above 256 tokens)
    prune       leave out what nobody reads; False is for comparison only
    """

    rule: Rule = Rule.ICA
    ica_blocks: tuple[int, int] | None = None
    start: float = 0.0
    end: float = 1.0
    kernel: str = "auto"
    round_ids: bool = False
    prune: bool = True


class Arrangement(NamedTuple):
    """One call's tokens and rules."""

    sequence: TokenSequence
    schedule: Schedule


def references_read(
    plan: Plan, settings: Settings, in_window: Callable[[float, float], bool] | None = None
) -> tuple[int, ...]:
    """Numbers of the references that are read in the current step.

    ``in_window(start, end)`` tells whether the step lies in a part of the run; None = every part.
    """
    if settings.end <= settings.start or (in_window is not None and not in_window(settings.start, settings.end)):
        return ()

    def reads(reference: ReferenceTokens) -> bool:
        return in_window is None or in_window(reference.start, reference.end)

    return active_references(plan, reads)


def windows(plan: Plan, settings: Settings) -> bool:
    """Whether any reference is read in only a part of the run."""
    parts = [(settings.start, settings.end), *((r.start, r.end) for r in plan.references)]
    return any(part != (0.0, 1.0) for part in parts)


def arrange(
    plan: Plan,
    settings: Settings,
    numbers: tuple[int, ...],
    text: int,
    blocks: tuple[int, int],
    full_rows: frozenset[int] = frozenset(),
) -> Arrangement:
    """The tokens and rules of a call that reads the references ``numbers``.

    ``text`` is the number of text tokens, ``blocks`` the model's double and single blocks. In the blocks
    ``full_rows`` no row is left out, because somebody else looks at the result.
    """
    schedule = make_schedule(
        *blocks,
        rule=settings.rule,
        ica_blocks=settings.ica_blocks,
        references=bool(numbers),
        prune=settings.prune,
        full_rows=full_rows,
    )
    return Arrangement(TokenSequence(plan, text, numbers if schedule.leave else (), settings.prune), schedule)


def image_ids(sequence: TokenSequence, rounded: bool = False) -> torch.Tensor:
    """Position ids of the image tokens in the sequence, float32 (S - T, 3), optionally rounded to bfloat16."""
    ids = position_ids(sequence.plan)
    if sequence.kept is not None:
        ids = ids[sequence.kept]
    made = torch.from_numpy(np.ascontiguousarray(ids))
    return made.to(torch.bfloat16).float() if rounded else made
