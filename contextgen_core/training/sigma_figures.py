"""`python -m contextgen_core.training.sigma_figures RUN_FOLDER ...`: what SIGMA-GEN's adapters do on held-out scenes.

Each folder is that of a finished run (its config and `adapter.safetensors`); several with one title, `TITLE=FOLDER`,
are seeds of one thing. Measured are: identity of hidden and visible creatures with each kind of region; how far
creatures lean otherwise than asked, where depth and silhouettes say how; which places show another subject of the same
picture, by the number of subjects; and insertion of several subjects into a picture in one pass. The tables go to
docs/evidence.md between two marks; what is outside them stays. What is done is taken from the run's folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..backbones.flux import pack, shifted_sigmas, unpack
from ..errors import InputError
from ..pictures import captioned
from ..tiny.autoencoder import Taesd
from . import checkpoint
from .ablate import insert
from .compare import SEED, STEPS, precise
from .config import Config, from_dict
from .latents import encode
from .parts import autoencoder
from .routing import KINDS
from .sampling import sample_set, start_noise
from .small_world import evaluate, pictures, world
from .small_world.controls import encode_scenes_routed
from .small_world.evaluate import Judgement
from .tasks import TransformerTask

logger = logging.getLogger("contextgen")
MARKS = ("<!-- sigma_gen: written by contextgen_core.training.sigma_figures -->", "<!-- end of sigma_gen -->")
NAMES = {
    "box": "2D boxes",
    "mask": "masks and depth",
    "cuboid": "3D boxes and their depth",
    "silhouette": "masks without depth",
    "ellipse": "ellipses (never trained)",
}
NUMBERS = (1, 2, 4, 8)
_MARGIN = 8  # pixels around an inserted subject's box that may change


class Amounts(NamedTuple):
    """How many held-out scenes of each kind judge."""

    hidden: int = 32
    ordinary: int = 24
    solid: int = 32
    number: int = 12  # of each of NUMBERS
    inserted: int = 16


@dataclass(frozen=True)
class Findings:
    """What a run's pictures show, by kind of region: judgements of the plain scenes, errors of lean in degrees and
    judgements of the solid ones; by number of subjects: judgements, and whether each place shows another's subject; of
    insertion: the inserted creatures, and how far latents (largest) and pixels (dB) outside of their regions change."""

    plain: dict[str, list[Judgement]]
    solid: dict[str, list[Judgement]]
    lean: dict[str, list[float]]
    numbers: dict[str, list[Judgement]]
    swaps: dict[str, list[bool]]
    inserted: list[Judgement]
    latents_changed: float
    outside: float

    @classmethod
    def load(cls, path: Path) -> Findings:
        kept = json.loads(path.read_text(encoding="utf-8"))
        for name in ("plain", "solid", "numbers"):
            kept[name] = {k: [_judgement(v) for v in values] for k, values in kept[name].items()}
        return cls(**{**kept, "inserted": [_judgement(v) for v in kept["inserted"]]})


def _judgement(values: Sequence[Any]) -> Judgement:
    scene, member, hidden, nearer, psnr, iou = values
    return Judgement(scene, member, hidden, tuple(nearer), psnr, iou)


# ---- scenes --------------------------------------------------------------------------------------


def numbered(count: int, scenes: int) -> list[world.Scene]:
    """Held-out scenes with exactly so many subjects: crowded ones beyond four; one alone is the first of others."""
    tier, out, index = "dense" if count > 4 else "complex", [], 0
    while len(out) < scenes:
        scene = world.scene(SEED, "test", index, tier)
        if count == 1:
            scene = scene._replace(members=scene.members[:1])
        out += [scene] if len(scene.members) == count else []
        index += 1
    return out


def paint(network: Any, vae: Taesd, scenes: list[world.Scene], kind: str) -> np.ndarray:
    """uint8 (N, size, size, 3): the scenes as the network makes them from one kind of regions."""
    network.judged_with(kind)
    data = network.reader.encode(vae, scenes, [world.render(s) for s in scenes])
    return pictures.to_pixels(vae, sample_set(network, data, STEPS, SEED))


# ---- insertion -----------------------------------------------------------------------------------


class Insertion(NamedTuple):
    """inserted: numbers of the members that are put into a picture of the others; keep: float (M, 64), 1 where the
    picture stays; picture: float tokens (M, 64) of it."""

    scene: world.Scene
    inserted: tuple[int, ...]
    keep: Tensor
    picture: Tensor


def insertion(vae: Taesd, scene: world.Scene) -> Insertion:
    """All members but the farthest are inserted, each into its box and a margin of 8 pixels."""
    inserted = tuple(sorted(world.front_order(scene)[1:]))
    before = (world.render_target(scene, skip=inserted) * 255 + 0.5).astype(np.uint8)
    keep = torch.ones(1, 16, scene.size // 8, scene.size // 8)
    for k in inserted:
        x1, y1, x2, y2 = scene.members[k].box
        rows, columns = (
            slice(max(0, low - _MARGIN) // 8, -(-(high + _MARGIN) // 8)) for low, high in ((y1, y2), (x1, x2))
        )
        keep[..., rows, columns] = 0
    return Insertion(scene, inserted, pack(keep)[0], encode(vae, before[None])[0].float())


@torch.no_grad()
def insert_all(network: Any, vae: Taesd, each: Sequence[Insertion], kind: str = "mask") -> Tensor:
    """Latent tokens (N, M, 64): noise everywhere, and after each step the picture, noised to that step, where it is to
    stay: the form of a noise mask. One picture at a time: they differ in their number of subjects."""
    out = []
    for number, one in enumerate(each):
        scene = one.scene._replace(members=tuple(one.scene.members[k] for k in one.inserted))
        settings = network.routing
        data = encode_scenes_routed(vae, [scene], [world.render(scene)], settings=settings, kind=kind)
        batch = network.reader.collate(data, np.array([0]), True)
        noise = start_noise(np.array([number]), (batch.target.shape[1], batch.target.shape[2]), SEED)
        x, sigmas = noise, shifted_sigmas(STEPS, noise.shape[1])
        for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = x + (after - now) * network(batch, x, now.expand(1))
            x = torch.where(one.keep > 0, (1 - after) * one.picture + after * noise, x)
        out.append(x[0])
    return torch.stack(out)


# ---- judging -------------------------------------------------------------------------------------


def judge(network: Any, vae: Taesd, amounts: Amounts) -> Findings:
    plain = evaluate.test_scenes(amounts.hidden, amounts.ordinary, SEED)
    solid = [world.scene(SEED, "test", i, "solid") for i in range(amounts.solid)]
    judged: dict[str, dict[str, list[Judgement]]] = {"plain": {}, "solid": {}}
    lean: dict[str, list[float]] = {}
    for kind in KINDS:
        for name, scenes in (("plain", plain), ("solid", solid)):
            painted = paint(network, vae, scenes, kind)
            judged[name][kind] = [j for k, s in enumerate(scenes) for j in evaluate.judge(s, painted[k], k)]
            if name == "solid":
                lean[kind] = _leans(scenes, painted)
        logger.info("%s: visible exact %.2f", kind, evaluate.score(judged["plain"][kind], False).exact)
    each = [insertion(vae, s) for s in plain[amounts.hidden :][: amounts.inserted]]
    return Findings(
        judged["plain"], judged["solid"], lean, *by_number(network, vae, amounts), *_inserted(network, vae, each)
    )


def by_number(network: Any, vae: Taesd, amounts: Amounts) -> tuple[dict[str, list[Judgement]], dict[str, list[bool]]]:
    """Judgements, and which places show another's subject, by the number of subjects; regions are 2D boxes."""
    judged, swaps = {}, {}
    for number in NUMBERS:
        scenes = numbered(number, amounts.number)
        painted = paint(network, vae, scenes, "box")
        shown = (evaluate.swapped(s, k, painted[i]) for i, s in enumerate(scenes) for k in range(number))
        judged[str(number)] = [j for k, s in enumerate(scenes) for j in evaluate.judge(s, painted[k], k)]
        swaps[str(number)] = [s for s in shown if s is not None]
    return judged, swaps


