"""InstanceAssemble as a method: what it wants from a host."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, cast

from ...errors import InputError
from ..boundary import Block, BlockCounts, Forward, ForwardCall, Method, Prepared, RunPosition
from .plan import PhraseOptions, PhrasePlan, bind
from .step import AssembleSettings, LayoutStep

if TYPE_CHECKING:
    from ...backbones.record import Backbone
    from ...composite.compose import Scene

EVERY_THIRD = 3  # of FLUX.1's double blocks, from the first on
MAX_SCALE = 3.0


def layout_blocks(counts: BlockCounts) -> tuple[int, ...]:
    """Blocks with a layout step, double blocks first: of FLUX.1 each third double block and the first single block, of
    Stable Diffusion 3, which has no single blocks, all."""
    if not counts.single:
        return tuple(range(counts.double))
    return (*range(0, counts.double, EVERY_THIRD), counts.double)


class InstanceAssemble(Method):
    """Phrases in boxes, and pictures where the weights know them.

    Needs extra weights; acts on the negative conditioning, too, but without boxes there.
    """

    name = "instance_assemble"
    label = "InstanceAssemble"
    node = "InstanceAssemblePatchModel"
    source = "InstanceAssembleConditioning"
    arranges = False

    def prepare(self, scene: Scene, options: PhraseOptions | None = None) -> Prepared:
        bound = bind(scene, options)
        return Prepared(
            self.name,
            bound.plan,
            phrases=bound.phrases,
            content=bound.pictures,
            negative=True,
            warnings=bound.warnings,
        )

    def plan_tuple(self, plan: PhrasePlan) -> tuple[object, ...]:
        return plan.as_tuple()

    def plan_from(self, value: object) -> PhrasePlan:
        return PhrasePlan.from_tuple(value)

    def sizes(self, plan: PhrasePlan) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        return (plan.rows, plan.columns), ()

    def default_settings(self) -> AssembleSettings:
        return AssembleSettings()

    def check(self, plan: PhrasePlan, settings: AssembleSettings, backbone: Backbone) -> None:
        if not backbone.after or not backbone.segments:
            raise InputError(
                f"{self.label} was trained for FLUX.1 and Stable Diffusion 3 medium and has nothing to act on in"
                f" {backbone.name}; load one of those."
            )
        if plan.pooled not in (0, backbone.pooled):
            raise InputError(
                f"the phrases were encoded to {plan.pooled} numbers each, {backbone.name} takes {backbone.pooled};"
                " connect the text encoders of this model.",
                self.source,
                "clip",
            )

        if not settings.pictures and any(box.picture is not None for box in plan.boxes):
            raise InputError(
                "the weights on the model know no pictures (the authors' do not); let phrases alone fill the boxes.",
                self.source,
                "content",
            )

    def moment(self, plan: PhrasePlan, settings: AssembleSettings, run: RunPosition | None) -> Hashable:
        if not settings.scale or not settings.ratio or (run is not None and not run.before_step(settings.ratio)):
            return None
        active = tuple(
            number
            for number, box in enumerate(plan.boxes)
            if box.strength and (run is None or (box.start, box.end) == (0, 1) or run.within(box.start, box.end))
        )
        return active or None

    def timed(self, plan: PhrasePlan, settings: AssembleSettings) -> bool:
        return settings.ratio < 1 or any((box.start, box.end) != (0, 1) for box in plan.boxes)

    def worded(self, plan: PhrasePlan) -> tuple[str, ...]:
        return tuple(box.name for box in plan.boxes if box.phrase)

    def forward(self, plan: PhrasePlan, settings: AssembleSettings, call: ForwardCall) -> Forward:
        numbers = layout_blocks(call.blocks)
        active = cast(tuple[int, ...], call.moment)
        step = LayoutStep(plan, settings, active, call.blocks.double, numbers[-1], call.device, call.dtype)
        with_step = Block(after=step.after)
        return Forward(tuple(with_step if number in numbers else Block() for number in range(call.blocks.all)))


INSTANCE_ASSEMBLE = InstanceAssemble()
