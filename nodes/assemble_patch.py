"""InstanceAssemblePatchModel: teaches FLUX.1 or Stable Diffusion 3 to follow the phrases in its conditioning."""

from __future__ import annotations

from typing import Any

import comfy.ops
from comfy_api.latest import io

from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.instance_assemble.files import AssembleFile, check_fits
from ..contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE, MAX_SCALE
from ..contextgen_core.methods.instance_assemble.step import AssembleSettings
from . import host
from .sockets import AssembleType, bounded, chosen, naming, schema

NODE = INSTANCE_ASSEMBLE.node
OVERLAPS = ("average", "front")


class InstanceAssemblePatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout", "grounding", "regional prompt", "phrase boxes", "instanceassemble", "bbox"],
            inputs=[
                io.Model.Input(
                    "model",
                ),
                AssembleType.Input(
                    "weights",
                ),
                io.Float.Input(
                    "scale",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=MAX_SCALE,
                    step=0.05,
                ),
                io.Float.Input(
                    "grounding_ratio",
                    optional=True,
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                ),
                io.Float.Input(
                    "mlp_strength",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                ),
                io.Combo.Input(
                    "overlap",
                    options=list(OVERLAPS),
                    default=OVERLAPS[0],
                    optional=True,
                ),
                io.Boolean.Input(
                    "round_positions",
                    optional=True,
                    default=False,
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model_out",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        weights: AssembleFile | None,
        scale: float = 1.0,
        grounding_ratio: float = 0.3,
        mlp_strength: float = 1.0,
        overlap: str = OVERLAPS[0],
        round_positions: bool = False,
    ) -> io.NodeOutput:
        if weights is None:
            raise InputError("there are no weights; connect those of InstanceAssembleLoader.", NODE, "weights")
        settings = AssembleSettings(
            scale=bounded(NODE, "scale", scale, 0.0, MAX_SCALE),
            ratio=bounded(NODE, "grounding_ratio", grounding_ratio, 0.0, 1.0),
            mlp=bounded(NODE, "mlp_strength", mlp_strength, 0.0, 2.0),
            front=chosen(NODE, "overlap", overlap, OVERLAPS) == "front",
            rounded=round_positions,
            pictures=weights.pictures,
        )
        with naming(NODE, "model"):
            backbone = host.family_of(model).backbone
        with naming(NODE, "weights"):
            check_fits(weights, backbone)
        modules = weights.build(comfy.ops.manual_cast.Linear)
        return io.NodeOutput(host.install(model, INSTANCE_ASSEMBLE, settings, modules))
