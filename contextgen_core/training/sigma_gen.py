"""SIGMA-GEN under training: its adapter, and the network that gives the velocity.

Nothing here knows attention: the forward pass is the product's own (`FluxHost`), since no token is hidden from another
and pictures of equally many subjects share one plan. With its defaults the adapter is an ordinary LoRA; where it is to
act on the condition tokens alone, it stands beside the weights, as the product loads it then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import sdpa
from ..errors import InputError
from ..hosts.diffusers import FluxHost
from ..lora import adapter as files
from ..lora.switched import SwitchedAdapter
from ..methods.boundary import Bound
from ..methods.sigma_gen.method import SIGMA_GEN, Settings
from ..tiny.text import Form
from .batch import Batch
from .config import Config, RoutingConfig
from .model import TARGETS, Adapter, adapter_state, add_adapter, load_adapter_state, softmax_product
from .parts import words_form
from .small_world.controls import encode_scenes_routed, routed_batch

SWITCHED = "switched"  # the adapter of the condition tokens alone, beside the blocks


def settings_of(routing: RoutingConfig) -> Settings:
    return Settings(routing.timestep, routing.guidance, routing.scope, routing.cross)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
    """(B, H, S, D) three times -> (B, S, H * D), in two products; faster than fused kernels on small pictures."""
    if mask is not None:
        return sdpa(q, k, v, mask)
    batch, heads = q.shape[:2]
    out = softmax_product(q.flatten(0, 1), k.flatten(0, 1), None, v.flatten(0, 1))
    return out.unflatten(0, (batch, heads)).transpose(1, 2).flatten(2)


class RoutedNetwork(nn.Module):
    """The transformer with SIGMA-GEN's condition tokens; `forward` gives the velocity of the noise tokens.

    region: kind of the regions that judge it (one of `routing.KINDS`)."""

    def __init__(self, transformer: Any, config: Config) -> None:
        super().__init__()
        self.transformer = transformer
        self.settings = settings_of(config.routing)
        self.routing = config.routing
        self.region = "box"
        self.guidance = config.flow.guidance
        self.form: Form = words_form(config)
        self.collate: Callable[..., Batch] = routed_batch
        self._attend = plain_attention if config.method.kernel == "batched" else sdpa
        self._host = [FluxHost(transformer)]  # in a list: not a submodule

    def encode(self, vae: Any, scenes: Any, pictures: Any, keys: Any = None) -> Any:
        return encode_scenes_routed(vae, scenes, pictures, keys, settings=self.routing, kind=self.region)

    def forward(self, batch: Batch, noisy: Tensor, times: Tensor) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)."""
        if len(set(batch.plans)) > 1:
            raise InputError("The pictures of a batch have different numbers of subjects; set batch to 1.")
        switched = getattr(self.transformer, SWITCHED, None)
        return self._host[0].velocity(
            Bound(SIGMA_GEN, batch.plans[0], self.settings),
            noisy,
            batch.conditions,
            text=batch.text,
            pooled=batch.pooled,
            timestep=times,
            guidance=None if self.guidance is None else torch.full_like(times, self.guidance),
            modules=None if switched is None else {SIGMA_GEN.name: switched},
            attend=self._attend,
        )


def adapt(transformer: Any, config: Config, state: dict[str, Tensor] | None) -> None:
    """Freezes the transformer and gives it the adapter, filled from a file's tensors where some are given."""
    lora = config.lora
    if config.routing.scope == "all":
        add_adapter(transformer, Adapter(lora.rank, lora.alpha or lora.rank, lora.folded, lora.one_sided), config.seed)
        if state is not None:
            load_adapter_state(transformer, state)
        return
    transformer.requires_grad_(False)
    generator = torch.Generator().manual_seed(config.seed)
    pairs = []
    for name, module in transformer.named_modules():
        if not re.fullmatch(TARGETS, name):
            continue
        outputs, inputs = module.weight.shape
        down = torch.randn(lora.rank, inputs, generator=generator) / lora.rank
        up = torch.zeros(outputs, lora.rank)
        key = f"transformer.{name}.lora_"
        if state is not None:
            down, up = state[f"{key}A.weight"], state[f"{key}B.weight"]
        pairs.append(files.LowRank(name, down, up, lora.alpha or lora.rank))
    switched = SwitchedAdapter(files.Adapter(tuple(pairs)), len(transformer.transformer_blocks))
    setattr(transformer, SWITCHED, switched.requires_grad_(True))


def state_of(transformer: Any) -> dict[str, Tensor]:
    """The adapter in the authors' keys (those of diffusers), whichever form it trained in."""
    switched = getattr(transformer, SWITCHED, None)
    if switched is None:
        return adapter_state(transformer)
    return {
        f"transformer.{name}.lora_{side}.weight": tensor.detach()
        for name, down, up in zip(switched.names, switched.down, switched.up, strict=True)
        for side, tensor in (("A", down), ("B", up))
    }
