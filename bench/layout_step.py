"""InstanceAssemble's layout step after one FLUX double block: all instances at once against one after the other.

    python bench/layout_step.py --boxes 20 50 --width 512

A layout of 1024 x 1024 pixels (4096 tokens). ``loop`` projects and attends each instance by itself, as the authors'
code does; both forms run by turns in one process. CPU time of one thread; on a GPU the wall clock. ``operations``
counts torch's calls, views left out; ``share`` is the step's time beside that of the block, ``ideal`` its arithmetic
beside the block's.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers.transformer_flux import FluxPosEmbed, FluxTransformerBlock
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from contextgen_core.attention import Span
from contextgen_core.backbones import rotate, view
from contextgen_core.layout.box import Box
from contextgen_core.methods.boundary import BlockCounts, BlockWork, ForwardCall
from contextgen_core.methods.instance_assemble.encoder import AssembleWeights, PairSize
from contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_core.methods.instance_assemble.plan import PhrasePlan, phrase_box
from contextgen_core.methods.instance_assemble.step import PHRASES, AssembleSettings

SIDE, TEXT, POOLED, RANK = 64, 512, 768, 4
LAYERS = (
    *((f"norm1{side}.linear", 1, 6) for side in ("", "_context")),
    *((f"attn.{name}", 1, 1) for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")),
    *((f"attn.{name}", 1, 1) for name in ("to_out.0", "to_add_out")),
    *((f"{name}.net.2", 4, 1) for name in ("ff", "ff_context")),
)
VIEWS = ("view", "reshape", "transpose", "permute", "unsqueeze", "slice", "select", "expand", "split", "t", "unbind")


class Operations(TorchDispatchMode):
    """Counts calls that are no mere views."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__.strip("_") not in VIEWS
        return func(*args, **(kwargs or {}))


