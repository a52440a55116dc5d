"""LAMICPatchModel: a FLUX.1 model that follows LAMIC's layouts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core.attention import KERNELS
from ..contextgen_core.methods.lamic.method import FIRST_RATIO, LAMIC, LamicSettings
from . import host
from .sockets import chosen, naming, schema

NODE = LAMIC.node


class LAMICPatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout", "attention", "regional", "training-free", "kontext", "lamic", "contextgen"],
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("first_ratio", optional=True, default=FIRST_RATIO, min=0.0, max=1.0, step=0.01),
                io.Boolean.Input("masked", optional=True, default=True),
                io.Combo.Input("kernel", options=list(KERNELS), default="auto", optional=True),
            ],
            outputs=[io.Model.Output("model_out")],
        )

    @classmethod
    def execute(
        cls, model: Any, first_ratio: float = FIRST_RATIO, masked: bool = True, kernel: str = "auto"
    ) -> io.NodeOutput:
        settings = LamicSettings(first_ratio, masked, chosen(NODE, "kernel", kernel, KERNELS))
        with naming(NODE, "model"):
            return io.NodeOutput(host.install(model, LAMIC, settings))
