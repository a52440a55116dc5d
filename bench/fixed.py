"""A step of SIGMA-GEN with its pictures remembered, against the same step that computes them anew, and the stock form.

    python bench/fixed.py --size 1024 --subjects 4 --cell 512

FLUX.1's depth and head size at a reduced width on diffusers, on one CPU thread (on a GPU: the wall). Times are CPU time
of the process, medians of interleaved runs. ``stock`` has the defaults (current timestep, everyone sees everyone:
another result, as another training would want it). ``ideal`` is arithmetic: 24 D^2 per token and block, 4 D per
query-key pair.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from models import POOLED, Shape, diffusers_config
from workload import interleaved

from contextgen_core.hosts.diffusers import FluxHost
from contextgen_core.hosts.remembered import Remembered
from contextgen_core.layout.tokens import TOKEN
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.sigma_gen.method import SIGMA_GEN, Plan, Settings

FIXED = Settings(timestep="zero", cross=False, context=False)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    double, single = options.blocks
    shape = Shape(options.width, double, single, options.text)
    dtype, device = getattr(torch, options.dtype), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device(device):
        transformer = FluxTransformer2DModel(**diffusers_config(shape)).to(dtype).eval()
    side, cell = options.size // TOKEN, options.cell // TOKEN
    plan = Plan(side, side, cell, options.subjects * cell)
    pictures = plan.stack_tokens + plan.noise_tokens

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, device=device, dtype=dtype)

    given: dict[str, Any] = {
        "noise": normal(1, plan.noise_tokens, 64),
        "conditions": normal(1, pictures, 64),
        "text": normal(1, shape.text, shape.width),
        "pooled": normal(1, POOLED),
        "timestep": torch.full((1,), 0.5, device=device, dtype=dtype),
        "guidance": torch.full((1,), 2.5, device=device, dtype=dtype),
    }
    remembered = Remembered()
    with torch.no_grad(), FluxHost(transformer) as host:

        def step(settings: Settings, of: Remembered | None = None) -> torch.Tensor:
            out = host.velocity(Bound(SIGMA_GEN, plan, settings), **given, remembered=of)
            return out.cpu()  # waits for the device

        first = step(FIXED, remembered)
        difference = float((step(FIXED, remembered) - first).abs().max() / first.abs().max())
        forms: list[Callable[[], object]] = [
            lambda: step(FIXED, remembered),
            lambda: step(replace(FIXED, memory=0.0)),
            lambda: step(Settings()),
        ]
        recalled, anew, stock = interleaved(forms, options.repeats, warm=options.repeats > 1)
    pick = "wall" if device.type == "cuda" else "cpu"
    short = shape.text + plan.noise_tokens
    whole, blocks = short + pictures, shape.double + shape.single
    linear, pair = 24 * shape.width**2, 4 * shape.width
    seen = short * whole + plan.stack_tokens**2 + plan.noise_tokens**2
    ideal = (linear * whole + pair * seen) / (linear * short + pair * short * whole)
    seconds = {name: getattr(of, pick) for name, of in (("recalled", recalled), ("anew", anew), ("stock", stock))}
    return {
        "tokens": whole,
        "tokens_recalled": short,
        **{f"{name}_seconds": round(value, 3) for name, value in seconds.items()},
        "ratio": round(seconds["anew"] / seconds["recalled"], 3),
        "ideal": round(ideal, 3),
        "stock_ratio": round(seconds["stock"] / seconds["recalled"], 3),
        "stock_ideal": round((linear * whole + pair * whole**2) / (linear * short + pair * short * whole), 3),
        "difference": difference,
        "remembered_bytes": remembered.held,
        "bytes_of_flux1_in_bfloat16": 57 * 2 * pictures * 3072 * 2,
        **{name: getattr(options, name) for name in ("size", "subjects", "cell", "width", "dtype", "text")},
        "blocks": blocks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the square picture in pixels")
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--cell", type=int, default=256, help="side of one identity in pixels")
    parser.add_argument("--width", type=int, default=256, help="width of the model, a multiple of 128 (FLUX.1: 3072)")
    parser.add_argument("--blocks", type=int, nargs=2, default=(19, 38), metavar=("DOUBLE", "SINGLE"))
    parser.add_argument("--text", type=int, default=512)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
