"""ContextGenCutout: a subject out of a photograph, by clicks, boxes, a plain background, or any mask."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io

from ..contextgen_core.cutout import cutout as core
from . import sam_model as sams
from .cutout_work import AUTOMATIC, NODE, SOURCES, as_dict, cut, for_editor, requests, thumbnail
from .sockets import BOX_TYPES, FORMS, BoundingBox, boxes_format_input, chosen, naming, preview, schema, to_image

log = logging.getLogger("contextgen")

CHOICES = ["best", "1", "2", "3"]


class ContextGenCutout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Cutout",
            category="ContextGen/references",
            description=(
                "Cuts a subject out of a photograph: with Segment Anything and a few clicks or boxes, by flooding a "
                "plain "
                "background, or with a mask from any other node. Its picture goes straight into Reference Bundle."
            ),
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
                io.Image.Input(
                    "image",
                    tooltip="The photograph. With boxes connected, every box gives one cut-out; a batch is cut "
                    "picture by picture.",
                ),
                io.Combo.Input(
                    "source",
                    options=SOURCES,
                    default=AUTOMATIC,
                    tooltip="Where the mask comes from. Automatic: SAM if a model is chosen and there are clicks or "
                    "boxes; else the connected "
                    "mask; else the picture's own alpha; else its plain background.",
                ),
                io.Combo.Input(
                    "sam_model",
                    display_name="SAM model",
                    options=sams.model_names(),
                    default=sams.NONE,
                    tooltip="A Segment Anything checkpoint in models/sams: sam_vit_b, sam_vit_l or sam_vit_h, .pth "
                    "or .safetensors.",
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="The clicks, kept by the editor as JSON: points to keep or to leave out and one box, in "
                    "pixels of the picture. "
                    'By hand: {"points": [{"x": 320, "y": 200, "keep": true}], "box": null}',
                ),
                io.Combo.Input(
                    "mask_choice",
                    display_name="which mask",
                    options=CHOICES,
                    default="best",
                    tooltip="SAM proposes three masks for every prompt. Best: the one it rates highest.",
                ),
                io.Boolean.Input(
                    "fill_holes", display_name="fill holes", default=True, tooltip="Select what the subject encloses."
                ),
                io.Boolean.Input(
                    "largest_part",
                    display_name="largest part only",
                    default=False,
                    tooltip="Drop everything that is not connected with the largest part.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=-256,
                    max=256,
                    tooltip="Widen the mask by this many pixels; negative narrows it.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.0,
                    min=0.0,
                    max=256.0,
                    step=0.5,
                    tooltip="Soften the edge by this many pixels. ContextGen itself reads a mask hard, at one half: "
                    "leave 0 for references.",
                ),
                io.Float.Input(
                    "tolerance",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Plain background only: how far a colour may be from that of the picture's edge, as a "
                    "share of the longest distance "
                    "between two colours.",
                ),
                io.Mask.Input(
                    "subject_mask",
                    display_name="subject mask",
                    optional=True,
                    tooltip="1 (white) = subject. With source 'mask or alpha' it is used as it is, with a SAM model "
                    "as a rough start. Load Image's "
                    "MASK output marks the transparent part instead: switch on 'invert mask' for it.",
                ),
                io.MultiType.Input(
                    "boxes",
                    types=BOX_TYPES,
                    optional=True,
                    tooltip="Boxes around subjects from any detector or editor, in pixels of the picture: one "
                    "cut-out for each. Needs a SAM model.",
                ),
                boxes_format_input(
                    "What bare rows of four numbers (BBOX) mean. Boxes with named sides need no format."
                ),
                io.Boolean.Input(
                    "invert_mask",
                    display_name="invert mask",
                    default=False,
                    optional=True,
                    tooltip="For masks that are white around the subject, such as Load Image's MASK output.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "cutout",
                    display_name="cutout",
                    tooltip="The picture with the mask as its alpha channel (RGBA), for Reference Bundle.",
                ),
                io.Mask.Output("subject_mask_out", display_name="subject mask", tooltip="1 = subject."),
                BoundingBox.Output(
                    "box",
                    display_name="box",
                    tooltip="The tight box around each subject: one list per cut-out, in pixels.",
                ),
                io.Float.Output(
                    "quality",
                    display_name="quality",
                    tooltip="SAM's own estimate of the mask's overlap with the true one, about 0 to 1; the lowest "
                    "of several cut-outs. 1 without SAM.",
                ),
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
        for one in made:
            for warning in one.warnings:
                log.warning("%s: %s", NODE, warning)
        pictures = torch.cat([to_image(picture) for picture in core.rgba(made)])
        frames = [[as_dict(one.box)] for one in made]
        ui = {"images": [preview(thumbnail(one)) for one in made], "contextgen_cutout": [for_editor(made)]}
        return io.NodeOutput(pictures, pictures[..., 3].clone(), frames, min(one.quality for one in made), ui=ui)


NODES = (ContextGenCutout,)