class Case:
    def __init__(self, boxes: int, width: int, heads: int, device: torch.device, dtype: torch.dtype) -> None:
        rng = np.random.default_rng(boxes)
        made = []
        for number in range(boxes):
            w, h = rng.integers(96, 480, 2)
            x, y = rng.integers(0, 1024 - w), rng.integers(0, 1024 - h)
            made.append(phrase_box(f"box {number + 1}", Box(x, y, x + w, y + h), 1024, 1024))
        self.plan = PhrasePlan(SIDE, SIDE, tuple(made))
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.block = FluxTransformerBlock(width, heads, width // heads).to(**kind).requires_grad_(False)
        sizes = [PairSize(layer, i * width, RANK, o * width) for layer, i, o in LAYERS]
        self.weights = AssembleWeights(width, POOLED, {"transformer_blocks.0": sizes}, **kind).requires_grad_(False)
        self.positions = FluxPosEmbed(10000, [16, 56, 56])  # heads of 128
        self.image = torch.randn(1, SIDE * SIDE, width, **kind)
        self.text = torch.randn(1, TEXT, width, **kind)
        self.vec = torch.randn(1, width, **kind)
        self.phrases = torch.randn(1, boxes, POOLED, **kind)
        ids = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), -1).reshape(-1, 2)
        ids = torch.cat([torch.zeros(SIDE * SIDE, 1), ids.float()], 1)
        self.rope = self.positions(torch.cat([torch.zeros(TEXT, 3), ids]).to(device))
        self.image_rope = tuple(table[TEXT:] for table in self.rope)
        # Two blocks, so that layout tokens go on after the first as they do in a model.
        call = ForwardCall(tuple(range(boxes)), TEXT, BlockCounts(2, 0), (SIDE, SIDE), device=device, dtype=dtype)
        self.after: Any = INSTANCE_ASSEMBLE.forward(self.plan, AssembleSettings(), call).blocks[0].after
        self.cells = [torch.from_numpy(box.indices(SIDE)).to(device) for box in made]

    def at_once(self) -> Tensor:
        work = BlockWork(
            0, True, self.image.clone(), self.text, Span(0, SIDE * SIDE), self.vec, self.rope, self.positions,
            view(self.block), self.weights, {PHRASES: self.phrases}, [True],
        )  # fmt: skip
        self.after(work)
        return work.image

    def loop(self) -> Tensor:
        """One instance after the other, each token projected for each box that covers it."""
        functions: Any = view(self.block)
        extras = self.weights.block(True, 0)
        additions, image = extras.additions(), self.image.clone()
        first, second = functions.image.modulation(self.vec, additions)
        attention, feed = functions.text.modulation(self.vec, additions)
        normed = functions.image.modulate(functions.image.norm1(image), first)
        points = self.after.__self__.cover.points
        tokens = self.weights.layout_net(points, self.phrases)
        total, count = torch.zeros_like(image), torch.zeros_like(image[..., :1])
        moved = []
        for number, cells in enumerate(self.cells):
            token = tokens[:, number : number + 1]
            q, k, v = functions.image.qkv(normed[:, cells], additions)
            rope = tuple(table[cells] for table in self.image_rope)
            lay = functions.text.modulate(functions.text.norm1(token), attention)
            lq, lk, lv = functions.text.qkv(lay, additions)
            own = self.positions(self.after.__self__.cover.ids[number : number + 1])
            q, k = (torch.cat([rotate(a, own), rotate(b, rope)], 2) for a, b in ((lq, q), (lk, k)))
            out = scaled_dot_product_attention(q, k, torch.cat([lv, v], 2)).transpose(1, 2).flatten(2)
            total[:, cells] += extras.layout_forward(functions.image.out(out[:, 1:], additions))
            count[:, cells] += 1
            token = token + attention.gate * functions.text.out(out[:, :1], additions)
            moved.append(token)
        image = image + first.gate * total / count.clamp_min(1)
        layout = torch.cat(moved, 1)
        fed = functions.text.modulate(functions.text.norm2(layout), feed)
        layout = layout + feed.gate * functions.text.mlp(fed, additions)
        fed = functions.image.modulate(functions.image.norm2(image), second)
        return image + second.gate * functions.image.mlp(fed, additions)

    def stock(self) -> Tensor:
        return self.block(self.image, self.text, self.vec, self.rope)[1]

    def ideal(self, width: int) -> float:
        """Arithmetic of the step beside the stock block's."""
        covered = len(torch.cat(self.cells).unique())
        pairs = sum((1 + len(cells)) ** 2 for cells in self.cells)
        step = width**2 * (10 * covered + 24 * len(self.cells) + 16 * SIDE * SIDE) + 4 * width * pairs
        return step / (24 * width**2 * (TEXT + SIDE * SIDE) + 4 * width * (TEXT + SIDE * SIDE) ** 2)


def seconds(form: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        form()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    form()
    return time.process_time() - start


@torch.no_grad()
def measure(boxes: int, width: int, heads: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    case = Case(boxes, width, heads, device, dtype)
    forms = {"loop": case.loop, "at_once": case.at_once, "stock": case.stock}
    difference = float((case.loop() - case.at_once()).abs().max())
    best = {name: float("inf") for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():  # by turns, so that a busy machine is fair to all
            best[name] = min(best[name], seconds(form, device))
    counts = {}
    for name in ("loop", "at_once"):
        with Operations() as operations:
            forms[name]()
        counts[name] = operations.count
    memory = {}
    if device.type == "cuda":
        for name in ("loop", "at_once"):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            forms[name]()
            memory[f"{name}_peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return {
        "boxes": boxes,
        "width": width,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        **{f"{name}_seconds": round(value, 6) for name, value in best.items()},
        "ratio": round(best["loop"] / best["at_once"], 2),
        "share": round(best["at_once"] / best["stock"], 3),
        "ideal": round(case.ideal(width), 3),
        "loop_operations": counts["loop"],
        "at_once_operations": counts["at_once"],
        "max_abs_diff": difference,
        **memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    torch.set_num_threads(1)
    for boxes in words.boxes:
        row = measure(boxes, words.width, words.width // 128, getattr(torch, words.dtype), words.repeats)
        print(json.dumps(row), flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
