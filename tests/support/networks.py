"""Networks away from the calm start of a training, where much is zero: every path of them carries something."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SPREAD = 0.08


def randomise(network: nn.Module) -> None:
    """Fills all weights with the same random numbers in each run; norms stay about 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            offset = 1.0 if ".norm_" in name else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * SPREAD + offset)


def gradients(task: Any, seed: int) -> tuple[float, dict[str, Tensor]]:
    """The loss of a training task's step, and the gradients of its network by name."""
    loss, _ = task.model(*task.inputs(seed, 0))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in task.network.named_parameters() if p.grad is not None}
