"""A method that is not in the pack, as small as one can be: a box reads the text and itself, and may be held back.

``boundary`` and ``groups`` are the modules of the pack, under whichever name it was imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ToyPlan(NamedTuple):
    width: int
    height: int
    box: tuple[int, int, int, int]  # tokens
    blocks: int = 3  # the first ones, in which the box is alone
    hold: float = 0.0  # share of the change of its tokens that each block takes back
    own_timestep: float | None = None  # of the box's tokens


def toy_method(boundary: Any, groups: Any) -> Any:
    class Toy(boundary.Method):
        name, label, node, source = "toy", "Toy", "ToyPatchModel", "ToyConditioning"

        def prepare(self, scene: Any, options: Any = None) -> Any:
            layout = scene.layout
            box = layout.instances[0].box
            tokens = tuple(int(v) // 16 for v in (box.x1, box.y1, box.x2, box.y2))
            return boundary.Prepared(self.name, ToyPlan(layout.width // 16, layout.height // 16, tokens))

        def plan_tuple(self, plan: ToyPlan) -> tuple[object, ...]:
            return tuple(plan)

        def plan_from(self, value: Any) -> ToyPlan:
            return ToyPlan(*value)

        def sizes(self, plan: ToyPlan) -> Any:
            return (plan.height, plan.width), ()

        def default_settings(self) -> None:
            return None

        def forward(self, plan: ToyPlan, settings: None, call: Any) -> Any:
            x1, y1, x2, y2 = plan.box
            inside = np.zeros((plan.height, plan.width), bool)
            inside[y1:y2, x1:x2] = True
            rows = call.text + np.flatnonzero(inside)
            text, whole = groups.Span(0, call.text), groups.Span(0, call.text + inside.size)
            rest = np.setdiff1d(whole.indices(), rows)
            alone = groups.Group(rows, (groups.KeyPart(text), groups.KeyPart(rows)))
            seen = (groups.Group(rest, (groups.KeyPart(whole),)), alone)

            def hold_back(work: Any) -> None:
                noise = work.image[:, slice(*work.noise)]
                noise[:, rows - call.text] *= 1 - plan.hold

            after = hold_back if plan.hold else None
            blocks = [boundary.Block(seen if n < plan.blocks else None, after=after) for n in range(call.blocks.all)]
            span = groups.Span(int(rows[0]), int(rows[-1]) + 1)
            segments = () if plan.own_timestep is None else (boundary.Segment(span, timestep=plan.own_timestep),)
            return boundary.Forward(tuple(blocks), segments=segments)

    return Toy()
