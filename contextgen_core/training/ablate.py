"""`python -m contextgen_core.training.ablate`: the paper's ablations on the small model, each rule trained for itself.

Every variant starts from the shipped base and trains an adapter for the same number of steps on the same scenes,
once per seed; the DPO runs start from the shipped SFT adapter, one for each beta and seed. All are judged on the
same held-out scenes from the same noise. The tables and a picture go to docs/evidence.md between two marks; what is
outside them stays. Runs that are already done are taken from the output folder, so the command can be stopped and
started again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from ..pictures import captioned
from ..tiny import model as tiny
from . import report
from .config import Config, from_dict
from .run import Run
from .small_world import evaluate, pictures
from .small_world.evaluate import Judgement
from .stages import open_data
from .tasks import TransformerTask

logger = logging.getLogger("contextgen")

START, END = "<!-- ablations: written by contextgen_core.training.ablate -->", "<!-- end of ablations -->"
BLOCKS = tiny.CONFIG.num_layers + tiny.CONFIG.num_single_layers
THIRD = BLOCKS // 3
STEPS = 10  # of sampling
MEASURES = ("random", "first", "exact")


class Variant(NamedTuple):
    """One rule: its name in the table, and what it changes in the run's method settings."""

    name: str
    title: str
    method: dict[str, Any]


VARIANTS = (
    Variant("official", "ICA in the middle third, official rule (the method)", {}),
    Variant("cla", "nowhere: CLA in every block, references never read", {"rule": "cla"}),
    Variant("first", "ICA in the first third (the double blocks)", {"ica_blocks": [0, THIRD]}),
    Variant("last", "ICA in the last third", {"ica_blocks": [BLOCKS - THIRD, BLOCKS]}),
    Variant("everywhere", "ICA in every block", {"ica_blocks": [0, BLOCKS]}),
    Variant("paper", "ICA in the middle third, the formula as printed", {"rule": "paper"}),
    Variant("overlapping", "position ids of all references start at the layout's corner", {"offsets": "overlapping"}),
    Variant("unmasked", "no boxes: every noise token may read every reference", {"masks": False}),
)
BETAS = (20.0, 100.0, 500.0)


class Outcome(NamedTuple):
    """What one run's pictures are worth: judgements of creatures, and each visible one's likeness to its pasted
    cut-out."""

    judgements: list[Judgement]
    likeness: list[float]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"judgements": [tuple(j) for j in self.judgements], "likeness": self.likeness}))

    @classmethod
    def load(cls, path: Path) -> Outcome:
        kept = json.loads(path.read_text())
        return cls([Judgement(a, b, c, tuple(d), e, f) for a, b, c, d, e, f in kept["judgements"]], kept["likeness"])


class Held(NamedTuple):
    """Which held-out scenes judge: numbers of scenes with a hidden creature and without."""

    hidden: int
    ordinary: int


def config_of(variant: Variant, seed: int, steps: int, batch: int, data: str, output: Path) -> Config:
    """The run of one variant and seed: the shipped recipe, shortened."""
    return _config(
        output / f"{variant.name}_{seed}",
        steps,
        batch,
        seed,
        data,
        {
            "stage": "sft",
            "ema": 0.98,
            "optimizer": {"name": "muon", "rate": 0.02, "warmup": 10, "tail": 0.5},
            "flow": {"mean": 0.8, "box": 1.5, "hidden": 6.0},
            "method": {"kernel": "batched", **variant.method},
            "data": {"hidden_share": 0.8},
        },
    )


def dpo_config_of(beta: float, seed: int, steps: int, pairs: str, output: Path) -> Config:
    """DPO from the shipped SFT adapter: the shipped recipe with another beta."""
    return _config(
        output / f"dpo_{beta:g}_{seed}",
        steps,
        8,
        seed,
        pairs,
        {
            "stage": "dpo",
            "ema": 0.8,
            "model": {"adapter": str(tiny.adapter_path("sft"))},
            "optimizer": {"rate": 2.0e-5, "betas": [0.9, 0.98], "warmup": 5, "tail": 0.3, "clip": 0.5},
            "flow": {"mean": 0.6},
            "dpo": {"beta": beta, "lose": "pasted"},
        },
    )


