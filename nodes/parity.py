"""The ComfyUI side of ``contextgen_core.parity``: a golden case through the patched model of the host."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import comfy.patcher_extension
import numpy as np
import torch
from safetensors.torch import load_file

from ..contextgen_core.backbones.flux import pack
from ..contextgen_core.commands.parity import load, transformer_config
from ..contextgen_core.lora.adapter import load_adapter
from .adapter import apply_adapter
from .host import attach, build_flux, install
from .host.install import MODULES_KEY


def host_options(model: Any) -> dict[str, Any]:
    """The transformer_options with which the host calls a patched model."""
    options = comfy.patcher_extension.copy_nested_dicts(model.model_options["transformer_options"])
    options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(model.wrappers)
    return options


def run_case(words: dict[str, Any]) -> None:
    """Writes the velocity of the noise tokens, float32 (1, M, 64), to ``words["out"]`` (npy)."""
    arguments = Namespace(**words)
    case = load(arguments)
    method, plan, settings = case.bound
    model = build_flux(transformer_config(arguments.config), load_file(arguments.weights), torch.float32)
    if arguments.adapter and not case.switched:
        model, _report = apply_adapter(model, load_adapter(arguments.adapter), Path(arguments.adapter).name, 1.0)
    modules = case.modules() if case.modules else None
    model = install(model, method, settings, modules)
    [[_, values]] = attach([[case.text, {}]], method, plan, list(case.pictures), case.vectors)
    model.patch_model(device_to=torch.device("cpu"))
    try:
        with torch.inference_mode():
            velocity = model.model.diffusion_model(
                case.noise,
                case.timestep,
                context=case.text,
                y=case.pooled,
                guidance=case.guidance,
                ref_latents=values.get("reference_latents"),
                transformer_options={**host_options(model), MODULES_KEY: {method.name: modules} if modules else {}},
                **{key: cond.cond for key, cond in values["model_conds"].items()},
            )
    finally:
        model.unpatch_model()
    np.save(arguments.out, pack(velocity).cpu().numpy())
