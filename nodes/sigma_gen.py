"""SIGMA-GEN's nodes: the control pictures, the conditioning that carries them, and the model that reads them."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..contextgen_core import prepare
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
from ..contextgen_core.layout.tokens import TOKEN
from ..contextgen_core.lora.adapter import load_adapter
from ..contextgen_core.lora.switched import SwitchedAdapter
from ..contextgen_core.methods.sigma_gen.control import Cell
from ..contextgen_core.methods.sigma_gen.method import (
    GUIDANCES,
    ORDERS,
    SCOPES,
    SHAPES,
    SIGMA_GEN,
    TIMESTEPS,
    ControlOptions,
    Plan,
    Settings,
    plan_of,
)
from . import host
from .adapter import NONE, adapter_file, adapter_files, apply_adapter, described, fitting
from .pictures import CHANNELS, encode_pictures
from .sockets import CATEGORY as ROOT
from .sockets import LayoutType, chosen, naming, preview, schema, to_bytes, to_image

log = logging.getLogger("contextgen")

CATEGORY = f"{ROOT}/SIGMA-GEN"
CONTROL = "SigmaGenControlPictures"
NEAR = ("bright", "dark")
DEPTHS = ("regions", "whole picture")
SHOWN = 2  # routing planes are shown so many times brighter than they are: ten subjects still differ


class SigmaGenControlPictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=CONTROL,
            category=CATEGORY,
            search_aliases=["sigma-gen", "routing", "identity", "depth", "regional", "multi subject", "mask"],
            inputs=[
                LayoutType.Input("layout"),
                io.Combo.Input("shape", options=list(SHAPES), optional=True),
                io.Mask.Input("masks", optional=True),
                io.Image.Input("depth", optional=True),
                io.Combo.Input("depth_near", options=list(NEAR), optional=True),
                io.Combo.Input("depth_area", options=list(DEPTHS), optional=True),
                io.Combo.Input("order", options=list(ORDERS), optional=True),
                *(
                    io.Int.Input(f"cell_{side}", optional=True, default=512, min=64, max=2048, step=TOKEN)
                    for side in ("width", "height")
                ),
            ],
            outputs=[
                io.Image.Output("identities"),
                io.Image.Output("control"),
                io.String.Output("report"),
            ],
        )

    @classmethod
    def execute(
        cls,
        layout: Scene,
        shape: str = "box",
        masks: torch.Tensor | None = None,
        depth: torch.Tensor | None = None,
        depth_near: str = NEAR[0],
        depth_area: str = DEPTHS[0],
        order: str = ORDERS[0],
        cell_width: int = 512,
        cell_height: int = 512,
    ) -> io.NodeOutput:
        chosen(CONTROL, "shape", shape, tuple(SHAPES))
        chosen(CONTROL, "depth_near", depth_near, NEAR)
        chosen(CONTROL, "order", order, ORDERS)
        for name, value in (("cell_width", cell_width), ("cell_height", cell_height)):
            if value % TOKEN:
                raise InputError(f"it is {value}; give a multiple of {TOKEN}.", CONTROL, name)
        options = ControlOptions(
            cell=Cell(cell_width, cell_height),
            shape=shape,
            masks=None if masks is None else to_bytes(masks if masks.ndim == 3 else masks[None]) >= 128,
            depth=None if depth is None else _depth(depth, depth_near),
            whole=chosen(CONTROL, "depth_area", depth_area, DEPTHS) == DEPTHS[1],
            order=order,
        )
        with naming(CONTROL, "layout"):
            made = prepare(layout, SIGMA_GEN.name, options)
        for warning in made.warnings:
            log.warning("%s: %s", CONTROL, warning)
        stack, control = made.pictures
        report = "\n".join([_tokens(made.plan), *(f"warning: {warning}" for warning in made.warnings)])
        shown = [stack, *(_shown(control[..., plane], SHOWN if plane < 2 else 1) for plane in range(3))]
        ui = {"images": [preview(Image.fromarray(np.ascontiguousarray(one))) for one in shown], "text": (report,)}
        return io.NodeOutput(to_image(stack), to_image(control), report, ui=ui)


class SigmaGenConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=SIGMA_GEN.source,
            category=CATEGORY,
            search_aliases=["sigma-gen", "identity", "routing", "kontext", "multi subject"],
            inputs=[
                io.Conditioning.Input("conditioning"),
                io.Vae.Input("vae"),
                io.Image.Input("identities"),
                io.Image.Input("control"),
                io.Int.Input("batch_size", optional=True, default=1, min=1, max=64),
            ],
            outputs=[
                io.Conditioning.Output("conditioning_out"),
                io.Latent.Output("latent"),
            ],
        )

    @classmethod
    def execute(
        cls,
        conditioning: list[Any],
        vae: Any,
        identities: torch.Tensor,
        control: torch.Tensor,
        batch_size: int = 1,
    ) -> io.NodeOutput:
        node = SIGMA_GEN.source
        pictures = (_rgb(identities, node, "identities"), _rgb(control, node, "control"))
        with naming(node, "control"):
            plan = plan_of(*pictures)
        latents = encode_pictures(node, vae, pictures)
        empty = torch.zeros(
            (batch_size, CHANNELS, 2 * plan.height, 2 * plan.width),
            device=comfy.model_management.intermediate_device(),
        )
        return io.NodeOutput(host.attach(conditioning, SIGMA_GEN, plan, latents), {"samples": empty})


class SigmaGenPatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=SIGMA_GEN.node,
            category=CATEGORY,
            search_aliases=["sigma-gen", "identity", "routing", "lora", "kontext", "flux patch"],
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("adapter", options=[NONE, *adapter_files()], default=NONE, optional=True),
                io.Float.Input("strength", optional=True, default=1.0, min=-4.0, max=4.0, step=0.05),
                io.Combo.Input("scope", options=list(SCOPES), optional=True),
                io.Combo.Input("timestep", options=list(TIMESTEPS), optional=True),
                io.Combo.Input("guidance", options=list(GUIDANCES), optional=True),
                io.Boolean.Input("cross", optional=True, default=True),
            ],
            outputs=[
                io.Model.Output("model_out"),
                io.String.Output("report"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        adapter: str = NONE,
        strength: float = 1.0,
        scope: str = SCOPES[0],
        timestep: str = TIMESTEPS[0],
        guidance: str = GUIDANCES[0],
        cross: bool = True,
    ) -> io.NodeOutput:
        node = SIGMA_GEN.node
        for name, value, options in (
            ("scope", scope, SCOPES),
            ("timestep", timestep, TIMESTEPS),
            ("guidance", guidance, GUIDANCES),
        ):
            chosen(node, name, value, options)
        with naming(node, "model"):
            counts = host.family_of(model).counts
        settings = Settings(timestep=timestep, guidance=guidance, scope=scope, cross=cross)
        modules, lines = None, ["no adapter here: one that was loaded before acts on all tokens"]
        if adapter == NONE and scope != "all":
            raise InputError(
                "it acts on the condition tokens alone, but no file is chosen; choose the adapter here instead of in a"
                " LoRA loader.",
                node,
                "adapter",
            )
        if adapter != NONE:
            with naming(node, "adapter"):
                loaded = load_adapter(adapter_file(adapter))
                if scope == "all":
                    model, lines = apply_adapter(model, loaded, adapter, strength)
                else:
                    loaded, found = fitting(model, loaded, adapter)
                    modules = SwitchedAdapter(loaded, counts.double, strength)
                    lines = described(adapter, found, strength, "on the condition tokens alone")
                    if modules.unused:
                        lines.append(f"without use there: {', '.join(modules.unused[:8])}")
        report = "\n".join(lines)
        return io.NodeOutput(host.install(model, SIGMA_GEN, settings, modules), report, ui={"text": (report,)})


def _rgb(image: torch.Tensor, node: str, name: str) -> np.ndarray:
    """The one picture of an IMAGE, uint8 (H, W, 3)."""
    if len(image) != 1:
        raise InputError(f"there are {len(image)} pictures; give one.", node, name)
    return np.ascontiguousarray(to_bytes(image[0])[..., :3])


def _depth(image: torch.Tensor, near: str) -> np.ndarray:
    plane = to_bytes(image[0])[..., 0]
    return plane if near == NEAR[0] else 255 - plane


def _shown(plane: np.ndarray, times: int) -> np.ndarray:
    return np.minimum(plane.astype(np.uint16) * times, 255).astype(np.uint8)


def _tokens(plan: Plan) -> str:
    return (
        f"{plan.noise_tokens} tokens of noise, {plan.stack_tokens} of identities, {plan.noise_tokens} of control;"
        f" {2 * plan.noise_tokens + plan.stack_tokens} in all, text not counted"
    )
