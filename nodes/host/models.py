"""Builds FLUX.1 and other models of any size in ComfyUI from diffusers weights.

The host's stock loaders take the width and the number of heads of FLUX for granted (0.3.64 all of them), so a small
model needs its explicit configuration. The weights are renamed by the host's own converter.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import comfy.ldm.flux.model
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch

from ...contextgen_core.errors import InputError


def flux_config(config: dict[str, Any]) -> dict[str, Any]:
    """ComfyUI's FLUX configuration for a diffusers ``FluxTransformer2DModel`` configuration."""
    made = {
        "image_model": "flux",
        "in_channels": config["in_channels"] // 4,  # the host counts latent channels, diffusers packed ones
        "out_channels": config["in_channels"] // 4,
        "patch_size": 2,
        "vec_in_dim": config["pooled_projection_dim"],
        "context_in_dim": config["joint_attention_dim"],
        "hidden_size": config["num_attention_heads"] * config["attention_head_dim"],
        "mlp_ratio": 4.0,
        "num_heads": config["num_attention_heads"],
        "depth": config["num_layers"],
        "depth_single_blocks": config["num_single_layers"],
        "axes_dim": list(config["axes_dims_rope"]),
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": bool(config["guidance_embeds"]),
    }
    if any(field.name == "txt_ids_dims" for field in fields(comfy.ldm.flux.model.FluxParams)):
        made["txt_ids_dims"] = []  # demanded by later hosts, unknown to earlier ones
    return made


def build_flux(config: dict[str, Any], state: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> Any:
    """A ComfyUI MODEL from a diffusers FLUX.1 configuration and state dict.

    ``dtype`` is the dtype of weights and computation; None leaves the choice to the host.
    """
    weights = comfy.model_detection.convert_diffusers_mmdit({key: value.clone() for key, value in state.items()})
    if weights is None:
        raise InputError("The small model's weights are not those of a FLUX.1 transformer; reinstall the pack.")
    management = comfy.model_management
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    model_config = comfy.supported_models.Flux(flux_config(config))
    if dtype is None:
        parameters = sum(value.numel() for value in weights.values())
        supported = list(model_config.supported_inference_dtypes)
        dtype = management.unet_dtype(load_device, parameters, supported_dtypes=supported)
        manual_cast = management.unet_manual_cast(dtype, load_device, supported)
    else:
        manual_cast = None
    model_config.set_inference_dtype(dtype, manual_cast)
    model = model_config.get_model(weights, "", device=offload_device)
    missing = model.diffusion_model.load_state_dict(
        {key: value.to(dtype) for key, value in model_config.process_unet_state_dict(weights).items()}, strict=False
    )
    if missing.missing_keys or missing.unexpected_keys:
        raise InputError(
            f"The small model's weights do not fit its configuration ({len(missing.missing_keys)} missing,"
            f" {len(missing.unexpected_keys)} unknown); reinstall the pack."
        )
    model.to(offload_device)
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)


class _Depth(int):
    """The host takes 64 times a Stable Diffusion 3's depth for its width; this depth gives any width."""

    width: int

    def __new__(cls, depth: int, width: int) -> _Depth:
        self = super().__new__(cls, depth)
        self.width = width
        return self

    def __mul__(self, other: int) -> int:
        return self.width if other == 64 else int(self) * other

    __rmul__ = __mul__


def build_sd3(config: dict[str, Any], state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """A ComfyUI MODEL from a diffusers ``SD3Transformer2DModel`` configuration and state dict, all in ``dtype``."""
    heads, blocks = config["num_attention_heads"], config["num_layers"]
    width = heads * config["attention_head_dim"]
    names = comfy.utils.mmdit_to_diffusers({"depth": _Depth(blocks, width), "num_blocks": blocks})
    model_config = comfy.supported_models.SD3(
        {
            "in_channels": config["in_channels"],
            "patch_size": config["patch_size"],
            "depth": _Depth(heads, width),
            "num_blocks": blocks,
            "input_size": None,
            "adm_in_channels": config["pooled_projection_dim"],
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": config["joint_attention_dim"], "out_features": width},
            },
            "pos_embed_max_size": config["pos_embed_max_size"],
            "num_patches": config["pos_embed_max_size"] ** 2,
            "pos_embed_scaling_factor": None,
            "qk_norm": None,
        }
    )
    model_config.set_inference_dtype(dtype, None)
    offload = comfy.model_management.unet_offload_device()
    model = model_config.get_model({}, "", device=offload)
    weights = dict(model.diffusion_model.state_dict())
    for key, value in state.items():
        target = names[key]
        if isinstance(target, str):
            weights[target] = value.to(dtype)
            continue
        name, rows, *change = target
        changed = change[0](value) if change else value
        weights[name] = changed.to(dtype) if rows is None else _into(weights[name], changed, rows)
    model.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(
        model, load_device=comfy.model_management.get_torch_device(), offload_device=offload
    )


def _into(fused: torch.Tensor, part: torch.Tensor, rows: tuple[int, int, int]) -> torch.Tensor:
    """``fused`` with ``part`` in its place: (dimension, first, count)."""
    fused = fused.clone()
    fused.narrow(*rows).copy_(part)
    return fused


def build_qwen(config: dict[str, Any], state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """A ComfyUI MODEL from a diffusers ``QwenImageTransformer2DModel`` configuration and state dict, all in ``dtype``.

    The host keeps diffusers' names.
    """
    model_config = comfy.supported_models.QwenImage({"image_model": "qwen_image", **config})
    model_config.set_inference_dtype(dtype, None)
    offload = comfy.model_management.unet_offload_device()
    model = model_config.get_model({}, "", device=offload)
    model.diffusion_model.load_state_dict({key: value.to(dtype) for key, value in state.items()})
    return comfy.model_patcher.ModelPatcher(
        model, load_device=comfy.model_management.get_torch_device(), offload_device=offload
    )
