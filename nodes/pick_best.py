"""ContextGenPickBest: the pictures of a batch that follow their layout best."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..contextgen_core.errors import InputError
from ..contextgen_core.score.figures import CRITERIA, Scored, merit, rank
from .score import CATEGORY, Scores
from .sockets import naming, schema

NODE = "ContextGenPickBest"


class ContextGenPickBest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Pick Best",
            category=CATEGORY,
            description="Keeps the best pictures of a batch by their scores: draw several seeds, keep the one that "
            "follows the layout.",
            search_aliases=["best of", "select best", "filter batch", "seed", "rank", "contextgen"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures that were scored, in the same order."),
                Scores.Input("scores", tooltip="From ContextGen Score."),
                io.Combo.Input(
                    "criterion",
                    options=list(CRITERIA),
                    default=CRITERIA[0],
                    tooltip="What best means. mIoU and identity: their mean; where only one of them was measured, "
                    "that one. A tie goes to the earlier picture.",
                ),
                io.Int.Input("count", default=1, min=1, max=64, tooltip="How many pictures to keep, best first."),
            ],
            outputs=[
                io.Image.Output("best", display_name="best", tooltip="The pictures kept, best first."),
                io.Int.Output(
                    "index", display_name="index", tooltip="The place of the best one in the batch, counted from 0."
                ),
                io.Float.Output("score", display_name="score", tooltip="The best one's score by the criterion."),
                io.String.Output(
                    "ranking", display_name="ranking", tooltip="All pictures, best first, with their scores."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor, scores: tuple[Scored, ...], criterion: str = CRITERIA[0], count: int = 1
    ) -> io.NodeOutput:
        with naming(NODE, "scores"):
            if len(scores) != len(image):
                raise InputError(
                    f"there are {len(scores)} scores for {len(image)} pictures; connect the pictures that were scored."
                )
            order = rank(scores, criterion)
            values = [merit(scores[index], criterion) for index in order]
        lines = [
            f"{place}. picture {index + 1}: {value:.4f}"
            for place, (index, value) in enumerate(zip(order, values, strict=True), 1)
        ]
        text = f"{criterion}\n" + "\n".join(lines)
        return io.NodeOutput(image[list(order[:count])], order[0], values[0], text, ui={"text": (text,)})


NODES = (ContextGenPickBest,)
