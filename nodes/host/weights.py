"""Extra weights of a method as memory that the host knows: loaded, moved and freed with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch

from ...contextgen_core.methods.boundary import Method


def _key(method: Method) -> str:
    return f"contextgen_{method.name}"


def set_modules(model: Any, method: Method, modules: torch.nn.Module | None) -> None:
    """Lets a model carry a method's modules, in the place of those it has had. Layers must be the host's casting ones
    (``comfy.ops.manual_cast``), or cast by themselves."""
    if modules is None:
        model.set_additional_models(_key(method), [])
        return
    management = comfy.model_management
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = kind(modules, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())
    model.set_additional_models(_key(method), [patcher])


def modules_of(base: Any, methods: Sequence[Method]) -> dict[str, torch.nn.Module]:
    """The modules of each method on a loaded model (its ``BaseModel``), by the method's name.

    Asked for at call time: the host clones patchers, and may hold a model on several devices.
    """
    if base.current_patcher is None:
        return {}
    carried = {method.name: base.current_patcher.get_additional_models_with_key(_key(method)) for method in methods}
    return {name: patchers[0].model for name, patchers in carried.items() if patchers}
