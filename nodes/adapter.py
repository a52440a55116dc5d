"""ContextGenDPOLoRALoader: puts the ContextGen adapter on a FLUX.1 model and says what it found."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.lora
import folder_paths
from comfy_api.latest import io

from ..contextgen_core.errors import InputError
from ..contextgen_core.lora.adapter import (
    Adapter,
    MatchReport,
    flux_shapes,
    host_state_dict,
    interpolate,
    load_adapter,
    match,
    qwen_shapes,
    to_diffusers,
)
from ..contextgen_core.lora.keys import BLOCKS, QWEN
from ..contextgen_core.methods.eligen.method import ELIGEN
from ..contextgen_core.tiny.model import ADAPTERS, FOLDER, METHOD_ADAPTERS, adapter_path
from . import host
from .sockets import naming, schema

log = logging.getLogger("contextgen")

NODE = "ContextGenDPOLoRALoader"
NONE = "none"
SHIPPED = "ContextGen small model: "  # the adapters of the small model, which lie in the pack


class ContextGenDPOLoRALoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = adapter_files([*ADAPTERS, ELIGEN.name])
        return schema(
            node_id=NODE,
            search_aliases=["lora", "adapter", "contextgen", "dpo", "sft", "kontext lora"],
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("adapter", options=files),
                io.Float.Input("strength", optional=True, default=1.0, min=-4.0, max=4.0, step=0.05),
                io.Combo.Input("sft_adapter", options=[NONE, *files], default=NONE, optional=True),
                io.Float.Input("flexibility", optional=True, default=1.0, min=0.0, max=1.0, step=0.05),
            ],
            outputs=[io.Model.Output("model_out"), io.String.Output("report")],
        )

    @classmethod
    def execute(
        cls, model: Any, adapter: str, strength: float = 1.0, sft_adapter: str = NONE, flexibility: float = 1.0
    ) -> io.NodeOutput:
        if strength == 0:
            return _output(model, f"{adapter}: strength 0, the model is unchanged")
        with naming(NODE, "model"):
            family = _family(model)
        with naming(NODE, "adapter"):
            loaded = load_adapter(adapter_file(adapter), family)
        if sft_adapter != NONE:
            with naming(NODE, "sft_adapter"):
                loaded = interpolate(load_adapter(adapter_file(sft_adapter), family), loaded, flexibility)
        with naming(NODE, "adapter"):
            patched, lines = apply_adapter(model, loaded, adapter, strength)
        if sft_adapter != NONE:
            lines.append(f"flexibility {flexibility:g} between {sft_adapter} (0) and {adapter} (1)")
        return _output(patched, "\n".join(lines))


def _family(model: Any) -> str:
    name: str = host.family_of(model).backbone.name
    if name not in BLOCKS:
        raise InputError(
            f"this is {name}, these adapters are for {' or '.join(BLOCKS)}; load ComfyUI's own LoRA loader."
        )
    return name


def _output(model: Any, report: str) -> io.NodeOutput:
    log.info("%s: %s", NODE, report.replace("\n", "; "))
    return io.NodeOutput(model, report, ui={"text": [report]})


def adapter_files(shipped: Iterable[str]) -> list[str]:
    """The choices of an adapter input: what lies in the loras folder, then those of the small model that are there.

    ``shipped``: names for :func:`contextgen_core.tiny.model.adapter_path`
    """
    files = ADAPTERS | METHOD_ADAPTERS
    there = [SHIPPED + name for name in shipped if (FOLDER / files[name]).is_file()]
    listed = folder_paths.get_filename_list("loras")
    return [*(name for name in listed if name.lower().endswith((".safetensors", ".sft"))), *there]


def adapter_file(name: str) -> Path:
    """Where a choice of :func:`adapter_files` lies."""
    if name.startswith(SHIPPED):
        return adapter_path(name.removeprefix(SHIPPED))
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise InputError(f"there is no file '{name[:100]}' in the loras folder; choose one from the list.")
    return Path(path)


def apply_adapter(model: Any, adapter: Adapter, name: str, strength: float) -> tuple[Any, list[str]]:
    """A clone of the model with the adapter's patches, and the report's lines."""
    taken, found = fitting(model, adapter, name)
    patches = comfy.lora.load_lora(host_state_dict(taken), comfy.lora.model_lora_keys_unet(model.model, {}))
    patched = model.clone()
    applied = patched.add_patches(patches, strength)
    if len(applied) != len(taken.pairs):
        raise InputError(f"ComfyUI took {len(applied)} of the {len(taken.pairs)} modules of {name}; update ComfyUI.")
    return patched, described(name, found, strength, f"{len(applied)} patch entries")


def fitting(model: Any, adapter: Adapter, name: str) -> tuple[Adapter, MatchReport]:
    """What of an adapter fits a model, in diffusers' names. Raises InputError if nothing does."""
    found = match(adapter, _shapes(model))
    if not found.matched:
        raise InputError(
            f"none of the {len(found.unmatched)} modules of {name} fits this model (for example "
            f"{found.unmatched[0]}); choose an adapter that was trained for it."
        )
    wanted = set(found.matched)
    taken = replace(adapter, pairs=tuple(pair for pair in to_diffusers(adapter).pairs if pair.module in wanted))
    return taken, found


def _shapes(model: Any) -> dict[str, tuple[int, int]]:
    """The model's layers in diffusers' names with their (out, in)."""
    known, transformer = host.family_of(model).backbone, model.model.diffusion_model
    if known.name == QWEN:
        return qwen_shapes(known.width, known.double, text=known.text)
    shapes = flux_shapes(known.width, known.double, known.single, text=known.text, pooled=known.pooled)
    if not transformer.params.guidance_embed:
        shapes = {module: shape for module, shape in shapes.items() if "guidance_embedder" not in module}
    return shapes


def described(name: str, found: MatchReport, strength: float, how: str) -> list[str]:
    """The report's lines; ``how`` says in a few words how the matched modules act."""
    lines = [
        f"{name}: strength {strength:g}, rank {found.rank}, alpha {found.alpha:g}",
        f"matched {len(found.matched)} modules ({how}), unmatched {len(found.unmatched)}",
    ]
    if found.unmatched:
        listed = ", ".join(found.unmatched[:8]) + (", ..." if len(found.unmatched) > 8 else "")
        lines.append(f"unmatched: {listed}")
        log.warning("%d modules of %s do not fit this model: %s", len(found.unmatched), name, listed)
    return lines
