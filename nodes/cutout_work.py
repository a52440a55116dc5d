"""What ContextGenCutout does with its inputs: one request for each cut-out, and where its mask comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..contextgen_core.cutout import cutout as core
from ..contextgen_core.errors import InputError
from ..contextgen_core.layout.foreign_boxes import boxes_from_any
from ..contextgen_core.masks import subject_of
from . import sam_model as sams
from .sockets import FORMS, colours_and_alpha, mask_at, naming, preview

NODE = "ContextGenCutout"
AUTOMATIC, SAM, PLAIN, MASK = "automatic", "SAM model", "plain background", "mask or alpha"
SOURCES = [AUTOMATIC, SAM, PLAIN, MASK]
MAX_CUTOUTS = 64
EDITOR_SIDE = 1024


class Request(NamedTuple):
    """One cut-out to make: a picture uint8 (H, W, 3), its alpha and the given mask (H, W) or None, and the
    prompts."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    mask: np.ndarray | None
    prompts: core.Prompts


def requests(
    image: torch.Tensor, clicks: core.Prompts, masks: torch.Tensor | None, invert: bool, boxes: Any, form: str
) -> Iterator[Request]:
    """Every cut-out that is asked for: one for each picture, or for each box on each picture."""
    made = 0
    for number, picture in enumerate(image):
        colours, alpha = colours_and_alpha(picture)
        if alpha is not None and alpha.all():
            alpha = None  # opaque: no cut-out yet
        height, width = colours.shape[:2]
        with naming(NODE, "boxes"):
            found = boxes_from_any(boxes, width, height, format=FORMS[form], frame=number)
        fitted = clicks.scaled_to(width, height)
        # Clicks and strokes are for one subject; several boxes are several.
        prompts = [
            replace(fitted, box=one.box) if len(found) == 1 else core.Prompts(box=one.box, width=width, height=height)
            for one in found
        ]
        for position, prompt in enumerate(prompts or [fitted]):
            made += 1
            if made > MAX_CUTOUTS:
                raise InputError(f"more than {MAX_CUTOUTS} cut-outs were asked for; split the batch.", NODE, "image")
            with naming(NODE, "subject_mask"):
                mask = _mask_of(masks, number, position, len(prompts), invert)
                mask = None if mask is None else core.fit_mask(mask, width, height)
            yield Request(colours, alpha, mask, prompt)


def _mask_of(masks: torch.Tensor | None, number: int, position: int, boxes: int, invert: bool) -> np.ndarray | None:
    """The mask of one cut-out: a single mask serves all, otherwise there is one for each picture, or one for each
    box."""
    if masks is None:
        return None
    mask = mask_at(masks, position if boxes and masks.ndim == 3 and len(masks) == boxes else number)
    return 255 - mask if mask is not None and invert else mask


def cut(
    request: Request, source: str, model: str, choice: int, cleaning: core.Cleaning, tolerance: float
) -> core.Cutout:
    """The cut-out from its source, cleaned, and mended by the strokes."""
    made = _cut(request, source, model, choice, cleaning, tolerance)
    with naming(NODE, "prompts"):
        return core.brushed(made, request.prompts.strokes)


def _cut(
    request: Request, source: str, model: str, choice: int, cleaning: core.Cleaning, tolerance: float
) -> core.Cutout:
    prompted = not request.prompts.empty
    if source == AUTOMATIC:
        if prompted and model != sams.NONE:
            source = SAM
        elif request.mask is not None or request.alpha is not None:
            source = MASK
        elif prompted:
            raise InputError(
                "there are clicks or boxes but no model to use them; put a checkpoint into models/sams and choose it, "
                "or set source to plain background.",
                NODE,
                "SAM model",
            )
        else:
            source = PLAIN
    if source == SAM:
        with naming(NODE, "SAM model"):
            if model == sams.NONE:
                raise InputError(
                    "no model is chosen; put a Segment Anything checkpoint into models/sams and choose it."
                )
            segmenter = sams.load(model)
        with naming(NODE, "prompts"):
            return core.by_model(
                segmenter, request.pixels, request.prompts, hint=request.mask, choice=choice, cleaning=cleaning
            )
    if source == PLAIN:
        with naming(NODE, "image"):
            return core.plain(request.pixels, tolerance, cleaning)
    with naming(NODE, "subject_mask"):
        if request.mask is None and request.alpha is None:
            raise InputError(
                "no mask arrives and the picture has no transparency; connect a mask, or choose another source."
            )
        height, width = request.pixels.shape[:2]
        subject = subject_of(request.alpha, request.mask, (height, width))
        made = core.finish(request.pixels, subject.mask, cleaning)
        return replace(made, warnings=(*subject.warnings, *made.warnings))


def for_editor(made: list[core.Cutout]) -> dict[str, Any]:
    """What the editor shows after a run: the first picture, the mask of every cut-out on that same picture, and for a
    single one the masks that SAM proposed."""
    first = made[0]
    height, width = first.mask.shape
    together = np.maximum.reduce([one.mask for one in made if one.pixels is first.pixels])
    scale = min(1.0, EDITOR_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    found = first.candidates if len(made) == 1 else None
    proposed = () if found is None else zip(found.masks, found.quality, strict=True)
    return {
        "candidates": [
            {
                "mask": preview(Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BILINEAR)),
                "quality": round(float(quality), 4),
            }
            for mask, quality in proposed
        ],
        "taken": first.taken,
        "picture": preview(Image.fromarray(first.pixels).resize(size, Image.Resampling.LANCZOS)),
        "mask": preview(Image.fromarray(together).resize(size, Image.Resampling.BILINEAR)),
        "width": width,
        "height": height,
        "count": len(made),
        "quality": [round(one.quality, 4) for one in made],
        "warnings": [warning for one in made for warning in one.warnings],
    }
