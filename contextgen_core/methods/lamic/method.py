"""LAMIC behind the boundary of methods: what a scene becomes, and what holds in each step."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...attention.groups import Group, KeyPart, Span
from ...composite.references import Reference
from ...errors import InputError
from ...layout.layout import Instance, box_name
from ...layout.tokens import TOKEN
from ..boundary import Block, Forward, ForwardCall, Method, Prepared, RunPosition
from .pictures import fed_picture
from .plan import LamicPlan, LamicReference
from .regions import box_region, giving_way, mask_region
from .sequence import LamicSequence, image_ids
from .text import phrase
from .visibility import query_groups

if TYPE_CHECKING:
    from ...backbones.record import Backbone
    from ...composite.compose import Scene

TESTED = 4  # references in the authors' data
FIRST_RATIO = 0.05


@dataclass(frozen=True)
class LamicOptions:
    """What a scene does not say.

    text_counts  tokens of each reference's phrase, then of the scene's text (:func:`.text.segment_counts`)
    gives_way    in the first stage a reference loses the tokens that it shares with these others (numbers from 0 among
                 the references that stand in the scene, bottom first)
    masks        region of a reference (same numbers) as a picture, uint8 (h, w), 255 = inside; it wins over the box
    gains        factor on a reference's latent (same numbers), the authors' enhance factor; 1 where none is given
    grey         paint grey what a subject's mask leaves out; the authors feed pictures as they are
    """

    text_counts: tuple[int, ...] = ()
    gives_way: Mapping[int, Collection[int]] = field(default_factory=dict)
    masks: Mapping[int, np.ndarray] = field(default_factory=dict)
    gains: Mapping[int, float] = field(default_factory=dict)
    grey: bool = False


@dataclass(frozen=True)
class LamicSettings:
    """How the method runs on a model; the defaults are the authors' driver's.

    first_ratio  share of the steps, rounded down, that belong to the first stage: below 1 / steps there is none
    masked       False: everyone sees everyone, the authors' baseline
    kernel       of the attention (:mod:`contextgen_core.attention`)
    """

    first_ratio: float = FIRST_RATIO
    masked: bool = True
    kernel: str = "auto"


def bound(scene: Scene) -> list[tuple[Instance, Reference]]:
    """The boxes that hold a reference, bottom first: LAMIC's references, in its order."""
    pairs = zip(scene.layout.instances, scene.references, strict=True)
    return [(instance, reference) for instance, reference in pairs if reference is not None]


def segment_texts(scene: Scene, prompt: str) -> tuple[str, ...]:
    """The phrases of the references, from their names and their boxes' labels, then the scene's text.

    Joined without anything between them they are what the text encoder encodes.
    """
    return (*(phrase(reference.name, instance.label) for instance, reference in bound(scene)), prompt)


