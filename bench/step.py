"""One whole denoising step: ours against the dense additive-mask form through the same model, and the ideal.

``plain`` is the model's own way with several references: the same composite and references, no layout, no mask (another
picture, so its figure is a price and not a form of the same result).

    python bench/step.py --size 768 --references 4 --cover 0.5 --json
    COMFYUI_PATH=~/comfy/ComfyUI python bench/step.py --host comfy --size 768 --references 4

FLUX.1's depth and head size at a reduced width, on one CPU thread. Times are CPU time of the process, medians of
interleaved runs; the ratio of the walls is printed beside. Peaks are what the process held beyond weights and
inputs, measured in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from models import Shape, make_step
from workload import arithmetic, interleaved, kept_tokens, make_plan, peak_bytes, resident_bytes

BASELINE = ("dense", False)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768, help="side of the square picture in pixels")
    parser.add_argument("--references", type=int, default=4)
    parser.add_argument("--cover", type=float, default=0.5, help="share of a reference's tokens in its mask, 0..1")
    parser.add_argument("--reference-side", type=int, help="side of a reference in tokens (the authors' rule)")
    parser.add_argument("--host", choices=("diffusers", "comfy"), default="diffusers")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--width", type=int, default=256, help="width of the model, a multiple of 128 (FLUX.1: 3072)")
    parser.add_argument("--blocks", type=int, nargs=2, default=(19, 38), metavar=("DOUBLE", "SINGLE"))
    parser.add_argument("--text", type=int, default=512)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-time", action="store_true")
    parser.add_argument("--no-peak", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one line of JSON only")
    parser.add_argument("--peak-of", choices=("ours", "baseline"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    shape = Shape(options.width, *options.blocks, options.text)
    plan = make_plan(options.size, options.references, options.cover, options.reference_side)
    step = make_step(options.host, plan, shape, getattr(torch, options.dtype))
    ours = (options.kernel, True)
    if options.peak_of:
        return {"peak": _peak(step, ours if options.peak_of == "ours" else BASELINE)}
    dense, least = arithmetic(plan, *shape)
    result: dict[str, Any] = {
        "ratio": None,
        "ideal": round(dense.step / least.step, 3),
        "tokens_full": options.text + plan.image_tokens,
        "tokens_kept": kept_tokens(plan, options.text),
        "peak_bytes": None,
        "baseline_peak_bytes": None,
    }
    if not options.no_time:
        outputs = [step.run(*ours), step.run(*BASELINE)]
        difference = float((outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max())
        if difference == 0:
            sys.exit("both forms gave the same bits: the rule was not reached, nothing was measured")
        forms = [lambda: step.run(*ours), lambda: step.run(*BASELINE), step.plain]
        mine, theirs, plain = interleaved(forms, options.repeats, warm=options.repeats > 1)
        result |= {
            "ratio": round(theirs.cpu / mine.cpu, 3),
            "share_of_ideal": round(theirs.cpu / mine.cpu / (dense.step / least.step), 3),
            "wall_ratio": round(theirs.wall / mine.wall, 3),
            "seconds": round(mine.cpu, 3),
            "baseline_seconds": round(theirs.cpu, 3),
            "plain_seconds": round(plain.cpu, 3),
            "plain_ratio": round(plain.cpu / mine.cpu, 3),
            "difference": difference,
        }
    if not options.no_peak and sys.platform == "linux":
        result["peak_bytes"], result["baseline_peak_bytes"] = _child_peak("ours"), _child_peak("baseline")
    return result | {
        name: getattr(options, name)
        for name in ("host", "size", "references", "cover", "width", "dtype", "kernel", "threads", "text")
    }


def _peak(step: Any, form: tuple[str, bool]) -> int:
    """What a warm step holds at most beyond weights and inputs; masks and indices made before it are counted."""
    before = resident_bytes()
    step.run(*form)
    return peak_bytes(lambda: step.run(*form)) - before


def _child_peak(form: str) -> int:
    # Every large block is mapped on its own, so what is freed is gone and the peak is that of live tensors.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--peak-of", form]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def _host_interpreter(options: argparse.Namespace) -> None:
    """Starts again in ComfyUI's own interpreter, if it has one and this is another."""
    if options.host != "comfy":
        return
    if not os.environ.get("COMFYUI_PATH"):
        sys.exit("set COMFYUI_PATH to a ComfyUI folder for --host comfy")
    own = Path(os.environ["COMFYUI_PATH"]).expanduser() / ".venv" / "bin" / "python"
    if own.exists() and not Path(sys.prefix).samefile(own.parent.parent):
        os.execv(own, [str(own), *sys.argv])  # noqa: S606


def main() -> None:
    options = parse()
    _host_interpreter(options)
    result = measure(options)
    if options.json or options.peak_of:
        print(json.dumps(result))
        return
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
