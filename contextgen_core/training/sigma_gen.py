"""SIGMA-GEN under training: its adapter, and the network that gives the velocity.

Nothing here knows attention: the forward pass is the product's own (`FluxHost`), since no token is hidden from another
and pictures of equally many subjects share one plan. With its defaults the adapter is an ordinary LoRA; where it is to
act on the condition tokens alone, it stands beside the weights, as the product loads it then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import sdpa
from ..errors import InputError
from ..hosts.diffusers import FluxHost
from ..lora.adapter import Adapter as LoraFile
from ..lora.adapter import LowRank
from ..lora.switched import SwitchedAdapter
from ..methods.boundary import Bound, RunPosition
from ..methods.sigma_gen.method import SIGMA_GEN, Settings
from .adapter import TARGETS, Adapter, adapter_state, add_adapter, load_adapter_state
from .batch import Batch
from .config import Config
from .model import softmax_product
from .small_world.controls import ROUTED, encode_scenes_routed


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
    """(B, H, S, D) three times -> (B, S, H * D), in two products; faster than fused kernels on small pictures."""
    if mask is not None:
        return sdpa(q, k, v, mask)
    batch, heads = q.shape[:2]
    out = softmax_product(q.flatten(0, 1), k.flatten(0, 1), None, v.flatten(0, 1))
    return out.unflatten(0, (batch, heads)).transpose(1, 2).flatten(2)


class RoutedNetwork(nn.Module):
    """A frozen transformer with SIGMA-GEN's condition tokens and adapter; `forward` gives the velocity of the noise
    tokens. `switched` is the adapter where it acts on the condition tokens alone."""

    def __init__(self, transformer: Any, config: Config) -> None:
        super().__init__()
        routing = config.routing
        self.settings = Settings(routing.timestep, routing.guidance, routing.scope, routing.cross)
        self.switched = add_switched(transformer, config) if routing.scope == "conditions" else None
        if self.switched is None:
            lora = config.lora
            alpha = lora.alpha or lora.rank
            add_adapter(transformer, Adapter(lora.rank, alpha, lora.folded, lora.one_sided), config.seed)
        self.transformer = transformer
        self.guidance = config.flow.guidance
        self.routing = routing
        self.judged_with("box")
        self._attend = plain_attention if config.method.kernel == "batched" else sdpa
        self._host = [FluxHost(transformer)]  # in a list: not a submodule

    def judged_with(self, kind: str) -> None:
        """From now on scenes are encoded with this kind of regions, one of `routing.KINDS`."""
        self.reader = ROUTED._replace(encode=partial(encode_scenes_routed, settings=self.routing, kind=kind))

    def forward(self, batch: Batch, noisy: Tensor, times: Tensor, position: RunPosition | None = None) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)."""
        if len(set(batch.plans)) > 1:
            raise InputError("The pictures of a batch have different numbers of subjects; set batch to 1.")
        return self._host[0].velocity(
            Bound(SIGMA_GEN, batch.plans[0], self.settings),
            noisy,
            batch.conditions,
            text=batch.text,
            pooled=batch.pooled,
            timestep=times,
            guidance=None if self.guidance is None else torch.full_like(times, self.guidance),
            modules=None if self.switched is None else {SIGMA_GEN.name: self.switched},
            position=position,
            attend=self._attend,
        )


def add_switched(transformer: Any, config: Config) -> SwitchedAdapter:
    """Freezes the transformer; returns the adapter that trains beside it (Gaussian A, zero B, as PEFT's)."""
    transformer.requires_grad_(False)
    lora, generator = config.lora, torch.Generator().manual_seed(config.seed)
    pairs = []
    for name, module in transformer.named_modules():
        if re.fullmatch(TARGETS, name):
            outputs, inputs = module.weight.shape
            down = torch.randn(lora.rank, inputs, generator=generator) / lora.rank
            pairs.append(LowRank(name, down, torch.zeros(outputs, lora.rank), lora.alpha or lora.rank))
    switched = SwitchedAdapter(LoraFile(tuple(pairs)), len(transformer.transformer_blocks))
    return switched.requires_grad_(True)


def state_of(network: RoutedNetwork) -> dict[str, Tensor]:
    """The adapter in diffusers' keys, whichever form it trains in."""
    if network.switched is None:
        return adapter_state(network.transformer)
    return {key: tensor.detach() for key, tensor in _tensors(network.switched).items()}


def load_state(network: RoutedNetwork, state: Mapping[str, Tensor]) -> None:
    """Fills the adapter. Raises InputError for a file of another shape."""
    if network.switched is None:
        load_adapter_state(network.transformer, state)
        return
    tensors = _tensors(network.switched)
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in state.items()}:
        raise InputError("The adapter has other modules or another rank than this model; set lora.rank to its rank.")
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(state[key])


def _tensors(switched: SwitchedAdapter) -> dict[str, Tensor]:
    return {
        f"transformer.{name}.lora_{side}.weight": tensor
        for name, down, up in zip(switched.names, switched.down, switched.up, strict=True)
        for side, tensor in (("A", down), ("B", up))
    }
