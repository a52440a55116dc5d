"""Attention alone, per rule and kernel, at FLUX.1's head shape: the ratio to the dense form beside the ideal one.

    python bench/attention.py --sizes 512 --references 1 4 --dtypes float32 bfloat16 --heads 2

FLUX.1 has 24 heads of 128; every head costs the same, so few heads give the same ratios sooner (but then the dense
form's mask, which all heads share, weighs more). CPU time of one thread; on a GPU the wall clock.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from workload import TEXT, interleaved, make_plan

from contextgen_core.attention import compile_blocks, run
from contextgen_core.attention.groups import pairs
from contextgen_core.methods.contextgen.sequence import Plan
from contextgen_core.methods.contextgen.settings import Settings, arrange, references_read
from contextgen_core.methods.contextgen.visibility import block_groups

WIDTH = 128
BLOCKS = (1, 4)  # CLA, then ICA with references that are still needed, ICA for the last time, CLA without them
RULES = {"CLA": 0, "ICA": 1}


def measure(plan: Plan, dtype: torch.dtype, heads: int, kernels: list[str], repeats: int) -> list[dict[str, Any]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forms = {}
    for kernel in ("dense", *kernels):
        settings = Settings(kernel=kernel, prune=kernel != "dense")
        arranged = arrange(plan, settings, references_read(plan, settings), TEXT, BLOCKS)
        blocks = block_groups(*arranged)
        programs = compile_blocks(blocks, kernel, device, dtype)
        shape = (3, 1, heads, arranged.sequence.length, WIDTH)
        forms[kernel] = (blocks, programs, torch.randn(shape, device=device).to(dtype))
    rows = []
    for rule, block in RULES.items():
        calls = [(lambda program=programs[block], qkv=qkv: run(program, *qkv)) for _, programs, qkv in forms.values()]
        with torch.inference_mode():
            times = interleaved(calls, repeats)
        seconds = {name: t.wall if device.type == "cuda" else t.cpu for name, t in zip(forms, times, strict=True)}
        groups, kept = forms[kernels[0]][0][block]
        full = TEXT + plan.image_tokens
        ideal = full**2 / pairs(groups, kept)
        for kernel in list(forms)[1:]:
            ratio = seconds["dense"] / seconds[kernel]
            rows.append(
                {
                    "rule": rule,
                    "kernel": kernel,
                    "dtype": str(dtype).removeprefix("torch."),
                    "tokens_full": full,
                    "tokens_kept": kept,
                    "seconds": seconds[kernel],
                    "dense_seconds": seconds["dense"],
                    "ratio": round(ratio, 3),
                    "ideal": round(ideal, 3),
                    "share_of_ideal": round(ratio / ideal, 3),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 768, 1024])
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--covers", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--kernels", nargs="+", default=["merge", "grouped"])
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        for references in options.references:
            for cover in options.covers:
                plan = make_plan(size, references, cover)
                for dtype in options.dtypes:
                    case = {"size": size, "references": references, "cover": cover, "heads": options.heads}
                    for row in measure(plan, getattr(torch, dtype), options.heads, options.kernels, options.repeats):
                        rows.append({**case, **row})
                        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
