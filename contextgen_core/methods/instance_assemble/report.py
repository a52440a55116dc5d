"""What the instances of a layout amount to: their tokens, and what the layout step costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...backbones import Backbone
from ..boundary import BlockCounts
from .cover import box_tokens
from .method import layout_blocks
from .plan import PhraseBox, PhrasePlan
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
    noise = plan.rows * plan.columns
    covered = len({cell for cells in tokens.values() for cell in cells.tolist()})
    # Layout tokens and those of pictures, which go through the same layers.
    carried = {number: _carried(plan.boxes[number]) for number in tokens}
    others = sum(carried.values())
    pairs = sum((carried[number] + len(cells)) ** 2 for number, cells in tokens.items())
    square = backbone.width**2
    layout = 0
    for number in layout_blocks(BlockCounts(backbone.double, backbone.single)):
        if number < backbone.double:
            layout += square * (10 * covered + 24 * others + round(16 * noise * bool(settings.mlp)))
        else:
            layout += square * (26 * covered + 24 * others)
        layout += 4 * backbone.width * pairs
    length, blocks = text + noise, backbone.double + backbone.single
    return StepCost(layout, blocks * (24 * square * length + 4 * backbone.width * length**2))


def _carried(box: PhraseBox) -> int:
    return box.phrase + (0 if box.picture is None else 1 + box.picture.size)


def describe(
    plan: PhrasePlan,
    phrases: Sequence[BoundPhrase],
    settings: AssembleSettings,
    backbone: Backbone,
    text: int,
) -> str:
    """For people: the instances with their tokens and contents, the cost, and phrases that CLIP cut off.

    phrases  as they were encoded, in the order of the boxes that have one
    """
    worded = [number for number, box in enumerate(plan.boxes) if box.phrase]
    said = dict(zip(worded, phrases, strict=False))
    tokens = box_tokens(plan, range(len(plan.boxes)), settings.front)
    lines = [f"InstanceAssemble: {len(plan.boxes)} instances"]
    for number, box in enumerate(plan.boxes):
        text_of = said[number].text if number in said else ""
        changed = "" if box.strength == 1 else f", strength {box.strength:g}"
        if (box.start, box.end) != (0, 1):
            changed += f", from {box.start:g} to {box.end:g} of the run"
        shown = text_of if len(text_of) <= 60 else text_of[:59] + "\u2026"
        if box.picture is not None:
            shown = f"{shown} + " if shown else ""
            shown += f"picture of {box.picture.columns} x {box.picture.rows} tokens"
        lines.append(f"{box.name:<16} {len(tokens.get(number, ())):>6} tokens  {shown}{changed}")
    cost = step_cost(plan, settings, backbone, text)
    blocks = len(layout_blocks(BlockCounts(backbone.double, backbone.single)))
    lines.append(
        f"layout steps after {blocks} blocks: {cost.layout / 1e12:.3g} TFLOP, {cost.layout / cost.model:.1%} of a step,"
        f" in the first {settings.ratio:.0%} of the steps"
    )
    for number, phrase in said.items():
        if phrase.cut:
            lines.append(
                f"warning: the phrase of {plan.boxes[number].name} is longer than the {CLIP_TOKENS} tokens that CLIP"
                " reads; what comes after them is lost, shorten it."
            )
    for number, box in enumerate(plan.boxes):
        if number not in tokens:
            lines.append(f"warning: {box.name} has no token left and no effect.")
    return "\n".join(lines)
