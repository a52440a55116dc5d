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
            category=CATEGORY,
            search_aliases=["best of", "select best", "filter batch", "seed", "rank", "contextgen"],
            inputs=[
                io.Image.Input("image"),
                Scores.Input("scores"),
                io.Combo.Input("criterion", options=list(CRITERIA), default=CRITERIA[0]),
                io.Int.Input("count", default=1, min=1, max=64),
            ],
            outputs=[
                io.Image.Output("best"),
                io.Int.Output("index"),
                io.Float.Output("score"),
                io.String.Output("ranking"),
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
