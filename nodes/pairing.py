"""ContextGenPairBoxes: which detected box belongs to which reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io

from ..contextgen_core.composite.references import Reference
from ..contextgen_core.errors import InputError
from ..contextgen_core.layout.foreign_boxes import LabelledBox, boxes_from_any
from ..contextgen_core.layout.pairing import WAYS, Pairing, boxes_to_masks, by_appearance, by_label, by_order
from . import vision
from .sockets import (
    BOX_TYPES,
    FORMS,
    BoundingBox,
    References,
    box_entry,
    boxes_format_input,
    chosen,
    naming,
    schema,
    to_bytes,
)

NODE = "ContextGenPairBoxes"


class ContextGenPairBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            category="ContextGen/references",
            search_aliases=["match boxes", "assign", "detector", "bbox", "contextgen"],
            inputs=[
                io.Image.Input("image"),
                io.MultiType.Input("boxes", types=BOX_TYPES),
                References.Input("references"),
                io.Combo.Input("pair_by", options=list(WAYS), default=WAYS[0]),
                boxes_format_input(),
                io.ClipVision.Input("clip_vision", optional=True),
                io.Float.Input("least_similarity", default=-1.0, min=-1.0, max=1.0, step=0.01, optional=True),
            ],
            outputs=[BoundingBox.Output("paired"), BoundingBox.Output("left_over"), io.String.Output("report")],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        boxes: Any,
        references: Sequence[Reference],
        pair_by: str = WAYS[0],
        boxes_format: str = "auto",
        clip_vision: Any = None,
        least_similarity: float = -1.0,
    ) -> io.NodeOutput:
        chosen(NODE, "pair_by", pair_by, WAYS)
        chosen(NODE, "boxes_format", boxes_format, list(FORMS))
        pixels = to_bytes(image[0][..., :3])
        height, width = pixels.shape[:2]
        with naming(NODE, "boxes"):
            found = boxes_from_any(boxes, width, height, format=FORMS[boxes_format], limit=1000)
        similarity = None
        if pair_by == "appearance":
            with naming(NODE, "clip_vision"):
                similarity = _similarity(clip_vision, pixels, found, references)
            pairing = by_appearance(similarity, least_similarity)
        elif pair_by == "order":
            pairing = by_order(len(references), found)
        else:
            pairing = by_label([reference.name for reference in references], found)
        named = [
            _entry(found[index], reference.name)
            for reference, index in zip(references, pairing.chosen, strict=True)
            if index is not None
        ]
        rest = [_entry(found[index], found[index].label) for index in pairing.left_over]
        report = _report(references, found, pairing, similarity)
        return io.NodeOutput([named], [rest], report, ui={"text": (report,)})


def _similarity(
    model: Any, pixels: np.ndarray, found: Sequence[LabelledBox], references: Sequence[Reference]
) -> np.ndarray:
    if model is None:
        raise InputError(
            "pairing by appearance compares pictures; connect a model of Load CLIP Vision, or pair by label."
        )
    height, width = pixels.shape[:2]
    bar = comfy.utils.ProgressBar(len(references) + len(found))

    def seen(part: np.ndarray, mask: np.ndarray) -> np.ndarray:
        bar.update(1)
        return vision.features(model, part, mask, vision.PATCHES)

    rows = [seen(reference.pixels, reference.mask) for reference in references]
    inside = boxes_to_masks([one.box for one in found], width, height)
    columns = [seen(*vision.crop(pixels, mask, one.box)) for one, mask in zip(found, inside, strict=True)]
    return vision.similarities(rows, columns)


def _entry(found: LabelledBox, label: str) -> dict[str, Any]:
    score = {} if found.score is None else {"score": found.score}
    return {**box_entry(found.box, label), **score}


def _report(
    references: Sequence[Reference], found: Sequence[LabelledBox], pairing: Pairing, similarity: np.ndarray | None
) -> str:
    lines = []
    for row, (reference, index) in enumerate(zip(references, pairing.chosen, strict=True)):
        if index is None:
            lines.append(f"{reference.name}: no box")
            continue
        label = f" ({found[index].label})" if found[index].label else ""
        alike = "" if similarity is None else f", similarity {similarity[row, index]:.3f}"
        lines.append(f"{reference.name}: box {index + 1}{label}{alike}")
    if pairing.left_over:
        lines.append("left over: " + ", ".join(f"box {index + 1}" for index in pairing.left_over))
    return "\n".join(lines)


NODES = (ContextGenPairBoxes,)
