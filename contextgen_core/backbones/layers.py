"""The layers of a FLUX.1, Stable Diffusion 3 or Qwen-Image block, once: their names in diffusers and originally.

Diffusers' names are the canonical ones: adapters speak of ``attn.to_q`` wherever the model keeps that layer. The
original code, and ComfyUI with it, fuses some of them; ``row`` says where a layer's outputs begin there.
"""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    """One linear layer of a block.

    name      its path below diffusers' block
    outputs, inputs  in widths of a token
    original  its path below the original code's block
    row       its first output there, in widths of a token
    """

    name: str
    outputs: int
    inputs: int
    original: str
    row: int = 0


FLUX_DOUBLE = (
    Layer("norm1.linear", 6, 1, "img_mod.lin"),
    Layer("norm1_context.linear", 6, 1, "txt_mod.lin"),
    Layer("attn.to_q", 1, 1, "img_attn.qkv", 0),
    Layer("attn.to_k", 1, 1, "img_attn.qkv", 1),
    Layer("attn.to_v", 1, 1, "img_attn.qkv", 2),
    Layer("attn.add_q_proj", 1, 1, "txt_attn.qkv", 0),
    Layer("attn.add_k_proj", 1, 1, "txt_attn.qkv", 1),
    Layer("attn.add_v_proj", 1, 1, "txt_attn.qkv", 2),
    Layer("attn.to_out.0", 1, 1, "img_attn.proj"),
    Layer("attn.to_add_out", 1, 1, "txt_attn.proj"),
    Layer("ff.net.0.proj", 4, 1, "img_mlp.0"),
    Layer("ff.net.2", 1, 4, "img_mlp.2"),
    Layer("ff_context.net.0.proj", 4, 1, "txt_mlp.0"),
    Layer("ff_context.net.2", 1, 4, "txt_mlp.2"),
)
FLUX_SINGLE = (
    Layer("norm.linear", 3, 1, "modulation.lin"),
    Layer("attn.to_q", 1, 1, "linear1", 0),
    Layer("attn.to_k", 1, 1, "linear1", 1),
    Layer("attn.to_v", 1, 1, "linear1", 2),
    Layer("proj_mlp", 4, 1, "linear1", 3),
    Layer("proj_out", 1, 5, "linear2"),
)
SD3_JOINT = (
    Layer("norm1.linear", 6, 1, "x_block.adaLN_modulation.1"),
    Layer("norm1_context.linear", 6, 1, "context_block.adaLN_modulation.1"),  # 2 in the last block, halves swapped
    Layer("attn.to_q", 1, 1, "x_block.attn.qkv", 0),
    Layer("attn.to_k", 1, 1, "x_block.attn.qkv", 1),
    Layer("attn.to_v", 1, 1, "x_block.attn.qkv", 2),
    Layer("attn.add_q_proj", 1, 1, "context_block.attn.qkv", 0),
    Layer("attn.add_k_proj", 1, 1, "context_block.attn.qkv", 1),
    Layer("attn.add_v_proj", 1, 1, "context_block.attn.qkv", 2),
    Layer("attn.to_out.0", 1, 1, "x_block.attn.proj"),
    Layer("attn.to_add_out", 1, 1, "context_block.attn.proj"),
    Layer("ff.net.0.proj", 4, 1, "x_block.mlp.fc1"),
    Layer("ff.net.2", 1, 4, "x_block.mlp.fc2"),
    Layer("ff_context.net.0.proj", 4, 1, "context_block.mlp.fc1"),
    Layer("ff_context.net.2", 1, 4, "context_block.mlp.fc2"),
)


QWEN = (
    Layer("img_mod.1", 6, 1, "img_mod.1"),
    Layer("txt_mod.1", 6, 1, "txt_mod.1"),
    Layer("attn.to_q", 1, 1, "attn.to_q"),
    Layer("attn.to_k", 1, 1, "attn.to_k"),
    Layer("attn.to_v", 1, 1, "attn.to_v"),
    Layer("attn.add_q_proj", 1, 1, "attn.add_q_proj"),
    Layer("attn.add_k_proj", 1, 1, "attn.add_k_proj"),
    Layer("attn.add_v_proj", 1, 1, "attn.add_v_proj"),
    Layer("attn.to_out.0", 1, 1, "attn.to_out.0"),
    Layer("attn.to_add_out", 1, 1, "attn.to_add_out"),
    Layer("img_mlp.net.0.proj", 4, 1, "img_mlp.net.0.proj"),
    Layer("img_mlp.net.2", 1, 4, "img_mlp.net.2"),
    Layer("txt_mlp.net.0.proj", 4, 1, "txt_mlp.net.0.proj"),
    Layer("txt_mlp.net.2", 1, 4, "txt_mlp.net.2"),
)


def parts(layers: tuple[Layer, ...], original: str) -> tuple[tuple[str, int], ...]:
    """The canonical layers that an original layer holds, each with its first output in widths of a token."""
    return tuple((layer.name, layer.row) for layer in layers if layer.original == original)
