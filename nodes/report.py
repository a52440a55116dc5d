"""ContextGenReport: what a layout looks like on the token grid, and what it costs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from PIL import Image

from ..contextgen_core import prepare
from ..contextgen_core.backbones import Backbone
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.methods.contextgen.method import CONTEXTGEN
from ..contextgen_core.methods.contextgen.report import TEXT_TOKENS, ModelSize, draw_layout, measure
from ..contextgen_core.methods.contextgen.settings import Settings
from ..contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from ..contextgen_core.methods.instance_assemble.report import describe
from ..contextgen_core.methods.instance_assemble.step import AssembleSettings
from . import host
from .assemble_conditioning import PHRASES_KEY
from .sockets import LayoutType, naming, preview, schema, to_image
from .text import TEMPLATE_KEY

NODE = "ContextGenReport"
FLUX_1 = Backbone("FLUX.1", 19, 38, 3072)


class ContextGenReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Report",
            description="Shows boxes, order and token grid of a layout, and says what a step costs and why.",
            search_aliases=["layout report", "tokens", "flops", "cost", "debug", "contextgen"],
            is_output_node=True,
            inputs=[
                LayoutType.Input("layout", display_name="layout", tooltip="From Layout Composer."),
                io.Model.Input(
                    "model",
                    display_name="model",
                    optional=True,
                    tooltip="From ContextGen Patch Model: its size and settings count. Otherwise FLUX.1 with the "
                    "defaults.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    display_name="conditioning",
                    optional=True,
                    tooltip="From ContextGen Text Encode: how many text tokens there are and which template was used.",
                ),
            ],
            outputs=[
                io.Image.Output("overlay", display_name="overlay", tooltip="The composite with boxes, order and grid."),
                io.String.Output("report", display_name="report", tooltip="Tokens, cost and warnings as text."),
            ],
        )

    @classmethod
    def execute(cls, layout: Scene, model: Any = None, conditioning: list[Any] | None = None) -> io.NodeOutput:
        backbone = FLUX_1
        if model is not None:
            with naming(NODE, "model"):
                backbone = host.family_of(model).backbone
        text = conditioning[0][0].shape[1] if conditioning else TEXT_TOKENS
        phrases = _phrases(model, conditioning, backbone, text)
        lines = []
        if phrases is None or any(reference is not None for reference in layout.references):
            settings = (host.settings_of(model, CONTEXTGEN) if model is not None else None) or Settings()
            size = ModelSize(backbone.width, backbone.double, backbone.single)
            with naming(NODE, "layout"):
                plan = prepare(layout, CONTEXTGEN.name).plan
            lines = [
                measure(plan, settings, text, size, layout.warnings).as_text(),
                "",
                *_notes(model, conditioning),
                "",
            ]
        lines += [phrases] if phrases else []
        overlay = draw_layout(layout)
        report = "\n".join(lines).strip()
        ui = {"images": [preview(Image.fromarray(overlay))], "text": [report]}
        return io.NodeOutput(to_image(overlay), report, ui=ui)


def _phrases(model: Any, conditioning: list[Any] | None, backbone: Backbone, text: int) -> str | None:
    """What the phrases in a conditioning amount to, None where it has none."""
    plan = host.plan_of(conditioning[0][1], INSTANCE_ASSEMBLE) if conditioning else None
    if plan is None or not conditioning:
        return None
    settings = host.settings_of(model, INSTANCE_ASSEMBLE) if model is not None else None
    told = describe(plan, conditioning[0][1].get(PHRASES_KEY, ()), settings or AssembleSettings(), backbone, text)
    if model is not None and settings is None:
        told += (
            "\nwarning: the model has not gone through InstanceAssemble Patch Model, so phrases have no effect on it."
        )
    return told


def _notes(model: Any, conditioning: list[Any] | None) -> list[str]:
    notes = []
    if model is not None and host.settings_of(model, CONTEXTGEN) is None:
        notes.append("warning: the model has not gone through ContextGen Patch Model, so a layout has no effect on it.")
    if conditioning:
        template = conditioning[0][1].get(TEMPLATE_KEY)
        notes.append(f"prompt template: {template or 'unknown (not from ContextGen Text Encode)'}")
    return notes
