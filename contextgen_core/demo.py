"""The demonstration: photographs and boxes through the whole path, on the small model, without ComfyUI.

    python -m contextgen_core.demo [--out output/demo]

writes for every case the composite, the token grid with boxes, who sees whom, and the decoded result, and one
``report.json``. The small model knows drawn creatures alone, so photographs show the path and not a picture; while the
pack has no trained weights its weights are random, and the report says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import tiny
from .adapter import load_adapter
from .compose import Scene, compose
from .errors import InputError
from .layout import Box, Instance, Layout
from .methods.contextgen import Settings
from .prompt import wrap
from .references import Reference, prepare, subject_from_image
from .report import ModelSize, draw_layout, draw_visibility, measure
from .sequence import Plan, plan_from_scene
from .training import world
from .training.flow import shifted_sigmas
from .training.latents import pack, to_tensor, unpack

SAMPLES = Path(__file__).resolve().parent.parent / "assets" / "samples"
STEPS = 8
SEED = 7
TOKENS = 64  # budget of a photograph
ENLARGE = 4  # of the small pictures in the drawing of the token grid


@dataclass(frozen=True, eq=False)
class Case:
    """One picture to make. ``truth`` is the picture that was wanted, where it is known; ``adapter`` is sft, dpo or "
    "none."""

    name: str
    layout: Layout
    references: tuple[Reference, ...]
    prompt: str
    adapter: str | None = None
    truth: np.ndarray | None = None
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


def creatures() -> Case:
    """Drawn creatures in four boxes: the small model's own world. Needs the trained weights to mean anything."""
    scene = next(s for s in (world.scene(0, "test", i, "complex") for i in range(999)) if len(s.members) == 4)
    picture = world.render(scene)
    references = tuple(
        Reference(member.creature.name, pixels, mask, tokens=tiny.REFERENCE_TOKENS)
        for member, pixels, mask in zip(scene.members, picture.references, picture.masks, strict=True)
    )
    instances = tuple(Instance(f"b{n}", Box(*member.box), n) for n, member in enumerate(scene.members, 1))
    layout = Layout(world.SIZE, world.SIZE, instances)
    adapter = next((name for name in ("sft", "dpo") if (tiny.FOLDER / tiny.ADAPTERS[name]).is_file()), None)
    return Case("creatures", layout, references, scene.caption, adapter, picture.target)


def cases() -> tuple[Case, ...]:
    """The photographs, and with trained weights the creatures."""
    return (photographs(), creatures()) if tiny.trained() else (photographs(),)


# --- one case -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sample(case: Case, plan: Plan, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The picture, uint8 (H, W, 3): plain Euler on FLUX's grid, from the noise that ComfyUI draws for the same seed.

    pictures: the composite, then the prepared references, uint8.
    """
    from .hosts.diffusers import ContextGenFlux, load_transformer, merge_adapter

    made = tiny.tiny_transformer_state()
    transformer = load_transformer(dict(made.config), made.state)
    if case.adapter:
        merge_adapter(transformer, load_adapter(tiny.adapter_path(case.adapter)))
    vae = tiny.tiny_autoencoder()
    conditions = torch.cat([pack(vae.encode(to_tensor(picture)[None])) for picture in pictures], dim=1)
    words = tiny.encode_words(wrap(case.prompt))
    noise = torch.randn((1, 16, 2 * plan.height, 2 * plan.width), generator=torch.manual_seed(SEED))
    x = pack(noise)
    sigmas = shifted_sigmas(STEPS, plan.noise_tokens)
    with ContextGenFlux(transformer) as model:
        for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            velocity = model.velocity(
                plan, x, conditions, text=words.tokens[None], pooled=words.pooled[None], timestep=now[None]
            )
            x = x + (after - now) * velocity
    decoded = vae.decode(unpack(x, plan.width, plan.height))[0].clamp(0, 1)
    return (decoded.movedim(0, -1) * 255).round().to(torch.uint8).numpy()


def run(case: Case, out: Path) -> dict[str, Any]:
    """Makes one case and its pictures in ``out``; returns its part of the report."""
    start = time.perf_counter()
    scene = compose(case.layout, case.references)
    prepared = [None if r is None else prepare(r, case.layout.width, case.layout.height) for r in scene.references]
    plan = plan_from_scene(scene, prepared)
    composed = time.perf_counter()
    result = sample(case, plan, [scene.composite, *(p.pixels for p in prepared if p is not None)])
    sampled = time.perf_counter()
    save(out, case, scene, plan, result)
    size = ModelSize(
        tiny.CONFIG.attention_head_dim * tiny.CONFIG.num_attention_heads,
        tiny.CONFIG.num_layers,
        tiny.CONFIG.num_single_layers,
    )
    report = {
        "case": case.name,
        "host": "diffusers",
        "weights": "trained" if tiny.trained() else "random: the result is noise",
        "adapter": case.adapter,
        "note": case.note,
        "size": [case.layout.width, case.layout.height],
        "steps": STEPS,
        "seed": SEED,
        "seconds": {"compose": round(composed - start, 2), "sample": round(sampled - composed, 2)},
        **measure(plan, Settings(), tiny.TOKENS, size, scene.warnings).as_json(),
        "same_layout_on_flux1_kontext": measure(plan).as_json(),
    }
    if case.truth is not None:
        error = np.abs(result.astype(np.float32) - case.truth).mean()
        report["mean_difference_to_the_wanted_picture"] = round(float(error), 2)
    return report


def save(out: Path, case: Case, scene: Scene, plan: Plan, result: np.ndarray) -> None:
    """The pictures of a case."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "composite": scene.composite,
        "token_grid": draw_layout(scene, ENLARGE),
        "visibility": draw_visibility(plan, tiny.TOKENS),
        "result": result,
    }
    if case.truth is not None:
        pictures["wanted"] = case.truth
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(out / f"{case.name}_{name}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m contextgen_core.demo", description="Shows the whole path on the small model."
    )
    parser.add_argument("--out", type=Path, default=Path("output") / "demo", help="folder for the pictures")
    options = parser.parse_args(arguments)
    try:
        report = {"cases": [run(case, options.out) for case in cases()]}
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
