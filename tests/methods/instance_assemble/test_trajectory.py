"""A grounding ratio along a run on diffusers: boxes act in the first steps by their number, and then no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contextgen_core.backbones.flux import pack, shifted_sigmas
from contextgen_core.commands import parity
from contextgen_core.hosts.diffusers import FlowPosition, FluxHost, load_transformer
from contextgen_core.hosts.diffusers_sd3 import SD3Host, load_sd3
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_core.methods.instance_assemble.step import AssembleSettings

GOLDEN = Path(__file__).parents[2] / "golden" / "instance_assemble"
STEPS = 10


class Run:
    """A golden case's picture on its model, sampled by Euler steps."""

    def __init__(self, case: str) -> None:
        prefix = "sd3_" if "sd3" in case else ""
        words = {
            "weights": GOLDEN / f"{prefix}transformer.safetensors",
            "layout-weights": GOLDEN / f"{prefix}layout.safetensors",
            "adapter": GOLDEN / f"{prefix}pytorch_lora_weights.safetensors",
            "config": GOLDEN / "config.json",
        }
        options = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        given = [str(GOLDEN / f"{case}.npz"), "--method", "instance_assemble", "--host", "diffusers", *options]
        arguments = parity.parse(given)
        self.case = parity.load(arguments)
        config, state = parity.transformer(arguments.config, arguments.weights, self.case.config)
        self.sd3 = self.case.family == "sd3"
        self.model = load_sd3(config, state) if self.sd3 else load_transformer(config, state)
        self.modules = self.case.modules() if self.case.modules else None

    def velocity(self, host: Any, x: torch.Tensor, sigma: float, ratio: float, position: FlowPosition | None) -> Any:
        bound = Bound(INSTANCE_ASSEMBLE, self.case.bound.plan, AssembleSettings(ratio=ratio))
        words: dict[str, Any] = {
            "text": self.case.text,
            "pooled": self.case.pooled,
            "vectors": self.case.vectors,
            "modules": {INSTANCE_ASSEMBLE.name: self.modules},
            "position": position,
        }
        if self.sd3:
            return host.velocity(bound, x, timestep=torch.tensor([1000 * sigma]), **words)
        return host.velocity(bound, x, None, timestep=torch.tensor([sigma]), guidance=self.case.guidance, **words)

    @torch.no_grad()
    def sampled(self, ratio: float, active: int | None = None) -> torch.Tensor:
        """The last latent; ``active``: with boxes in so many steps, told by hand instead of by the place in the run."""
        x = self.case.noise if self.sd3 else pack(self.case.noise)
        sigmas = shifted_sigmas(STEPS, 256).tolist()
        with SD3Host(self.model) if self.sd3 else FluxHost(self.model) as host:
            for step, (now, after) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
                if active is None:
                    velocity = self.velocity(host, x, now, ratio, FlowPosition(now, sigmas, 256))
                else:
                    velocity = self.velocity(host, x, now, 1.0 if step < active else 0.0, None)
                x = x + (after - now) * velocity
        return x


@pytest.mark.parametrize("case", ["ia_two_boxes", "ia_sd3_two_boxes"])
def test_boxes_act_in_the_first_steps_by_their_number(case: str) -> None:
    run = Run(case)
    drawn = [run.sampled(ratio) for ratio in (0.0, 0.1, 0.35, 0.5, 1.0)]
    for got, active in zip(drawn, (0, 1, 3, 5, 10), strict=True):  # int(ratio * 10) steps
        assert torch.equal(got, run.sampled(1.0, active))
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(drawn, drawn[1:], strict=False))


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
def test_a_ratio_is_cut_to_whole_steps_in_double_precision(steps: int, ratio: float) -> None:
    sigmas = shifted_sigmas(steps, 1024).tolist()
    acting = [FlowPosition(sigma, sigmas, 1024).before_step(ratio) for sigma in sigmas[:-1]]
    assert acting == [step < int(ratio * steps) for step in range(steps)]
