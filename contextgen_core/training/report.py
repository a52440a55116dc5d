"""`python -m contextgen_core.training.report`: measures a small model on held-out scenes and writes tables and a
sheet of pictures."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..backbones.flux import unpack
from ..errors import InputError
from ..methods.contextgen.schedule import Rule
from ..methods.contextgen.settings import Settings
from ..tiny import model as tiny
from ..tiny.autoencoder import Taesd
from .adapter import Adapter, add_adapter, load_adapter_state
from .latents import PICTURES, LatentSet, encode_scenes
from .model import FlowNetwork
from .sampling import sample_set
from .small_world import evaluate, pictures, world
from .small_world.evaluate import Judgement, Score

logger = logging.getLogger("contextgen")

MODES = ("full", "cla", "foreign", "pasted", "ceiling")
TITLES = {
    "full": "full method",
    "cla": "CLA only (references not read)",
    "foreign": "references of another scene",
    "pasted": "composite over the true background (copying)",
    "ceiling": "truth through the autoencoder (ceiling)",
}


class Result(NamedTuple):
    """One mode: every judgement, and the pictures uint8 (N, SIZE, SIZE, 3)."""

    judgements: list[Judgement]
    pictures: np.ndarray


class TestSet(NamedTuple):
    """Held-out scenes, rendered and encoded."""

    scenes: list[world.Scene]
    rendered: list[world.Picture]
    data: LatentSet


def test_set(vae: Taesd, hidden: int, ordinary: int, seed: int = 0) -> TestSet:
    """`hidden` scenes of the flexible tier and `ordinary` ones, half basic, half complex."""
    scenes = evaluate.test_scenes(hidden, ordinary, seed)
    rendered = [world.render(s) for s in scenes]
    return TestSet(scenes, rendered, encode_scenes(vae, scenes, rendered))


def shipped_network(adapter: str | None = "sft", rule: Rule = Rule.ICA) -> FlowNetwork:
    """The pack's small model with one of its adapters (None = the base alone), on the batched kernel."""
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import load_file

    made = tiny.tiny_transformer_state()
    transformer: Any = FluxTransformer2DModel(**vars(tiny.CONFIG))
    transformer.load_state_dict(made.state)
    if adapter is not None:
        state = {k: v.float() for k, v in load_file(tiny.adapter_path(adapter)).items()}
        rank = next(v.shape[0] for k, v in state.items() if k.endswith("lora_A.weight"))
        add_adapter(transformer, Adapter(rank, rank, folded=True), 0)
        load_adapter_state(transformer, state)
    return FlowNetwork(transformer.eval().requires_grad_(False), Settings(rule=rule), "batched")


def run_mode(network: FlowNetwork, vae: Taesd, test: TestSet, mode: str, steps: int = 10, seed: int = 0) -> Result:
    """Makes and judges the pictures of one mode. All modes start from the same noise."""
    if mode not in MODES:
        raise InputError(f"The mode {mode!r} is unknown; use one of {', '.join(MODES)}.")
    if mode == "pasted":
        made = np.stack([world.render_pasted(s) for s in test.scenes])
    elif mode == "ceiling":
        tokens = torch.from_numpy(np.asarray(test.data.target, np.float32))
        made = pictures.to_pixels(vae, unpack(tokens, test.data.grid, test.data.grid))
    else:
        before = network.settings
        network.settings = dataclasses.replace(before, rule=Rule.CLA) if mode == "cla" else before
        data = _foreign(test.data) if mode == "foreign" else test.data
        made = pictures.to_pixels(vae, sample_set(network, data, steps, seed))
        network.settings = before
    judgements = [j for k, scene in enumerate(test.scenes) for j in evaluate.judge(scene, made[k], k)]
    return Result(judgements, made)


def _foreign(data: LatentSet) -> LatentSet:
    """The same scenes with the references of the next scene that has as many."""
    references, valid = data.references.copy(), data.valid.copy()
    for group in PICTURES.buckets(data):
        references[group], valid[group] = data.references[np.roll(group, 1)], data.valid[np.roll(group, 1)]
    return dataclasses.replace(data, references=references, valid=valid)


