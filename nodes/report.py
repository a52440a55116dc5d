"""ContextGenReport: what a layout looks like on the token grid, and what it costs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from PIL import Image

from ..contextgen_core import prepare
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.methods.contextgen.method import CONTEXTGEN
from ..contextgen_core.methods.contextgen.report import TEXT_TOKENS, ModelSize, draw_layout, measure
from ..contextgen_core.methods.contextgen.settings import Settings
from . import host
from .sockets import LayoutType, naming, preview, schema, to_image
from .text import TEMPLATE_KEY

NODE = "ContextGenReport"


class ContextGenReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout report", "tokens", "flops", "cost", "debug", "contextgen"],
            is_output_node=True,
            inputs=[
                LayoutType.Input("layout"),
                io.Model.Input("model", optional=True),
                io.Conditioning.Input("conditioning", optional=True),
            ],
            outputs=[io.Image.Output("overlay"), io.String.Output("report")],
        )

    @classmethod
    def execute(cls, layout: Scene, model: Any = None, conditioning: list[Any] | None = None) -> io.NodeOutput:
        settings, size = Settings(), ModelSize()
        if model is not None:
            with naming(NODE, "model"):
                backbone = host.family_of(model).backbone
            settings = host.settings_of(model, CONTEXTGEN) or settings
            size = ModelSize(backbone.width, backbone.double, backbone.single)
        with naming(NODE, "layout"):
            plan = prepare(layout, CONTEXTGEN.name).plan
        text = conditioning[0][0].shape[1] if conditioning else TEXT_TOKENS
        lines = [measure(plan, settings, text, size, layout.warnings).as_text(), "", *_notes(model, conditioning)]
        overlay = draw_layout(layout)
        report = "\n".join(lines).strip()
        ui = {"images": [preview(Image.fromarray(overlay))], "text": [report]}
        return io.NodeOutput(to_image(overlay), report, ui=ui)


def _notes(model: Any, conditioning: list[Any] | None) -> list[str]:
    notes = []
    if model is not None and host.settings_of(model, CONTEXTGEN) is None:
        notes.append("warning: the model has not gone through ContextGen Patch Model, so a layout has no effect on it.")
    if conditioning:
        template = conditioning[0][1].get(TEMPLATE_KEY)
        notes.append(f"prompt template: {template or 'unknown (not from ContextGen Text Encode)'}")
    return notes