def _config(output: Path, steps: int, batch: int, seed: int, data: str, own: dict[str, Any]) -> Config:
    tree = {
        "output": str(output),
        "steps": steps,
        "batch": batch,
        "seed": 100 + seed,
        "lora": {"rank": 128, "folded": True, "one_sided": True},
        "method": {"kernel": "batched"},
        "every": {"log": 25, "save": 0, "keep": 1},
        **own,
        "model": {"kind": "tiny", "weights": "shipped", **own.get("model", {})},
        "data": {"kind": "world", "path": data, **own.get("data", {})},
    }
    return from_dict(tree)


def run_one(config: Config, held: Held) -> Outcome:
    """Trains (or resumes) one run and judges its pictures; the outcome is kept beside the run."""
    torch.set_num_threads(1)
    kept = Path(config.output) / "outcome.json"
    if kept.is_file():
        return Outcome.load(kept)
    task = TransformerTask(config, open_data(config))
    run = Run(config, task)
    if run.go() < config.steps:
        raise InputError("The ablation was stopped; start the same command again to go on.")
    with run.average.applied(task.model):
        outcome = judge(task.network, held)
    outcome.save(kept)
    return outcome


def judge(network: Any, held: Held) -> Outcome:
    """Pictures of the held-out scenes and what they are worth."""
    vae = tiny.tiny_autoencoder()
    test = report.test_set(vae, held.hidden, held.ordinary, seed=3)
    result = report.run_mode(network, vae, test, "full", STEPS)
    copies = (evaluate.likeness_to_copy(s, p) for s, p in zip(test.scenes, result.pictures, strict=True))
    return Outcome(result.judgements, [v for values in copies for v in values])


def sheet(runs: dict[str, Config], count: int = 6) -> np.ndarray:
    """The first held-out scenes with a hidden creature as each trained run paints them, from the same noise:
    composite, references, one column a run, truth; uint8 (H, W, 3)."""
    vae = tiny.tiny_autoencoder()
    test = report.test_set(vae, count, 0, seed=3)
    columns = [
        ("composite", [p.composite for p in test.rendered]),
        ("references", [pictures.reference_strip(p) for p in test.rendered]),
    ]
    for name, config in runs.items():
        adapter = str(Path(config.output) / "adapter.safetensors")
        trained = replace(config, model=replace(config.model, adapter=adapter))
        network = TransformerTask(trained, open_data(config)).network
        columns.append((name, list(report.run_mode(network, vae, test, "full", STEPS).pictures)))
    columns.append(("truth", [p.target for p in test.rendered]))
    return captioned([(title, np.concatenate(column)) for title, column in columns], times=1)