def table(results: dict[str, Result], hidden: bool) -> str:
    """A Markdown table of the modes' scores on hidden or visible creatures."""
    lines = [
        "| | n | exact | random | shape | pattern | colour 1 | colour 2 | PSNR | box IoU (n) | IoU >= .5 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for mode, result in results.items():
        s = evaluate.score(result.judgements, hidden)
        lines.append(f"| {TITLES[mode]} | {_row(s)} |")
    return "\n".join(lines)


def _row(s: Score) -> str:
    shares = " | ".join(f"{v:.2f}" for v in (s.exact, s.random, s.shape, s.pattern, s.first, s.second))
    boxes = f"{s.iou:.2f} ({s.boxes}) | {s.iou_half:.2f}" if s.boxes else "- | -"
    return f"{s.count} | {shares} | {s.psnr:.1f} | {boxes}"


def gaps(results: dict[str, Result], against: str = "cla") -> str:
    """Paired differences full minus another mode, with 95 % bootstrap intervals."""
    lines = [f"| full minus {TITLES[against]} | hidden | visible |", "|---|---|---|"]
    for kind in ("exact", "random", "shape", "pattern", "first", "second"):
        cells = []
        for hidden in (True, False):
            mean, low, high = evaluate.gap(results["full"].judgements, results[against].judgements, hidden, kind)
            cells.append(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]")
        name = {"first": "colour 1", "second": "colour 2"}.get(kind, kind)
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def copies(test: TestSet, results: dict[str, Result]) -> str:
    """How far each mode leans to the pasted cut-out: 0 = truth, 1 = copy (see `evaluate.likeness_to_copy`)."""
    lines = ["| | likeness to the pasted cut-out, 0..1 (95 % interval) |", "|---|---|"]
    for mode, result in results.items():
        values = [
            v for k, scene in enumerate(test.scenes) for v in evaluate.likeness_to_copy(scene, result.pictures[k])
        ]
        mean, low, high = evaluate.bootstrap(np.array(values))
        lines.append(f"| {TITLES[mode]} | {mean:.3f} [{low:.3f}, {high:.3f}] |")
    return "\n".join(lines)


def contact_sheet(test: TestSet, results: dict[str, Result], rows: Sequence[int], scale: int = 1) -> np.ndarray:
    """Composite, references, full, CLA only, truth, for the scenes in `rows`."""
    chosen = list(rows)
    columns = [
        np.stack([test.rendered[k].composite for k in chosen]),
        np.stack([pictures.reference_strip(test.rendered[k]) for k in chosen]),
        *(results[mode].pictures[chosen] for mode in ("full", "cla") if mode in results),
        np.stack([test.rendered[k].target for k in chosen]),
    ]
    return pictures.sheet(columns, scale)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.training.report", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="which held-out scenes")
    parser.add_argument("--adapter", default="sft", choices=sorted(tiny.ADAPTERS))
    parser.add_argument("--hidden", type=int, default=120)
    parser.add_argument("--ordinary", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--output", type=Path, default=Path("output/report"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.monotonic()
    try:
        network = shipped_network(options.adapter)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    vae = tiny.tiny_autoencoder()
    test = test_set(vae, options.hidden, options.ordinary, options.seed)
    results = {mode: run_mode(network, vae, test, mode, options.steps) for mode in options.modes}
    options.output.mkdir(parents=True, exist_ok=True)
    parts = [
        "Hidden creatures",
        table(results, True),
        "Visible creatures",
        table(results, False),
        copies(test, results),
    ]
    parts += [gaps(results, other) for other in ("cla", "foreign") if "full" in results and other in results]
    text = "\n\n".join(parts)
    (options.output / "report.md").write_text(text + "\n", encoding="utf-8")
    scores = {
        mode: {
            side: dataclasses.asdict(evaluate.score(r.judgements, side == "hidden")) for side in ("hidden", "visible")
        }
        for mode, r in results.items()
    }
    (options.output / "report.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    rows = [*range(0, min(8, options.hidden)), *range(options.hidden, options.hidden + min(6, options.ordinary))]
    Image.fromarray(contact_sheet(test, results, rows)).save(options.output / "sheet.png")
    sys.stdout.write(f"{text}\n\n{time.monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
