"""Weights divided among processes (FSDP2): every process keeps a part of each tensor, and a block is whole only while
it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import InputError
from .config import Config


def check(config: Config) -> None:
    """What cannot be divided, as InputError: optimizers that look at whole matrices, and factors that are fixed."""
    if config.stage == "autoencoder":
        raise InputError(
            "shard divides the transformer and this stage has none; remove shard from the training config."
        )
    if config.optimizer.name != "adamw":
        raise InputError(
            f"optimizer.name is {config.optimizer.name!r}, which needs whole tensors; with shard use adamw."
        )
    if config.lora.one_sided:
        raise InputError(
            "lora.one_sided needs whole factors; set it to false, or remove shard from the training config."
        )


def divide(transformer: Any, device: torch.device, processes: int) -> None:
    """Divides a diffusers transformer among the processes, block by block, so that none ever holds it whole on its
    device. Blocks are gathered again for the backward pass."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for block in (*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", ())):
        fully_shard(block, mesh=mesh)
    fully_shard(transformer, mesh=mesh, reshard_after_forward=True)  # DPO swaps adapters between two passes


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all its parts, on every process; each of them has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def alike(value: Tensor, pattern: Tensor) -> Tensor:
    """The value, divided as `pattern` is."""
    if not isinstance(pattern, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)


def whole_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(value) for name, value in tensors.items()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state dict with whole tensors."""
    return _state(optimizer.state_dict(), lambda value, _: whole(value))


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes up a state of whole tensors."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.load_state_dict(
        _state(state, lambda v, n: alike(v, parameters[n]) if v.shape == parameters[n].shape else v)
    )


def _state(state: dict[str, Any], change: Callable[[Tensor, int], Tensor]) -> dict[str, Any]:
    """The state dict with every tensor changed; `change` also gets its parameter's number."""
    own = {
        number: {k: change(v, number) if isinstance(v, Tensor) else v for k, v in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": own}
