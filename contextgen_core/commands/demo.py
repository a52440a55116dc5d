"""The demonstration: references and boxes through the whole path, on the small model, without ComfyUI.

    python -m contextgen_core.demo [--out output/demo] [--case creatures]

*creatures* is a scene of the small model's own world: four creatures, one of which the composite hides. It is made
twice from the same noise, by the full method and by layout attention alone (CLA), which never reads a reference,
and both pictures are scored. *photographs* shows the path: the small model knows drawn creatures alone. Every case
leaves its composite, its token grid, who sees whom, and its result; ``report.json`` says what each part cost. While
the pack has no trained weights its weights are random, and the report says so.

    python -m contextgen_core.demo --update

writes the pictures of the creatures that are kept in the repository anew: the README's picture of them, the thumbnail
of the workflow ``tiny_demo`` and the references that it loads.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import pictures as sheets
from ..backbones.record import Backbone
from ..composite.compose import compose
from ..composite.references import Reference, subject_from_image
from ..errors import InputError
from ..layout.box import Box
from ..layout.layout import Instance, Layout
from ..lora.adapter import load_adapter
from ..methods.boundary import Bound, Prepared
from ..methods.contextgen.prompt import wrap
from ..methods.contextgen.schedule import Rule
from ..methods.contextgen.settings import Settings
from ..methods.contextgen.visibility_picture import draw_visibility
from ..methods.registry import method as method_named
from ..report import draw_layout, measure
from ..tiny import model as tiny
from ..training.small_world import evaluate, world
from ..verbs import DiffusersModel, prepare, sample

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "assets" / "samples"
STEPS = 10  # as many as the small model was measured with
SEED = 7
TOKENS = 64  # budget of a photograph
ENLARGE = 4  # of the small pictures in the drawing of the token grid


@dataclass(frozen=True, eq=False)
class Case:
    """One picture to make. ``drawn`` is the scene that was wanted, where there is one; ``adapter`` is sft, dpo or
    None."""

    name: str
    layout: Layout
    references: tuple[Reference, ...]
    prompt: str
    adapter: str | None = None
    drawn: world.Scene | None = None
    note: str = ""


def photographs() -> Case:
    """Four cut-out photographs in overlapping boxes, 256 x 192 pixels."""
    boxes = {
        "astronaut": Box(8, 27, 162, 188),
        "shuttle": Box(148, 12, 186, 100),
        "cat": Box(159, 69, 251, 142),
        "cup": Box(102, 123, 169, 186),
    }
    references = []
    for name in boxes:
        path = SAMPLES / f"contextgen_{name}.png"
        if not path.is_file():
            raise InputError(f"The sample picture {path.name} is not in assets/samples; get the whole repository.")
        with Image.open(path) as picture:
            references.append(Reference(name, *subject_from_image(picture), tokens=TOKENS))
    instances = tuple(Instance(f"b{n}", box, name) for n, (name, box) in enumerate(boxes.items(), 1))
    note = "the small model knows drawn creatures alone: photographs show the path, not a picture"
    layout = Layout(256, 192, instances)
    return Case("photographs", layout, tuple(references), "friends on the shore at noon", note=note)


def four_creatures() -> world.Scene:
    """The scene of the demonstration: chosen by a rule that looks at scenes and never at a result.

    It is the first held-out scene of the flexible tier (seed 0) in which a third creature stands beside the large
    one that hides the small one, such that
    - the third one's box overlaps the large one's,
    - the hidden one and the one above it share no colour (else the wanted picture itself does not show it clearly),
    - a creature of the held-out complex scene of the same number fits in as the fourth: of 40 to 48 pixels like the
      third, another one than the three, clear of the hidden one by 4 pixels, three quarters of it at most over the
      large one and two fifths over the third (the tiers' own limits),
    - a quarter of each creature is in sight, so that each can be judged.
    """
    for index in range(1000):
        scene = world.scene(0, "test", index, "flexible")
        if len(scene.members) < 3:
            continue
        small, big, third = scene.members
        colours = {small.creature.first, small.creature.second} & {big.creature.first, big.creature.second}
        if colours or not world.overlap(third.box, big.box):
            continue
        for member in world.scene(0, "test", index, "complex").members:
            x1, y1, x2, y2 = member.box
            fits = (
                max(x2 - x1, y2 - y1) <= 48
                and member.creature not in [m.creature for m in scene.members]
                and not world.overlap(member.box, small.box, gap=4)
                and world.overlap(member.box, big.box) < 0.75
                and world.overlap(member.box, third.box) <= 0.4
            )
            four = scene._replace(members=(*scene.members, member))
            if fits and len(evaluate.judge(four, world.render(four).target)) == 4:
                return four
    raise RuntimeError("no held-out scene satisfies the rule")


def creatures() -> Case:
    """Four drawn creatures, one hidden by the composite: the small model's own world. Needs the trained weights to
    mean anything."""
    scene = four_creatures()
    picture = world.render(scene)
    references = tuple(
        Reference(member.creature.name, pixels, mask, tokens=tiny.REFERENCE_TOKENS)
        for member, pixels, mask in zip(scene.members, picture.references, picture.masks, strict=True)
    )
    instances = tuple(
        Instance(f"b{n}", Box(*member.box), member.creature.name) for n, member in enumerate(scene.members, 1)
    )
    layout = Layout(world.SIZE, world.SIZE, instances)
    adapter = next((name for name in ("sft", "dpo") if (tiny.FOLDER / tiny.ADAPTERS[name]).is_file()), None)
    hidden = next(m.creature.name for m in scene.members if m.hidden)
    note = f"the composite hides the {hidden}: what it looks like is known from its reference alone"
    return Case("creatures", layout, references, scene.caption, adapter, scene, note)


def cases() -> tuple[Case, ...]:
    """The photographs, and with trained weights the creatures."""
    return (photographs(), creatures()) if tiny.trained() else (photographs(),)


# --- one case -------------------------------------------------------------------------------------------------------


def small_model(adapter: str | None) -> DiffusersModel:
    """The small model on diffusers; ``adapter`` is sft, dpo or None."""
    from ..hosts.diffusers import load_transformer, merge_adapter

    state = tiny.tiny_transformer_state()
    transformer = load_transformer(dict(state.config), state.state)
    if adapter:
        merge_adapter(transformer, load_adapter(tiny.adapter_path(adapter)))
    vae = tiny.tiny_autoencoder()
    return DiffusersModel(transformer, vae.encode, vae.decode, guided=False)


def paint(case: Case, prepared: Prepared, rule: Rule = Rule.ICA) -> np.ndarray:
    """The picture of a case, uint8 (H, W, 3)."""
    words = tiny.encode_words(wrap(case.prompt))
    model, settings = small_model(case.adapter), Settings(rule=rule)
    return sample(model, prepared, words.tokens[None], words.pooled[None], steps=STEPS, seed=SEED, settings=settings)[0]


def run(case: Case, out: Path) -> dict[str, Any]:
    """Makes one case and its pictures in ``out``; returns its part of the report."""
    start = time.perf_counter()
    scene = compose(case.layout, case.references)
    prepared = prepare(scene)
    composed = time.perf_counter()
    result = paint(case, prepared)
    seconds = {"compose": composed - start, "sample": time.perf_counter() - composed}
    pictures = {
        "composite": scene.composite,
        "token_grid": draw_layout(scene, ENLARGE),
        "visibility": draw_visibility(prepared.plan, tiny.TOKENS),
        "references": sheets.row_of([r.pixels for r in case.references]) if case.drawn else None,
        "result": result,
    }
    more: dict[str, Any] = {}
    if case.drawn is not None:
        start = time.perf_counter()
        cla = paint(case, prepared, Rule.CLA)
        seconds["sample_cla_only"] = time.perf_counter() - start
        wanted = world.render(case.drawn).target
        error = np.abs(result.astype(np.float32) - wanted).mean()
        more = {
            "mean_difference_to_the_wanted_picture": round(float(error), 2),
            "scores": {FULL: scores(case.drawn, result), CLA_ONLY: scores(case.drawn, cla)},
            "how_boxes_are_found": "what differs from the scene drawn without the creature, if it is there at all",
        }
        pictures |= {
            "cla_only": cla,
            "wanted": wanted,
            "boxes_found": sheets.draw_boxes(
                result, [m.box for m in case.drawn.members], found_boxes(case.drawn, result)
            ),
            "sheet": sheet(case, scene.composite, result, cla, wanted),
        }
    out.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        if pixels is not None:
            Image.fromarray(pixels).save(out / f"{case.name}_{name}.png", optimize=True)
    size = Backbone(
        "the small model",
        double=tiny.CONFIG.num_layers,
        single=tiny.CONFIG.num_single_layers,
        width=tiny.CONFIG.attention_head_dim * tiny.CONFIG.num_attention_heads,
    )
    bound = Bound(method_named(prepared.method), prepared.plan, Settings())
    return {
        "case": case.name,
        "host": "diffusers",
        "weights": "trained" if tiny.trained() else "random: the result is noise",
        "adapter": case.adapter,
        "note": case.note,
        "prompt": case.prompt,
        "size": [case.layout.width, case.layout.height],
        "steps": STEPS,
        "seed": SEED,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        **more,
        **measure(bound, tiny.TOKENS, size, scene.warnings).as_json(),
        "same_layout_on_flux1_kontext": measure(bound).as_json(),
    }


# --- scores ---------------------------------------------------------------------------------------------------------

FULL, CLA_ONLY = "full method", "CLA only"
LOOKS = {"shape": "shape", "pattern": "pattern", "first_colour": "first", "second_colour": "second"}  # evaluate.KINDS


def found_boxes(scene: world.Scene, picture: np.ndarray) -> list[sheets.Rectangle | None]:
    """Where each creature stands in a picture (uint8), None where it is not to be found."""
    image = picture.astype(np.float32) / 255
    return [evaluate.find_box(scene, k, image) for k in range(len(scene.members))]


def scores(scene: world.Scene, picture: np.ndarray) -> dict[str, Any]:
    """How well a picture (uint8) keeps each creature, by :mod:`contextgen_core.training.evaluate`; then in sums over
    all of them, over those that the composite shows, and over those that it hides. A creature that is not there has no
    looks: none of them counts as right."""
    image = picture.astype(np.float32) / 255
    creatures = []
    for found in evaluate.judge(scene, picture):
        member = scene.members[found.member]
        iou = evaluate.found_iou(scene, found.member, image)
        there = iou != 0
        nearer = {kind: there and right for kind, right in zip(evaluate.KINDS, found.nearer, strict=True)}
        creatures.append(
            {
                "name": member.creature.name,
                "hidden": member.hidden,
                "there": there,
                "exact": there and found.exact,
                "random": nearer["random"],
                **{look: nearer[kind] for look, kind in LOOKS.items()},
                "psnr_db": round(found.psnr, 1),
                "box_iou": None if np.isnan(iou) else round(iou, 3),
            }
        )
    return {
        "creatures": creatures,
        "all": _sums(creatures),
        "visible": _sums([c for c in creatures if not c["hidden"]]),
        "hidden": _sums([c for c in creatures if c["hidden"]]),
    }


def _sums(creatures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many of how many creatures were right; the mean of the boxes that can be told."""
    boxes = [c["box_iou"] for c in creatures if c["box_iou"] is not None]
    mean = round(float(np.mean(boxes)), 3) if boxes else None
    right = {key: sum(c[key] for c in creatures) for key in ("exact", "random", *LOOKS)}
    return {"count": len(creatures), **right, "mean_box_iou": mean}


def sheet(case: Case, composite: np.ndarray, result: np.ndarray, cla: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What went in and what came out, side by side under captions; pictures uint8 (128, 128, 3)."""
    return sheets.captioned(
        [
            ("composite", composite),
            ("references", sheets.square_of([r.pixels for r in case.references])),
            (FULL, result),
            (CLA_ONLY, cla),
            ("wanted", wanted),
        ]
    )


def summary(entry: dict[str, Any]) -> str:
    """A case's part of the report for people: a few lines."""
    seconds = sum(entry["seconds"].values())
    lines = [
        f"{entry['case']} on {entry['host']}: {seconds:.1f} s, {entry['kept_tokens']} of {entry['tokens']} tokens "
        f"computed, weights {entry['weights']}"
    ]
    lines += [f"  {entry['note']}"] if entry["note"] else []
    if "scores" not in entry:
        return "\n".join(lines)
    lines += [
        "  looks: nearer to the creature asked for than to three that differ in this alone (by chance 1 in 4)",
        "  box IoU: overlap of the box found in the picture with the box asked for, 0 (not found) to 1",
    ]
    parts = entry["scores"]
    for number, creature in enumerate(parts[FULL]["creatures"]):
        lines.append(f"  {creature['name']}" + (" (hidden)" if creature["hidden"] else ""))
        for method in parts:
            one = parts[method]["creatures"][number]
            looks = ", ".join(f"{look.replace('_', ' ')} {'yes' if one[look] else 'no'}" for look in LOOKS)
            said = f"{looks}; box IoU {_number(one['box_iou'])}" if one["there"] else "not there"
            lines.append(f"    {method:<12} {said}")
    for method, part in parts.items():
        right = {who: sum(part[who][look] for look in LOOKS) for who in ("all", "hidden")}
        every, hidden = (f"{right[who]} of {len(LOOKS) * part[who]['count']}" for who in right)
        lines.append(
            f"  {method + ':':<13} {every} looks right ({hidden} of the hidden creature's), "
            f"box IoU {_number(part['all']['mean_box_iou'])} on average"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not to be told" if value is None else f"{value:.2f}"


# --- pictures of the repository -------------------------------------------------------------------------------------

SHEET = ROOT / "docs" / "images" / "tiny_demo.png"
THUMBNAIL = ROOT / "workflows" / "tiny_demo.jpg"


def sample_picture(number: int) -> Path:
    """Where the reference of creature ``number`` (from 1) is kept, for ComfyUI's input folder."""
    return SAMPLES / f"contextgen_creature_{number}.png"


def update() -> list[Path]:
    """Writes the pictures of the creatures that the repository keeps anew; returns their paths."""
    if not tiny.trained():
        raise InputError("The small model's weights are not in the pack, so the pictures would be noise; train it.")
    case = creatures()
    with tempfile.TemporaryDirectory() as folder:
        run(case, Path(folder))
        made = {}
        for name in ("composite", "result", "cla_only", "sheet"):
            with Image.open(Path(folder) / f"{case.name}_{name}.png") as picture:
                made[name] = np.asarray(picture.convert("RGB"))
    references = [sample_picture(n) for n in range(1, len(case.references) + 1)]
    for path, reference in zip(references, case.references, strict=True):
        cut_out = np.dstack([reference.pixels, reference.mask])  # white in the mask is subject, so opaque
        Image.fromarray(cut_out, "RGBA").save(path, optimize=True)
    Image.fromarray(made["sheet"]).save(SHEET, optimize=True)
    strip = sheets.square_of([r.pixels for r in case.references])
    quarters = [strip, made["composite"], made["cla_only"], made["result"]]
    Image.fromarray(sheets.enlarged(sheets.square_of(quarters), 2)).save(THUMBNAIL, quality=88)
    return [*references, SHEET, THUMBNAIL]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m contextgen_core.demo", description="Shows the whole path on the small model."
    )
    parser.add_argument("--out", type=Path, default=Path("output") / "demo", help="folder for the pictures")
    parser.add_argument("--case", choices=["photographs", "creatures"], help="this one alone")
    parser.add_argument("--update", action="store_true", help="write the pictures that the repository keeps anew")
    options = parser.parse_args(arguments)
    try:
        if options.update:
            written = update()
            sys.stdout.write("".join(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes\n" for path in written))
            return 0
        chosen = [case for case in cases() if options.case in (None, case.name)]
        report = {"cases": [run(case, options.out) for case in chosen]}
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for entry in report["cases"]:
        sys.stdout.write(summary(entry) + "\n")
    sys.stdout.write(f"pictures and report.json in {options.out}\n")
    return 0
