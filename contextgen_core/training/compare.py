"""`python -m contextgen_core.training.compare`: the methods side by side, on one base, the same scenes and one budget.

Each method of `recipes.RECIPES` trains its adapter from the same base, once per seed, with the same number of samples;
with `--minutes`, for the same time instead. All are judged on the same held-out scenes from the same noise: identity of
hidden and visible creatures, boxes, creatures found in crowded scenes, words followed, and what a picture costs. The
tables and a sheet of pictures go to docs/evidence.md between two marks; what is outside them stays. Runs that are
already done are taken from the output folder, so the command can be stopped and started again.

`--shipped` judges the adapters that ship with the pack instead, as they are, and `--adapters` those in files. A
method's ablations are named like `instance_assemble/corners` (`--methods`), and judged beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..backbones.flux import unpack
from ..errors import InputError
from ..pictures import captioned
from ..tiny.autoencoder import Taesd
from .ablate import insert
from .config import Config, from_dict
from .eligen import EliGenNetwork
from .latents import PICTURES, LatentSet, Reader
from .parts import autoencoder
from .passes import PassNetwork
from .recipes import RECIPES, Network, Recipe, Variant, base_network
from .run import Run
from .sampling import sample_set
from .small_world import evaluate, pictures, world
from .small_world.evaluate import Judgement, Leak, Somewhere
from .stages import open_data
from .tasks import TransformerTask, build_transformer

logger = logging.getLogger("contextgen")

MARKS = ("<!-- methods: written by contextgen_core.training.compare -->", "<!-- end of methods -->")
SHIPPED_MARKS = ("<!-- shipped: written by contextgen_core.training.compare --shipped -->", "<!-- end of shipped -->")
STEPS = 10  # of sampling
SEED = 3  # of the held-out scenes and of the noise
_TRIAL = 6  # steps that tell how fast a method trains, when the budget is time
CONTROLS = {
    "base": "base alone, with the composite",
    "words": "base alone, every creature named in the prompt, no composite",
    "passes": "base alone, a pass for each phrase (*Conditioning Set Mask*)",
    "phrases": "base alone, phrases read in their boxes (EliGen without an adapter)",
    "pasted": "composite over the true background (copying)",
    "ceiling": "truth through the autoencoder (ceiling)",
}


class Counts(NamedTuple):
    """How many held-out scenes of each kind judge."""

    hidden: int = 48
    ordinary: int = 32
    dense: int = 12
    words: int = 48

    def sets(self) -> dict[str, list[world.Scene]]:
        """The scenes: with a hidden creature or plain (one canvas size), dense, and of the words tier."""
        plain = evaluate.test_scenes(self.hidden, self.ordinary, SEED)
        dense = [world.scene(SEED, "test", i, "dense") for i in range(self.dense)]
        words = [world.scene(SEED, "test", i, "words") for i in range(self.words)]
        return {"plain": plain, "dense": dense, "words": words}


class TestScenes(NamedTuple):
    """Held-out scenes of one kind, rendered and encoded."""

    scenes: list[world.Scene]
    rendered: list[world.Picture]
    data: LatentSet


@dataclass(frozen=True)
class Outcome:
    """What one run's pictures are worth, and what they and their training cost.

    plain, dense: judgements of creatures; found, found_plain: per creature of the dense and of the plain scenes, the
    IoU of the box in which it stands with the asked one (nan: cannot be told); leaked: between neighbours, of both;
    told: creatures that only words tell of; scenery: share of pictures whose place and light are the asked ones;
    tokens: of one step, image tokens and text; flops: of a picture; seconds: of a picture (one at a time, one thread),
    and of the training; parameters: that trained."""

    plain: list[Judgement]
    dense: list[Judgement]
    found: list[float]
    found_plain: list[float]
    leaked: list[Leak]
    told: list[Somewhere]
    scenery: float
    tokens: int
    flops: float
    picture_seconds: float
    training_seconds: float
    samples: int
    parameters: int

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Outcome:
        kept = json.loads(path.read_text(encoding="utf-8"))
        for name in ("plain", "dense"):
            kept[name] = [Judgement(a, b, c, tuple(d), e, f) for a, b, c, d, e, f in kept[name]]
        kept["leaked"] = [Leak(*one) for one in kept["leaked"]]
        kept["told"] = [Somewhere(a, b, tuple(c)) for a, b, c in kept["told"]]
        return cls(**kept)


def recipe_named(name: str) -> tuple[str, Recipe, Variant | None]:
    """The method, its recipe and the variant of a name like `method` or `method/variant`."""
    method, _, variant = name.partition("/")
    recipe = RECIPES[method]
    return method, recipe, recipe.variants[variant] if variant else None


def names() -> list[str]:
    """All methods, each with its variants behind it."""
    return [
        name for method, recipe in RECIPES.items() for name in (method, *(f"{method}/{v}" for v in recipe.variants))
    ]


def config_of(name: str, seed: int, shared: Mapping[str, Any], output: Path) -> Config:
    """The run of one method (or a variant of it) and seed: what all share, then its own settings."""
    method, recipe, variant = recipe_named(name)
    tree: dict[str, Any] = {
        "stage": "sft",
        "output": str(output / f"{name.replace('/', '_')}_{seed}"),
        "seed": 100 + seed,
        "ema": 0.98,
        "every": {"log": 25, "save": 0, "keep": 1},
    }
    own = variant.settings if variant else {}
    if variant and variant.adapter is not None:
        trained = f"{method}_{variant.adapter}" if variant.adapter else method
        own = {**own, "model": {"adapter": str(output / f"{trained}_{seed}" / "adapter.safetensors")}}
    for more in (recipe.settings, shared, {"method": {"name": method}}, own):
        for key, value in more.items():
            tree[key] = {**tree.get(key, {}), **value} if isinstance(value, Mapping) else value
    return from_dict(tree)


def run_one(config: Config, counts: Counts, minutes: float) -> Outcome:
    """Trains (or resumes) one run and judges its pictures; the outcome is kept beside the run."""
    torch.set_num_threads(1)
    kept = Path(config.output) / "outcome.json"
    if kept.is_file():
        return Outcome.load(kept)
    data = open_data(config)
    if minutes:
        config = replace(config, steps=_steps_in(config, data, 60 * minutes))
    task = TransformerTask(config, data)
    run = Run(config, task)
    if run.go() < config.steps:
        raise InputError("The comparison was stopped; start the same command again to go on.")
    with run.average.applied(task.model), precise(config):
        task.model.to("cpu")  # pictures are made and judged there
        outcome = judge(task.network, autoencoder(config), counts)
    outcome = replace(
        outcome,
        training_seconds=run.seconds,
        samples=config.steps * config.batch,
        parameters=sum(p.numel() for p in task.model.parameters() if p.requires_grad),
    )
    outcome.save(kept)
    return outcome


def given_config(name: str, path: Path, shared: Mapping[str, Any], output: Path) -> Config:
    """An adapter in a file, as a run that is over. Raises InputError where there is none."""
    _, recipe, _ = recipe_named(name)
    if not path.is_file():
        raise InputError(f"There is no adapter of {recipe.title} at {str(path)!r}; leave it out, or correct the path.")
    config = config_of(name, 0, {**shared, **recipe.sizes(path)}, output / "given")
    return replace(config, model=replace(config.model, adapter=str(path)))


def run_given(config: Config, counts: Counts) -> Outcome:
    """Judges an adapter as it is; the outcome is kept like a run's."""
    torch.set_num_threads(1)
    kept = Path(config.output) / "outcome.json"
    if kept.is_file():
        return Outcome.load(kept)
    task = TransformerTask(config, None)
    network, trained = task.network, sum(v.numel() for v in task.recipe.state(task.network).values())
    with precise(config):
        outcome = replace(judge(network, autoencoder(config), counts), parameters=trained)
    kept.parent.mkdir(parents=True, exist_ok=True)
    outcome.save(kept)
    return outcome


