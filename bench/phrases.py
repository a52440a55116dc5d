"""Seconds a step for so many phrases in boxes: one pass in groups, against one pass for each region and the dense mask.

    python bench/phrases.py [--phrases 1 2 4 7] [--size 512] [--text 512] [--width 256] [--repeats 3] [--json]

``passes`` is the host's own way with Conditioning Set Mask: the whole picture's prompt and each region run the plain
model once, with a text each. ``dense`` is ours under the mask over all tokens. The boxes tile the picture side by side.
FLUX.1's depth and head size at a reduced width, on one CPU thread; times are CPU time of the process, medians of
interleaved runs. ``ideal`` is the arithmetic of ours against the same of the others: 24 D^2 per token and block, 4 D
per query-key pair that the rule allows.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch
from workload import ROOT, interleaved, machine  # noqa: F401 - ROOT puts the repository on the path

from contextgen_core.attention.groups import pairs
from contextgen_core.hosts.diffusers import FluxHost
from contextgen_core.methods.boundary import BlockCounts, Bound, ForwardCall
from contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens

HEAD = 128


def plan(grid: int, count: int, tokens: int) -> EliGenPlan:
    """So many phrases, side by side over the whole picture."""
    made = []
    for number in range(count):
        inside = np.zeros((grid, grid), bool)
        inside[:, grid * number // count : grid * (number + 1) // count] = True
        made.append(phrase_tokens(tokens, inside))
    return EliGenPlan(grid, grid, tuple(made))


def work(bound: Bound, blocks: BlockCounts, text: int, width: int) -> float:
    """Multiply-adds counted as two, of one step."""
    method, layout, settings = bound
    noise = method.sizes(layout)[0]
    moment = method.moment(layout, settings, None) or ()
    forward = method.forward(layout, settings, ForwardCall(moment, text, blocks, noise))
    lengths = forward.lengths(text, noise)
    seen = sum(pairs(block.groups, length) for block, length in zip(forward.blocks, lengths, strict=True))
    return 24.0 * width**2 * sum(lengths) + 4.0 * width * seen


@torch.no_grad()
def measure(count: int, options: argparse.Namespace, host: FluxHost) -> dict[str, Any]:
    grid, text, width = options.size // 16, options.text, options.width
    generator = torch.Generator().manual_seed(0)
    given: dict[str, Any] = {
        "noise": torch.randn((1, grid * grid, 64), generator=generator),
        "text": torch.randn((1, text, 64), generator=generator),
        "pooled": torch.randn((1, 64), generator=generator),
        "timestep": torch.full((1,), 0.5),
    }
    layout = plan(grid, count, text)
    phrases = torch.randn((1, layout.phrase_tokens, 64), generator=generator)
    nothing = Bound(ELIGEN, EliGenPlan(grid, grid), EliGenSettings())

    def ours(kernel: str) -> None:
        host.velocity(Bound(ELIGEN, layout, EliGenSettings(kernel=kernel)), vectors={"phrases": phrases}, **given)

    def passes() -> None:
        for _ in range(count + 1):
            host.velocity(nothing, **given)

    grouped, one_each, dense = interleaved([lambda: ours("auto"), passes, lambda: ours("dense")], options.repeats)
    least = work(Bound(ELIGEN, layout, EliGenSettings()), host.counts, text, width)
    plain = work(nothing, host.counts, text, width)
    total = layout.phrase_tokens + text + grid * grid
    full = host.counts.all * (24.0 * width**2 * total + 4.0 * width * total**2)
    return {
        "phrases": count,
        "tokens": total,
        "seconds": {"ours": grouped.cpu, "passes": one_each.cpu, "dense": dense.cpu},
        "passes_over_ours": round(one_each.cpu / grouped.cpu, 2),
        "ideal_passes_over_ours": round((count + 1) * plain / least, 2),
        "dense_over_ours": round(dense.cpu / grouped.cpu, 2),
        "ideal_dense_over_ours": round(full / least, 2),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phrases", type=int, nargs="+", default=[1, 2, 4, 7])
    parser.add_argument("--size", type=int, default=512, help="side of the square picture in pixels")
    parser.add_argument("--text", type=int, default=512, help="tokens of the prompt and of each phrase")
    parser.add_argument("--width", type=int, default=256, help="width of the model, a multiple of 128 (FLUX.1: 3072)")
    parser.add_argument("--blocks", type=int, nargs=2, default=(19, 38), metavar=("DOUBLE", "SINGLE"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each number of phrases")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    from diffusers import FluxTransformer2DModel

    options = parse(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=options.blocks[0],
        num_single_layers=options.blocks[1],
        attention_head_dim=HEAD,
        num_attention_heads=options.width // HEAD,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        axes_dims_rope=(16, 56, 56),
        guidance_embeds=False,
    ).eval()
    if not options.json:
        sys.stdout.write(f"{machine()}; width {options.width}, {options.size} px, {options.text} text tokens\n")
    with FluxHost(transformer) as host:
        for count in options.phrases:
            told = measure(count, options, host)
            if options.json:
                sys.stdout.write(json.dumps(told) + "\n")
            else:
                seconds = ", ".join(f"{name} {value:.2f} s" for name, value in told["seconds"].items())
                sys.stdout.write(
                    f"{count} phrases: {seconds}; passes / ours {told['passes_over_ours']} (ideal"
                    f" {told['ideal_passes_over_ours']}), dense / ours {told['dense_over_ours']} (ideal"
                    f" {told['ideal_dense_over_ours']})\n"
                )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
