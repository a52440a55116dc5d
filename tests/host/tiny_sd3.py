"""A tiny random Stable Diffusion 3 in the host."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.supported_models
import torch

TEXT, POOLED, HEADS, HEAD = 24, 20, 2, 16


class Depth(int):
    """The host takes 64 times a model's depth for its width; this depth makes it :data:`HEAD` times."""

    def __mul__(self, other: int) -> int:
        return int(self) * (HEAD if other == 64 else other)

    __rmul__ = __mul__


def build(
    dtype: torch.dtype = torch.float32, manual_cast: torch.dtype | None = None, qk_norm: str | None = None
) -> Any:
    """A ComfyUI MODEL with random weights, always the same ones."""
    width = HEADS * HEAD
    model_config = comfy.supported_models.SD3(
        {
            "in_channels": 16,
            "patch_size": 2,
            "depth": Depth(HEADS),
            "input_size": None,
            "adm_in_channels": POOLED,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": TEXT, "out_features": width},
            },
            "pos_embed_max_size": 16,
            "num_patches": 256,
            "pos_embed_scaling_factor": None,
            "qk_norm": qk_norm,
        }
    )
    model_config.set_inference_dtype(dtype, manual_cast)
    model = model_config.get_model({}, "")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.diffusion_model.named_parameters()):
            value = torch.randn(parameter.shape, generator=generator)
            value = 1 + 0.2 * value if ".ln_" in name else value * (0.9 / parameter[0].numel() ** 0.5)
            parameter.copy_(value.to(parameter.dtype))
        model.diffusion_model.pos_embed.copy_(torch.randn(model.diffusion_model.pos_embed.shape, generator=generator))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
