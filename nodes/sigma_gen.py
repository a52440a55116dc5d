"""SIGMA-GEN's nodes: the control pictures, the conditioning that carries them, and the model that reads them."""

from __future__ import annotations

import re
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
from ..contextgen_core.lora.adapter import Adapter, load_adapter, to_diffusers
from ..contextgen_core.lora.switched import SwitchedAdapter
from ..contextgen_core.methods.sigma_gen.control import Cell
from ..contextgen_core.methods.sigma_gen.method import (
    GUIDANCES,
    MEMORY,
    MOST_MEMORY,
    SCOPES,
    SIGMA_GEN,
    TIMESTEPS,
    Plan,
    Settings,
    plan_of,
)
from ..contextgen_core.methods.sigma_gen.regions import ORDERS, SCALES, SHAPES, ControlOptions
from . import host
from .adapter import NONE, adapter_file, adapter_files, apply_adapter, described, fitting
from .pictures import CHANNELS, encode_pictures
from .sockets import CATEGORY as ROOT
from .sockets import LayoutType, bounded, chosen, naming, preview, schema, to_bytes, to_image, warned

_BLOCK = re.compile(r"^(single_)?transformer_blocks\.\d+\.")

CATEGORY = f"{ROOT}/SIGMA-GEN"
CONTROL = "SigmaGenControlPictures"
NEAR = ("bright", "dark")
DEPTHS = ("regions", "whole picture")
GREY = 12  # levels by which the colours of a grey picture may differ after lossy storage
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
                io.String.Input("shapes", optional=True, default=""),
                io.Combo.Input("depth_scale", options=list(SCALES), optional=True),
            ],
            outputs=[
                io.Image.Output("identities"),
                io.Image.Output("control"),
                io.String.Output("report"),
                io.Mask.Output("regions"),
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
        shapes: str = "",
        depth_scale: str = SCALES[0],
    ) -> io.NodeOutput:
        chosen(CONTROL, "shape", shape, tuple(SHAPES))
        chosen(CONTROL, "depth_near", depth_near, NEAR)
        chosen(CONTROL, "order", order, ORDERS)
        for name, value in (("cell_width", cell_width), ("cell_height", cell_height)):
            if value % TOKEN:
                raise InputError(f"it is {value}; give a multiple of {TOKEN}.", CONTROL, name)
        options = ControlOptions(
            cell=Cell(cell_width, cell_height),
            shape=_shapes(shapes) or shape,
            masks=None if masks is None else to_bytes(masks if masks.ndim == 3 else masks[None]) >= 128,
            depth=None if depth is None else _depth(depth, depth_near),
            scale=chosen(CONTROL, "depth_scale", depth_scale, SCALES),
            whole=chosen(CONTROL, "depth_area", depth_area, DEPTHS) == DEPTHS[1],
            order=order,
        )
        with naming(CONTROL, "layout"):
            made = prepare(layout, SIGMA_GEN.name, options)
        stack, control = made.pictures
        report = "\n".join(
            [_tokens(made.plan), *_areas(made.plan), *(f"warning: {warning}" for warning in made.warnings)]
        )
        shown = [stack, *(_shown(control[..., plane], SHOWN if plane < 2 else 1) for plane in range(3))]
        ui = {
            "images": [preview(Image.fromarray(np.ascontiguousarray(one))) for one in shown],
            "text": (report,),
            **warned(CONTROL, made.warnings),
        }
        regions = torch.from_numpy(control[..., 0] > 0).float()[None]
        return io.NodeOutput(to_image(stack), to_image(control), report, regions, ui=ui)


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
        if not plan.seen:
            raise InputError(
                f"its routing planes (red and green) are black, so no subject stands anywhere; connect what {CONTROL}"
                " puts out.",
                node,
                "control",
            )
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
                io.Combo.Input(
                    "adapter", options=[NONE, *adapter_files([SIGMA_GEN.name])], default=NONE, optional=True
                ),
                io.Float.Input("strength", optional=True, default=1.0, min=-4.0, max=4.0, step=0.05),
                io.Combo.Input("scope", options=list(SCOPES), optional=True),
                io.Combo.Input("timestep", options=list(TIMESTEPS), optional=True),
                io.Combo.Input("guidance", options=list(GUIDANCES), optional=True),
                io.Boolean.Input("cross", optional=True, default=True),
                io.Boolean.Input("context", optional=True, default=True),
                io.Float.Input("memory", optional=True, default=MEMORY, min=0.0, max=MOST_MEMORY, step=0.5),
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
        context: bool = True,
        memory: float = MEMORY,
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
        bounded(node, "memory", memory, 0.0, MOST_MEMORY)
        settings = Settings(
            timestep=timestep, guidance=guidance, scope=scope, cross=cross, context=context, memory=memory
        )
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
                lines.append(f"targets: {', '.join(_targets(loaded))}")
        lines += _cached(settings)
        report = "\n".join(lines)
        return io.NodeOutput(host.install(model, SIGMA_GEN, settings, modules), report, ui={"text": (report,)})


def _targets(adapter: Adapter) -> list[str]:
    """The kinds of layers that an adapter changes, in the order of its file."""
    kinds = (_BLOCK.sub("", pair.module) for pair in to_diffusers(adapter).pairs)
    return list(dict.fromkeys(kinds))


def _cached(settings: Settings) -> list[str]:
    if not settings.fixed:
        return []
    if not settings.memory:
        return ["the two pictures are the same in every step, but computed in each (memory is 0)"]
    return [f"the two pictures are computed in the first step alone, if they fit into {settings.memory:g} GiB"]


def _rgb(image: torch.Tensor, node: str, name: str) -> np.ndarray:
    """The one picture of an IMAGE, uint8 (H, W, 3)."""
    if len(image) != 1:
        raise InputError(f"there are {len(image)} pictures; give one.", node, name)
    return np.ascontiguousarray(to_bytes(image[0])[..., :3])


def _depth(image: torch.Tensor, near: str) -> np.ndarray:
    """Near bright, uint8 (n, h, w). Raises InputError for a picture with colours."""
    pictures = to_bytes(image)[..., :3]
    spread = pictures.max(axis=-1) - pictures.min(axis=-1)
    if spread.max() > GREY:
        raise InputError(
            f"it has colours ({int(spread.max())} levels apart), so its brightness is no depth; give a grey picture.",
            CONTROL,
            "depth",
        )
    return pictures[..., 0] if near == NEAR[0] else 255 - pictures[..., 0]


def _shapes(text: str) -> tuple[str, ...]:
    """One word for each box, separated by commas; none at all where the text is empty."""
    words = tuple(word.strip() for word in text.split(",")) if text.strip() else ()
    for word in words:
        chosen(CONTROL, "shapes", word, tuple(SHAPES))
    return words


def _shown(plane: np.ndarray, times: int) -> np.ndarray:
    return np.minimum(plane.astype(np.uint16) * times, 255).astype(np.uint8)


def _areas(plan: Plan) -> list[str]:
    return [
        f"subject {number}: {ascending} pixels in the ascending plane, {descending} in the descending one"
        for number, (ascending, descending) in enumerate(plan.seen, 1)
    ]


def _tokens(plan: Plan) -> str:
    return (
        f"{plan.noise_tokens} tokens of noise, {plan.stack_tokens} of identities, {plan.noise_tokens} of control;"
        f" {2 * plan.noise_tokens + plan.stack_tokens} in all, text not counted"
    )
