"""FLUX.1 at its true size on a GPU, random weights: seconds a picture, ours against the dense form, and memory.

    python bench/gpu.py --out gpu.json                       # 768 and 1024, 1 2 4 8 references, 28 steps
    python bench/gpu.py --width 256 --blocks 2 4 --sizes 128 --references 2 --steps 1      # smoke test, also on CPU

Needs torch and this repository, nothing else: the transformer below is FLUX.1's arithmetic written for this
measurement, with 12 B random bfloat16 weights made on the device. The device's matrix peak is measured in the same
run, and every kernel that the device has; each picture's first step is compared with the dense form's.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from workload import TEXT, arithmetic, kept_tokens, make_plan

from contextgen_core.attention import compile_blocks, run
from contextgen_core.attention.lse import attend_lse
from contextgen_core.methods.contextgen.sequence import Plan
from contextgen_core.methods.contextgen.settings import Arrangement, Settings, arrange, image_ids, references_read
from contextgen_core.methods.contextgen.visibility import block_groups

HEAD = 128
AXES = (16, 56, 56)
MLP = 4


class Size(NamedTuple):
    width: int = 3072
    double: int = 19
    single: int = 38
    text: int = TEXT


class Weights:
    """Linear layers by name, made on the device when first asked for, scaled so that activations stay near 1."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.made: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, name: str, x: Tensor, out: int) -> Tensor:
        if name not in self.made:
            weight = torch.randn(out, x.shape[-1], device=self.device, dtype=self.dtype) * x.shape[-1] ** -0.5
            self.made[name] = weight, torch.zeros(out, device=self.device, dtype=self.dtype)
        return functional.linear(x, *self.made[name])

    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for pair in self.made.values() for x in pair)


def rotary(ids: Tensor) -> Tensor:
    """Unit complex numbers (1, 1, S, D/2) for position ids (S, 3), of which each axis turns its share of the head."""
    angles = []
    for axis, width in enumerate(AXES):
        rates = 10000.0 ** (-torch.arange(0, width, 2, device=ids.device, dtype=torch.float64) / width)
        angles.append(ids[:, axis, None].double() * rates)
    angle = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angle), angle)[None, None].to(torch.complex64)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn[:, :, : x.shape[2]]).flatten(-2).to(x.dtype)


