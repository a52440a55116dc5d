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

from ..schedule import Rule, Schedule, make_schedule
from ..sequence import Plan, ReferenceTokens, TokenSequence, active_references, position_ids


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


def arrange(
    plan: Plan,
    settings: Settings,
    text: int,
    blocks: tuple[int, int],
    in_window: Callable[[float, float], bool] | None = None,
) -> Arrangement:
    """The tokens and rules of a call with ``text`` text tokens on a model of ``blocks`` (double, single).

    ``in_window(start, end)`` tells whether the current step lies in a part of the run; None = always.
    """
    numbers: tuple[int, ...] = ()
    if in_window is None or in_window(settings.start, settings.end):

        def reads(reference: ReferenceTokens) -> bool:
            return in_window is None or in_window(reference.start, reference.end)

        numbers = active_references(plan, reads)
    schedule = make_schedule(
        *blocks,
        rule=settings.rule,
        ica_blocks=settings.ica_blocks,
        references=bool(numbers),
        prune=settings.prune,
    )
    return Arrangement(TokenSequence(plan, text, numbers if schedule.leave else (), settings.prune), schedule)


def image_ids(sequence: TokenSequence, rounded: bool = False) -> torch.Tensor:
    """Position ids of the image tokens in the sequence, float32 (S - T, 3), optionally rounded to bfloat16."""
    ids = position_ids(sequence.plan)
    if sequence.kept is not None:
        ids = ids[sequence.kept]
    made = torch.from_numpy(np.ascontiguousarray(ids))
    return made.to(torch.bfloat16).float() if rounded else made
