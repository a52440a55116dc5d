"""Which family a model or a block is of, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InputError
from . import comfy_blocks, diffusers_blocks, qwen
from .block import DoubleBlock, SingleBlock
from .record import Backbone

_BLOCKS: dict[str, Callable[[Any], DoubleBlock | SingleBlock]] = {
    "DoubleStreamBlock": comfy_blocks.flux_double,
    "SingleStreamBlock": comfy_blocks.flux_single,
    "JointBlock": comfy_blocks.sd3_joint,
    "FluxTransformerBlock": lambda block: diffusers_blocks.double(block, flux=True),
    "FluxSingleTransformerBlock": diffusers_blocks.flux_single,
    "JointTransformerBlock": lambda block: diffusers_blocks.double(block, flux=False),
    "QwenImageTransformerBlock": diffusers_blocks.qwen,  # ComfyUI keeps diffusers' names
}


def view(block: Any) -> DoubleBlock | SingleBlock:
    """A model's block as functions. Cheap: modules are looked up, nothing is computed or read.

    Raises InputError for a block of another family, naming its class.
    """
    block = getattr(block, "_orig_mod", block)  # torch.compile's wrapper
    for kind in type(block).__mro__:
        if kind.__name__ in _BLOCKS:
            return _BLOCKS[kind.__name__](block)
    raise InputError(
        f"A block of class {type(block).__name__} cannot be taken apart; use a FLUX.1, Stable Diffusion 3 or"
        " Qwen-Image model in the host's own form."
    )


def backbone(model: Any) -> Backbone:
    """What is known of a model: ComfyUI's ``diffusion_model`` or a diffusers transformer.

    Raises InputError for a family that is not known, naming its class.
    """
    model = getattr(model, "_orig_mod", model)
    names = {kind.__name__ for kind in type(model).__mro__}
    if "FluxTransformer2DModel" in names:
        config = model.config
        return Backbone(
            name="FLUX.1",
            double=len(model.transformer_blocks),
            single=len(model.single_transformer_blocks),
            width=model.inner_dim,
            axes=len(config.axes_dims_rope),
            channels=(config.out_channels or config.in_channels) // 4,
            pooled=config.pooled_projection_dim,
            text=config.joint_attention_dim,
        )
    if "SD3Transformer2DModel" in names:
        config = model.config
        return _sd3(len(model.transformer_blocks), model.inner_dim, model.out_channels, config.pooled_projection_dim)
    if "Flux" in names and hasattr(model, "double_blocks"):
        return _comfy_flux(model)
    if "MMDiT" in names:
        pooled = 0 if model.y_embedder is None else model.y_embedder.mlp[0].in_features
        return _sd3(len(model.joint_blocks), model.hidden_size, model.out_channels, pooled)
    if "QwenImageTransformer2DModel" in names:
        return _qwen(model)
    raise InputError(f"A model of class {type(model).__name__} is of no known family; use a FLUX.1 model.")


def _comfy_flux(model: Any) -> Backbone:
    params = model.params
    ready = bool(getattr(params, "global_modulation", False))  # FLUX.2's blocks get their modulations ready
    return Backbone(
        name="FLUX.2" if ready else "FLUX.1",
        double=len(model.double_blocks),
        single=len(model.single_blocks),
        width=model.hidden_size,
        axes=len(params.axes_dim),
        channels=params.out_channels,
        pooled=params.vec_in_dim or 0,
        segments=not ready,
        text=params.context_in_dim,
    )


def _sd3(blocks: int, width: int, channels: int, pooled: int) -> Backbone:
    """Positions are in the patch embedding, and condition pictures cannot join: the host has no place for them."""
    return Backbone(
        name="Stable Diffusion 3",
        double=blocks,
        single=0,
        width=width,
        axes=0,
        channels=channels,
        pooled=pooled,
        references=False,
        groups=False,
    )


def _qwen(model: Any) -> Backbone:
    """Sixty blocks of two streams and no single ones; latents have a time axis of one picture."""
    return Backbone(
        name="Qwen-Image",
        double=len(model.transformer_blocks),
        single=0,
        width=model.inner_dim,
        pooled=0,
        references=False,
        segments=False,
        text=model.txt_in.in_features,
        positions=qwen.DIFFUSERS if hasattr(model, "pos_embed") else qwen.COMFYUI,
    )
