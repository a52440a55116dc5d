"""ReferenceBundle: pictures of subjects, each with its mask, under a name."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.latest import io

from ..contextgen_core.composite.references import Reference
from ..contextgen_core.errors import InputError
from ..contextgen_core.masks import looks_inverted
from .sockets import References, colours_and_alpha, cutout, mask_at, naming, preview, schema, window

log = logging.getLogger("contextgen")

NODE = "ReferenceBundle"
MAX_REFERENCES = 64
_NO_ALPHA_SIDE = 64  # Load Image's mask for a picture without transparency is 64 x 64 zeros


class ReferenceBundle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["multi reference", "identity", "subject", "kontext", "reference image", "contextgen"],
            inputs=[
                io.Image.Input("image"),
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
        image: torch.Tensor,
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
        names = _names(name.strip(), len(subjects), [reference.name for reference in bundle])
        for (pixels, mask), own_name in zip(subjects, names, strict=True):
            with naming(NODE, "subject_mask" if subject_mask is not None else "image"):
                made = Reference(own_name, pixels, mask, size, strength, start_percent, end_percent, crop)
            if looks_inverted(mask):
                log.warning(
                    "%s: the mask of %r covers the border of the picture and not its middle, so it may be inverted; "
                    "white must mean subject (Load Image's mask needs 'invert mask').",
                    NODE,
                    own_name,
                )
            bundle.append(made)
        shown = [preview(cutout(pixels, mask)) for pixels, mask in subjects]
        return io.NodeOutput(tuple(bundle), ui={"images": shown})


def _mask_of(masks: torch.Tensor | None, number: int, invert: bool) -> np.ndarray | None:
    """The uint8 (H, W) mask of one picture of the batch; a single mask serves all pictures."""
    if masks is None:
        return None
    mask = mask_at(masks, number)
    if mask.shape == (_NO_ALPHA_SIDE, _NO_ALPHA_SIDE) and not mask.any():
        raise InputError(
            "the mask is empty, because the picture in Load Image has no transparency; give a cut-out with a "
            "transparent background, or make a mask (ContextGen Cutout)."
        )
    return 255 - mask if invert else mask


def _subject(picture: torch.Tensor, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, C) floats and a mask -> uint8 (H, W, 3) and uint8 (H, W)."""
    colours, alpha = colours_and_alpha(picture)
    if alpha is None and mask is None:
        raise InputError(
            "the picture has neither a mask nor transparency, so its subject is unknown; connect a subject mask "
            "(ContextGen Cutout makes one), or an RGBA cut-out."
        )
    if mask is not None and mask.shape != colours.shape[:2]:
        raise InputError(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} and the picture {colours.shape[1]} x {colours.shape[0]} "
            "pixels; give a mask of the picture's size."
        )
    selected = [part for part in (alpha, mask) if part is not None]
    return colours, np.ascontiguousarray(np.minimum.reduce(selected))


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
