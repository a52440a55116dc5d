"""What the phrases of a layout amount to: instances, their tokens, and what the layout step costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...backbones import Backbone
from ..boundary import BlockCounts
from .cover import box_tokens
from .method import layout_blocks
from .plan import PhrasePlan
from .step import AssembleSettings

CLIP_TOKENS = 77  # what CLIP reads of a phrase, its first and last token included


class BoundPhrase(NamedTuple):
    """A phrase as it was encoded; ``cut``: CLIP did not read all of it."""

    text: str
    cut: bool


class StepCost(NamedTuple):
    """Arithmetic of one forward pass in FLOP: of the layout steps, and of the model without them."""

    layout: int
    model: int


def step_cost(plan: PhrasePlan, settings: AssembleSettings, backbone: Backbone, text: int) -> StepCost:
    """Multiplications and additions of linear layers and attention, for one picture with all boxes active."""
    tokens = box_tokens(plan, range(len(plan.boxes)), settings.front)
    boxes, noise = len(tokens), plan.rows * plan.columns
    covered = len({cell for cells in tokens.values() for cell in cells.tolist()})
    pairs = sum((1 + len(cells)) ** 2 for cells in tokens.values())
    square = backbone.width**2
    layout = 0
    for number in layout_blocks(BlockCounts(backbone.double, backbone.single)):
        if number < backbone.double:
            layout += square * (10 * covered + 24 * boxes + round(16 * noise * bool(settings.mlp)))
        else:
            layout += square * (26 * covered + 24 * boxes)
        layout += 4 * backbone.width * pairs
    length, blocks = text + noise, backbone.double + backbone.single
    return StepCost(layout, blocks * (24 * square * length + 4 * backbone.width * length**2))


def describe(
    plan: PhrasePlan,
    phrases: Sequence[BoundPhrase],
    settings: AssembleSettings,
    backbone: Backbone,
    text: int,
) -> str:
    """For people: the instances with their tokens and phrases, the cost, and phrases that CLIP cut off."""
    tokens = box_tokens(plan, range(len(plan.boxes)), settings.front)
    lines = [f"InstanceAssemble: {len(plan.boxes)} instances"]
    for number, box in enumerate(plan.boxes):
        phrase = phrases[number] if number < len(phrases) else BoundPhrase("", False)
        changed = "" if box.strength == 1 else f", strength {box.strength:g}"
        if (box.start, box.end) != (0, 1):
            changed += f", from {box.start:g} to {box.end:g} of the run"
        shown = phrase.text if len(phrase.text) <= 60 else phrase.text[:59] + "\u2026"
        lines.append(f"{box.name:<16} {len(tokens.get(number, ())):>6} tokens  {shown}{changed}")
    cost = step_cost(plan, settings, backbone, text)
    blocks = len(layout_blocks(BlockCounts(backbone.double, backbone.single)))
    lines.append(
        f"layout steps after {blocks} blocks: {cost.layout / 1e12:.3g} TFLOP, {cost.layout / cost.model:.1%} of a step,"
        f" in the first {settings.ratio:.0%} of the steps"
    )
    for number, phrase in enumerate(phrases):
        if phrase.cut:
            lines.append(
                f"warning: the phrase of {plan.boxes[number].name} is longer than the {CLIP_TOKENS} tokens that CLIP"
                " reads; what comes after them is lost, shorten it."
            )
    for number, box in enumerate(plan.boxes):
        if number not in tokens:
            lines.append(f"warning: {box.name} has no token left and no effect.")
    return "\n".join(lines)
