"""ComfyUI's own LoRA code takes an adapter as the pack hands it over: every layer, and the right rows of each."""

from __future__ import annotations

import comfy.lora
import comfy.model_base
import comfy.supported_models
import pytest
import torch
from contextgen_pack.contextgen_core.lora import adapter as adapters
from contextgen_pack.nodes.host.models import flux_config

SMALL = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 12,
    "guidance_embeds": True,
    "axes_dims_rope": [4, 6, 6],
}


def flux(**changes: int) -> comfy.model_base.Flux:
    config = comfy.supported_models.Flux(flux_config({**SMALL, **changes}))
    config.set_inference_dtype(torch.float32, None)
    return config.get_model({}, "", device=torch.device("cpu"))


def official_names(double: int, single: int) -> list[str]:
    in_double = ("norm1.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.2")
    in_single = ("norm.linear", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")
    names = ["x_embedder", *(f"transformer_blocks.{i}.{n}" for i in range(double) for n in in_double)]
    return [*names, *(f"single_transformer_blocks.{i}.{n}" for i in range(single) for n in in_single)]


def pair(module: str, shape: tuple[int, int], alpha: float = 3.0) -> adapters.LowRank:
    made = torch.Generator().manual_seed(sum(map(ord, module)))
    down, up = torch.randn(2, shape[1], generator=made), torch.randn(shape[0], 2, generator=made)
    return adapters.LowRank(module, down, up, alpha)


def patches(model: comfy.model_base.Flux, adapter: adapters.Adapter) -> dict:
    keys = comfy.lora.model_lora_keys_unet(model, {})
    return comfy.lora.load_lora(adapters.host_state_dict(adapter), keys)


def test_all_official_modules_of_the_full_depth_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    model = flux(num_layers=19, num_single_layers=38)
    shapes = adapters.flux_shapes(32, 19, 38, text=24, pooled=12)
    names = official_names(19, 38)
    adapter = adapters.Adapter(tuple(pair(name, shapes[name]) for name in names))
    assert len(patches(model, adapter)) == len(names) == 343
    assert not [record for record in caplog.records if "not loaded" in record.getMessage()]


def weights_after(model: comfy.model_base.Flux, found: dict) -> dict[str, torch.Tensor]:
    """What the host's arithmetic adds to the patched weights, from zeros: the host leaves new weights unset."""
    weights = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    by_weight: dict[str, list] = {}
    for key, patch in found.items():
        name, offset, function = ((*key, None, None)[:3]) if isinstance(key, tuple) else (key, None, None)
        by_weight.setdefault(name, []).append((1.0, patch, 1.0, offset, function))
    return {name: comfy.lora.calculate_weight(entries, weights[name], name) for name, entries in by_weight.items()}


def changes(adapter: adapters.Adapter) -> dict[str, torch.Tensor]:
    return weights_after(flux(), patches(flux(), adapter))


def test_rows_of_fused_layers_get_their_own_change() -> None:
    width = 32
    shapes = adapters.flux_shapes(width, 1, 1, text=24, pooled=12)
    single = "single_transformer_blocks.0."
    parts = [single + name for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    adapter = adapters.Adapter(tuple(pair(name, shapes[name]) for name in parts))
    [(name, change)] = changes(adapter).items()
    assert name == "diffusion_model.single_blocks.0.linear1.weight"
    torch.testing.assert_close(change, torch.cat([one.delta() for one in adapter.pairs]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "rows"),
    [
        ("double_blocks.0.img_attn.qkv", 3),
        ("double_blocks.0.txt_attn.qkv", 3),
        ("single_blocks.0.linear1", 7),
        ("final_layer.adaLN_modulation.1", 2),
    ],
)
def test_fused_and_divided_forms_change_the_model_alike(module: str, rows: int) -> None:
    whole = adapters.Adapter((pair(module, (rows * 32, 32)),))
    fused, divided = changes(whole), changes(adapters.to_diffusers(whole))
    assert list(fused) == list(divided) == [f"diffusion_model.{module}.weight"]
    torch.testing.assert_close(fused[f"diffusion_model.{module}.weight"], whole.pairs[0].delta(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused, divided, atol=1e-5, rtol=1e-5)


def test_every_layer_that_a_flux_lora_can_change() -> None:
    shapes = adapters.flux_shapes(32, 1, 1, text=24, pooled=12)
    adapter = adapters.Adapter(tuple(pair(name, shape) for name, shape in sorted(shapes.items())))
    assert len(patches(flux(), adapter)) == len(shapes)
