"""ReferenceBundle: pictures of subjects, each with its mask, under a name."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..contextgen_core.composite.references import Reference
from ..contextgen_core.errors import InputError
from ..contextgen_core.input.checks import shorten
from ..contextgen_core.masks import Subject, doubts, subject_of
from .sockets import References, colours_and_alpha, cutout, mask_at, naming, preview, schema, warned, window

NODE = "ReferenceBundle"
MAX_REFERENCES = 64


class ReferenceBundle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["multi reference", "identity", "subject", "kontext", "reference image", "contextgen"],
            inputs=[
                io.Image.Input("image", optional=True),
                io.Mask.Input("subject_mask", optional=True),
                io.String.Input("name", optional=True, default=""),
                io.Int.Input("size", optional=True, default=0, min=0, max=16384, step=16),
                io.Float.Input("strength", optional=True, default=1.0, min=0.0, max=4.0, step=0.05),
                *window(),
                References.Input("references", optional=True),
                io.Boolean.Input("crop", optional=True, default=False),
                io.Boolean.Input("invert_mask", optional=True, default=False),
            ],
            outputs=[References.Output("references_out")],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor | None = None,
        subject_mask: torch.Tensor | None = None,
        name: str = "",
        size: int = 0,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        references: tuple[Reference, ...] | None = None,
        crop: bool = False,
        invert_mask: bool = False,
    ) -> io.NodeOutput:
        bundle = list(references or ())
        if image is None:  # Load Image is muted or bypassed: the other references stay
            missing = f"no picture arrives for reference {shorten(name)}, so it is left out; connect one to image."
            return io.NodeOutput(tuple(bundle), ui=warned(NODE, [missing]))
        with naming(NODE, "image"):
            if len(bundle) + len(image) > MAX_REFERENCES:
                raise InputError(
                    f"{len(bundle) + len(image)} references are too many, the limit is {MAX_REFERENCES}; split the "
                    f"batch."
                )
        with naming(NODE, "subject_mask"):
            subjects = [
                _subject(picture, _mask_of(subject_mask, number, invert_mask)) for number, picture in enumerate(image)
            ]
        warnings = []
        names = _names(name.strip(), len(subjects), [reference.name for reference in bundle])
        for (pixels, subject), own_name in zip(subjects, names, strict=True):
            with naming(NODE, "subject_mask" if subject_mask is not None else "image"):
                made = Reference(own_name, pixels, subject.mask, size, strength, start_percent, end_percent, crop)
            remarks = (*subject.warnings, *doubts(subject.mask, pixels))
            warnings += [f"reference {shorten(own_name)}: {remark}" for remark in remarks]
            bundle.append(made)
        shown = [preview(cutout(pixels, subject.mask)) for pixels, subject in subjects]
        return io.NodeOutput(tuple(bundle), ui={"images": shown, **warned(NODE, warnings)})


def _mask_of(masks: torch.Tensor | None, number: int, invert: bool) -> np.ndarray | None:
    """The uint8 (H, W) mask of one picture of the batch; a single mask serves all pictures."""
    mask = None if masks is None else mask_at(masks, number)
    return 255 - mask if mask is not None and invert else mask


def _subject(picture: torch.Tensor, mask: np.ndarray | None) -> tuple[np.ndarray, Subject]:
    """(H, W, C) floats and a mask -> uint8 (H, W, 3) and the subject in it."""
    colours, alpha = colours_and_alpha(picture)
    height, width = colours.shape[:2]
    return colours, subject_of(alpha, mask, (height, width))


def _names(name: str, count: int, taken: list[str]) -> list[str]:
    if name and count == 1:
        if name in taken:
            raise InputError(f"there already is a reference called '{name}'; give this one another name.", NODE, "name")
        return [name]
    made: list[str] = []
    number = 0 if name else len(taken)
    for _ in range(count):
        number += 1
        while (own := f"{name or 'reference'} {number}") in taken:
            number += 1
        made.append(own)
    return made