def table(done: dict[str, list[Outcome]]) -> str:
    """Hidden and visible creatures per variant: mean over seeds, spread between seeds, paired difference from the
    official rule."""
    lines = [
        "| variant (trained) | seeds | hidden: random | colour 1 | exact | PSNR | visible: exact | hidden random"
        " against the method | visible exact against the method |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    titles = {v.name: v.title for v in VARIANTS}
    for name, seeds in done.items():
        hidden = [evaluate.score(o.judgements, True) for o in seeds]
        visible = [evaluate.score(o.judgements, False) for o in seeds]
        cells = [_spread([getattr(s, measure) for s in hidden]) for measure in MEASURES]
        cells += [_spread([s.psnr for s in hidden], 1), _spread([s.exact for s in visible])]
        against = [_against(done, name, True, "random"), _against(done, name, False, "exact")]
        lines.append(f"| {titles[name]} | {len(seeds)} | {' | '.join(cells + against)} |")
    return "\n".join(lines)


def dpo_table(done: dict[float, list[Outcome]], before: Outcome) -> str:
    """DPO over beta: how far pictures leave the paste (flexibility) and what it costs (fidelity)."""
    lines = [
        "| | seeds | likeness to the pasted cut-out (0 truth, 1 copy) | visible: exact | hidden: random | colour 1 |"
        " likeness against SFT |",
        "|---|---|---|---|---|---|---|",
    ]
    for beta, seeds in {0.0: [before], **done}.items():
        hidden = [evaluate.score(o.judgements, True) for o in seeds]
        cells = [
            _spread([float(np.mean(o.likeness)) for o in seeds], 3),
            _spread([evaluate.score(o.judgements, False).exact for o in seeds]),
            _spread([s.random for s in hidden]),
            _spread([s.first for s in hidden]),
        ]
        change = ""
        if beta:
            pairs = np.concatenate([np.subtract(o.likeness, before.likeness) for o in seeds])
            change = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*evaluate.bootstrap(pairs))
        name = f"DPO, beta {beta:g}" if beta else "SFT"
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} | {change} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int = 2) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _against(done: dict[str, list[Outcome]], name: str, hidden: bool, measure: str) -> str:
    """The variant minus the official rule, over the creatures of all seeds that both have, with its 95 % interval."""
    if name == "official" or "official" not in done:
        return ""
    first = [j for seed in done[name][: len(done["official"])] for j in seed.judgements]
    second = [j for seed in done["official"][: len(done[name])] for j in seed.judgements]
    mean, low, high = evaluate.gap(first, second, hidden, measure)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def insert(document: str, text: str, start: str = START, end: str = END) -> str:
    """The document with the text between the marks; marks are appended where there are none."""
    if start not in document or end not in document:
        return f"{document.rstrip()}\n\n{start}\n{text}\n{end}\n"
    before, rest = document.split(start, 1)
    return f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.training.ablate", description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the encoded training scenes (stage 'scenes')")
    parser.add_argument("--pairs", help="folder of the encoded DPO pairs; without it no DPO is run")
    parser.add_argument("--variants", nargs="+", default=[v.name for v in VARIANTS], choices=[v.name for v in VARIANTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--dpo-steps", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--ordinary", type=int, default=48)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--output", type=Path, default=Path("output/ablate"))
    parser.add_argument("--evidence", type=Path, default=Path("docs/evidence.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/ablations.png"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        text = _run_all(options) + "\n"
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    document = options.evidence.read_text(encoding="utf-8") if options.evidence.is_file() else "# Evidence\n"
    options.evidence.write_text(insert(document, text), encoding="utf-8")
    sys.stdout.write(text)
    return 0


def _run_all(options: argparse.Namespace) -> str:
    held = Held(options.hidden, options.ordinary)
    configs: dict[tuple[str, int], Config] = {}
    for seed in range(options.seeds):  # seed by seed: an early end still leaves whole comparisons
        for variant in (v for v in VARIANTS if v.name in options.variants):
            configs[variant.name, seed] = config_of(
                variant, seed, options.steps, options.batch, options.data, options.output
            )
        for beta in BETAS if options.pairs else ():
            configs[f"{beta:g}", seed] = dpo_config_of(beta, seed, options.dpo_steps, options.pairs, options.output)
    configs = {key: replace(config, precision=options.precision) for key, config in configs.items()}
    done: dict[str, list[Outcome]] = {}
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        outcomes = pool.map(run_one, configs.values(), [held] * len(configs))
        for (name, seed), outcome in zip(configs, outcomes, strict=True):
            logger.info("%s, seed %d is done", name, seed)
            done.setdefault(name, []).append(outcome)
    text = (
        f"Each run: {options.steps} steps of {options.batch} scenes from the shipped base ({options.precision}); judged"
        f" on {options.hidden} scenes with a hidden creature and {options.ordinary} without; {STEPS} sampling steps."
        " ± is the standard deviation between seeds; brackets are 95 % paired bootstrap intervals over creatures.\n\n"
        + table({v.name: done[v.name] for v in VARIANTS if v.name in done})
    )
    first = {name: config for (name, seed), config in configs.items() if seed == 0 and config.stage == "sft"}
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(first)).quantize(256, dither=Image.Dither.NONE).save(options.picture, optimize=True)
    place = os.path.relpath(options.picture, options.evidence.parent).replace(os.sep, "/")
    text += f"\n\n![What each trained variant paints, seed 0]({place})"
    if options.pairs:
        before = judge(report.shipped_network("sft"), held)
        text += (
            f"\n\nDPO, {options.dpo_steps} steps of 8 pairs from the shipped SFT adapter; same scenes, same noise.\n\n"
            + dpo_table({beta: done[f"{beta:g}"] for beta in BETAS}, before)
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
