"""ContextGenCutout: a subject out of a photograph, by clicks, boxes, a plain background, or any mask."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..contextgen_core.cutout import cutout as core
from . import sam_model as sams
from .cutout_work import AUTOMATIC, NODE, SOURCES, cut, for_editor, requests
from .sockets import (
    BOX_TYPES,
    FORMS,
    BoundingBox,
    box_entry,
    boxes_format_input,
    chosen,
    cutout,
    naming,
    preview,
    schema,
    to_image,
    warned,
)

CHOICES = ["best", "1", "2", "3"]


class ContextGenCutout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            category="ContextGen/references",
            search_aliases=[
                "sam",
                "segment anything",
                "remove background",
                "matting",
                "subject mask",
                "rembg",
                "contextgen",
            ],
            is_output_node=True,  # so that it can be run alone while the user clicks
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("source", options=SOURCES, default=AUTOMATIC),
                io.Combo.Input("sam_model", options=sams.model_names(), default=sams.NONE),
                io.String.Input("prompts", multiline=True, default=""),
                io.Combo.Input("mask_choice", options=CHOICES, default="best"),
                io.Boolean.Input("fill_holes", default=True),
                io.Boolean.Input("largest_part", default=False),
                io.Int.Input("grow", default=0, min=-256, max=256),
                io.Float.Input("feather", default=0.0, min=0.0, max=256.0, step=0.5),
                io.Float.Input("tolerance", default=0.1, min=0.0, max=1.0, step=0.01),
                io.Mask.Input("subject_mask", optional=True),
                io.MultiType.Input("boxes", types=BOX_TYPES, optional=True),
                boxes_format_input(),
                io.Boolean.Input("invert_mask", default=False, optional=True),
            ],
            outputs=[
                io.Image.Output("cutout"),
                io.Mask.Output("subject_mask_out"),
                BoundingBox.Output("box"),
                io.Float.Output("quality"),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        source: str = AUTOMATIC,
        sam_model: str = sams.NONE,
        prompts: str = "",
        mask_choice: str = "best",
        fill_holes: bool = True,
        largest_part: bool = False,
        grow: int = 0,
        feather: float = 0.0,
        tolerance: float = 0.1,
        subject_mask: torch.Tensor | None = None,
        boxes: Any = None,
        boxes_format: str = "auto",
        invert_mask: bool = False,
    ) -> io.NodeOutput:
        for name, value, options in (
            ("source", source, SOURCES),
            ("mask_choice", mask_choice, CHOICES),
            ("boxes_format", boxes_format, list(FORMS)),
        ):
            chosen(NODE, name, value, options)
        with naming(NODE, "prompts"):
            clicks = core.Prompts.from_json(prompts)
        asked = list(requests(image, clicks, subject_mask, invert_mask, boxes, boxes_format))
        cleaning = core.Cleaning(fill_holes, largest_part, grow, feather)
        choice = 0 if mask_choice == "best" else int(mask_choice)
        made = [cut(request, source, sam_model, choice, cleaning, tolerance) for request in asked]
        pictures = torch.cat([to_image(picture) for picture in core.rgba(made)])
        frames = [[box_entry(one.box)] for one in made]
        ui = {
            "images": [preview(cutout(one.pixels, one.mask)) for one in made],
            "contextgen_cutout": [for_editor(made)],
            **warned(NODE, [warning for one in made for warning in one.warnings]),
        }
        return io.NodeOutput(pictures, pictures[..., 3].clone(), frames, min(one.quality for one in made), ui=ui)


NODES = (ContextGenCutout,)
