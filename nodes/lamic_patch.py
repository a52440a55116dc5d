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
            display_name="LAMIC Patch Model",
            description=(
                "A FLUX.1-Kontext model that follows the layout of LAMIC Conditioning, without any adapter. Without "
                "such a layout it is exactly the model that came in."
            ),
            search_aliases=["layout", "attention", "regional", "training-free", "kontext", "lamic", "contextgen"],
            inputs=[
                io.Model.Input(
                    "model",
                    display_name="model",
                    tooltip="FLUX.1-Kontext-dev in bf16, fp16, fp8 or GGUF, without the ContextGen adapter.",
                ),
                io.Float.Input(
                    "first_ratio",
                    display_name="first stage",
                    optional=True,
                    default=FIRST_RATIO,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the steps, rounded down, in which each box sees its reference and itself alone. "
                    "0.05 of 20 steps is one step; with fewer steps it is none.",
                ),
                io.Boolean.Input(
                    "masked",
                    display_name="masks",
                    optional=True,
                    default=True,
                    tooltip="Off: everything sees everything, the authors' baseline for comparison.",
                ),
                io.Combo.Input(
                    "kernel",
                    options=list(KERNELS),
                    default="auto",
                    display_name="kernel",
                    optional=True,
                    tooltip="How attention is computed; all give the same picture. auto is the fast choice, dense the "
                    "slow one for comparison.",
                ),
            ],
            outputs=[io.Model.Output("model_out", display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def execute(
        cls, model: Any, first_ratio: float = FIRST_RATIO, masked: bool = True, kernel: str = "auto"
    ) -> io.NodeOutput:
        settings = LamicSettings(first_ratio, masked, chosen(NODE, "kernel", kernel, KERNELS))
        with naming(NODE, "model"):
            return io.NodeOutput(host.install(model, LAMIC, settings))