def _steps_in(config: Config, data: Any, seconds: float) -> int:
    """How many training steps a method does in a time, from a short trial; kept, so that a resumed run has the same."""
    path = Path(config.output) / "steps.json"
    if path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["steps"])
    trial = replace(config, output=str(Path(config.output) / "trial"), steps=_TRIAL)
    run = Run(trial, TransformerTask(trial, data))
    run.go()
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = max(1, int(seconds / max(run.seconds, 1e-6) * _TRIAL))
    path.write_text(json.dumps({"steps": steps}), encoding="utf-8")
    return steps


def precise(config: Config) -> AbstractContextManager[Any]:
    """The arithmetic of a run, for its pictures."""
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")


# ---- judging -------------------------------------------------------------------------------------


def encode_test(vae: Taesd, scenes: list[world.Scene], reader: Reader = PICTURES) -> TestScenes:
    keys = [(SEED, world.TIERS.index(s.tier), i) for i, s in enumerate(scenes)]
    rendered = [world.render(s) for s in scenes]
    return TestScenes(scenes, rendered, reader.encode(vae, scenes, rendered, keys=keys))


def judge(network: Network, vae: Taesd, counts: Counts) -> Outcome:
    """Pictures of the held-out scenes by a trained method, and what they are worth."""
    made = {}
    for name, scenes in counts.sets().items():
        test = encode_test(vae, scenes, network.reader)
        made[name] = test, pictures.to_pixels(vae, sample_set(network, test.data, STEPS, SEED))  # type: ignore[arg-type]
    tokens, flops, seconds = cost(network, made["plain"][0].data)
    return _outcome(made, tokens, flops, seconds)


