"""EliGenPatchModel: a FLUX.1 or Qwen-Image model that reads each phrase in its own place."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core.attention import KERNELS
from ..contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from ..contextgen_core.methods.eligen.plan import MAX_STRENGTH
from . import host
from .sockets import check_window, chosen, naming, schema, window

NODE = ELIGEN.node


class EliGenPatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=[
                "regional prompt",
                "attention",
                "entity",
                "flux patch",
                "qwen image",
                "eligen",
                "contextgen",
            ],
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("strength", optional=True, default=1.0, min=0.0, max=MAX_STRENGTH, step=0.05),
                *window(),
                io.Combo.Input("kernel", options=list(KERNELS), default="auto", optional=True),
            ],
            outputs=[io.Model.Output("model_out")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        kernel: str = "auto",
    ) -> io.NodeOutput:
        check_window(NODE, start_percent, end_percent)
        settings = EliGenSettings(strength, start_percent, end_percent, chosen(NODE, "kernel", kernel, KERNELS))
        with naming(NODE, "model"):
            return io.NodeOutput(host.install(model, ELIGEN, settings))
