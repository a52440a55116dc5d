"""`python -m contextgen_core.training.ablate`: the paper's ablations on the small model, each rule trained for itself.

Every variant starts from the shipped base and trains an adapter for the same number of steps on the same scenes,
once per seed; then all are judged on the same held-out scenes from the same noise. The table goes to
docs/evidence.md between two marks; what is outside them stays. Runs that are already done are taken from the
output folder, so the command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import tiny
from ..errors import InputError
from . import evaluate, report
from .config import Config, from_dict
from .evaluate import Judgement
from .latents import LatentSet
from .run import Run
from .tasks import TransformerTask

logger = logging.getLogger("contextgen")

START, END = "<!-- ablations: written by contextgen_core.training.ablate -->", "<!-- end of ablations -->"


class Variant(NamedTuple):
    """One rule: its name in the table, and what it changes in the run's method settings."""

    name: str
    title: str
    method: dict[str, Any]


VARIANTS = (
    Variant("official", "ICA in the middle third, official rule (the method)", {}),
    Variant("cla", "nowhere: CLA in every block, references never read", {"rule": "cla"}),
    Variant("first", "ICA in the first third (the double blocks)", {"ica_blocks": [0, 2]}),
    Variant("last", "ICA in the last third", {"ica_blocks": [4, 6]}),
    Variant("everywhere", "ICA in every block", {"ica_blocks": [0, 6]}),
    Variant("paper", "ICA in the middle third, the formula as printed", {"rule": "paper"}),
    Variant("overlapping", "position ids of all references start at the layout's corner", {"offsets": "overlapping"}),
    Variant("unmasked", "no boxes: every noise token may read every reference", {"masks": False}),
)


def config_of(variant: Variant, seed: int, steps: int, batch: int, data: str, output: Path) -> Config:
    """The run of one variant and seed: the shipped recipe, shortened."""
    kernel = "grouped" if variant.method.get("rule") == "paper" else "batched"
    return from_dict(
        {
            "stage": "sft",
            "output": str(output / f"{variant.name}_{seed}"),
            "steps": steps,
            "batch": batch,
            "seed": 100 + seed,
            "ema": 0.98,
            "model": {"kind": "tiny", "weights": "shipped"},
            "lora": {"rank": 128, "folded": True, "one_sided": True},
            "optimizer": {"name": "muon", "rate": 0.01, "warmup": 10, "tail": 0.4},
            "flow": {"mean": 0.6, "box": 1.5, "hidden": 4.0},
            "data": {"kind": "world", "path": data},
            "method": {"kernel": kernel, **variant.method},
            "every": {"log": 25, "save": 0, "keep": 1},
        }
    )


def run_variant(config: Config, test: report.TestSet, steps: int) -> list[Judgement]:
    """Trains (or resumes) one variant and judges its pictures; the judgements are kept beside the run."""
    kept = Path(config.output) / "judgements.json"
    if kept.is_file():
        return [Judgement(a, b, c, tuple(d), e, f) for a, b, c, d, e, f in json.loads(kept.read_text())]
    task = TransformerTask(config, LatentSet.load(Path(config.data.path)))
    run = Run(config, task)
    if run.go() < config.steps:
        raise InputError("The ablation was stopped; start the same command again to go on.")
    with run.average.applied(task.model):
        result = report.run_mode(task.network, tiny.tiny_autoencoder(), test, "full", steps)
    kept.write_text(json.dumps([tuple(j) for j in result.judgements]))
    return result.judgements


def table(done: dict[str, list[list[Judgement]]]) -> str:
    """Hidden and visible creatures per variant: mean over seeds, spread between seeds, paired difference from the
    official rule."""
    lines = [
        "| variant (trained) | seeds | hidden: random | colour 1 | exact | PSNR | visible: exact | hidden random"
        " against the method |",
        "|---|---|---|---|---|---|---|---|",
    ]
    titles = {v.name: v.title for v in VARIANTS}
    for name, seeds in done.items():
        hidden = [evaluate.score(j, True) for j in seeds]
        visible = [evaluate.score(j, False) for j in seeds]
        cells = [
            _spread([s.random for s in hidden]),
            _spread([s.first for s in hidden]),
            _spread([s.exact for s in hidden]),
        ]
        cells += [_spread([s.psnr for s in hidden], 1), _spread([s.exact for s in visible])]
        lines.append(f"| {titles[name]} | {len(seeds)} | {' | '.join(cells)} | {_against(done, name)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int = 2) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _against(done: dict[str, list[list[Judgement]]], name: str) -> str:
    """The variant minus the official rule, over the creatures of all seeds that both have, with its 95 % interval."""
    if name == "official" or "official" not in done:
        return ""
    first = [j for seed in done[name][: len(done["official"])] for j in seed]
    second = [j for seed in done["official"][: len(done[name])] for j in seed]
    mean, low, high = evaluate.gap(first, second, True, "random")
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def insert(document: str, text: str) -> str:
    """The document with the text between the marks; marks are appended where there are none."""
    if START not in document or END not in document:
        return f"{document.rstrip()}\n\n{START}\n{text}\n{END}\n"
    before, rest = document.split(START, 1)
    return f"{before}{START}\n{text}\n{END}{rest.split(END, 1)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.training.ablate", description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the encoded training scenes (stage 'scenes')")
    parser.add_argument("--variants", nargs="+", default=[v.name for v in VARIANTS], choices=[v.name for v in VARIANTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--ordinary", type=int, default=48)
    parser.add_argument("--output", type=Path, default=Path("output/ablate"))
    parser.add_argument("--evidence", type=Path, default=Path("docs/evidence.md"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    began = time.monotonic()
    try:
        done = _run_all(options)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    note = (
        f"Each run: {options.steps} steps of {options.batch} scenes from the shipped base; judged on"
        f" {options.hidden} scenes with a hidden"
        f" creature and {options.ordinary} without; 10 sampling steps; {(time.monotonic() - began) / 60:.0f} min"
        " for this table."
        " ± is the standard deviation between seeds; brackets are 95 % paired bootstrap intervals over creatures."
    )
    document = options.evidence.read_text(encoding="utf-8") if options.evidence.is_file() else "# Evidence\n"
    options.evidence.write_text(insert(document, f"{note}\n\n{table(done)}"), encoding="utf-8")
    sys.stdout.write(table(done) + "\n")
    return 0


def _run_all(options: argparse.Namespace) -> dict[str, list[list[Judgement]]]:
    test = report.test_set(tiny.tiny_autoencoder(), options.hidden, options.ordinary, seed=3)
    done: dict[str, list[list[Judgement]]] = {}
    for seed in range(options.seeds):
        for variant in (v for v in VARIANTS if v.name in options.variants):
            logger.info("%s, seed %d", variant.name, seed)
            config = config_of(variant, seed, options.steps, options.batch, options.data, options.output)
            done.setdefault(variant.name, []).append(run_variant(config, test, 10))
    return done


if __name__ == "__main__":
    sys.exit(main())
