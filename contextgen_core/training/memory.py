"""`python -m contextgen_core.training.memory`: an estimate of what training the real adapter takes on a device.

Counted: the frozen transformer, the adapter with its gradient and optimizer state, what checkpointing keeps of
each block, and the largest block while it is computed again. Not counted: the VAE and the text encoders (encode
beforehand or keep them on the CPU), the allocator's slack (add about a tenth). Sizes of FLUX.1: 19 double and 38
single blocks, width 3072, 11.9 G parameters.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

WIDTH, DOUBLE, SINGLE = 3072, 19, 38
PARAMETERS = 11.9e9
ADAPTER_PER_RANK = 1.854e9 / 512  # parameters of the official modules per rank
TEXT = 512
GB = 1e9


class Estimate(NamedTuple):
    """Gigabytes (1e9 bytes) of each part for one device."""

    base: float
    adapter: float
    kept: float
    working: float

    @property
    def total(self) -> float:
        return sum(self)


def estimate(
    size: int,
    reference: int,
    references: int,
    rank: int,
    batch: int,
    base_bytes: float = 2.0,
    shards: int = 1,
    dpo: bool = False,
) -> Estimate:
    """One training step. size, reference: side of the picture and of a reference in pixels; base_bytes: 2 for
    bf16, 1 for fp8; shards: devices that share the frozen weights and the adapter (FSDP); dpo adds the anchor's
    adapter and a second pass."""
    picture = (size // 16) ** 2
    tokens = TEXT + 2 * picture + references * (reference // 16) ** 2
    weights = ADAPTER_PER_RANK * rank
    states = 2 + 2 + 4 + (2 if dpo else 0)  # bf16: value, gradient, two moments; the anchor's value
    kept = batch * tokens * WIDTH * 2 * (DOUBLE + SINGLE) * (2 if dpo else 1)
    working = (
        batch * tokens * WIDTH * 2 * 34
    )  # activations inside a single block: modulation, q k v, 4x MLP, their gradients
    return Estimate(PARAMETERS * base_bytes / shards / GB, weights * states / shards / GB, kept / GB, working / GB)


def table() -> str:
    """Settings that fit 24, 40 and 80 GB, as Markdown."""
    cases = (
        (
            "24 GB",
            "fp8 base, rank 64, 512 px, 2 references",
            dict(size=512, reference=384, references=2, rank=64, batch=1, base_bytes=1.0),
        ),
        (
            "40 GB",
            "bf16 base, rank 256, 768 px, 2 references",
            dict(size=768, reference=512, references=2, rank=256, batch=1),
        ),
        (
            "80 GB",
            "authors' settings: bf16, rank 512, 768 px, 4 references",
            dict(size=768, reference=512, references=4, rank=512, batch=4),
        ),
        ("80 GB", "the same, DPO, batch 2", dict(size=768, reference=512, references=4, rank=512, batch=2, dpo=True)),
        (
            "4 x 40 GB",
            "authors' settings, batch 2 each, sharded (FSDP)",
            dict(size=768, reference=512, references=4, rank=512, batch=2, shards=4),
        ),
    )
    lines = [
        "| device | settings | base | adapter, gradient, optimizer | kept activations | working set | sum |",
        "|---|---|---|---|---|---|---|",
    ]
    for device, text, settings in cases:
        e = estimate(**settings)  # type: ignore[arg-type]
        lines.append(
            f"| {device} | {text} | {e.base:.1f} | {e.adapter:.1f} | {e.kept:.1f} | {e.working:.1f} |"
            f" {e.total:.1f} GB |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.training.memory", description=__doc__)
    parser.add_argument("--size", type=int)
    parser.add_argument("--reference", type=int, default=512)
    parser.add_argument("--references", type=int, default=4)
    parser.add_argument("--rank", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--base-bytes", type=float, default=2.0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--dpo", action="store_true")
    o = parser.parse_args(arguments)
    if o.size is None:
        sys.stdout.write(table() + "\n")
        return 0
    e = estimate(o.size, o.reference, o.references, o.rank, o.batch, o.base_bytes, o.shards, o.dpo)
    sys.stdout.write(
        f"base {e.base:.1f} GB, adapter {e.adapter:.1f} GB, kept {e.kept:.1f} GB, working {e.working:.1f} GB:"
        f" {e.total:.1f} GB\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
