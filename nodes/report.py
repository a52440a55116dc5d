"""ContextGenReport: what a layout looks like on the token grid, and what it costs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from PIL import Image

from ..contextgen_core import prepare
from ..contextgen_core.backbones import Backbone
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
from ..contextgen_core.layout.layout import box_name
from ..contextgen_core.methods.boundary import Bound
from ..contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from ..contextgen_core.methods.instance_assemble.report import describe, step_cost
from ..contextgen_core.methods.instance_assemble.step import AssembleSettings
from ..contextgen_core.methods.registry import methods
from ..contextgen_core.report import FLUX1, TEXT_TOKENS, draw_layout, flop, measure
from . import host
from .assemble_conditioning import PHRASES_KEY
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
        backbone, on_model = FLUX1, ()
        if model is not None:
            with naming(NODE, "model"):
                backbone = host.family_of(model).backbone
            on_model = host.methods_of(model)
        text = conditioning[0][0].shape[1] if conditioning else TEXT_TOKENS
        phrases = _phrases(model, conditioning, backbone, text)
        measured = [(method, settings) for method, settings in on_model if method is not INSTANCE_ASSEMBLE]
        if not measured and (phrases is None or any(reference is not None for reference in layout.references)):
            measured = [(default, default.default_settings()) for default in methods()[:1]]
        parts, bounds = [], []
        for method, settings in measured:
            plan, warnings = host.plan_of(conditioning[0][1], method) if conditioning else None, ()
            if plan is None and method.needs_text:
                parts.append((method.label, f"{method.label}: connect what comes out of {method.source} for its cost."))
                continue
            if plan is None:
                with naming(NODE, "layout"):
                    prepared = prepare(layout, method.name)
                plan, warnings = prepared.plan, prepared.warnings
            bounds.append(Bound(method, plan, settings))
            told = measure(bounds[-1], text, backbone, (*layout.warnings, *warnings))
            parts.append((method.label, told.as_text()))
        parts += _together(bounds, text, backbone, model, conditioning)
        lines = [text for _, text in parts] if len(parts) == 1 else [f"{label}\n{text}" for label, text in parts]
        if lines:
            lines.append("\n".join(_notes(model is None or bool(on_model), conditioning)))
        if model is not None and (doubt := host.shift_doubt(model, layout.layout.width, layout.layout.height)):
            lines.append(f"warning: {doubt}")
        if conditioning and (told_of := _words(layout, conditioning)):
            lines.append(told_of)
        report = "\n\n".join(part for part in (*lines, phrases or "") if part).strip()
        overlay = draw_layout(layout)
        ui = {"images": [preview(Image.fromarray(overlay))], "text": [report]}
        return io.NodeOutput(to_image(overlay), report, ui=ui)


def _together(
    bounds: list[Bound], text: int, backbone: Backbone, model: Any, conditioning: list[Any] | None
) -> list[tuple[str, str]]:
    """What methods cost that are on one model: those that decide about tokens, and the layout steps besides."""
    plan = host.plan_of(conditioning[0][1], INSTANCE_ASSEMBLE) if conditioning else None
    settings = host.settings_of(model, INSTANCE_ASSEMBLE) if model is not None else None
    steps = plan is not None and settings is not None
    if not bounds or (len(bounds) == 1 and not steps):
        return []
    labels = [bound.method.label for bound in bounds] + [INSTANCE_ASSEMBLE.label] * steps
    try:
        told = measure(bounds, text, backbone)
    except InputError as error:
        return [(" and ".join(labels), f"warning: {error.message}")]
    lines = [told.as_text()] if len(bounds) > 1 else []
    if plan is not None and settings is not None:
        whole = told.ours.step + step_cost(plan, settings, backbone, text).layout
        lines.append(f"whole step with the layout steps: {flop(whole)}")
    return [(f"{' and '.join(labels)} together", "\n".join(lines))]


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


def _words(scene: Scene, conditioning: list[Any]) -> str:
    """Which boxes' words the conditioning's methods use, as far as their plans tell; empty where no box has any."""
    names = [box_name(n, box.id) for n, box in enumerate(scene.layout.instances, 1) if box.label.strip()]
    plans = [(method, host.plan_of(conditioning[0][1], method)) for method in methods()]
    using = [(method.label, method.worded(plan)) for method, plan in plans if plan is not None]
    used = {name for _, theirs in using for name in theirs}
    left = [name for name in names if name not in used]
    lines = [f"words used by {label}: {', '.join(theirs)}" for label, theirs in using if theirs]
    if left and not any(m.joins_text or m.needs_text for m, plan in plans if plan is not None):
        lines.append(f"words not used (for the eye alone): {', '.join(left)}")
    return "\n".join(lines)


def _notes(follows: bool, conditioning: list[Any] | None) -> list[str]:
    notes = []
    if not follows:
        notes.append("warning: the model has not gone through ContextGen Patch Model, so a layout has no effect on it.")
    if conditioning:
        template = conditioning[0][1].get(TEMPLATE_KEY)
        notes.append(f"prompt template: {template or 'unknown (not from ContextGen Text Encode)'}")
    return notes
