"""Muon: momentum whose every step is made orthogonal, for weight matrices (Jordan et al., 2024,
github.com/KellerJordan/Muon).

Adam changes a small network along few directions at first; an orthogonal step moves along all of them, which at
this size learns to read references in far fewer samples. What is not a matrix steps as Adam's does. The
iteration runs in the dtype that it is given: bfloat16 where the machine has units for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic that pushes singular values towards one


def orthogonal(matrix: Tensor, rounds: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: all singular values between about 0.7 and 1.2. (rows, columns)"""
    x = matrix.to(dtype)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """For parameters with two dimensions; the others of the model step as Adam's do, at `vector_share` of the rate and
    without decay.

    rate is the spectral norm of a step on a square matrix; tall ones step further."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        vector_share: float = 0.2,
        betas: tuple[float, float] = (0.9, 0.98),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        every = list(parameters)
        groups = [
            {"params": [p for p in every if p.ndim == 2], "matrices": True},
            {"params": [p for p in every if p.ndim != 2], "matrices": False},
        ]
        super().__init__(
            [g for g in groups if g["params"]], {"lr": rate, "momentum": momentum, "weight_decay": weight_decay}
        )
        self.vector_share, self.betas, self.dtype = vector_share, betas, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if not group["matrices"]:
                self._vectors(trained, group["lr"] * self.vector_share)
                continue
            for p, change in zip(trained, self._changes(trained, group["momentum"]), strict=True):
                scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(change, alpha=-group["lr"] * scale)
        return loss

    def _vectors(self, parameters: list[Any], rate: float) -> None:
        """One step of Adam on biases and norms."""
        first, second = self.betas
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"], state["mean"], state["square"] = (
                    torch.zeros(()),
                    torch.zeros_like(p),
                    torch.zeros_like(p),
                )
            state["step"] += 1
            count = int(state["step"])
            state["mean"].lerp_(p.grad, 1 - first)
            state["square"].lerp_(p.grad.square(), 1 - second)
            spread = (state["square"] / (1 - second**count)).sqrt_().add_(1e-8)
            p.addcdiv_(state["mean"], spread, value=-rate / (1 - first**count))

    def _changes(self, parameters: list[Any], momentum: float) -> list[Tensor]:
        """The orthogonal steps. Several processes, whose gradients are equal by now, each compute a share and
        exchange them."""
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        count, own = (torch.distributed.get_world_size(), torch.distributed.get_rank()) if shared else (1, 0)
        changes = []
        for number, p in enumerate(parameters):
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - momentum)
            mine = number % count == own
            changes.append(
                orthogonal(p.grad.lerp(state["momentum"], momentum), dtype=self.dtype) if mine else torch.zeros_like(p)
            )  # Nesterov
        if count == 1:
            return changes
        flat = torch.cat([c.reshape(-1) for c in changes])
        torch.distributed.all_reduce(flat)
        return [piece.view_as(c) for piece, c in zip(flat.split([c.numel() for c in changes]), changes, strict=True)]
