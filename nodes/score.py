"""ContextGenScore: whether the pictures follow their layout, and the subjects their references."""

from __future__ import annotations

import json
from typing import Any

import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io

from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.cutout.cutout import fit_mask
from ..contextgen_core.errors import InputError
from ..contextgen_core.input.bounded_json import parse
from ..contextgen_core.layout.box import Box
from ..contextgen_core.layout.foreign_boxes import boxes_from_any
from ..contextgen_core.layout.pairing import boxes_to_masks
from ..contextgen_core.score.colour import colour_right
from ..contextgen_core.score.figures import Answers, Expected, Scored, judge, summarise
from ..contextgen_core.score.results_file import read_answers
from ..contextgen_core.score.table import as_json, chart, instance_table, table
from . import vision
from .sockets import (
    BOX_TYPES,
    FORMS,
    LayoutType,
    boxes_format_input,
    chosen,
    colours_and_alpha,
    naming,
    schema,
    to_bytes,
    to_image,
)

NODE = "ContextGenScore"
CATEGORY = "ContextGen/check"
BEST, ONE_TO_ONE = "best overlap", "one to one"
MAX_DETECTIONS = 1000

Scores = io.Custom("CONTEXTGEN_SCORES")  # tuple[Scored, ...], one for each picture


class ContextGenScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            category=CATEGORY,
            search_aliases=["iou", "evaluate", "metric", "identity score", "mig", "benchmark", "contextgen"],
            inputs=[
                io.Image.Input("image"),
                LayoutType.Input("layout"),
                io.MultiType.Input("boxes", types=BOX_TYPES, optional=True),
                boxes_format_input(),
                io.Float.Input("threshold", default=0.5, min=0.01, max=1.0, step=0.01, optional=True),
                io.Combo.Input("matching", options=[BEST, ONE_TO_ONE], default=BEST, optional=True),
                io.ClipVision.Input("clip_vision", optional=True),
                io.Combo.Input("features", options=vision.FEATURES, default=vision.PATCHES, optional=True),
                io.Mask.Input("masks", optional=True),
                io.Boolean.Input("check_colour", default=False, optional=True),
                io.String.Input("answers", multiline=True, default="", optional=True),
            ],
            outputs=[
                Scores.Output("scores"),
                io.String.Output("report"),
                io.Image.Output("chart"),
                io.String.Output("json"),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        layout: Scene,
        boxes: Any = None,
        boxes_format: str = "auto",
        threshold: float = 0.5,
        matching: str = BEST,
        clip_vision: Any = None,
        features: str = vision.PATCHES,
        masks: torch.Tensor | None = None,
        check_colour: bool = False,
        answers: str = "",
    ) -> io.NodeOutput:
        chosen(NODE, "boxes_format", boxes_format, list(FORMS))
        chosen(NODE, "matching", matching, [BEST, ONE_TO_ONE])
        chosen(NODE, "features", features, vision.FEATURES)
        pictures = [colours_and_alpha(picture)[0] for picture in image]
        told = _answers(answers, len(pictures), len(layout.layout.instances))
        with naming(NODE, "clip_vision"):
            wanted = _wanted(layout, clip_vision, features)
        bar = comfy.utils.ProgressBar(len(pictures))
        scores: list[Scored] = []
        for number, pixels in enumerate(pictures):
            height, width = pixels.shape[:2]
            placed = [one.region for one in layout.layout.scaled_to(width, height).instances]
            with naming(NODE, "masks"):
                inside = _inside(masks, number, len(pictures), placed, width, height)
            expected = [
                Expected(
                    box,
                    one.label,
                    colour_right(pixels, mask >= 128, one.label) if check_colour else None,
                    told[number][index] if told else None,
                    _identity(clip_vision, features, pixels, mask, box, wanted[index]),
                )
                for index, (one, box, mask) in enumerate(zip(layout.layout.instances, placed, inside, strict=True))
            ]
            with naming(NODE, "boxes"):
                found = None
                if boxes is not None:
                    found = boxes_from_any(
                        boxes, width, height, format=FORMS[boxes_format], frame=number, limit=MAX_DETECTIONS
                    )
                scores.append(
                    judge(expected, found, name=str(number + 1), threshold=threshold, one_to_one=matching == ONE_TO_ONE)
                )
            bar.update(1)
        total = summarise(scores)
        report = table([("all", total)]) + "\n\n" + instance_table(scores)
        document = {"all": as_json(total), "images": [as_json(one) for one in scores]}
        picture = to_image(chart(scores, threshold))
        return io.NodeOutput(tuple(scores), report, picture, json.dumps(document), ui={"text": (report,)})


def _answers(text: str, pictures: int, instances: int) -> list[list[Answers | None]] | None:
    if not text.strip():
        return None
    with naming(NODE, "answers"):
        rows = parse(text, "the answers").value
        if isinstance(rows, list) and pictures == 1 and not any(isinstance(row, list) for row in rows):
            rows = [rows]  # a single picture needs no list around it
        if not isinstance(rows, list) or len(rows) != pictures or not all(isinstance(row, list) for row in rows):
            raise InputError(f"the answers are not one list for each of {pictures} pictures; give a list of lists.")
        for number, row in enumerate(rows, 1):
            if len(row) != instances:
                raise InputError(
                    f"picture {number} has {len(row)} answers for {instances} boxes; give one for each box, or null."
                )
        return [
            [read_answers(one, f"picture {n}, box {b}") for b, one in enumerate(row, 1)]
            for n, row in enumerate(rows, 1)
        ]


def _wanted(layout: Scene, model: Any, kind: str) -> list[np.ndarray | None]:
    """The features of each instance's reference; None where there is no model or no reference."""
    if model is None:
        return [None] * len(layout.references)
    return [
        None if reference is None else vision.features(model, reference.pixels, reference.mask, kind)
        for reference in layout.references
    ]


def _inside(
    masks: torch.Tensor | None, number: int, pictures: int, boxes: list[Box], width: int, height: int
) -> list[np.ndarray]:
    """One mask uint8 (H, W) for each box of one picture: those given, or the boxes themselves."""
    if masks is None or not boxes:
        return list(boxes_to_masks(boxes, width, height))
    if masks.ndim == 2:
        masks = masks[None]
    if len(masks) not in (len(boxes), len(boxes) * pictures):
        raise InputError(
            f"there are {len(masks)} masks for {len(boxes)} boxes in {pictures} pictures; give one for each box."
        )
    first = number * len(boxes) if len(masks) == len(boxes) * pictures else 0
    return [fit_mask(to_bytes(mask), width, height) for mask in masks[first : first + len(boxes)]]


def _identity(
    model: Any, kind: str, pixels: np.ndarray, mask: np.ndarray, box: Box, wanted: np.ndarray | None
) -> float | None:
    if wanted is None:
        return None
    return vision.cosine(vision.features(model, *vision.crop(pixels, mask, box), kind), wanted)


NODES = (ContextGenScore,)