def control(name: str, config: Config, counts: Counts) -> Outcome:
    """What is not a trained method: one of CONTROLS; kept like a run's outcome."""
    kept = Path(config.output).parent / name / "outcome.json"
    if kept.is_file():
        return Outcome.load(kept)
    vae = autoencoder(config)
    network = base_network(build_transformer(config), config)
    bound: Network | None = None  # reads the scenes as a method does
    if name == "passes":
        bound = PassNetwork(network)
    elif name == "phrases":
        bound = EliGenNetwork(network.transformer, config.method.kernel, config.flow.guidance)
    made = {}
    for kind, scenes in counts.sets().items():
        test = encode_test(vae, scenes)
        if name == "pasted":
            painted = np.stack([world.render_pasted(s) for s in scenes])
        elif name == "ceiling":
            tokens = torch.from_numpy(np.asarray(test.data.target, np.float32))
            painted = pictures.to_pixels(vae, unpack(tokens, test.data.grid, test.data.grid))
        else:
            alone = name == "words"
            with precise(config):
                if bound:
                    latents = sample_set(bound, test.data, STEPS, SEED)
                else:
                    latents = sample_set(network, test.data, STEPS, SEED, False, composite=not alone, named=alone)
            painted = pictures.to_pixels(vae, latents)
        made[kind] = test, painted
    costs = cost(bound, made["plain"][0].data) if bound else (0, float("nan"), float("nan"))
    outcome = _outcome(made, *costs)
    kept.parent.mkdir(parents=True, exist_ok=True)
    outcome.save(kept)
    return outcome


def _outcome(made: dict[str, tuple[TestScenes, np.ndarray]], tokens: int, flops: float, seconds: float) -> Outcome:
    def judged(kind: str) -> list[Judgement]:
        test, painted = made[kind]
        return [j for k, scene in enumerate(test.scenes) for j in evaluate.judge(scene, painted[k], k)]

    def found(kind: str) -> list[float]:
        test, painted = made[kind]
        return [
            evaluate.found_iou(scene, k, picture.astype(np.float32) / 255)
            for scene, picture in zip(test.scenes, painted, strict=True)
            for k in range(len(scene.members))
        ]

    words, told = made["words"]
    right = [
        evaluate.scenery(scene, picture) == (scene.place, scene.light)
        for test, painted in made.values()
        for scene, picture in zip(test.scenes, painted, strict=True)
    ]
    return Outcome(
        plain=judged("plain"),
        dense=judged("dense"),
        found=found("dense"),
        found_plain=found("plain"),
        leaked=[
            leak
            for kind in ("plain", "dense")
            for k, scene in enumerate(made[kind][0].scenes)
            for leak in evaluate.leaks(scene, made[kind][1][k], k)
        ],
        told=[j for k, scene in enumerate(words.scenes) for j in evaluate.judge_told(scene, told[k], k)],
        scenery=float(np.mean(right)),
        tokens=tokens,
        flops=flops,
        picture_seconds=seconds,
        training_seconds=float("nan"),
        samples=0,
        parameters=0,
    )


