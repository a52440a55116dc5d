"""A tiny random FLUX in the host, random layouts for it, and one way to sample it through the host's own sampler."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import numpy as np
import torch
from contextgen_pack.contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_pack.contextgen_core.methods.contextgen.sequence import Plan, TokenBox, reference_tokens
from contextgen_pack.nodes import host
from contextgen_pack.nodes.host.models import flux_config

TEXT, POOLED = 24, 16
DOUBLE, SINGLE = 3, 6
CONFIG = {
    "in_channels": 64,
    "num_layers": DOUBLE,
    "num_single_layers": SINGLE,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "pooled_projection_dim": POOLED,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}


def build(dtype: torch.dtype = torch.float32, manual_cast: torch.dtype | None = None, seed: int = 0) -> Any:
    """A ComfyUI MODEL with random weights, the same for the same seed."""
    model_config = comfy.supported_models.Flux(flux_config(CONFIG))
    model_config.set_inference_dtype(dtype, manual_cast)
    model = model_config.get_model({}, "")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.diffusion_model.named_parameters()):
            value = torch.randn(parameter.shape, generator=generator)
            fan = parameter.shape[-1] if parameter.ndim > 1 else 1
            value = 1 + 0.2 * value if "norm" in name.rsplit(".", 2)[1] else value * (0.9 / fan**0.5)
            parameter.copy_((value * (0.2 if parameter.ndim == 1 and "norm" not in name else 1)).to(parameter.dtype))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def plan(seed: int = 0, references: int = 3, width: int = 8, height: int = 6, **changes: Any) -> Plan:
    """Overlapping boxes, half-covered references of different sizes. ``changes`` go to the last reference."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(references):
        x, y = int(rng.integers(0, width - 3)), int(rng.integers(0, height - 3))
        box = TokenBox(x, y, x + int(rng.integers(2, width - x + 1)), y + int(rng.integers(2, height - y + 1)))
        valid = rng.random((3 + number % 2, 3)) < 0.6
        valid[0, 0] = True
        extra = changes if number == references - 1 else {}
        made.append(reference_tokens(f"r{number}", valid, box, **extra))
    return Plan(width, height, tuple(made))


def latents(of: Plan, seed: int = 0, batch: int = 1) -> list[torch.Tensor]:
    """Layout and references as VAE latents."""
    generator = torch.Generator().manual_seed(seed + 100)
    sizes = [(of.height, of.width), *((r.height, r.width) for r in of.references)]
    return [torch.randn((1, 16, 2 * h, 2 * w), generator=generator) for h, w in sizes]


def text(length: int = 40, seed: int = 0, **values: Any) -> list[Any]:
    """A conditioning with random embeddings."""
    generator = torch.Generator().manual_seed(seed + 200)
    embedding = torch.randn((1, length, TEXT), generator=generator)
    return [[embedding, {"pooled_output": torch.randn((1, POOLED), generator=generator), "guidance": 3.5, **values}]]


def conditioned(of: Plan, length: int = 40, seed: int = 0, **values: Any) -> list[Any]:
    """A conditioning with random embeddings and a layout."""
    return host.attach(text(length, seed, **values), CONTEXTGEN, of, latents(of, seed))


def noise(width: int = 8, height: int = 6, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randn((batch, 16, 2 * height, 2 * width), generator=torch.Generator().manual_seed(seed + 300))


SIGMAS = (1.0, 0.7, 0.4, 0.0)


def sample(
    model: Any,
    positive: list[Any],
    negative: list[Any] | None = None,
    *,
    cfg: float = 1.0,
    start: torch.Tensor | None = None,
    sigmas: tuple[float, ...] = SIGMAS,
    callback: Any = None,
) -> torch.Tensor:
    """Euler through the host's CFGGuider: the way every sampler node goes. Returns the final latent."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative if negative is not None else positive)
    guider.set_cfg(cfg)
    begin = noise() if start is None else start
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(
        begin, torch.zeros_like(begin), sampler, torch.tensor(sigmas), callback=callback, disable_pbar=True, seed=0
    )
