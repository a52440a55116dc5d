"""EliGen behind the boundary of methods: the phrases of a scene, and the forward pass of a call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ...errors import InputError
from ...layout.layout import box_name
from ...layout.tokens import TOKEN
from ..boundary import Block, Forward, ForwardCall, Method, Part, Prepared, RunPosition
from .masks import box_cells, cells_to_tokens, mask_cells
from .plan import MAX_PHRASES, MAX_STRENGTH, EliGenPlan, PhraseReading, PhraseTokens, phrase_tokens
from .visibility import PhraseSequence, query_groups, readable

if TYPE_CHECKING:
    from ...backbones.record import Backbone
    from ...composite.compose import Scene

TEXT_TOKENS = 512  # to which the authors pad each phrase for FLUX.1


@dataclass(frozen=True)
class EliGenOptions:
    """What a scene does not say.

    masks   region of an instance (by its number from 0) as a picture, uint8 (h, w), 255 = inside, stretched to the
            canvas; it wins over the box
    tokens  of each encoded phrase, padding included
    readings  strength and part of the run of a phrase, by the same numbers; the authors' where none is given
    """

    masks: Mapping[int, np.ndarray] = field(default_factory=dict)
    tokens: int = TEXT_TOKENS
    readings: Mapping[int, PhraseReading] = field(default_factory=dict)


@dataclass(frozen=True)
class EliGenSettings:
    """How the method runs on a model; the defaults are the authors'.

    strength  multiplies the attention weight of all phrases in the picture's rows; 0 = they are not there
    start     share of the sampling run (0..1) from which on phrases are read; end: until which
    kernel    of the attention (:mod:`contextgen_core.attention`)
    blocks    half-open range of blocks in which phrases are read, double blocks first; None = all
    outside   share of its strength (0..1) with which a phrase is read outside its place; the authors' is 0
    """

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    kernel: str = "auto"
    blocks: tuple[int, int] | None = None
    outside: float = 0.0


class EliGen(Method):
    """Phrases as further text that sees, and is seen by, its own part of the picture (arXiv 2501.01097)."""

    name = "eligen"
    label = "EliGen"
    node = "EliGenPatchModel"
    source = "EliGenConditioning"
    joins_text = True

    def prepare(self, scene: Scene, options: EliGenOptions | None = None) -> Prepared:
        """Each box's label is a phrase, bound to the box or its mask; boxes with only a picture and hidden ones are
        passed over.

        A phrase whose region holds no token is left out, which changes nothing, and a warning says so.

        Raises InputError where no box has a label, or one has neither label nor picture.
        """
        options = options or EliGenOptions()
        layout = scene.layout
        rows, columns = layout.height // TOKEN, layout.width // TOKEN
        phrases: list[str] = []
        bound: list[PhraseTokens] = []
        warnings: list[str] = []
        labelled = 0
        beyond = [number for number in options.readings if number >= len(layout.instances)]
        if beyond:
            raise InputError(
                f"the options speak of box {beyond[0] + 1}, but the layout has {len(layout.instances)}; correct it.",
                input="box_options",
            )
        for number, (instance, reference) in enumerate(zip(layout.instances, scene.references, strict=True)):
            name, label = box_name(number + 1, instance.id), instance.label.strip()
            if not label:
                if reference is None and not instance.hidden:
                    raise InputError(f"{name} has an empty label; write what it shows, like a red hat, or delete it.")
                continue
            labelled += 1
            mask = options.masks.get(number)
            cells = (
                box_cells(instance.box, layout.width, layout.height, rows, columns)
                if mask is None
                else mask_cells(mask, rows, columns)
            )
            inside = cells_to_tokens(cells)
            if not inside.any():
                what = "box" if mask is None else "mask"
                warnings.append(
                    f"{name} has no effect: its {what} meets the middle of no cell of 8 pixels; enlarge it."
                )
                continue
            phrases.append(label)
            bound.append(phrase_tokens(options.tokens, inside, *checked_reading(options.readings.get(number), name)))
        if not labelled:
            raise InputError("no box of the layout has a label; write into at least one box what it shows.")
        plan = EliGenPlan(columns, rows, tuple(bound))
        _check_count(len(bound))
        return Prepared(self.name, plan, phrases=tuple(phrases), warnings=tuple(warnings))

    def plan_tuple(self, plan: EliGenPlan) -> tuple[object, ...]:
        return plan.as_tuple()

    def plan_from(self, value: object) -> EliGenPlan:
        return EliGenPlan.from_tuple(value)

    def sizes(self, plan: EliGenPlan) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        return (plan.height, plan.width), ()

    def default_settings(self) -> EliGenSettings:
        return EliGenSettings()

    def check(self, plan: EliGenPlan, settings: EliGenSettings, backbone: Backbone) -> None:
        _check_count(len(plan.phrases))
        if not backbone.groups:
            raise InputError(
                f"{self.label} cannot part the attention of {backbone.name}; load FLUX.1 or Qwen-Image.",
                self.node,
                "model",
            )
        count = backbone.double + backbone.single
        first, stop = settings.blocks or (0, count)
        if not 0 <= first < stop <= count:
            raise InputError(
                f"the range {first} to {stop - 1} does not fit a model with {count} blocks; choose 0 <= first <= last"
                f" <= {count - 1}, or -1 for all.",
                self.node,
                "first_block",
            )

    def timed(self, plan: EliGenPlan, settings: EliGenSettings) -> bool:
        return any((one.start, one.end) != (0.0, 1.0) for one in (settings, *plan.phrases))

    def moment(self, plan: EliGenPlan, settings: EliGenSettings, run: RunPosition | None) -> Hashable:
        """The numbers of the phrases that are read; None where there are none: then their tokens are not there."""
        windows = (settings, *plan.phrases)
        inside = [settings.end > settings.start if run is None else run.within(one.start, one.end) for one in windows]
        read = tuple(n for n in readable(plan, settings.strength) if inside[0] and inside[n + 1])
        return read or None

    def parts(self, plan: EliGenPlan, settings: EliGenSettings) -> tuple[Part, ...]:
        phrases = (Part(f"phrase {n}", one.tokens, one.tokens) for n, one in enumerate(plan.phrases, 1))
        return (*super().parts(plan, settings), *phrases)

    def forward(self, plan: EliGenPlan, settings: EliGenSettings, call: ForwardCall) -> Forward:
        read = cast("tuple[int, ...]", call.moment)
        sequence = PhraseSequence(plan, call.text, read, settings.strength, call.references, settings.outside)
        first, stop = settings.blocks or (0, call.blocks.all)
        apart = replace(sequence, read=())
        made: dict[tuple[bool, bool, bool], Block] = {}

        def block(number: int) -> Block:
            # Behind the last block that reads phrases nobody sees what becomes of them, and at the end of the text.
            idle = number not in call.watched
            kind = first <= number < stop, idle and number >= stop - 1, idle and number == call.blocks.all - 1
            if kind not in made:
                made[kind] = Block(query_groups(sequence if kind[0] else apart, *kind[1:]))
            return made[kind]

        blocks = tuple(block(number) for number in range(call.blocks.all))
        lengths = (*(phrase.tokens for phrase in plan.phrases), call.text)
        return Forward(
            blocks,
            phrases=plan.phrase_tokens,
            conditions=sequence.reference_tokens,
            text_ids=None if call.positions is None else call.positions.text(lengths, (call.noise, *call.references)),
            private=sequence,
        )


def checked_reading(reading: PhraseReading | None, name: str, input: str = "box_options") -> PhraseReading:
    """The reading, the authors' without one. Raises InputError, naming what it belongs to, out of its ranges."""
    reading = reading or PhraseReading()
    for what, value, high in zip(PhraseReading._fields, reading, (MAX_STRENGTH, 1.0, 1.0), strict=True):
        if not 0 <= value <= high:
            raise InputError(f"{name} has {what} = {value:g}; give a number from 0 to {high:g}.", input=input)
    if reading.start > reading.end:
        raise InputError(
            f"{name} starts at {reading.start:g} and ends at {reading.end:g}; start it before it ends.",
            input=input,
        )
    return reading


def _check_count(count: int) -> None:
    if count > MAX_PHRASES:
        raise InputError(f"there are {count} phrases, the limit is {MAX_PHRASES}; remove {count - MAX_PHRASES}.")


ELIGEN = EliGen()