class Lamic(Method):
    """Several references told apart by attention masks alone (arXiv 2508.00477)."""

    name = "lamic"
    label = "LAMIC"
    node = "LAMICPatchModel"
    source = "LAMICConditioning"
    needs_text = True

    def prepare(self, scene: Scene, options: LamicOptions | None = None) -> Prepared:
        """The scene as LAMIC takes it.

        Raises InputError for a scene without a reference, for counts of another number of texts, for references that
        give way in a circle, and for pictures too large or too thin.
        """
        layout, pairs = scene.layout, bound(scene)
        if not pairs:
            raise InputError("no box of the layout is bound to a reference; bind a reference to at least one box.")
        options = options or LamicOptions()
        if len(options.text_counts) != len(pairs) + 1:
            raise InputError(
                f"there are {len(options.text_counts)} text lengths for {len(pairs)} references and the scene's text;"
                " count the tokens of each text that segment_texts gives."
            )
        regions = np.stack(
            [
                mask_region(options.masks[number], layout.width, layout.height)
                if number in options.masks
                else box_region(_corners(instance), layout.width, layout.height)
                for number, (instance, _) in enumerate(pairs)
            ]
        ).reshape(len(pairs), -1)
        first = giving_way(regions, options.gives_way, _places(scene))
        fed: dict[int, np.ndarray] = {}
        for _, reference in pairs:
            if id(reference) not in fed:
                fed[id(reference)] = fed_picture(reference, options.grey)
        pictures = tuple(fed[id(reference)] for _, reference in pairs)
        references = tuple(
            LamicReference(
                reference.name,
                picture.shape[1] // TOKEN,
                picture.shape[0] // TOKEN,
                count,
                region.astype(np.uint8).tobytes(),
                reduced.astype(np.uint8).tobytes(),
                float(reference.strength),
                float(reference.start),
                float(reference.end),
            )
            for (_, reference), picture, count, region, reduced in zip(
                pairs, pictures, options.text_counts, regions, first, strict=False
            )
        )
        plan = LamicPlan(layout.width // TOKEN, layout.height // TOKEN, options.text_counts[-1], references)
        gains = tuple(options.gains.get(number, 1.0) for number in range(len(pairs)))
        return Prepared(self.name, plan, pictures, gains=gains, warnings=_warnings(scene, plan))

    def plan_tuple(self, plan: LamicPlan) -> tuple[object, ...]:
        return plan.as_tuple()

    def plan_from(self, value: object) -> LamicPlan:
        return LamicPlan.from_tuple(value)

    def sizes(self, plan: LamicPlan) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        return (plan.height, plan.width), tuple((r.height, r.width) for r in plan.references)

    def default_settings(self) -> LamicSettings:
        return LamicSettings()

    def check(self, plan: LamicPlan, settings: LamicSettings, backbone: Backbone) -> None:
        if not backbone.references or not backbone.groups:
            raise InputError(
                f"{backbone.name} takes no pictures by {self.label}'s position ids; load FLUX.1-Kontext.",
                self.node,
                "model",
            )

    def moment(self, plan: LamicPlan, settings: LamicSettings, run: RunPosition | None) -> Hashable:
        """Whether the step belongs to the first stage, and the references whose pictures are read.

        Without a place in the run the second stage holds, unless all steps belong to the first.
        """
        first = settings.masked and (
            settings.first_ratio >= 1 if run is None else run.before_step(settings.first_ratio)
        )
        active = tuple(
            number
            for number, reference in enumerate(plan.references)
            if reference.strength > 0
            and reference.end > reference.start
            and (run is None or run.within(reference.start, reference.end))
        )
        return first, active

    def timed(self, plan: LamicPlan, settings: LamicSettings) -> bool:
        staged = settings.masked and 0 < settings.first_ratio < 1
        return staged or any((r.start, r.end) != (0.0, 1.0) for r in plan.references)

    def forward(self, plan: LamicPlan, settings: LamicSettings, call: ForwardCall) -> Forward:
        """Raises InputError where the text encoding is shorter than the text was when it was counted."""
        first, active = call.moment  # type: ignore[misc]  # what moment() gave
        if plan.text_tokens > call.text:
            raise InputError(
                f"LAMICConditioning, conditioning: its text is {call.text} tokens long, but the phrases and the scene"
                f" take {plan.text_tokens}; use the conditioning as it is, without cutting or replacing its text."
            )
        sequence = LamicSequence(plan, call.text, active)
        groups = query_groups(sequence, first) if settings.masked else None
        blocks = [Block(groups)] * call.blocks.all
        last = call.blocks.all - 1
        if last not in call.watched:  # what follows reads the noise alone
            noise = (Group(sequence.noise_span, (KeyPart(Span(0, sequence.length)),)),)
            blocks[last] = Block(query_groups(sequence, first, noise_only=True) if settings.masked else noise)
        return Forward(
            tuple(blocks),
            conditions=plan.reference_tokens,
            ids=torch.from_numpy(image_ids(sequence)),
            kept=sequence.kept,
        )


def _corners(instance: Instance) -> tuple[float, float, float, float]:
    box = instance.box
    return box.x1, box.y1, box.x2, box.y2


def _places(scene: Scene) -> list[str]:
    """How sentences call the boxes that hold a reference."""
    numbered = enumerate(zip(scene.layout.instances, scene.references, strict=True), 1)
    return [box_name(n, instance.id) for n, (instance, reference) in numbered if reference is not None]


def _warnings(scene: Scene, plan: LamicPlan) -> tuple[str, ...]:
    """Sentences about what LAMIC cannot do with the scene."""
    found = []
    names = _places(scene)
    unbound = len(scene.references) - len(names)
    if unbound:
        found.append(f"{unbound} boxes hold no reference and have no effect: LAMIC places references only.")
    for where, reference in zip(names, plan.references, strict=True):
        if not any(reference.region):
            found.append(f"{where} covers more than half of no token, so its reference stands nowhere; enlarge it.")
        if reference.tokens > 2 * plan.noise_tokens:
            found.append(
                f"{where} has a reference of {reference.tokens} tokens for a picture of {plan.noise_tokens}; a size in"
                " tokens in Reference Bundle makes each step faster."
            )
    if len(names) > TESTED:
        found.append(f"LAMIC was tested with up to {TESTED} references by its authors, these are {len(names)}.")
    return tuple(found)


LAMIC = Lamic()
