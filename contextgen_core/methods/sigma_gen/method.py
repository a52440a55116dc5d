"""SIGMA-GEN behind the boundary: what it prepares, and the forward pass of a call.

The sequence is ``text | noise | identity stack | control picture``. The stack has the first position id 1 and rows that
run down all of it; the control picture has the noise's own ids, so that it lies on the picture pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ...attention.groups import Group, KeyPart, Span
from ...errors import InputError
from ...input.checks import shorten
from ...layout.layout import box_name
from ...layout.tokens import TOKEN
from ..boundary import Block, Forward, ForwardCall, Method, Part, Prepared, Segment
from ..plan_values import MAX_ENTRIES, check_whole
from .control import (
    MOST,
    TRAINED,
    areas,
    areas_of_picture,
    check_routing,
    control_picture,
    identity_stack,
    order_that_shows_all,
)
from .regions import ORDERS, ControlOptions, regions_and_depth

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...composite.compose import Scene

_PLAN_TAG = "sigma-gen-plan-2"
TIMESTEPS = ("current", "zero")
GUIDANCES = ("automatic", "user", "one")
SCOPES = ("all", "conditions")
MEMORY, MOST_MEMORY = 8.0, 1024  # GiB


@dataclass(frozen=True)
class Plan:
    """Sizes in tokens: of the picture, which are those of the control picture too, and of the identity stack.

    seen  pixels of each subject in the ascending and in the descending plane, for reports: equal sizes are equal plans
    """

    width: int
    height: int
    stack_width: int
    stack_height: int
    seen: tuple[tuple[int, int], ...] = field(default=(), compare=False)

    @property
    def noise_tokens(self) -> int:
        return self.width * self.height

    @property
    def stack_tokens(self) -> int:
        return self.stack_width * self.stack_height


@dataclass(frozen=True)
class Settings:
    """How the condition tokens are computed. The published text does not say; the defaults are FLUX.1 Kontext's.

    timestep  of the condition tokens: the current one, or zero
    guidance  embedded with them: the user's; one; or automatic, which is the user's at the current timestep and one at
              zero, as in OminiControl
    scope     tokens on which the adapter acts: all (it is loaded as any other), or the condition tokens alone
    cross     whether identity stack and control picture see each other
    context   whether both see text and noise. Without it, and at timestep zero, they are the same in every step, and
              hosts remember their keys and values, as OminiControl does
    memory    GiB that these may take; 0: they are computed in every step
    """

    timestep: str = "current"
    guidance: str = "automatic"
    scope: str = "all"
    cross: bool = True
    context: bool = True
    memory: float = MEMORY

    def __post_init__(self) -> None:
        for name, options in (("timestep", TIMESTEPS), ("guidance", GUIDANCES), ("scope", SCOPES)):
            if getattr(self, name) not in options:
                raise InputError(f"{name} is {shorten(getattr(self, name))}; choose one of {', '.join(options)}.")
        if not 0 <= self.memory <= MOST_MEMORY:
            raise InputError(f"memory is {shorten(self.memory)}; give GiB from 0 to {MOST_MEMORY}.")

    @property
    def fixed(self) -> bool:
        """Whether the condition tokens are the same in every step."""
        return self.timestep == "zero" and not self.context

    @property
    def own_timestep(self) -> float | None:
        return 0.0 if self.timestep == "zero" else None

    @property
    def own_guidance(self) -> float | None:
        one = self.guidance == "one" or (self.guidance == "automatic" and self.timestep == "zero")
        return 1.0 if one else None


class SigmaGen(Method):
    """Identities routed by a picture (ICLR 2026)."""

    name = "sigma_gen"
    label = "SIGMA-GEN"
    node = "SigmaGenPatchModel"
    source = "SigmaGenConditioning"

    def prepare(self, scene: Scene, options: ControlOptions | None = None) -> Prepared:
        """Pictures are the identity stack and the control picture. Warnings name hidden subjects and empty regions."""
        options = options or ControlOptions()
        layout = scene.layout
        bound = [number for number, reference in enumerate(scene.references) if reference is not None]
        if not bound:
            raise InputError(
                "no box of the layout is both shown and bound to a reference; bind a reference to at least one box."
            )
        if len(bound) > MOST:  # before a region of the picture's size is painted for each
            raise InputError(f"there are {len(bound)} subjects, grey levels hold {MOST}; use fewer.")
        masks, depth, warnings = regions_and_depth(layout, bound, options)
        order = tuple(range(len(bound)))
        if options.order != ORDERS[0]:
            better = order_that_shows_all(masks)
            if better is None:
                warnings.append(
                    "no order of the subjects leaves each of them visible in a plane; the layout's is kept."
                )
            order = better or order
        masks, subjects = masks[list(order)], [bound[number] for number in order]
        seen = areas(masks)
        for subject, (whole, _, _, visible) in zip(subjects, seen.tolist(), strict=True):
            where = box_name(subject + 1, layout.instances[subject].id)
            if not whole:
                warnings.append(f"{where} has no pixel inside the picture, so its subject is nowhere; move it inside.")
            elif not visible:
                warnings.append(
                    f"{where} is covered in both routing planes, so its subject is hidden; move it, or choose the order"
                    " in which all are visible."
                )
        if not seen[:, 0].any():
            raise InputError("no box with a reference has a pixel inside the picture; move one inside.")
        if len(subjects) > TRAINED:
            warnings.append(f"there are {len(subjects)} subjects; SIGMA-GEN was trained with at most {TRAINED}.")
        references = [reference for number in subjects if (reference := scene.references[number]) is not None]
        stack = identity_stack(references, options.cell)
        control = control_picture(masks, depth, whole=options.whole)
        return Prepared(self.name, plan_of(stack, control), (stack, control), warnings=tuple(warnings))

    def plan_tuple(self, plan: Plan) -> tuple[object, ...]:
        return (_PLAN_TAG, plan.width, plan.height, plan.stack_width, plan.stack_height, plan.seen)

    def plan_from(self, value: object) -> Plan:
        try:
            tag, *sides, seen = cast("tuple[Any, ...]", value)
            if tag != _PLAN_TAG:
                raise ValueError(tag)
            width, height, stack_width, stack_height = sides
            check_whole(width, height)
            check_whole(stack_width, stack_height, high=1 << 14)
            pixels = tuple((ascending, descending) for ascending, descending in seen)
            check_whole(len(pixels), low=0, high=MAX_ENTRIES)
            for pair in pixels:
                check_whole(*pair, low=0, high=1 << 28)
            return Plan(width, height, stack_width, stack_height, pixels)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The pictures in this conditioning come from another version of the pack; run the graph again from"
                f" {self.source}."
            ) from error

    def sizes(self, plan: Plan) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        noise = (plan.height, plan.width)
        return noise, ((plan.stack_height, plan.stack_width), noise)

    def default_settings(self) -> Settings:
        return Settings()

    def check(self, plan: Plan, settings: Settings, backbone: Backbone) -> None:
        if not backbone.references or backbone.axes != 3:
            raise InputError(f"SIGMA-GEN needs FLUX.1 Kontext, this is {backbone.name}; load it.", self.node, "model")

    def parts(self, plan: Plan, settings: Settings) -> tuple[Part, ...]:
        sizes = {"noise": plan.noise_tokens, "identities": plan.stack_tokens, "control": plan.noise_tokens}
        return tuple(Part(name, tokens, tokens) for name, tokens in sizes.items())

    def notes(self, plan: Plan, settings: Settings) -> tuple[str, ...]:
        hidden = [str(number) for number, pixels in enumerate(plan.seen, 1) if not any(pixels)]
        if not hidden:
            return ()
        subjects = "subject" if len(hidden) == 1 else "subjects"
        return (f"{subjects} {', '.join(hidden)} of the stack, counted from the top, can be seen in neither plane.",)

    def memory_limit(self, settings: Settings) -> int:
        return int(settings.memory * 2**30)

    def fixed_tokens(self, plan: Plan, settings: Settings) -> int:
        return plan.stack_tokens + plan.noise_tokens if settings.fixed else 0

    def forward(self, plan: Plan, settings: Settings, call: ForwardCall) -> Forward:
        stack = call.text + plan.noise_tokens
        control = stack + plan.stack_tokens
        end = control + plan.noise_tokens
        return Forward(
            blocks=(Block(_groups(settings, stack, control, end)),) * call.blocks.all,
            conditions=end - stack,
            ids=position_ids(plan),
            segments=_segments(settings, stack, end),
            fixed=Span(stack, end) if settings.fixed and settings.memory else None,
        )


def plan_of(stack: np.ndarray, control: np.ndarray) -> Plan:
    """The plan of an identity stack and a control picture, uint8 (H, W, 3) each, whoever drew them.

    Raises InputError for sides that are no multiples of 16, and for grey levels that no subject has.
    """
    for name, picture in (("identity stack", stack), ("control picture", control)):
        height, width = picture.shape[:2]
        if height % TOKEN or width % TOKEN:
            raise InputError(f"the {name} is {width} x {height} pixels; give sides that are multiples of {TOKEN}.")
    check_routing(control)
    (height, width), (stack_height, stack_width) = control.shape[:2], stack.shape[:2]
    seen = areas_of_picture(control)
    return Plan(width // TOKEN, height // TOKEN, stack_width // TOKEN, stack_height // TOKEN, seen)


def position_ids(plan: Plan) -> torch.Tensor:
    """Of noise, stack and control picture, float32 (n, 3): first id, row, column. Rows of a tall stack exceed what
    bfloat16 can tell apart, so they stay float32."""

    def grid(first: int, height: int, width: int) -> torch.Tensor:
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return torch.stack([torch.full_like(rows, first), rows, columns], dim=-1).reshape(-1, 3).float()

    noise = grid(0, plan.height, plan.width)
    return torch.cat([noise, grid(1, plan.stack_height, plan.stack_width), noise])


def _groups(settings: Settings, stack: int, control: int, end: int) -> tuple[Group, ...] | None:
    """Text and noise see everyone. The two pictures see themselves, each other and the rest as the settings say."""
    if settings.cross and settings.context:
        return None
    base, first, second = Span(0, stack), Span(stack, control), Span(control, end)
    start = 0 if settings.context else stack
    if settings.cross:
        pictures = (Group(Span(stack, end), (KeyPart(Span(start, end)),)),)
    else:
        before = (KeyPart(base),) if settings.context else ()
        pictures = (Group(first, (KeyPart(Span(start, control)),)), Group(second, (*before, KeyPart(second))))
    return (Group(base, (KeyPart(Span(0, end)),)), *pictures)


def _segments(settings: Settings, stack: int, end: int) -> tuple[Segment, ...]:
    """None with the defaults: then the model's own blocks do all the work."""
    timestep, guidance, all_tokens = settings.own_timestep, settings.own_guidance, settings.scope == "all"
    if timestep is None and guidance is None and all_tokens:
        return ()
    base = () if all_tokens else (Segment(Span(0, stack), adapter=False),)
    return (*base, Segment(Span(stack, end), timestep, guidance))


SIGMA_GEN = SigmaGen()
