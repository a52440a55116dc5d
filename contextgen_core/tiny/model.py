"""The small model that ships with the pack: FLUX.1's architecture at width 128, its autoencoder and its adapters.

It lives in the small world of :mod:`contextgen_core.training.small_world.world`: 128x128 pictures, references of
64x64 (16 tokens), prompts that name a place, a light and creatures. Weights are safetensors under ``weights/``; where
a file is missing, random weights by a seed take its place, so that everything but the beauty can be tried and tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError
from .autoencoder import NARROW, VAE_SCALE, VAE_SHIFT, Taesd, compact, full_state
from .text import TOKENS, WIDTH, Words, encode_words

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ADAPTERS",
    "CONFIG",
    "METHOD_ADAPTERS",
    "REFERENCE_TOKENS",
    "TOKENS",
    "WIDTH",
    "TinyConfig",
    "TransformerState",
    "Words",
    "adapter_path",
    "encode_words",
    "tiny_autoencoder",
    "tiny_autoencoder_state",
    "tiny_transformer_state",
    "trained",
]

FOLDER = Path(__file__).parent / "weights"
TRANSFORMER, AUTOENCODER = "tiny_transformer.safetensors", "tiny_autoencoder.safetensors"
ADAPTERS = {"sft": "tiny_contextgen_sft.safetensors", "dpo": "tiny_contextgen_dpo.safetensors"}  # ContextGen's
METHOD_ADAPTERS = {  # of other methods, by their names
    "eligen": "tiny_eligen.safetensors",
    "instance_assemble": "tiny_instance_assemble.safetensors",
    "sigma_gen": "tiny_sigma_gen.safetensors",
}
REFERENCE_TOKENS = 16  # token budget of a reference: 64x64 pixels


@dataclass(frozen=True)
class TinyConfig:
    """The arguments of diffusers' ``FluxTransformer2DModel``."""

    patch_size: int = 1
    in_channels: int = 64
    num_layers: int = 3
    num_single_layers: int = 6
    attention_head_dim: int = 128
    num_attention_heads: int = 1
    joint_attention_dim: int = WIDTH
    pooled_projection_dim: int = WIDTH
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)


CONFIG = TinyConfig()


class TransformerState(NamedTuple):
    """config: keyword arguments of diffusers' FluxTransformer2DModel; state: its float32 state dict; trained: or
    random."""

    config: dict[str, object]
    state: dict[str, Tensor]
    trained: bool


def trained() -> bool:
    """Whether the trained transformer and autoencoder are in the pack."""
    return (FOLDER / TRANSFORMER).is_file() and (FOLDER / AUTOENCODER).is_file()


def adapter_path(name: str) -> Path:
    """The file of the shipped adapter `sft` or `dpo`, in the authors' key format, or of another method by its name.
    Raises InputError when it is not there."""
    files = ADAPTERS | METHOD_ADAPTERS
    if name not in files:
        raise InputError(f"The small model has no adapter {name!r}; choose one of {', '.join(files)}.")
    path = FOLDER / files[name]
    if not path.is_file():
        raise InputError(f"The small adapter {path.name} is not in the pack; train it with configs/tiny_{name}.yaml.")
    return path


def tiny_transformer_state(seed: int = 0) -> TransformerState:
    """Config and weights of the small transformer in diffusers' form; random by `seed` when the trained file is
    not there."""
    config: dict[str, object] = asdict(CONFIG)
    path = FOLDER / TRANSFORMER
    if path.is_file():
        return TransformerState(config, {k: v.float() for k, v in load_file(path).items()}, True)
    return TransformerState(config, random_transformer_state(CONFIG, seed), False)


def tiny_autoencoder_state(seed: int = 0) -> dict[str, Tensor]:
    """The small autoencoder as a TAESD state dict with the host's names (taesd_encoder., taesd_decoder.,
    vae_scale, vae_shift)."""
    path = FOLDER / AUTOENCODER
    if path.is_file():
        return {k: v.float() for k, v in load_file(path).items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Taesd(NARROW)  # padded, so as quick as the trained one
    return full_state(net.state_dict(), torch.zeros(16), torch.ones(16))


def tiny_autoencoder(seed: int = 0) -> Taesd:
    """The small autoencoder as a module, for use without ComfyUI: `encode` pictures (B, 3, H, W) in [0, 1],
    `decode` latents.

    Its latents are FLUX's normalised ones: the host's scale and shift cancel exactly."""
    state = tiny_autoencoder_state(seed)
    scale, shift = float(state.pop("vae_scale")), float(state.pop("vae_shift"))
    if abs(scale - VAE_SCALE) > 1e-4 or abs(shift - VAE_SHIFT) > 1e-4:
        raise InputError(
            "The small autoencoder's vae_scale and vae_shift are not FLUX's; train it again with"
            " configs/tiny_autoencoder.yaml."
        )
    return compact(state)


# ---- random weights ------------------------------------------------------------------------------


def random_transformer_state(config: TinyConfig, seed: int) -> dict[str, Tensor]:
    """Random weights in diffusers' form, without diffusers: linear layers by fan-in, norms at one. The same on
    every machine."""
    generator = torch.Generator().manual_seed(seed)
    return {name: make(generator) for name, make in _layout(config).items()}


@lru_cache(maxsize=4)
def _layout(config: TinyConfig) -> Mapping[str, Callable[[torch.Generator], Tensor]]:
    width = config.attention_head_dim * config.num_attention_heads
    out: dict[str, Callable[[torch.Generator], Tensor]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        bound = inputs**-0.5
        out[f"{name}.weight"] = lambda g: nn.init.uniform_(torch.empty(outputs, inputs), -bound, bound, g)
        out[f"{name}.bias"] = lambda g: nn.init.uniform_(torch.empty(outputs), -bound, bound, g)

    def norm(name: str) -> None:
        out[f"{name}.weight"] = lambda _: torch.ones(config.attention_head_dim)

    for name, inputs in (("timestep_embedder", 256), ("text_embedder", config.pooled_projection_dim)):
        linear(f"time_text_embed.{name}.linear_1", inputs, width)
        linear(f"time_text_embed.{name}.linear_2", width, width)
    linear("context_embedder", config.joint_attention_dim, width)
    linear("x_embedder", config.in_channels, width)
    for i in range(config.num_layers):
        block = f"transformer_blocks.{i}"
        linear(f"{block}.norm1.linear", width, 6 * width)
        linear(f"{block}.norm1_context.linear", width, 6 * width)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            norm(f"{block}.attn.{name}")
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
            linear(f"{block}.attn.{name}", width, width)
        for name in ("ff", "ff_context"):
            linear(f"{block}.{name}.net.0.proj", width, 4 * width)
            linear(f"{block}.{name}.net.2", 4 * width, width)
    for i in range(config.num_single_layers):
        block = f"single_transformer_blocks.{i}"
        linear(f"{block}.norm.linear", width, 3 * width)
        for name in ("norm_q", "norm_k"):
            norm(f"{block}.attn.{name}")
        for name in ("to_q", "to_k", "to_v"):
            linear(f"{block}.attn.{name}", width, width)
        linear(f"{block}.proj_mlp", width, 4 * width)
        linear(f"{block}.proj_out", 5 * width, width)
    linear("norm_out.linear", width, 2 * width)
    linear("proj_out", width, config.in_channels)
    return out