class Flux:
    """FLUX.1's transformer, one picture at a time, reduced to what costs time: all of its layers, random weights."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        self.size, self.linear = size, Weights(device, dtype)

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # B S (3 H D) -> 3 of B H S D
        return functional.rms_norm(q, (HEAD,)), functional.rms_norm(k, (HEAD,)), v

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift

    def attend(self, program: Any, q: Tensor, k: Tensor, v: Tensor, turn: Tensor) -> Tensor:
        return run(program, rotate(q, turn), rotate(k, turn), v)

    def double(
        self, name: str, img: Tensor, txt: Tensor, vec: Tensor, turn: Tensor, program: Any
    ) -> tuple[Tensor, ...]:
        width, streams = self.size.width, {"txt": txt, "img": img}
        mods = {
            key: self.linear(f"{name}.{key}.mod", functional.silu(vec), 6 * width)[:, None].chunk(6, -1)
            for key in streams
        }
        parts = [
            self.heads(self.linear(f"{name}.{key}.qkv", self.modulated(x, *mods[key][:2]), 3 * width))
            for key, x in streams.items()
        ]
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        out = self.attend(program, q, k, v, turn)
        del parts, q, k, v
        pieces = dict(zip(streams, out.split([txt.shape[1], img.shape[1]], dim=1), strict=True))
        for key, x in streams.items():
            x = x + mods[key][2] * self.linear(f"{name}.{key}.proj", pieces[key], width)
            hidden = self.linear(f"{name}.{key}.up", self.modulated(x, *mods[key][3:5]), MLP * width)
            down = self.linear(f"{name}.{key}.down", functional.gelu(hidden, approximate="tanh"), width)
            streams[key] = x + mods[key][5] * down
        return streams["img"], streams["txt"]

    def single(self, name: str, x: Tensor, vec: Tensor, turn: Tensor, program: Any) -> Tensor:
        width = self.size.width
        shift, scale, gate = self.linear(f"{name}.mod", functional.silu(vec), 3 * width)[:, None].chunk(3, -1)
        both = self.linear(f"{name}.in", self.modulated(x, shift, scale), (3 + MLP) * width)
        qkv, hidden = both.split([3 * width, MLP * width], dim=-1)
        out = self.attend(program, *self.heads(qkv), turn)
        joined = torch.cat([out, functional.gelu(hidden, approximate="tanh")], dim=-1)
        return x + gate * self.linear(f"{name}.out", joined, width)

    @torch.inference_mode()
    def step(self, arranged: Arrangement, programs: Any, turn: Tensor, img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
        """img (1, S - T, 64), txt (1, T, 4096), vec (1, 768) -> velocity of the noise tokens (1, M, 64)."""
        sequence, schedule = arranged
        width, text = self.size.width, self.size.text
        img, txt = self.linear("img_in", img, width), self.linear("txt_in", txt, width)
        vec = self.linear("vec_in", vec, width)
        base = sequence.base_span.stop
        for number in range(self.size.double):
            img, txt = self.double(f"double{number}", img, txt, vec, turn, programs[number])
            if number == schedule.leave - 1 and sequence.pruned:
                img = img[:, : base - text]
        x = torch.cat([txt, img], dim=1)
        del img, txt
        for number in range(self.size.double, len(schedule)):
            x = self.single(f"single{number}", x, vec, turn, programs[number])
            if number == schedule.leave - 1 and sequence.pruned:
                x = x[:, :base].clone()
        return self.linear("out", functional.layer_norm(x[:, slice(*sequence.noise_span)], (width,)), 64)


class Bench:
    """The device, its clock and its memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"

    def seconds(self, call: Callable[[], object]) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        start = time.perf_counter() if self.cuda else time.process_time()
        call()
        if self.cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() if self.cuda else time.process_time()) - start

    def matrix_peak(self, dtype: torch.dtype) -> float:
        """FLOP/s of the best of a few large matrix products."""
        best = 0.0
        for n in (4096, 8192, 16384) if self.cuda else (512, 1024):
            a, b = (torch.randn(n, n, device=self.device, dtype=dtype) for _ in range(2))
            a @ b
            turns = 10 if self.cuda else 2
            best = max(best, turns * 2 * n**3 / self.seconds(lambda a=a, b=b, t=turns: [a @ b for _ in range(t)]))
        return best

    def memory(self) -> int:
        return torch.cuda.max_memory_allocated() if self.cuda else 0

    def forget(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def lse_kernels(bench: Bench, dtype: torch.dtype) -> dict[str, Any]:
    """Attention kernels that return their log-sum-exp, checked and timed: which one merge should use here."""
    rows = 8192 if bench.cuda else 256
    q, k, v = (torch.randn(1, 24, rows, HEAD, device=bench.device, dtype=dtype) for _ in range(3))
    few = slice(0, 128)
    want = (q[:, :, few].float() @ k.float().transpose(-1, -2) * HEAD**-0.5).logsumexp(-1)
    calls: dict[str, Callable[[], Any]] = {
        "merge's": lambda: attend_lse(q, k, v),
        "sdpa, no log-sum-exp": lambda: (functional.scaled_dot_product_attention(q, k, v), None),
    }
    if bench.cuda:
        calls["cudnn"] = lambda: torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)[:2]
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            _, lse = call()
            error = None if lse is None else float((lse.reshape(1, 24, -1)[:, :, few] - want).abs().max())
            seconds = bench.seconds(lambda call=call: [call() for _ in range(3)]) / 3
        except (RuntimeError, TypeError) as failure:
            found[name] = str(failure).splitlines()[0]
            continue
        found[name] = {"flops": 4 * 24 * HEAD * rows**2 / seconds, "lse_error": error}
    return found


