"""The ComfyUI side of ``contextgen_core.parity``: a golden case through the patched model of the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.patcher_extension
import numpy as np
import torch
from safetensors.torch import load_file

from ..contextgen_core.commands.parity import load_case, pack, settings_from
from ..contextgen_core.lora.adapter import load_adapter
from .adapter import apply_adapter
from .host import attach_plan, install
from .host_model import build_flux


def host_options(model: Any) -> dict[str, Any]:
    """The transformer_options with which the host calls a patched model."""
    options = comfy.patcher_extension.copy_nested_dicts(model.model_options["transformer_options"])
    options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(model.wrappers)
    return options


def run_case(
    case: str,
    weights: str,
    config: str,
    adapter: str | None,
    attention: str,
    prune: str,
    ids: str,
    rule: str,
    out: str,
) -> None:
    """Writes the velocity of the noise tokens, float32 (1, M, 64), to ``out`` (npy)."""
    golden = load_case(case)
    read = json.loads(Path(config).read_text())
    model = build_flux(read.get("transformer", read), load_file(weights), torch.float32)
    if adapter:
        model, _report = apply_adapter(model, load_adapter(adapter), Path(adapter).name, 1.0)
    model = install(model, settings_from(attention, prune, ids, rule))
    [[_, values]] = attach_plan([[golden.tensor("text_embeds"), {}]], golden.plan, golden.latents)
    model.patch_model(device_to=torch.device("cpu"))
    try:
        with torch.inference_mode():
            velocity = model.model.diffusion_model(
                golden.tensor("noise_latent"),
                golden.tensor("timestep"),
                context=golden.tensor("text_embeds"),
                y=golden.tensor("pooled"),
                guidance=golden.tensor("guidance"),
                ref_latents=values["reference_latents"],
                transformer_options=host_options(model),
                **{key: cond.cond for key, cond in values["model_conds"].items()},
            )
    finally:
        model.unpatch_model()
    np.save(out, pack(velocity).cpu().numpy())
