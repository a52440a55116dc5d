"""Random weights of InstanceAssemble for the tiny models, and phrases for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from contextgen_pack.contextgen_core.backbones import Backbone
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.methods.boundary import BlockCounts
from contextgen_pack.contextgen_core.methods.instance_assemble.encoder import AssembleWeights, PairSize
from contextgen_pack.contextgen_core.methods.instance_assemble.files import AssembleFile, write_file
from contextgen_pack.contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE, layout_blocks
from contextgen_pack.contextgen_core.methods.instance_assemble.plan import BoxOptions, PhrasePlan, phrase_box
from contextgen_pack.contextgen_core.methods.instance_assemble.step import PHRASES
from contextgen_pack.nodes import host

DOUBLE = (
    *((f"norm1{side}.linear", 1, 6) for side in ("", "_context")),
    *((f"attn.{name}", 1, 1) for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")),
    *((f"attn.{name}", 1, 1) for name in ("to_out.0", "to_add_out")),
    *((f"{name}.net.2", 4, 1) for name in ("ff", "ff_context")),
)
SINGLE = (
    ("norm.linear", 1, 3),
    *((f"attn.{name}", 1, 1) for name in ("to_q", "to_k", "to_v")),
    ("proj_mlp", 1, 4),
    ("proj_out", 5, 1),
)
BOXES = ((0, 0, 64, 64), (32, 16, 120, 90), (70, 10, 128, 60))


def weights(backbone: Backbone, seed: int = 0, rank: int = 3, pictures: bool = False) -> AssembleFile:
    """Weights for a model of that family and size, always the same ones."""
    width = backbone.width
    blocks: dict[str, tuple[PairSize, ...]] = {}
    for number in layout_blocks(BlockCounts(backbone.double, backbone.single)):
        single = number >= backbone.double
        layers: Any = SINGLE if single else DOUBLE
        if not backbone.single and number == backbone.double - 1:
            layers = [(n, i, 2 if n == "norm1_context.linear" else o) for n, i, o in DOUBLE if "add_out" not in n]
            layers = [layer for layer in layers if "ff_context" not in layer[0]]
        name = f"single_transformer_blocks.{number - backbone.double}" if single else f"transformer_blocks.{number}"
        blocks[name] = tuple(PairSize(layer, i * width, rank, o * width) for layer, i, o in layers)
    modules = AssembleWeights(width, backbone.pooled, blocks, pictures=pictures)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in sorted(modules.state_dict().items()):
        scale = 0.4 / value.shape[-1] ** 0.5 if value.ndim > 1 else 0.1
        state[key] = torch.randn(value.shape, generator=generator) * scale
    return AssembleFile("tiny.safetensors", backbone.name, width, backbone.pooled, blocks, state)


def write(path: Path, backbone: Backbone, pictures: bool = False) -> None:
    write_file(path, weights(backbone, pictures=pictures))


def plan(width: int = 128, height: int = 96, pooled: int = 0, **options: Any) -> PhrasePlan:
    boxes = [phrase_box(f"box {n}", Box(*box), width, height, BoxOptions(**options)) for n, box in enumerate(BOXES, 1)]
    return PhrasePlan(height // 16, width // 16, tuple(boxes), pooled)


def phrases(pooled: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((1, len(BOXES), pooled), generator=torch.Generator().manual_seed(seed + 900))


def attach(conditioning: list[Any], of: PhrasePlan, pooled: int, seed: int = 0) -> list[Any]:
    """A conditioning with phrases."""
    return host.attach(conditioning, INSTANCE_ASSEMBLE, of, [], {PHRASES: phrases(pooled, seed)})
