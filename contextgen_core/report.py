"""What a layout costs and looks like: tokens, FLOP, memory, the token grid, who sees whom.

FLOP of one step: linear layers count 24 D^2 per token and block, attention 4 D per query-key pair, with D the model's
width. "Dense" is the authors' form, every token of every reference against every other in all blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .attention.groups import Groups, Span, indices
from .attention.groups import pairs as count_pairs
from .backbones.record import Backbone
from .hosts.joining import join_forwards
from .layout.tokens import TOKEN, token_box
from .lettering import lettering
from .methods.boundary import BlockCounts, Bound, Forward, ForwardCall, Part

if TYPE_CHECKING:
    from .composite.compose import Scene

FLUX1 = Backbone("FLUX.1", double=19, single=38, width=3072)
TEXT_TOKENS = 512
BYTES = 2  # half precision
# Tensors of (tokens x width) alive at once in a single block: input, modulated input, q, k, v, MLP (4), attention,
# the concatenation of the two (5) and the output.
ALIVE = 17

GRID_LINE = (255, 255, 255, 72)


class Cost(NamedTuple):
    """One step of one picture, in FLOP and bytes."""

    linear: int
    attention: int
    memory: int

    @property
    def step(self) -> int:
        return self.linear + self.attention


@dataclass(frozen=True)
class Report:
    """The tokens and the cost of a plan; ``ours`` against ``dense``, both per step.

    later       of the steps after the first, where condition tokens are the same in all and are remembered; else None
    remembered  bytes of their keys and values
    """

    parts: tuple[Part, ...]
    ours: Cost
    dense: Cost
    warnings: tuple[str, ...] = ()
    later: Cost | None = None
    remembered: int = 0

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def kept(self) -> int:
        return sum(part.kept for part in self.parts)

    def as_json(self) -> dict[str, object]:
        """For report files: plain numbers and lists."""
        named = {"ours": self.ours, "dense": self.dense, **({"later": self.later} if self.later else {})}
        costs = {
            name: {
                "linear_flop": c.linear,
                "attention_flop": c.attention,
                "step_flop": c.step,
                "memory_bytes": c.memory,
            }
            for name, c in named.items()
        }
        return {
            "tokens_per_part": {part.name: part.tokens for part in self.parts},
            "kept_tokens_per_part": {part.name: part.kept for part in self.parts},
            "tokens": self.tokens,
            "kept_tokens": self.kept,
            **costs,
            "attention_saving": _ratio(self.dense.attention, self.ours.attention),
            "step_saving": _ratio(self.dense.step, self.ours.step),
            "remembered_bytes": self.remembered,
            "warnings": list(self.warnings),
        }

    def as_text(self) -> str:
        """For people: a few lines."""
        wide = max(len(part.name) for part in self.parts)
        lines = [f"{part.name:<{wide}}  {part.tokens:>6} tokens  {part.kept:>6} kept" for part in self.parts]
        lines += [
            f"{'all':<{wide}}  {self.tokens:>6} tokens  {self.kept:>6} kept",
            "",
            f"attention per step: {flop(self.ours.attention)}, dense {flop(self.dense.attention)} "
            f"({_ratio(self.dense.attention, self.ours.attention)}x less)",
            f"whole step:         {flop(self.ours.step)}, dense {flop(self.dense.step)} "
            f"({_ratio(self.dense.step, self.ours.step)}x less)",
            f"activations (estimate): {_bytes(self.ours.memory)}, dense {_bytes(self.dense.memory)} with its masks",
        ]
        if self.later is not None:
            lines.append(
                f"after the first step: {flop(self.later.step)} ({_ratio(self.ours.step, self.later.step)}x less),"
                f" with {_bytes(self.remembered)} of keys and values remembered"
            )
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def measure(
    bounds: Bound | Sequence[Bound], text: int = TEXT_TOKENS, backbone: Backbone = FLUX1, warnings: Sequence[str] = ()
) -> Report:
    """Counts the tokens and the cost of a step in which everything acts that may ever act.

    bounds    one method at work, or several that decide about the tokens of one pass together
    text      text tokens of the prompt; those of the method's phrases come besides
    backbone  the model: its width and its blocks

    Query-key pairs are those of the query groups, so the counts are exact.

    Raises InputError, naming two methods, where these cannot work on one picture.
    """
    given = [bounds] if isinstance(bounds, Bound) else list(bounds)
    sizes = [method.sizes(plan) for method, plan, _ in given]
    noise, pictures = sizes[0][0], [picture for _, own in sizes for picture in own]
    blocks = BlockCounts(backbone.double, backbone.single)
    forwards = [
        method.forward(plan, settings, ForwardCall(method.moment(plan, settings, None), text, blocks, noise))
        for method, plan, settings in given
    ]
    forward = join_forwards([bound.method for bound in given], forwards, text, noise)
    lengths = forward.lengths(text, noise)
    tokens, most = sum(lengths), max(lengths, default=0)
    pairs = sum(count_pairs(block.groups, length) for block, length in zip(forward.blocks, lengths, strict=True))
    full = forward.phrases + text + sum(rows * columns for rows, columns in (noise, *pictures))
    later, remembered = _remembering(given[0], forward, lengths, backbone)
    parts = [method.parts(plan, settings) for method, plan, settings in given]
    further = [part for own in parts[1:] for part in own if part.name != parts[0][0].name]  # the noise is shared
    return Report(
        (Part("text", text, text), *parts[0], *further),
        _cost(backbone.width, tokens, pairs, most * backbone.width * BYTES * ALIVE),
        # two boolean masks, and the additive copy that the kernel makes of one
        _cost(
            backbone.width,
            full * blocks.all,
            full**2 * blocks.all,
            full * backbone.width * BYTES * ALIVE + full**2 * (2 + BYTES),
        ),
        (*warnings, *(note for method, plan, settings in given for note in method.notes(plan, settings))),
        later,
        remembered,
    )


def _remembering(bound: Bound, forward: Forward, lengths: Sequence[int], backbone: Backbone) -> tuple[Cost | None, int]:
    """A step that reads the fixed tokens' keys and values, and the bytes of these; None where it computes them anew."""
    fixed = forward.fixed
    size = 0 if fixed is None else 2 * len(lengths) * fixed.size * backbone.width * BYTES
    if fixed is None or size > bound.method.memory_limit(bound.settings):
        return None, 0
    pairs = sum(_pairs_before(block.groups, fixed) for block in forward.blocks)
    memory = fixed.start * backbone.width * BYTES * ALIVE + size
    return _cost(backbone.width, fixed.start * len(lengths), pairs, memory), size