def _leans(scenes: Sequence[world.Scene], painted: np.ndarray) -> list[float]:
    errors = [evaluate.lean_error(s, k, painted[i]) for i, s in enumerate(scenes) for k in range(len(s.members))]
    return [e for e in errors if not np.isnan(e)]


def _inserted(network: Any, vae: Taesd, each: Sequence[Insertion]) -> tuple[list[Judgement], float, float]:
    tokens = insert_all(network, vae, each)
    changed = max(float(((t - i.picture) * i.keep).abs().max()) for t, i in zip(tokens, each, strict=True))
    grid = each[0].scene.size // world.TOKEN
    painted, before = (
        pictures.to_pixels(vae, unpack(t, grid, grid)) for t in (tokens, torch.stack([i.picture for i in each]))
    )
    judged, errors = [], []
    for number, one in enumerate(each):
        of_scene = evaluate.judge(one.scene, painted[number], number)
        judged += [j for j in of_scene if j.member in one.inserted]
        keep = unpack(one.keep[None], grid, grid)[0, 0].numpy().repeat(8, 0).repeat(8, 1) > 0
        difference = painted[number].astype(np.float32) - before[number]
        errors.append(np.square(difference[keep] / 255).mean())
    return judged, changed, -10 * float(np.log10(max(float(np.mean(errors)), 1e-9)))


def open_run(folder: Path) -> tuple[Config, Any]:
    """Config and network of a finished run."""
    path = checkpoint.latest(folder / "checkpoints")
    adapter = folder / "adapter.safetensors"
    if path is None or not adapter.is_file():
        raise InputError(f"{str(folder)!r} holds no finished run; give the output folder of one.")
    config = from_dict(json.loads((path / "state.json").read_text(encoding="utf-8"))["config"])
    if config.method.name != "sigma_gen":
        raise InputError(f"{str(folder)!r} is a run of {config.method.name}; give one of sigma_gen.")
    config = replace(config, model=replace(config.model, adapter=str(adapter)))
    network = TransformerTask(config, None).network
    network.eval().requires_grad_(False)
    return config, network


