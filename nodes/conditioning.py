"""ContextGenConditioning: puts the layout and its pictures into the conditioning."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core import prepare
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.methods.contextgen.method import CONTEXTGEN
from . import host
from .pictures import empty_latent, encode_pictures
from .sockets import LayoutType, naming, schema

NODE = CONTEXTGEN.source


class ContextGenConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Conditioning",
            description=(
                "Encodes the layout's composite and its references and puts them, with every position, into the "
                "conditioning. The model must go through ContextGen Patch Model, or the layout has no effect."
            ),
            search_aliases=["layout", "regional", "bbox", "multi reference", "identity", "kontext", "contextgen"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="From ContextGen Text Encode, or any FLUX text encoding.",
                ),
                io.Vae.Input(
                    "vae",
                    display_name="vae",
                    tooltip="FLUX.1's VAE (ae.safetensors): 16 channels, an eighth of the size.",
                ),
                LayoutType.Input("layout", display_name="layout", tooltip="From Layout Composer."),
                io.Int.Input(
                    "batch_size",
                    display_name="batch size",
                    optional=True,
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many pictures to make at once, all with this layout.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning_out",
                    display_name="conditioning",
                    tooltip="For FluxGuidance, then the sampler's positive input.",
                ),
                io.Latent.Output(
                    "latent", display_name="latent", tooltip="Empty latent of the layout's size, for the sampler."
                ),
            ],
        )

    @classmethod
    def execute(cls, conditioning: list[Any], vae: Any, layout: Scene, batch_size: int = 1) -> io.NodeOutput:
        latent = empty_latent(layout, batch_size)
        if not layout.layout.instances:
            return io.NodeOutput(conditioning, {"samples": latent})
        with naming(NODE, "layout"):
            prepared = prepare(layout, CONTEXTGEN.name)
        latents = encode_pictures(NODE, vae, prepared.pictures)
        return io.NodeOutput(host.attach(conditioning, CONTEXTGEN, prepared.plan, latents), {"samples": latent})
