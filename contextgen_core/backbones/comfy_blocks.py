"""Blocks of ComfyUI's FLUX.1 and Stable Diffusion 3, told by the names of their modules. Imports nothing of ComfyUI.

The same for ComfyUI 0.3.64 and 0.30.0 (``comfy/ldm/flux/layers.py``, ``comfy/ldm/modules/diffusionmodules/mmdit.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .block import DoubleBlock, Projection, SingleBlock, Steps, Stream
from .layers import FLUX_DOUBLE, FLUX_SINGLE, SD3_JOINT, parts

_MODULATIONS = ("shift", "scale", "gate")


def flux_double(block: Any) -> DoubleBlock:
    """``DoubleStreamBlock``. Raises InputError for variants that need other functions."""
    if getattr(block, "img_mod", None) is None:
        raise InputError(
            f"The blocks of this model ({type(block).__name__}) get ready modulations, as in FLUX.2 and Chroma, so"
            " nothing can be added to them per block; use a FLUX.1 model."
        )
    if getattr(block, "flipped_img_txt", False):
        raise InputError("The blocks of this model take image tokens first, as in HunyuanVideo; use a FLUX.1 model.")

    def stream(side: str) -> Stream:
        attention = getattr(block, f"{side}_attn")
        return Stream(
            heads=block.num_heads,
            conditioning=_flux_conditioning(getattr(block, f"{side}_mod").lin, parts(FLUX_DOUBLE, f"{side}_mod.lin")),
            order=_MODULATIONS * 2,
            inputs=(Projection(attention.qkv, parts(FLUX_DOUBLE, f"{side}_attn.qkv")),),
            qk_norm=attention.norm,
            norm1=getattr(block, f"{side}_norm1"),
            outputs=(Projection(attention.proj, parts(FLUX_DOUBLE, f"{side}_attn.proj")),),
            affine=_affine,
            clamp=_finite if side == "txt" else _same,
            norm2=getattr(block, f"{side}_norm2"),
            feed_forward=_flux_mlp(block, side),
        )

    return DoubleBlock(image=stream("img"), text=stream("txt"))


def flux_single(block: Any) -> SingleBlock:
    """``SingleStreamBlock``. Raises InputError for variants that need other functions."""
    if getattr(block, "modulation", None) is None or getattr(block, "yak_mlp", False):
        raise InputError(
            f"The blocks of this model ({type(block).__name__}) are not those of FLUX.1; use a FLUX.1 model."
        )
    return SingleBlock(
        heads=block.num_heads,
        conditioning=_flux_conditioning(block.modulation.lin, parts(FLUX_SINGLE, "modulation.lin")),
        order=_MODULATIONS,
        inputs=(Projection(block.linear1, parts(FLUX_SINGLE, "linear1")),),
        qk_norm=block.norm,
        norm1=block.pre_norm,
        outputs=(Projection(block.linear2, parts(FLUX_SINGLE, "linear2")),),
        affine=_affine,
        clamp=_finite,
        act=block.mlp_act,
    )


def sd3_joint(block: Any) -> DoubleBlock:
    """``JointBlock``. Raises InputError for Stable Diffusion 3.5's blocks with a second attention."""
    if getattr(block.x_block, "x_block_self_attn", False):
        raise InputError(
            "The blocks of this model have a second attention, as in Stable Diffusion 3.5 medium; use Stable"
            " Diffusion 3 medium."
        )

    def stream(name: str) -> Stream:
        side = getattr(block, name)
        if side.scale_mod_only or not hasattr(side.attn, "qkv"):
            raise InputError(f"The blocks of this model ({type(side).__name__}) are not those of Stable Diffusion 3.")
        ends = side.pre_only

        def layer(module: Any, path: str, swapped: bool = False) -> Projection:
            return Projection(module, parts(SD3_JOINT, f"{name}.{path}"), swapped)

        silu, linear = side.adaLN_modulation
        mlp = None if ends else side.mlp
        return Stream(
            heads=side.attn.num_heads,
            # The checkpoint's shift, scale are diffusers' scale, shift in the block that ends the text stream.
            conditioning=(silu, layer(linear, "adaLN_modulation.1", swapped=ends)),
            order=_MODULATIONS[:2] if ends else _MODULATIONS * 2,
            inputs=(layer(side.attn.qkv, "attn.qkv"),),
            qk_norm=lambda q, k, v: (side.attn.ln_q(q), side.attn.ln_k(k)),
            norm1=side.norm1,
            outputs=() if ends else (layer(side.attn.proj, "attn.proj"), side.attn.proj_drop),
            affine=_affine,
            clamp=_same,
            norm2=None if ends else side.norm2,
            feed_forward=()
            if mlp is None
            else (layer(mlp.fc1, "mlp.fc1"), mlp.act, mlp.drop1, mlp.norm, layer(mlp.fc2, "mlp.fc2"), mlp.drop2),
        )

    return DoubleBlock(image=stream("x_block"), text=stream("context_block"))


def _flux_conditioning(linear: Any, names: tuple[tuple[str, int], ...]) -> Steps:
    def activated(vec: Tensor) -> Tensor:
        return functional.silu(vec[:, None] if vec.ndim == 2 else vec)

    return activated, Projection(linear, names)


def _flux_mlp(block: Any, side: str) -> Steps:
    mlp = getattr(block, f"{side}_mlp")
    if not isinstance(mlp, torch.nn.Sequential) or len(mlp) != 3:
        raise InputError(
            f"The MLP of this model's blocks ({type(mlp).__name__}) is not FLUX.1's, so it cannot be taken apart; use a"
            " FLUX.1 model."
        )
    first, act, last = mlp
    return (
        Projection(first, parts(FLUX_DOUBLE, f"{side}_mlp.0")),
        act,
        Projection(last, parts(FLUX_DOUBLE, f"{side}_mlp.2")),
    )


def _affine(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def _finite(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=0.0, posinf=65504, neginf=-65504) if x.dtype == torch.float16 else x


def _same(x: Tensor) -> Tensor:
    return x
