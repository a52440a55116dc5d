"""EliGenConditioning: the labels of the layout, each bound to its box or mask."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..contextgen_core import prepare
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.eligen.method import ELIGEN, TEXT_TOKENS, EliGenOptions
from ..contextgen_core.methods.eligen.plan import PhraseReading
from . import host
from .eligen_text import encode_phrases, padded, without_padding
from .phrases import box_lines
from .pictures import empty_latent
from .sockets import LayoutType, chosen, naming, schema, to_bytes, warned

NODE = ELIGEN.source
PHRASES = LABELS, PROMPT = "labels", "prompt"


class EliGenConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["regional prompt", "area prompt", "entity", "mask prompt", "eligen", "contextgen"],
            inputs=[
                io.Conditioning.Input("conditioning"),
                io.Clip.Input("clip"),
                LayoutType.Input("layout"),
                io.Mask.Input("masks", optional=True),
                io.Combo.Input("phrases", options=list(PHRASES), default=LABELS, optional=True),
                io.Int.Input("text_tokens", optional=True, default=TEXT_TOKENS, min=16, max=TEXT_TOKENS),
                io.Int.Input("batch_size", optional=True, default=1, min=1, max=64),
                io.String.Input("box_options", optional=True, multiline=True, default=""),
            ],
            outputs=[io.Conditioning.Output("conditioning_out"), io.Latent.Output("latent")],
        )

    @classmethod
    def execute(
        cls,
        conditioning: list[Any],
        clip: Any,
        layout: Scene,
        masks: torch.Tensor | None = None,
        phrases: str = LABELS,
        text_tokens: int = TEXT_TOKENS,
        batch_size: int = 1,
        box_options: str = "",
    ) -> io.NodeOutput:
        chosen(NODE, "phrases", phrases, PHRASES)
        latent = {"samples": empty_latent(layout, batch_size)}
        if not layout.layout.instances:
            return io.NodeOutput(conditioning, latent)
        with naming(NODE, "box_options"):
            options = EliGenOptions(_masks(layout, masks), readings=_readings(box_options))
        with naming(NODE, "layout"):
            prepared = prepare(layout, ELIGEN.name, options)
        told = warned(NODE, prepared.warnings)
        if not prepared.phrases:
            return io.NodeOutput(conditioning, latent, ui=told)
        bound: list[Any] = []
        clip = padded(NODE, clip, text_tokens)
        for entry in conditioning:
            embedding, values = without_padding(NODE, *entry)
            if phrases == PROMPT:
                vectors = [embedding] * len(prepared.phrases)
            else:
                vectors = encode_phrases(NODE, clip, prepared.phrases, text_tokens, embedding.shape[-1])
            plan = prepared.plan.with_lengths([vector.shape[1] for vector in vectors])
            joined = {"phrases": torch.cat(vectors, dim=1)}
            bound += host.attach([[embedding, values]], ELIGEN, plan, [], joined)
        return io.NodeOutput(bound, latent, ui=told)


def _masks(scene: Scene, masks: torch.Tensor | None) -> dict[int, Any]:
    """The masks that are not empty, by the number of their box."""
    if masks is None:
        return {}
    pictures = to_bytes(masks if masks.ndim == 3 else masks[None])
    boxes, (width, height) = len(scene.layout.instances), (scene.layout.width, scene.layout.height)
    if len(pictures) != boxes:
        raise InputError(
            f"there are {len(pictures)} masks for {boxes} boxes; give one mask for each box, empty where the box's"
            " rectangle is to stay.",
            NODE,
            "masks",
        )
    if pictures.shape[1:] != (height, width):
        raise InputError(
            f"the masks are {pictures.shape[2]} x {pictures.shape[1]} pixels, the layout is {width} x {height}; give"
            " masks of the layout's size.",
            NODE,
            "masks",
        )
    return {number: picture for number, picture in enumerate(pictures) if picture.any()}


def _readings(text: str) -> dict[int, PhraseReading]:
    """How each box's phrase is read, by the box's number from 0."""
    return {number - 1: PhraseReading(*values) for number, values in box_lines(text).items()}