def findings_of(folder: Path, amounts: Amounts) -> Findings:
    """Judges a run, or takes what is kept in its folder."""
    kept = folder / "findings.json"
    if kept.is_file():
        return Findings.load(kept)
    config, network = open_run(folder)
    with precise(config):
        findings = judge(network, autoencoder(config), amounts)
    kept.write_text(json.dumps(asdict(findings)), encoding="utf-8")
    return findings


# ---- tables --------------------------------------------------------------------------------------


def regions_table(done: Mapping[str, Sequence[Findings]]) -> str:
    lines = [
        "| | regions | hidden: exact | random | visible: exact | random | shape | box IoU | turned and leaning: exact |"
        " error of lean, degrees | within 10 degrees |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for title, seeds in done.items():
        for kind in KINDS:
            hidden, seen = ([evaluate.score(f.plain[kind], side) for f in seeds] for side in (True, False))
            cells = [
                _spread([s.exact for s in hidden]),
                _spread([s.random for s in hidden]),
                *(_spread([getattr(s, name) for s in seen]) for name in ("exact", "random", "shape", "iou")),
                _spread([evaluate.score(f.solid[kind], False).exact for f in seeds]),
                _spread([float(np.mean(f.lean[kind])) for f in seeds], 1),
                _spread([float(np.mean(np.array(f.lean[kind]) <= 10)) for f in seeds]),
            ]
            lines.append(f"| {title} | {NAMES[kind]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def numbers_table(done: Mapping[str, Sequence[Findings]]) -> str:
    lines = ["| | subjects | exact | random | colour 1 | mixed up |", "|---|---|---|---|---|---|"]
    for title, seeds in done.items():
        for number in map(str, NUMBERS):
            scores = [evaluate.score(f.numbers[number], False) for f in seeds]
            cells = [_spread([getattr(s, name) for s in scores]) for name in ("exact", "random", "first")]
            mixed = _spread([float(np.mean(f.swaps[number])) for f in seeds]) if seeds[0].swaps[number] else "-"
            lines.append(f"| {title} | {number} | {' | '.join(cells)} | {mixed} |")
    return "\n".join(lines)


def insertion_table(done: Mapping[str, Sequence[Findings]]) -> str:
    lines = [
        "| | inserted: exact | random | largest change of a latent outside | pixels outside, dB |",
        "|---|---|---|---|---|",
    ]
    for title, seeds in done.items():
        scores = [evaluate.score(f.inserted, False) for f in seeds]
        cells = [
            *(_spread([getattr(s, name) for s in scores]) for name in ("exact", "random")),
            f"{max(f.latents_changed for f in seeds):g}",
            _spread([f.outside for f in seeds], 1),
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int = 2) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def section(done: Mapping[str, Sequence[Findings]], amounts: Amounts, picture: str) -> str:
    intro = (
        f"Held-out identities: {amounts.hidden} scenes with a hidden creature, {amounts.ordinary} without,"
        f" {amounts.solid} with turned and leaning ones, {amounts.number} of each number of subjects (2D boxes) and"
        f" {amounts.inserted} insertions (masks and depth); {STEPS} sampling steps, the same noise for all."
    )
    image = f"![References, what each kind of regions gives, truth](images/{picture})"
    return "\n\n".join([intro, regions_table(done), numbers_table(done), insertion_table(done), image]) + "\n"


def sheet(folder: Path, rows: int = 3) -> np.ndarray:
    """The first held-out scenes of three tiers: references, one column for each trained kind of region, truth."""
    config, network = open_run(folder)
    vae = autoencoder(config)
    scenes = [world.scene(SEED, "test", i, tier) for tier in ("flexible", "complex", "solid") for i in range(rows)]
    rendered = [world.render(s) for s in scenes]
    columns = [("references", [pictures.reference_strip(p) for p in rendered])]
    with precise(config):
        for kind in ("box", "mask", "cuboid"):
            columns.append((NAMES[kind], list(paint(network, vae, scenes, kind))))
    columns.append(("truth", [p.target for p in rendered]))
    return captioned([(title, np.concatenate(column)) for title, column in columns], times=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.training.sigma_figures", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="[TITLE=]FOLDER")
    for name, amount in Amounts()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=amount)
    parser.add_argument("--evidence", type=Path, default=Path("docs/evidence.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/sigma_gen.png"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    amounts = Amounts(*(getattr(options, name) for name in Amounts._fields))
    runs = [
        (title or Path(folder).name, Path(folder)) for title, _, folder in (r.rpartition("=") for r in options.runs)
    ]
    done: dict[str, list[Findings]] = {}
    try:
        for title, folder in runs:
            done.setdefault(title, []).append(findings_of(folder, amounts))
        picture = sheet(runs[0][1])
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(options.picture, optimize=True)
    text = section(done, amounts, options.picture.name)
    document = options.evidence.read_text(encoding="utf-8") if options.evidence.is_file() else "# Evidence\n"
    options.evidence.write_text(insert(document, text, *MARKS), encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