def measure(
    flux: Flux, bench: Bench, plan: Plan, dtype: torch.dtype, kernel: str, prune: bool, steps: int
) -> dict[str, Any]:
    """Seconds of ``steps`` steps (the median step times their number), peak memory beyond weights, and the output."""
    bench.forget()
    settings, size = Settings(kernel=kernel, prune=prune), flux.size
    arranged = arrange(plan, settings, references_read(plan, settings), size.text, (size.double, size.single))
    sequence = arranged.sequence
    programs = compile_blocks(block_groups(*arranged), kernel, bench.device, dtype)
    ids = functional.pad(image_ids(sequence), (0, 0, size.text, 0)).to(bench.device)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(bench.device, dtype)

    every, txt, vec = random(1, plan.image_tokens, 64), random(1, size.text, 4096), random(1, 768)
    img = every if sequence.kept is None else every[:, torch.from_numpy(sequence.kept).to(bench.device)]
    turn = rotary(ids)

    def step() -> Tensor:
        return flux.step(arranged, programs, turn, img, txt, vec)

    out = step()  # warm; makes the weights the first time
    weights = flux.linear.bytes()
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    times = sorted(bench.seconds(step) for _ in range(min(steps, 5)))
    middle = times[len(times) // 2]
    return {
        "seconds_per_step": middle,
        "seconds_per_image": middle * steps,
        "peak_bytes": max(bench.memory() - weights, 0),
        "tokens": sequence.length,
        "output": out.float().cpu(),
    }


def compare(
    flux: Flux, bench: Bench, options: argparse.Namespace, dtype: torch.dtype, peak: float
) -> list[dict[str, Any]]:
    rows = []
    for size in options.sizes:
        for references in options.references:
            plan = make_plan(size, references, options.cover)
            dense, least = arithmetic(plan, *flux.size)
            baseline = measure(flux, bench, plan, dtype, "dense", False, options.steps)
            expected = baseline.pop("output")
            row: dict[str, Any] = {
                "size": size,
                "references": references,
                "ideal": dense.step / least.step,
                "tokens_full": flux.size.text + plan.image_tokens,
                "tokens_kept": kept_tokens(plan, flux.size.text),
                "baseline": {**baseline, "of_peak": dense.step / baseline["seconds_per_step"] / peak},
            }
            for kernel in options.kernels:
                ours = measure(flux, bench, plan, dtype, kernel, True, options.steps)
                difference = float((ours.pop("output") - expected).norm() / expected.norm())
                ratio = baseline["seconds_per_step"] / ours["seconds_per_step"]
                row[kernel] = {
                    **ours,
                    "ratio": ratio,
                    "share_of_ideal": ratio / row["ideal"],
                    "of_peak": least.step / ours["seconds_per_step"] / peak,
                    "relative_difference": difference,
                }
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[768, 1024])
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--cover", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--kernels", nargs="+", choices=("merge", "grouped"), default=["merge", "grouped"])
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--blocks", type=int, nargs=2, default=(19, 38))
    parser.add_argument("--text", type=int, default=TEXT)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype, bench = getattr(torch, options.dtype), Bench(device)
    torch.manual_seed(0)
    peak = bench.matrix_peak(dtype)
    flux = Flux(Size(options.width, *options.blocks, options.text), device, dtype)
    result = {
        "device": torch.cuda.get_device_name() if bench.cuda else "cpu",
        "torch": torch.__version__,
        "dtype": options.dtype,
        "steps": options.steps,
        "matrix_peak_flops": peak,
        "lse_kernels": lse_kernels(bench, dtype),
        "rows": compare(flux, bench, options, dtype, peak),
        "weights_bytes": flux.linear.bytes(),
        "clock": "wall" if bench.cuda else "CPU time",
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
