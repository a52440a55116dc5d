"""The model families of the host that methods can work on, and how each is told and spoken to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.ldm.flux.model
import comfy.ldm.modules.diffusionmodules.mmdit as mmdit
import comfy.ldm.qwen_image.model as qwen_image
import comfy.model_base

from ...contextgen_core.backbones import Backbone, backbone
from ...contextgen_core.errors import InputError
from ...contextgen_core.methods.boundary import BlockCounts

BlockKey = tuple[str, int]


@dataclass(frozen=True)
class Family:
    """A model family in the host.

    backbone    what methods need to know of it
    keys        the host's names of all blocks, in the order in which methods number them
    block_of    diffusion model and number of a block -> its module
    post_input  whether tokens and ids pass by a ``post_input`` patch; if not, ids are turned into the blocks' rotations
    wrapped     whether a DIFFUSION_MODEL wrapper is called; if not, the call begins a layer above, in APPLY_MODEL
    """

    backbone: Backbone
    keys: tuple[BlockKey, ...]
    block_of: Callable[[Any, int], Any]
    post_input: bool = True
    wrapped: bool = True

    @property
    def label(self) -> str:
        """In sentences about what other nodes do to it."""
        return self.backbone.name.split(".")[0]

    @property
    def counts(self) -> BlockCounts:
        return BlockCounts(self.backbone.double, self.backbone.single)


def _flux_block(model: Any, number: int) -> Any:
    double = len(model.double_blocks)
    return model.double_blocks[number] if number < double else model.single_blocks[number - double]


def _sd3_block(model: Any, number: int) -> Any:
    return model.joint_blocks[number]


def _qwen_block(model: Any, number: int) -> Any:
    return model.transformer_blocks[number]


def family_of_transformer(transformer: Any) -> Family | None:
    """The family of a diffusion model, None for one that no method knows."""
    if isinstance(transformer, comfy.ldm.flux.model.Flux):
        known = backbone(transformer)
        keys = [("double_block", i) for i in range(known.double)] + [("single_block", i) for i in range(known.single)]
        return Family(known, tuple(keys), _flux_block)
    if isinstance(transformer, mmdit.MMDiT):
        known = backbone(transformer)
        keys = [("double_block", i) for i in range(known.double)]
        return Family(known, tuple(keys), _sd3_block, post_input=False, wrapped=False)
    if isinstance(transformer, qwen_image.QwenImageTransformer2DModel):
        known = backbone(transformer)
        keys = [("double_block", i) for i in range(known.double)]
        return Family(known, tuple(keys), _qwen_block, post_input=False)  # 0.3.64 has no such patch here
    return None


def family_of(model: Any) -> Family:
    """The family of a ComfyUI MODEL. Raises InputError, naming what it is, for one that no method knows."""
    base = model.model
    transformer: Any = getattr(base, "diffusion_model", None)
    if type(base) is comfy.model_base.Flux and isinstance(transformer, comfy.ldm.flux.model.Flux):
        params = transformer.params
        if len(params.axes_dim) != 3 or getattr(params, "global_modulation", False) or transformer.in_channels != 64:
            raise InputError(
                f"this FLUX variant takes {transformer.in_channels} channels a token and"
                f" {len(params.axes_dim)} position axes, FLUX.1-Kontext 64 and 3; load flux1-dev-kontext."
            )
        family = family_of_transformer(transformer)
        if family is not None:
            return family
    if type(base) is comfy.model_base.SD3 and isinstance(transformer, mmdit.MMDiT):
        if any(getattr(block.x_block, "x_block_self_attn", False) for block in transformer.joint_blocks):
            raise InputError(
                "this is Stable Diffusion 3.5 medium, whose blocks have a second attention; load Stable Diffusion 3"
                " medium or FLUX.1."
            )
        family = family_of_transformer(transformer)
        if family is not None:
            return family
    if type(base) is comfy.model_base.QwenImage and isinstance(transformer, qwen_image.QwenImageTransformer2DModel):
        family = family_of_transformer(transformer)
        if family is not None:
            return family
    found = type(base).__name__ if type(transformer).__module__.startswith("comfy.") else type(transformer).__name__
    raise InputError(
        f"this is {found}, not FLUX.1; load FLUX.1-Kontext with Load Diffusion Model"
        " (bf16, fp16, fp8) or a GGUF loader. Nunchaku models run none of ComfyUI's patches and cannot be used."
    )
