"""InstanceAssembleConditioning: puts the boxes' phrases into the conditioning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..contextgen_core import prepare
from ..contextgen_core.backbones.flux import pack
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.boundary import CONTENT
from ..contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from ..contextgen_core.methods.instance_assemble.plan import CONTENTS, BoxOptions, PhraseOptions
from ..contextgen_core.methods.instance_assemble.report import BoundPhrase
from ..contextgen_core.methods.instance_assemble.step import PHRASES
from . import host
from .phrases import box_lines, pool_phrases
from .pictures import empty_latent, encode_pictures
from .sockets import LayoutType, chosen, naming, schema, to_bytes

NODE = INSTANCE_ASSEMBLE.source
PHRASES_KEY = "instance_assemble_phrases"  # in the conditioning's values, for the report


class InstanceAssembleConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout", "grounding", "regional prompt", "phrase boxes", "instanceassemble", "bbox"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                ),
                io.Clip.Input(
                    "clip",
                ),
                LayoutType.Input(
                    "layout",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                ),
                io.String.Input(
                    "box_options",
                    optional=True,
                    multiline=True,
                    default="",
                ),
                io.Int.Input(
                    "batch_size",
                    optional=True,
                    default=1,
                    min=1,
                    max=64,
                ),
                io.Combo.Input(
                    "content",
                    options=list(CONTENTS),
                    default=CONTENTS[0],
                    optional=True,
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning_out",
                ),
                io.Conditioning.Output(
                    "negative_out",
                ),
                io.Latent.Output(
                    "latent",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        conditioning: list[Any],
        clip: Any,
        layout: Scene,
        negative: list[Any] | None = None,
        masks: torch.Tensor | None = None,
        box_options: str = "",
        batch_size: int = 1,
        content: str = CONTENTS[0],
        vae: Any = None,
    ) -> io.NodeOutput:
        latent = {"samples": empty_latent(layout, batch_size)}
        negative = _emptied(conditioning) if negative is None else negative
        if not layout.layout.instances:
            return io.NodeOutput(conditioning, negative, latent)
        content = chosen(NODE, "content", content, CONTENTS)
        with naming(NODE, "box_options"):
            boxes = {number: BoxOptions(*values) for number, values in box_lines(box_options).items()}
            options = PhraseOptions(boxes, _masks(masks, len(layout.layout.instances)), content=content)
        with naming(NODE, "layout"):
            prepared = prepare(layout, INSTANCE_ASSEMBLE.name, options)
        plan, phrases, vectors = prepared.plan, (), {}
        if prepared.phrases:
            pooled = pool_phrases(NODE, clip, prepared.phrases)
            plan = replace(plan, pooled=pooled.vectors.shape[-1])
            vectors[PHRASES] = pooled.vectors
            phrases = tuple(BoundPhrase(text, cut) for text, cut in zip(prepared.phrases, pooled.cut, strict=True))
        if prepared.content:
            latents = encode_pictures(NODE, vae, prepared.content)
            vectors[CONTENT] = torch.cat([pack(latent) for latent in latents], dim=1)
        positive, negative = (
            [
                [embedding, {**values, PHRASES_KEY: phrases}]
                for embedding, values in host.attach(given, INSTANCE_ASSEMBLE, plan, [], vectors)
            ]
            for given in (conditioning, negative)
        )
        lines = [*prepared.warnings, *(f"CLIP reads only the start of: {p.text[:60]}" for p in phrases if p.cut)]
        return io.NodeOutput(positive, negative, latent, ui={"text": lines} if lines else None)


def _emptied(conditioning: list[Any]) -> list[Any]:
    """A conditioning of zeros in the form of another, for samplers without guidance, which do not read it."""
    return [
        [
            torch.zeros_like(embedding),
            {
                k: torch.zeros_like(v) if k == "pooled_output" and isinstance(v, torch.Tensor) else v
                for k, v in values.items()
            },
        ]
        for embedding, values in conditioning
    ]


def _masks(masks: torch.Tensor | None, boxes: int) -> dict[int, Any]:
    if masks is None:
        return {}
    masks = masks.reshape(-1, *masks.shape[-2:])
    if len(masks) > boxes:
        raise InputError(
            f"there are {len(masks)} masks for {boxes} boxes; give at most one for each box.", NODE, "masks"
        )
    return {number: to_bytes(mask) for number, mask in enumerate(masks, 1) if bool((mask > 0.5).any())}
