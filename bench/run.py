"""Runs the benchmarks that a CPU can run and writes bench/results.json and its pictures: ``make bench``.

    python bench/run.py                 about half an hour of CPU time
    python bench/run.py --quick         a few minutes, small cases only
    python bench/run.py --pictures      draws bench/*.png again from bench/results.json (needs matplotlib)

With COMFYUI_PATH set to a ComfyUI folder, whole steps run inside it; otherwise in diffusers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from workload import arithmetic, machine, make_plan

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"

# FLUX.1's own proportion of linear layers to attention at 1024 squared: width and tokens both a sixth.
SIXTH = ["--size", "416", "--text", "85", "--width", "512", "--reference-side", "20"]
STEPS = {
    "sixth of FLUX.1 at 1024": [[*SIXTH, "--references", n] for n in ("1", "2", "4", "8")],
    "512, width 256": [["--size", "512", "--references", n] for n in ("1", "2", "4", "8")],
    "768, width 256": [["--size", "768", "--references", "4"]],
    "1024, width 128": [["--size", "1024", "--width", "128", "--references", "4"]],
}
QUICK = {"512, width 128": [["--size", "512", "--width", "128", "--references", n] for n in ("1", "4")]}
ATTENTION = ["--heads", "2", "--repeats", "3"]
PEAKS = [
    ["--size", "1024", "--blocks", "1", "2", "--dtype", "bfloat16", "--no-time", "--width", w] for w in ("256", "768")
]


def run(script: str, arguments: list[str]) -> list[dict[str, Any]]:
    """The JSON lines that a benchmark prints."""
    print(script, *arguments, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    print(*lines, sep="\n", flush=True)
    return [json.loads(line) for line in lines]


def measure(quick: bool) -> dict[str, Any]:
    host = ["--host", "comfy"] if os.environ.get("COMFYUI_PATH") else []
    result: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "steps": [],
        "peaks": [],
    }
    for name, cases in (QUICK if quick else STEPS).items():
        for case in cases:
            for row in run("step.py", [*case, *host, "--json", "--no-peak"]):
                result["steps"].append({"case": name, **row})
    for case in [] if quick else PEAKS:
        result["peaks"] += run("step.py", [*case, *host, "--json"])
    sizes = ["512"] if quick else ["512", "768", "1024"]
    result["attention"] = run("attention.py", [*ATTENTION, "--sizes", *sizes])
    return result


def draw(result: dict[str, Any]) -> None:
    """Cost against the number of references: the arithmetic at FLUX.1's size, and what was measured."""
    try:
        import matplotlib
    except ImportError:
        print("no pictures: install matplotlib to draw them")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    numbers = list(range(1, 9))
    works = {cover: [arithmetic(make_plan(1024, n, cover), 3072) for n in numbers] for cover in (0.5, 1.0)}
    figure, (cost, ratio) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    cost.plot(numbers, [28 * dense.step / 1e15 for dense, _ in works[0.5]], "k-", label="dense, as published")
    for cover, style in ((1.0, "--"), (0.5, "-")):
        label = f"ours, references {cover:.0%} covered"
        cost.plot(numbers, [28 * least.step / 1e15 for _, least in works[cover]], style, color="C0", label=label)
    cost.set(xlabel="references", ylabel="PFLOP a picture", ylim=(0, None), title="1024 x 1024, 28 steps (arithmetic)")
    cost.legend()
    cases = sorted({row["case"] for row in result["steps"]})
    for number, case in enumerate(cases):
        rows = sorted((r["references"], r["ratio"], r["ideal"]) for r in result["steps"] if r["case"] == case)
        n, measured, ideal = zip(*rows, strict=True)
        ratio.plot(n, measured, "o-", color=f"C{number}", label=case)
        ratio.plot(n, ideal, "x:", color=f"C{number}")
    ratio.set(xlabel="references", ylabel="times less CPU than dense", ylim=(0, None))
    ratio.set_title("Whole step, measured (o) and ideal (x)")
    ratio.legend()
    figure.savefig(HERE / "cost.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cases only; writes no results")
    parser.add_argument("--pictures", action="store_true", help="draw again, measure nothing")
    options = parser.parse_args()
    if not options.pictures:
        result = measure(options.quick)
        if options.quick:
            return
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    draw(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
