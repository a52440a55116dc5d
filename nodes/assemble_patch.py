"""InstanceAssemblePatchModel: teaches FLUX.1 or Stable Diffusion 3 to follow the phrases in its conditioning."""

from __future__ import annotations

from typing import Any

import comfy.ops
from comfy_api.latest import io

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
            display_name="InstanceAssemble Patch Model",
            description=(
                "A model that follows the phrases in its conditioning. Without phrases, or with scale 0, it is exactly "
                "the model that came in; LoRAs on it stay as they are. The order of this and other patching nodes does "
                "not matter."
            ),
            search_aliases=["layout", "grounding", "regional prompt", "phrase boxes", "instanceassemble", "bbox"],
            inputs=[
                io.Model.Input(
                    "model",
                    display_name="model",
                    tooltip="FLUX.1-dev or schnell, or Stable Diffusion 3 medium. Kontext and Krea have FLUX.1's form, "
                    "but the weights were not trained for them.",
                ),
                AssembleType.Input("weights", display_name="weights", tooltip="From InstanceAssemble Loader."),
                io.Float.Input(
                    "scale",
                    display_name="scale",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=MAX_SCALE,
                    step=0.05,
                    tooltip="Of what the boxes add. 1 = as trained, 0 = exactly the model that came in.",
                ),
                io.Float.Input(
                    "grounding_ratio",
                    display_name="grounding ratio",
                    optional=True,
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the sampling steps, from the first, in which phrases act. The authors use 0.3; "
                    "more holds boxes tighter and loses detail.",
                ),
                io.Float.Input(
                    "mlp_strength",
                    display_name="mlp strength",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Of the second MLP, which acts on the whole picture, also outside the boxes. The weights "
                    "were trained with 1.",
                ),
                io.Combo.Input(
                    "overlap",
                    options=list(OVERLAPS),
                    default=OVERLAPS[0],
                    display_name="overlap",
                    optional=True,
                    tooltip="Where boxes overlap. average: as trained. front: the box that is in front in the "
                    "layout alone.",
                ),
                io.Boolean.Input(
                    "round_positions",
                    display_name="round positions",
                    optional=True,
                    default=False,
                    tooltip="Round the boxes' coordinates to bfloat16 as the authors' pipeline does. A very small "
                    "difference.",
                ),
            ],
            outputs=[io.Model.Output("model_out", display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        weights: AssembleFile,
        scale: float = 1.0,
        grounding_ratio: float = 0.3,
        mlp_strength: float = 1.0,
        overlap: str = OVERLAPS[0],
        round_positions: bool = False,
    ) -> io.NodeOutput:
        settings = AssembleSettings(
            scale=bounded(NODE, "scale", scale, 0.0, MAX_SCALE),
            ratio=bounded(NODE, "grounding_ratio", grounding_ratio, 0.0, 1.0),
            mlp=bounded(NODE, "mlp_strength", mlp_strength, 0.0, 2.0),
            front=chosen(NODE, "overlap", overlap, OVERLAPS) == "front",
            rounded=round_positions,
        )
        with naming(NODE, "model"):
            backbone = host.family_of(model).backbone
        with naming(NODE, "weights"):
            check_fits(weights, backbone)
        modules = weights.build(comfy.ops.manual_cast.Linear)
        return io.NodeOutput(host.install(model, INSTANCE_ASSEMBLE, settings, modules))
