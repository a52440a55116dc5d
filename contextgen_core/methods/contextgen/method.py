"""ContextGen behind the boundary: what it prepares, and the forward pass of a call."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, cast

from ...errors import InputError
from ..boundary import Block, Forward, ForwardCall, Method, Part, Prepared, RunPosition
from .references import PreparedReference, prepare
from .schedule import Rule
from .sequence import Plan, plan_from_scene
from .settings import Settings, arrange, image_ids, references_read, windows
from .visibility import block_groups

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...composite.compose import Scene


class ContextGen(Method):
    """Layout attention in the outer blocks, identity attention in the middle ones (ICLR 2026)."""

    name = "contextgen"
    label = "ContextGen"
    node = "ContextGenPatchModel"
    source = "ContextGenConditioning"

    def prepare(self, scene: Scene, options: None = None) -> Prepared:
        """Pictures are the composite, then a reference for each box that has one; each reference is read once."""
        width, height = scene.layout.width, scene.layout.height
        read: dict[int, PreparedReference] = {}
        for reference in scene.references:
            if reference is not None and id(reference) not in read:
                read[id(reference)] = prepare(reference, width, height)
        prepared = [None if reference is None else read[id(reference)] for reference in scene.references]
        pictures = (scene.composite, *(one.pixels for one in prepared if one is not None))
        return Prepared(self.name, plan_from_scene(scene, prepared), pictures)

    def plan_tuple(self, plan: Plan) -> tuple[object, ...]:
        return plan.as_tuple()

    def plan_from(self, value: object) -> Plan:
        return Plan.from_tuple(value)

    def sizes(self, plan: Plan) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        noise = (plan.height, plan.width)
        return noise, (noise, *((r.height, r.width) for r in plan.references))

    def default_settings(self) -> Settings:
        return Settings()

    def check(self, plan: Plan, settings: Settings, backbone: Backbone) -> None:
        if not backbone.references or not backbone.groups:
            raise InputError(
                f"{backbone.name} takes no pictures by {self.label}'s position ids; load FLUX.1-Kontext.",
                self.node,
                "model",
            )

    def timed(self, plan: Plan, settings: Settings) -> bool:
        return windows(plan, settings)

    def moment(self, plan: Plan, settings: Settings, run: RunPosition | None) -> Hashable:
        """The numbers of the references that the call reads."""
        return references_read(plan, settings, None if run is None else run.within)

    def computed_tokens(self, plan: Plan, settings: Settings) -> int:
        if not settings.prune:
            return plan.image_tokens - plan.noise_tokens
        read = references_read(plan, settings)
        return plan.noise_tokens + sum(sum(plan.references[number].valid) for number in read)

    def parts(self, plan: Plan, settings: Settings) -> tuple[Part, ...]:
        noise, read = plan.noise_tokens, references_read(plan, settings)
        if settings.rule is Rule.CLA:  # which never reads a reference
            read = ()
        kept = [
            (sum(r.valid) if settings.prune else r.tokens) if n in read else 0 for n, r in enumerate(plan.references)
        ]
        references = enumerate(zip(plan.references, kept, strict=True), 1)
        return (
            Part("noise", noise, noise),
            Part("layout", noise, noise),
            *(Part(f"{number} {reference.name}", reference.tokens, count) for number, (reference, count) in references),
        )

    def notes(self, plan: Plan, settings: Settings) -> tuple[str, ...]:
        if not windows(plan, settings):
            return ()
        return ("some references are read in a part of the run only; the other steps cost less than shown.",)

    def forward(self, plan: Plan, settings: Settings, call: ForwardCall) -> Forward:
        numbers = cast("tuple[int, ...]", call.moment)
        arrangement = arrange(plan, settings, numbers, call.text, call.blocks, call.watched)
        sequence, schedule = arrangement
        base = sequence.base_span.stop
        leaves = settings.prune and bool(sequence.reference_spans)
        return Forward(
            blocks=tuple(
                Block(groups, base if leaves and number == schedule.leave - 1 else None)
                for number, (groups, _) in enumerate(block_groups(sequence, schedule))
            ),
            conditions=plan.image_tokens - plan.noise_tokens,
            ids=image_ids(sequence, settings.round_ids),
            kept=sequence.kept,
            private=arrangement,
        )


CONTEXTGEN = ContextGen()
