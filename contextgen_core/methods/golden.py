"""Golden cases: what a method's parity module makes of one, for ``python -m contextgen_core.parity``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from .boundary import Bound

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Golden:
    """One golden case, planned from what a user would give (boxes, mask pictures, sizes), ready for any host.

    noise      (1, 16, h, w) latent of the noisy picture
    pictures   latents of the condition pictures, (1, 16, h, w) each, in the plan's order
    velocity   the answer on the noise tokens, (1, M, 64), or as a latent like ``noise``
    facts      what was compared on the way; those that are bool must be True, those that are float at most ``within``
    within     the most that a float of the facts may be; 0 for those that are not named
    vectors    encoded phrases by name, batch first
    tolerance  of the velocity, absolute, in float32
    family     the model family of the case: flux, sd3 or qwen; config: the name of its configuration in the file
    modules    makes the method's extra weights from a class of linear layer, None where it has none; the adapter is in
               them
    positive   whether the picture belongs to the positive conditioning
    others     the further pictures of a batch, which have layouts of their own
    """

    bound: Bound
    noise: torch.Tensor
    pictures: tuple[torch.Tensor, ...]
    text: torch.Tensor
    pooled: torch.Tensor
    timestep: torch.Tensor
    guidance: torch.Tensor | None
    velocity: torch.Tensor
    facts: Mapping[str, bool | float | int | str] = field(default_factory=dict)
    vectors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    tolerance: float = 2e-5
    within: Mapping[str, float] = field(default_factory=dict)
    family: str = "flux"
    config: str = "transformer"
    modules: Callable[..., Any] | None = None
    positive: bool = True
    others: tuple[Golden, ...] = ()


class GoldenModule(Protocol):
    """The module ``parity`` of a method's package."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The method's own options."""
        ...

    def golden(self, arrays: Arrays, arguments: argparse.Namespace) -> Golden:
        """Plans a case and compares everything but the velocity."""
        ...