def _pairs_before(groups: Groups, fixed: Span) -> int:
    if groups is None:
        return fixed.start * fixed.stop
    return count_pairs(tuple(group for group in groups if int(indices(group.queries)[0]) < fixed.start), fixed.stop)


def _cost(width: int, tokens: int, pairs: int, memory: int) -> Cost:
    return Cost(24 * width**2 * tokens, 4 * width * pairs, memory)


def _ratio(dense: int, ours: int) -> float:
    return round(dense / ours, 2) if ours else 1.0


def flop(count: int) -> str:
    """For people."""
    for unit, scale in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e6:.3g} MFLOP"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


# --- pictures -------------------------------------------------------------------------------------------------------


def draw_layout(scene: Scene, enlarge: int = 1) -> np.ndarray:
    """The composite under its token grid, with boxes, their tokens and their painting order: uint8 (H, W, 3).

    Each box is outlined in its own colour; the tokens that belong to it are tinted. Labels read "order name", where
    1 is painted first, that is at the bottom. ``enlarge`` repeats every pixel of small pictures, so that labels fit.
    """
    layout = scene.layout.scaled_to(scene.layout.width * enlarge, scene.layout.height * enlarge)
    cell = TOKEN * enlarge
    picture = Image.fromarray(scene.composite.repeat(enlarge, 0).repeat(enlarge, 1)).convert("RGBA")
    tint = _tinted_tokens(scene, cell, picture.size)
    draw = ImageDraw.Draw(tint)
    for x in range(0, layout.width, cell):
        draw.line((x, 0, x, layout.height), fill=GRID_LINE)
    for y in range(0, layout.height, cell):
        draw.line((0, y, layout.width, y), fill=GRID_LINE)
    picture.alpha_composite(tint)
    draw = ImageDraw.Draw(picture)
    thickness = max(2, min(layout.width, layout.height) // 256)
    height = max(12, min(layout.width, layout.height) // 36)
    order = {index: position for position, index in enumerate(scene.painted, 1)}
    for number, instance in enumerate(layout.instances):
        box = instance.region.clipped(layout.width, layout.height)
        corners = (box.x1, box.y1, max(box.x1, box.x2 - 1), max(box.y1, box.y2 - 1))
        shade = instance.shade
        draw.rectangle(corners, outline=shade, width=thickness)
        reference = scene.references[number]
        name = reference.name if reference is not None else instance.label or "text only"
        label = f"{order[number]} {name}" if number in order else name
        _label(draw, label[:40], (box.x1 + thickness, box.y1 + thickness), shade, height)
    return np.array(picture.convert("RGB"))


def _tinted_tokens(scene: Scene, cell: int, size: tuple[int, int]) -> Image.Image:
    """The tokens of each box in its colour, on transparent ground; where boxes overlap, the tints add up."""
    tint = Image.new("RGBA", size, (0, 0, 0, 0))
    for instance in scene.layout.instances:
        box = token_box(instance.region, scene.layout.width // TOKEN, scene.layout.height // TOKEN)
        if not box.empty:
            layer = Image.new("RGBA", size, (0, 0, 0, 0))
            corners = (box.x1 * cell, box.y1 * cell, box.x2 * cell - 1, box.y2 * cell - 1)
            ImageDraw.Draw(layer).rectangle(corners, fill=(*instance.shade, 56))
            tint.alpha_composite(layer)
    return tint


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    at: tuple[float, float],
    fill: tuple[int, int, int],
    height: int,
) -> None:
    text, font = lettering(text, height)
    x1, y1, x2, y2 = draw.textbbox(at, text, font=font)
    draw.rectangle((x1 - 3, y1 - 3, x2 + 3, y2 + 3), fill=(*fill, 255))
    draw.text(at, text, fill=(0, 0, 0), font=font)
