"""ContextGenConditioning: puts the layout and its pictures into the conditioning."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core import prepare
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
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
            search_aliases=["layout", "regional", "bbox", "multi reference", "identity", "kontext", "contextgen"],
            inputs=[
                io.Conditioning.Input("conditioning"),
                io.Vae.Input("vae"),
                LayoutType.Input("layout"),
                io.Int.Input("batch_size", optional=True, default=1, min=1, max=64),
            ],
            outputs=[io.Conditioning.Output("conditioning_out"), io.Latent.Output("latent")],
        )

    @classmethod
    def execute(cls, conditioning: list[Any], vae: Any, layout: Scene, batch_size: int = 1) -> io.NodeOutput:
        latent = empty_latent(layout, batch_size)
        if not layout.layout.instances:
            return io.NodeOutput(conditioning, {"samples": latent})
        if not any(reference is not None for reference in layout.references):
            raise InputError(
                "the layout has boxes but none is bound to a reference; bind a reference to at least one box.",
                NODE,
                "layout",
            )
        with naming(NODE, "layout"):
            prepared = prepare(layout, CONTEXTGEN.name)
        latents = encode_pictures(NODE, vae, prepared.pictures)
        return io.NodeOutput(host.attach(conditioning, CONTEXTGEN, prepared.plan, latents), {"samples": latent})