def cost(network: Network, data: LatentSet) -> tuple[int, float, float]:
    """Tokens of one step, FLOPs and seconds (one thread) of one picture: the first scene with most references."""
    from torch.utils.flop_counter import FlopCounterMode

    index = network.reader.buckets(data)[-1][:1]
    batch = network.reader.collate(data, index, True)
    times = torch.ones(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(batch, torch.zeros_like(batch.target), times)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    with torch.no_grad():
        for _ in range(STEPS):
            network(batch, torch.zeros_like(batch.target), times)
    seconds = time.perf_counter() - began
    torch.set_num_threads(threads)
    return batch.tokens, float(counter.get_total_flops()) * STEPS, seconds


# ---- tables --------------------------------------------------------------------------------------


def looks_table(done: Mapping[str, Sequence[Outcome]]) -> str:
    """Identity of hidden and of visible creatures."""
    lines = [
        "| | seeds | hidden: exact | random | shape | pattern | colour 1 | colour 2 | visible: exact | random | shape |"
        " pattern | colour 1 | colour 2 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seeds in done.items():
        cells = []
        for hidden in (True, False):
            scores = [evaluate.score(o.plain, hidden) for o in seeds]
            cells += [
                _spread([getattr(s, key) for s in scores])
                for key in ("exact", "random", "shape", "pattern", "first", "second")
            ]
        lines.append(f"| {_title(name)} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def boxes_table(done: Mapping[str, Sequence[Outcome]]) -> str:
    """Boxes, crowded scenes and words. Found: its box has an IoU of at least 0.5 with the asked one."""
    lines = [
        "| | box IoU | IoU >= .5 | found | dense: exact | found | taken over from the neighbour (from none) |"
        " told by words alone: exact | random | place and light right |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seeds in done.items():
        plain = [evaluate.score(o.plain, False) for o in seeds]
        told = [np.array([(j.exact, j.nearer[evaluate.KINDS.index("random")]) for j in o.told], float) for o in seeds]
        cells = [
            _spread([s.iou for s in plain]),
            _spread([s.iou_half for s in plain]),
            _spread([_share_found(o.found_plain) for o in seeds]),
            _spread([evaluate.score(o.dense, False).exact for o in seeds]),
            _spread([_share_found(o.found) for o in seeds]),
            f"{_spread([_mean(x.neighbour for x in o.leaked) for o in seeds])}"
            f" ({_spread([_mean(x.other for x in o.leaked) for o in seeds])})",
            *(_spread([t[:, k].mean() if len(t) else float("nan") for t in told]) for k in range(2)),
            _spread([o.scenery for o in seeds]),
        ]
        lines.append(f"| {_title(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(done: Mapping[str, Sequence[Outcome]]) -> str:
    """What a picture and the training cost."""
    lines = [
        "| | trained parameters | samples | minutes of training | tokens of a step | GFLOP a picture | s a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, seeds in done.items():
        first = seeds[0]
        if not first.tokens:
            continue
        minutes, seconds = (
            float(np.mean([getattr(o, key) for o in seeds])) for key in ("training_seconds", "picture_seconds")
        )
        lines.append(
            f"| {_title(name)} | {first.parameters / 1e6:.2f} M | {first.samples or '-'} |"
            f" {f'{minutes / 60:.1f}' if first.samples else '-'} | {first.tokens} | {first.flops / 1e9:.1f} |"
            f" {seconds:.2f} |"
        )
    return "\n".join(lines)


def _title(name: str) -> str:
    if name in CONTROLS:
        return CONTROLS[name]
    _, recipe, variant = recipe_named(name)
    return f"{recipe.title}, {variant.title}" if variant else recipe.title


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return float(np.mean(every)) if every else float("nan")


def _share_found(ious: Sequence[float]) -> float:
    told = np.array([v for v in ious if not np.isnan(v)])
    return float((told >= 0.5).mean()) if len(told) else float("nan")


def _spread(values: Sequence[float], digits: int = 2) -> str:
    if np.isnan(values).any():
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def sheet(runs: Mapping[str, Config], counts: Counts, rows: int = 3) -> np.ndarray:
    """The first held-out scenes of the plain and the dense kind as each method paints them (first seed): composite,
    references, one column a method, truth; uint8 (H, W, 3)."""
    columns: dict[str, list[np.ndarray]] = {"composite": [], "references": []}
    columns |= {_title(name): [] for name in runs} | {"truth": []}
    sets = counts.sets()
    plain = [*sets["plain"][:rows], *sets["plain"][counts.hidden : counts.hidden + rows]]
    for scenes in (plain, sets["dense"][:rows]):
        if not scenes:
            continue
        for name, config in runs.items():
            vae = autoencoder(config)
            adapter = config.model.adapter or str(Path(config.output) / "adapter.safetensors")
            trained = replace(config, model=replace(config.model, adapter=adapter))
            network = TransformerTask(trained, None).network
            test = encode_test(vae, list(scenes), network.reader)
            with precise(config):
                made = pictures.to_pixels(vae, sample_set(network, test.data, STEPS, SEED))
            columns[_title(name)] += [_sized(p) for p in made]
        rendered = [world.render(s) for s in scenes]
        columns["composite"] += [_sized(p.composite) for p in rendered]
        columns["references"] += [_sized(pictures.reference_strip(p)) for p in rendered]
        columns["truth"] += [_sized(p.target) for p in rendered]
    return captioned([(title, np.concatenate(column)) for title, column in columns.items()], times=1)


def _sized(picture: np.ndarray) -> np.ndarray:
    """On white, of the dense tier's size."""
    out = np.full((world.DENSE_SIZE, world.DENSE_SIZE, 3), 255, np.uint8)
    out[: picture.shape[0], : picture.shape[1]] = picture
    return out


# ---- the command ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.training.compare", description=__doc__)
    parser.add_argument("--data", default="", help="folder of the encoded training scenes (stage 'scenes')")
    parser.add_argument("--shipped", action="store_true", help="judge the pack's adapters; train nothing")
    parser.add_argument("--folders", nargs="*", default=[], metavar="NAME=SHARE", help="sets inside it, with shares")
    parser.add_argument("--base", default="shipped", help="the transformer that all start from (safetensors)")
    parser.add_argument("--autoencoder", default="", help="a TAESD file; empty = the pack's")
    parser.add_argument("--adapters", nargs="*", default=[], metavar="NAME=FILE", help="judge these; train nothing")
    parser.add_argument("--methods", nargs="+", choices=names(), help="or a method's ablation; default: all methods")
    ablated = [method for method, recipe in RECIPES.items() if recipe.variants]
    parser.add_argument("--ablations", choices=ablated, help="this method with all of its ablations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run")
    parser.add_argument("--minutes", type=float, default=0.0, help="minutes of training of each run, instead of steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    for kind, count in Counts()._asdict().items():
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"held-out scenes of the kind {kind}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--output", type=Path, default=Path("output/compare"))
    parser.add_argument("--evidence", type=Path, default=Path("docs/evidence.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/methods.png"))
    options = parser.parse_args(arguments)
    if options.ablations:
        options.methods = [name for name in names() if recipe_named(name)[0] == options.ablations]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        text = _run_all(options) + "\n"
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    document = options.evidence.read_text(encoding="utf-8") if options.evidence.is_file() else "# Evidence\n"
    marks = SHIPPED_MARKS if options.shipped or options.adapters else MARKS
    if options.ablations:
        marks = f"<!-- ablations of {options.ablations}: written by contextgen_core.training.compare -->", marks[1]
    options.evidence.write_text(insert(document, text, *marks), encoding="utf-8")
    sys.stdout.write(text)
    return 0


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    """What the runs of all methods have in common."""
    if not (options.data or options.shipped or options.adapters):
        raise InputError("--data is missing; give the folder of the encoded training scenes, or --shipped.")
    try:
        folders = {name: float(share) for name, share in (f.split("=") for f in options.folders)}
    except ValueError:
        raise InputError(f"--folders is {' '.join(options.folders)!r}; write each as NAME=SHARE.") from None
    return {
        "steps": options.steps,
        "batch": options.batch,
        "precision": options.precision,
        "model": {"kind": "tiny", "weights": options.base, "autoencoder": options.autoencoder},
        "data": {"kind": "world", "path": options.data, "folders": folders, "hidden_share": 0.6, "named": 0.5},
    }


def _given(options: argparse.Namespace) -> dict[str, Path]:
    """The adapters in files that are judged, by method; {} where methods are trained."""
    if options.adapters:
        try:
            return {
                name: Path(path) for name, path in (a.split("=", 1) for a in options.adapters) if recipe_named(name)
            }
        except (ValueError, KeyError):
            raise InputError(
                f"--adapters is {' '.join(options.adapters)!r}; write each as NAME=FILE, with a method's name."
            ) from None
    if not options.shipped:
        return {}
    has = {name: recipe.shipped for name, recipe in RECIPES.items() if recipe.shipped and recipe.shipped.is_file()}
    missing = [name for name in options.methods or () if name not in has]
    if missing:
        raise InputError(f"The pack has no adapter of {missing[0]}; leave it out of --methods.")
    return {name: has[name] for name in options.methods or has}


def _borrows(name: str) -> bool:
    """Whether a variant is judged with another one's adapter."""
    _, _, variant = recipe_named(name)
    return variant is not None and variant.adapter is not None


def _run_all(options: argparse.Namespace) -> str:
    counts = Counts(options.hidden, options.ordinary, options.dense, options.words)
    for kind, count in counts._asdict().items():
        if count < 1:
            raise InputError(f"--{kind} is {count}; judge at least 1 held-out scene of each kind.")
    shared, given = _shared(options), _given(options)
    chosen = list(given) or options.methods or list(RECIPES)
    jobs = [(name, seed) for seed in range(1 if given else options.seeds) for name in chosen]  # an early end compares
    configs = {
        (name, seed): given_config(name, given[name], shared, options.output)
        if given
        else config_of(name, seed, shared, options.output)
        for name, seed in jobs
    }
    judged = [job for job in jobs if given or _borrows(job[0])]
    trained = [job for job in jobs if job not in judged]  # first: variants are judged with their adapters
    done: dict[str, list[Outcome]] = {name: [] for name in chosen}
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) if options.jobs > 1 else nullcontext() as pool:
        each = pool.map if pool else map
        for members, work in ((trained, partial(run_one, minutes=options.minutes)), (judged, run_given)):
            outcomes = each(work, [configs[job] for job in members], [counts] * len(members))
            for (name, seed), outcome in zip(members, outcomes, strict=True):
                done[name].append(outcome)
                logger.info("%s, seed %d: visible exact %.2f", name, seed, evaluate.score(outcome.plain, False).exact)
        controls = each(control, CONTROLS, [configs[jobs[0]]] * len(CONTROLS), [counts] * len(CONTROLS))
        done |= {name: [outcome] for name, outcome in zip(CONTROLS, controls, strict=True)}
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(sheet({name: configs[name, 0] for name in chosen}, counts))
    picture.quantize(256, dither=Image.Dither.NONE).save(options.picture, optimize=True)
    length = f"{options.minutes:g} minutes" if options.minutes else f"{options.steps} steps of {options.batch} scenes"
    budget = f"Each method: {length} from the same base, {options.seeds} seeds, {options.precision}"
    intro = (
        f"{'The adapters as they are' if given else budget}; judged on {counts.hidden} held-out"
        f" scenes with a hidden creature, {counts.ordinary} without, {counts.dense} dense ones and {counts.words} with"
        f" creatures that only words tell of; {STEPS} sampling steps."
        + ("" if given else " ± is the standard deviation between seeds.")
    )
    image = f"![Composite, references, each method, truth]({os.path.relpath(options.picture, options.evidence.parent)})"
    return "\n\n".join([intro, looks_table(done), boxes_table(done), cost_table(done), image])


if __name__ == "__main__":
    sys.exit(main())
