"""The ComfyUI side of ``contextgen_core.parity``: a golden case through the patched model of the host."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import comfy.ops
import comfy.patcher_extension
import numpy as np
import torch

from ..contextgen_core.backbones.flux import pack
from ..contextgen_core.commands.parity import FAMILY, load, transformer
from ..contextgen_core.lora.adapter import load_adapter
from ..contextgen_core.methods.golden import Golden
from .adapter import apply_adapter
from .host import attach, build_flux, build_qwen, build_sd3, install

BUILD = {"flux": build_flux, "sd3": build_sd3, "qwen": build_qwen}


def host_options(model: Any) -> dict[str, Any]:
    """The transformer_options with which the host calls a patched model."""
    options = comfy.patcher_extension.copy_nested_dicts(model.model_options["transformer_options"])
    options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(model.wrappers)
    return options


def run_case(words: dict[str, Any]) -> None:
    """Writes the velocity of the noise, in the form of the case, float32, to ``words["out"]`` (npy)."""
    arguments = Namespace(**words)
    case = load(arguments)
    np.save(arguments.out, np.concatenate([_velocity(row, arguments) for row in (case, *case.others)]))


def _velocity(case: Golden, arguments: Namespace) -> np.ndarray:
    method, plan, settings = case.bound
    config, state = transformer(arguments.config, arguments.weights, case.config)
    sd3, qwen = case.family == "sd3", case.family == "qwen"
    model = BUILD[case.family](config, state, torch.float32)
    if arguments.adapter and not case.modules:
        adapter = load_adapter(arguments.adapter, FAMILY[case.family])
        model, _report = apply_adapter(model, adapter, Path(arguments.adapter).name, 1.0)
    model = install(model, method, settings, case.modules(comfy.ops.manual_cast.Linear) if case.modules else None)
    noise, *pictures = (latent[:, :, None] if qwen else latent for latent in (case.noise, *case.pictures))
    [[_, values]] = attach([[case.text, {}]], method, plan, pictures, case.vectors)
    further = {
        "ref_latents": values.get("reference_latents"),
        "guidance": case.guidance,
        "y": None if qwen else case.pooled,
    }
    options = {**host_options(model), "cond_or_uncond": [0 if case.positive else 1]}
    velocities: list[torch.Tensor] = []
    hook = model.model.diffusion_model.register_forward_hook(lambda *seen: velocities.append(seen[-1]))
    patchers = [model, *model.get_nested_additional_models()]
    for patcher in patchers:
        patcher.patch_model(device_to=torch.device("cpu"))
    model.pre_run()
    try:
        with torch.inference_mode():
            model.model.apply_model(
                noise,
                case.timestep / 1000 if sd3 else case.timestep,
                c_crossattn=case.text,
                transformer_options=options,
                **{key: value for key, value in further.items() if value is not None},
                **{key: cond.cond for key, cond in values["model_conds"].items()},
            )
    finally:
        hook.remove()
        model.cleanup()
        for patcher in patchers:
            patcher.unpatch_model()
    (velocity,) = velocities
    return (velocity if sd3 else pack(velocity.squeeze(2) if qwen else velocity)).float().cpu().numpy()
