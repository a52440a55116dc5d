"""Builds a FLUX.1 model of any size in ComfyUI from diffusers weights.

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
