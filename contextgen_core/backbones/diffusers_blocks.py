"""Blocks of diffusers' FLUX.1, Stable Diffusion 3 and Qwen-Image, plain or with PEFT's layers in them.

Imports nothing of diffusers; written after its ``models/transformers/transformer_flux.py``,
``transformer_qwenimage.py`` and ``models/attention.py``. ComfyUI's Qwen-Image has the same modules and names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .block import DoubleBlock, Projection, SingleBlock, Steps, Stream

_MODULATIONS = ("shift", "scale", "gate")


def double(block: Any, flux: bool) -> DoubleBlock:
    """``FluxTransformerBlock`` or ``JointTransformerBlock``.

    Raises InputError for Stable Diffusion 3.5's blocks with a second attention.
    """
    if getattr(block, "attn2", None) is not None:
        raise InputError(
            "The blocks of this model have a second attention, as in Stable Diffusion 3.5 medium; use Stable"
            " Diffusion 3 medium."
        )
    attn = block.attn
    ends = block.ff_context is None
    before = (torch.Tensor.contiguous,) if flux else ()  # bfloat16 rounds by the layout in memory: keep FLUX's
    image = Stream(
        heads=attn.heads,
        conditioning=_conditioning(block.norm1, "norm1.linear"),
        order=_MODULATIONS * 2,
        inputs=_layers(attn, "to_q", "to_k", "to_v"),
        qk_norm=_qk_norm(attn.norm_q, attn.norm_k),
        norm1=block.norm1.norm,
        outputs=(*before, _layer(attn.to_out[0], "attn.to_out.0"), attn.to_out[1]),
        affine=_affine,
        clamp=_same,
        norm2=block.norm2,
        feed_forward=_feed_forward(block.ff, "ff"),
    )
    text = Stream(
        heads=attn.heads,
        conditioning=_conditioning(block.norm1_context, "norm1_context.linear"),
        order=("scale", "shift") if ends else _MODULATIONS * 2,
        inputs=_layers(attn, "add_q_proj", "add_k_proj", "add_v_proj"),
        qk_norm=_qk_norm(attn.norm_added_q, attn.norm_added_k),
        norm1=block.norm1_context.norm,
        outputs=() if ends else (*before, _layer(attn.to_add_out, "attn.to_add_out")),
        affine=_affine,
        clamp=_finite if flux else _same,
        norm2=None if ends else block.norm2_context,
        feed_forward=() if ends else _feed_forward(block.ff_context, "ff_context"),
    )
    return DoubleBlock(image=image, text=text)


def flux_single(block: Any) -> SingleBlock:
    """``FluxSingleTransformerBlock``."""
    attn = block.attn
    return SingleBlock(
        heads=attn.heads,
        conditioning=_conditioning(block.norm, "norm.linear"),
        order=_MODULATIONS,
        inputs=(*_layers(attn, "to_q", "to_k", "to_v"), _layer(block.proj_mlp, "proj_mlp")),
        qk_norm=_qk_norm(attn.norm_q, attn.norm_k),
        norm1=block.norm.norm,
        outputs=(_layer(block.proj_out, "proj_out"),),
        affine=_affine,
        clamp=_finite,
        act=block.act_mlp,
    )


def qwen(block: Any) -> DoubleBlock:
    """``QwenImageTransformerBlock``, of diffusers or ComfyUI."""
    attn = block.attn

    def stream(side: str, names: tuple[str, str, str], norms: tuple[Any, Any], out: Steps) -> Stream:
        silu, linear = getattr(block, f"{side}_mod")
        return Stream(
            heads=attn.heads,
            conditioning=(silu, _layer(linear, f"{side}_mod.1")),
            order=_MODULATIONS * 2,
            inputs=_layers(attn, *names),
            qk_norm=_qk_norm(*norms),
            norm1=getattr(block, f"{side}_norm1"),
            outputs=out,
            affine=_affine,
            clamp=_finite,
            norm2=getattr(block, f"{side}_norm2"),
            feed_forward=_qwen_feed_forward(getattr(block, f"{side}_mlp"), f"{side}_mlp"),
        )

    to_out, dropout = attn.to_out
    return DoubleBlock(
        image=stream(
            "img",
            ("to_q", "to_k", "to_v"),
            (attn.norm_q, attn.norm_k),
            (torch.Tensor.contiguous, _layer(to_out, "attn.to_out.0"), dropout),
        ),
        text=stream(
            "txt",
            ("add_q_proj", "add_k_proj", "add_v_proj"),
            (attn.norm_added_q, attn.norm_added_k),
            (torch.Tensor.contiguous, _layer(attn.to_add_out, "attn.to_add_out")),
        ),
    )


def _qwen_feed_forward(mlp: Any, name: str) -> Steps:
    first, *between, last = mlp.net
    return _layer(first.proj, f"{name}.net.0.proj"), _tanh_gelu, *between, _layer(last, f"{name}.net.2")


def _tanh_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _layer(module: Any, name: str) -> Projection:
    return Projection(module, ((name, 0),))


def _layers(attn: Any, *names: str) -> tuple[Projection, ...]:
    return tuple(_layer(getattr(attn, name), f"attn.{name}") for name in names)


def _conditioning(norm: Any, name: str) -> Steps:
    return norm.silu, _layer(norm.linear, name)


def _feed_forward(ff: Any, name: str) -> Steps:
    first, *between, last = ff.net
    return _layer(first.proj, f"{name}.net.0.proj"), first.gelu, *between, _layer(last, f"{name}.net.2")


def _qk_norm(of_q: Any, of_k: Any) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def norm(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (q if of_q is None else of_q(q)), (k if of_k is None else of_k(k))

    return norm


def _affine(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _finite(x: Tensor) -> Tensor:
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


def _same(x: Tensor) -> Tensor:
    return x
