"""LayoutComposer: which reference stands in which box, and the composite picture that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..contextgen_core.composite.compose import FITS, LEAVE_OUT, MISSING, ORDERS, Scene, compose
from ..contextgen_core.composite.references import Reference
from ..contextgen_core.layout.layout import MAX_CANVAS, MIN_CANVAS, Instance, LabelledBox, Layout, boxes_from_any
from ..contextgen_core.layout.tokens import TOKEN
from .sockets import (
    BOX_TYPES,
    FORMS,
    BoundingBox,
    LayoutType,
    References,
    box_entry,
    boxes_format_input,
    chosen,
    cutout,
    naming,
    preview,
    schema,
    to_bytes,
    to_image,
    warned,
)

NODE = "LayoutComposer"
POLICIES = SEED, FOLLOW = "seed once", "follow upstream"


class LayoutComposer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout", "bbox", "bounding box", "regional", "box editor", "composite", "contextgen"],
            has_intermediate_output=True,
            inputs=[
                io.Int.Input("width", default=1024, min=MIN_CANVAS, max=MAX_CANVAS, step=TOKEN),
                io.Int.Input("height", default=1024, min=MIN_CANVAS, max=MAX_CANVAS, step=TOKEN),
                io.String.Input("layout", multiline=True, default=""),
                References.Input("references", optional=True),
                io.MultiType.Input("boxes", types=BOX_TYPES, optional=True),
                boxes_format_input(),
                io.Combo.Input("boxes_policy", options=list(POLICIES), default=SEED, optional=True),
                io.Combo.Input("fit", options=list(FITS), default=FITS[0], optional=True),
                io.Combo.Input("order", options=list(ORDERS), default=ORDERS[0], optional=True),
                io.Image.Input("layout_image", optional=True),
                io.Combo.Input("missing", options=list(MISSING), default=LEAVE_OUT, optional=True),
            ],
            outputs=[
                LayoutType.Output("layout_out"),
                io.Image.Output("composite"),
                BoundingBox.Output("boxes_out"),
                io.Mask.Output("masks"),
                io.Mask.Output("all_boxes"),
                io.Int.Output("width_out"),
                io.Int.Output("height_out"),
            ],
        )

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        layout: str,
        references: Sequence[Reference] | None = None,
        boxes: Any = None,
        boxes_format: str = "auto",
        boxes_policy: str = SEED,
        fit: str = FITS[0],
        order: str = ORDERS[0],
        layout_image: torch.Tensor | None = None,
        missing: str = LEAVE_OUT,
    ) -> io.NodeOutput:
        chosen(NODE, "boxes_format", boxes_format, list(FORMS))
        chosen(NODE, "boxes_policy", boxes_policy, POLICIES)
        chosen(NODE, "missing", missing, MISSING)
        warnings = _size_warnings(width, height)
        width, height = _sides(width, height)
        with naming(NODE, "layout"):
            made = Layout.from_json(layout, width, height).scaled_to(width, height)
        with naming(NODE, "boxes"):
            found = boxes_from_any(boxes, width, height, format=FORMS[boxes_format])
            made = _merged(made, found, boxes_policy, references or ())
        own = None if layout_image is None else to_bytes(layout_image[0])
        with naming(NODE, "layout"):
            scene = compose(made, references or (), fit, order, own, missing)
        masks = _masks(made)
        every = masks.amax(dim=0, keepdim=True)
        shown = _shown(made, scene, references or ()) | warned(NODE, [*warnings, *scene.warnings])
        return io.NodeOutput(
            scene, to_image(scene.composite), _boxes(made), masks, every, made.width, made.height, ui=shown
        )


def _sides(width: int, height: int) -> tuple[int, int]:
    """Both sides as multiples of 16, the nearest ones (half goes up)."""
    wide, high = (max(MIN_CANVAS, (side + TOKEN // 2) // TOKEN * TOKEN) for side in (width, height))
    return wide, high


def _size_warnings(width: int, height: int) -> list[str]:
    wide, high = _sides(width, height)
    if (wide, high) == (width, height):
        return []
    return [
        f"{width} x {height} is no multiple of 16, the picture will be {wide} x {high} and the boxes are scaled to it."
    ]


def _merged(layout: Layout, boxes: Sequence[LabelledBox], policy: str, references: Sequence[Reference]) -> Layout:
    """The layout with connected boxes, following the policy; box n keeps what box n of the layout had bound."""
    if not boxes or (policy == SEED and layout.instances):
        return layout
    names = {reference.name.casefold(): reference.name for reference in references}
    made: list[Instance] = []
    taken = {instance.id for instance in layout.instances}
    for number, entry in enumerate(boxes, 1):
        if number <= len(layout.instances):
            made.append(replace(layout.instances[number - 1], box=entry.box, solid=None))
            continue
        reference: str | int | None = names.get(entry.label.strip().casefold())
        if reference is None and number <= len(references):
            reference = number
        own = next(f"b{k}" for k in range(number, number + len(taken) + 1) if f"b{k}" not in taken)
        taken.add(own)
        made.append(Instance(own, entry.box, reference, entry.label))
    return Layout(layout.width, layout.height, tuple(made))


def _boxes(layout: Layout) -> list[list[dict[str, Any]]]:
    """The host's canonical form: one list of dicts, for the one frame there is."""
    entries = []
    for instance in layout.instances:
        box = instance.region.clipped(layout.width, layout.height)
        label = instance.label or (instance.reference if isinstance(instance.reference, str) else "")
        entries.append(box_entry(box, label))
    return [entries]


def _masks(layout: Layout) -> torch.Tensor:
    """(boxes, H, W), 1 inside each box; one empty mask for a layout without boxes."""
    masks = torch.zeros((max(1, len(layout.instances)), layout.height, layout.width))
    for mask, entry in zip(masks, _boxes(layout)[0], strict=False):
        mask[entry["y"] : entry["y"] + entry["height"], entry["x"] : entry["x"] + entry["width"]] = 1
    return masks


def _shown(layout: Layout, scene: Scene, references: Sequence[Reference]) -> dict[str, Any]:
    """What the editor and the node show after a run."""
    thumbnails = []
    for reference in references:
        picture = cutout(reference.pixels, reference.mask, 256)
        width, height = reference.size
        thumbnails.append({"name": reference.name, "image": preview(picture), "width": width, "height": height})
    return {
        "contextgen_layout": [layout.to_json()],
        "contextgen_references": thumbnails,
        "images": [preview(Image.fromarray(np.ascontiguousarray(scene.composite)))],
    }
