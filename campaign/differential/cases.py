"""Random cases of the differential part: plain JSON that says everything, so that a case can be kept and replayed.

A case names the methods on the model, a layout with its references, what each method may be told besides, and how the
picture is sampled. Pictures, embeddings and noise follow from the case's seed.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from contextgen_core.composite.compose import Scene, compose
from contextgen_core.composite.references import Reference
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout
from contextgen_core.layout.tokens import TOKEN
from contextgen_core.methods.boundary import CONTENT, Bound
from contextgen_core.methods.contextgen.schedule import Rule
from contextgen_core.methods.contextgen.settings import Settings as ContextGenSettings
from contextgen_core.methods.eligen.method import EliGenOptions, EliGenSettings
from contextgen_core.methods.eligen.plan import PhraseReading
from contextgen_core.methods.instance_assemble.plan import BoxOptions, PhraseOptions
from contextgen_core.methods.instance_assemble.step import PHRASES, AssembleSettings
from contextgen_core.methods.lamic.method import LamicOptions, LamicSettings
from contextgen_core.methods.lamic.regions import giving_way_to_the_front
from contextgen_core.methods.registry import method as method_named
from contextgen_core.methods.sigma_gen.control import Cell
from contextgen_core.methods.sigma_gen.method import Settings as SigmaSettings
from contextgen_core.methods.sigma_gen.regions import ControlOptions

Case = dict[str, Any]

TEXT = {"flux": 32, "sd3": 32, "qwen": 48}  # numbers of a text token in the small models
POOLED = 24  # of a pooled text
ALONE = (("contextgen",), ("lamic",), ("sigma_gen",), ("eligen",), ("instance_assemble",))
TOGETHER = (
    ("contextgen", "eligen"),
    ("eligen", "contextgen"),
    ("contextgen", "instance_assemble"),
    ("lamic", "eligen"),
    ("sigma_gen", "eligen"),
    ("eligen", "instance_assemble"),
    ("sigma_gen", "instance_assemble"),
    ("contextgen", "eligen", "instance_assemble"),
)
STRENGTHS = (1.0, 1.0, 1.0, 0.0, 0.3, 2.5, 4.0)
WINDOWS = ((0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 0.5), (0.4, 1.0), (0.3, 0.3), (0.2, 0.7))
SETTINGS: dict[str, Any] = {
    "contextgen": ContextGenSettings,
    "lamic": LamicSettings,
    "sigma_gen": SigmaSettings,
    "eligen": EliGenSettings,
    "instance_assemble": AssembleSettings,
}


def draw(seed: int, model: str | None = None) -> Case:
    """The case of a seed. ``model``: flux, sd3 or qwen; None: chance decides, mostly for flux."""
    rng = random.Random(seed)
    model = model or rng.choice(("flux",) * 8 + ("sd3", "qwen"))
    methods = {
        "flux": lambda: rng.choice(ALONE if rng.random() < 0.6 else TOGETHER),
        "sd3": lambda: ("instance_assemble",),
        "qwen": lambda: ("eligen",),
    }[model]()
    columns, rows = rng.randint(4, 10), rng.randint(4, 10)
    if model == "qwen":  # ComfyUI centres an odd side of tokens one place apart from diffusers, without us, too
        columns, rows = columns // 2 * 2, rows // 2 * 2
    references = [_reference(rng) for _ in range(rng.randint(1, 5))]
    count = rng.choice((1, 2, 3, rng.randint(1, 8), rng.randint(1, 32)))
    boxes = [_box(rng, columns * TOKEN, rows * TOKEN, len(references), methods) for _ in range(count)]
    if not any(box["ref"] for box in boxes):
        boxes[0]["ref"] = 1
    cfg = rng.choice((1.0, 1.0, 3.5))
    return {
        "seed": seed,
        "model": model,
        "methods": list(methods),
        "canvas": [columns * TOKEN, rows * TOKEN],
        "references": references,
        "boxes": boxes,
        "fit": rng.choice(("instance", "stretch", "image")),
        "text": rng.randint(3 * count + 2, 3 * count + 40) if "lamic" in methods else rng.randint(1, 48),
        "settings": {name: _settings(rng, name) for name in methods},
        "options": {name: _options(rng, name, count) for name in methods},
        "batch": rng.choice((1, 1, 2, 3)),
        "cfg": cfg,
        "negative": None if cfg == 1 else rng.choice(("plain", "same")),
        "negative_text": rng.randint(1, 48),
        "sigmas": rng.choice(([1.0, 0.0], [1.0, 0.6, 0.0], [0.8, 0.45, 0.0], [1.0, 0.9, 0.7, 0.4, 0.0])),
        "guidance": rng.choice((1.0, 2.5, 3.5)),
    }


def _reference(rng: random.Random) -> dict[str, Any]:
    start, end = rng.choice(WINDOWS)
    return {
        "size": [rng.randint(20, 90), rng.randint(20, 90)],
        "mask": rng.choice(("whole", "disc", "corner", "noise")),
        "tokens": rng.randint(1, 12),
        "strength": rng.choice(STRENGTHS),
        "window": [start, end],
        "crop": rng.random() < 0.2,
    }


def _box(rng: random.Random, width: int, height: int, references: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """Any box that meets the canvas: also beyond its border, of less than a token, turned, the same again."""
    w, h = (rng.choice((rng.uniform(3, side), rng.uniform(3, side / 2), side)) for side in (width, height))
    x, y = (rng.uniform(-0.4 * a, b - 0.6 * a) for a, b in ((w, width), (h, height)))
    if rng.random() < 0.3:  # on the grid
        x, y, w, h = (float(TOKEN * round(value / TOKEN)) for value in (x, y, max(w, TOKEN), max(h, TOKEN)))
    words = bool({"eligen", "instance_assemble"} & set(methods))
    has = rng.choice(("ref", "label", "both")) if words else "ref"
    return {
        "box": [round(value, 2) for value in (x, y, x + w, y + h)],
        "ref": None if has == "label" else rng.randint(1, references),
        "label": "" if has == "ref" else "a thing",
        "rot": rng.choice((0.0, 0.0, 0.0, 45.0, -30.0, 90.0)),
        "flip": rng.choice(("", "", "h", "hv")),
        "strength": rng.choice((1.0, 1.0, 1.0, 0.5, 0.0)),
        "hidden": rng.random() < 0.03,
    }


def _settings(rng: random.Random, name: str) -> dict[str, Any]:
    """Settings that differ from the defaults, here and there; the kernel is chosen by who runs the case."""
    start, end = rng.choice(WINDOWS)
    first = rng.randint(0, 8)
    chosen: dict[str, Any] = {
        "contextgen": lambda: {
            "rule": rng.choice((*(rule.value for rule in Rule), "official")),
            "ica_blocks": rng.choice((None, None, [first, rng.randint(first, 9)])),
            "start": start,
            "end": end,
            "round_ids": rng.random() < 0.2,
            "prune": rng.random() < 0.8,
        },
        "lamic": lambda: {"first_ratio": rng.choice((0.0, 0.05, 0.5, 1.0)), "masked": rng.random() < 0.9},
        "sigma_gen": lambda: {
            "timestep": rng.choice(("current", "zero")),
            "guidance": rng.choice(("automatic", "user", "one")),
            "scope": rng.choice(("all", "conditions")),
            "cross": rng.random() < 0.5,
            "context": rng.random() < 0.5,
            "memory": rng.choice((8.0, 8.0, 0.0)),
        },
        "eligen": lambda: {
            "strength": rng.choice(STRENGTHS),
            "start": start,
            "end": end,
            "blocks": rng.choice((None, None, [min(first, 3), rng.randint(min(first, 3) + 1, 4)])),
            "outside": rng.choice((0.0, 0.0, 0.0, 0.2, 1.0)),
        },
        "instance_assemble": lambda: {
            "scale": rng.choice((1.0, 1.0, 0.0, 0.4, 3.0)),
            "ratio": rng.choice((1.0, 0.3, 0.5, 0.8)),
            "mlp": rng.choice((1.0, 1.0, 0.0, 2.0)),
            "front": rng.random() < 0.3,
            "rounded": False,  # bfloat16: a rounding of the encoders' outputs, which no host shares to the last bit
        },
    }[name]()
    return {key: value for key, value in chosen.items() if rng.random() < 0.6}


def _options(rng: random.Random, name: str, boxes: int) -> dict[str, Any]:
    """What a method is told about single boxes, by their numbers from 0 as text."""

    def some(value: Callable[[], Any], chance: float = 0.3) -> dict[str, Any]:
        return {str(number): value() for number in range(boxes) if rng.random() < chance}

    mask = lambda: rng.choice(("disc", "corner", "noise"))  # noqa: E731
    if name == "lamic":
        counts = [rng.randint(1, 3) for _ in range(boxes)]
        return {"counts": counts, "scene": rng.randint(1, 2), "gives_way": rng.random() < 0.5, "masks": some(mask)}
    if name == "eligen":
        reading = some(lambda: [rng.choice((1.0, 0.4, 3.0)), *rng.choice(WINDOWS)])
        return {"tokens": [rng.randint(1, 6) for _ in range(boxes)], "readings": reading, "masks": some(mask, 0.2)}
    if name == "instance_assemble":
        own = some(lambda: [rng.choice((1.0, 0.0, 0.5, 4.0)), *rng.choice(WINDOWS)])
        return {"boxes": own, "masks": some(mask, 0.2), "content": rng.choice(("phrases", "phrases", "both"))}
    if name == "sigma_gen":
        return {"cell": rng.choice(([16, 16], [32, 48])), "shape": rng.choice(("box", "ellipse"))}
    return {}


# --- what a case means ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """A case as hosts take it.

    bounds   the methods with their plans and settings
    columns, rows  of the noise in tokens
    latents  of the condition pictures, (1, 16, h, w) each, as the model reads them
    vectors  what phrases were encoded to, by method and name, batch of 1 first
    """

    bounds: tuple[Bound, ...]
    columns: int
    rows: int
    latents: tuple[torch.Tensor, ...] = ()
    vectors: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


def normal(case: Case, name: str, *shape: int) -> torch.Tensor:
    """Random numbers that follow from the case's seed and a name."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case['seed']} {name}".encode()))
    return torch.randn(shape, generator=generator)


def mask_of(kind: str, width: int, height: int, seed: int) -> np.ndarray:
    """uint8 (height, width), 255 = inside; never empty."""
    y, x = np.mgrid[:height, :width]
    if kind == "whole":
        inside = np.ones((height, width), bool)
    elif kind == "disc":
        inside = ((x - width / 2) / width) ** 2 + ((y - height / 2) / height) ** 2 < 0.15
    elif kind == "corner":
        inside = (x < width / 2) & (y < height * 0.7)
    else:
        coarse = np.random.default_rng(seed).random((4, 4)) < 0.5
        coarse[1, 1] = True
        inside = coarse[y * 4 // height, x * 4 // width]
    return np.where(inside, np.uint8(255), np.uint8(0))


def scene_of(case: Case) -> Scene:
    width, height = case["canvas"]
    references = []
    for number, given in enumerate(case["references"], 1):
        w, h = given["size"]
        pixels = np.random.default_rng([case["seed"], number]).integers(0, 256, (h, w, 3), dtype=np.uint8)
        mask = mask_of(given["mask"], w, h, case["seed"] + number)
        start, end = given["window"]
        known = {"tokens": given["tokens"], "strength": given["strength"], "crop": given["crop"]}
        references.append(Reference(f"r{number}", pixels, mask, start=start, end=end, **known))
    instances = tuple(
        Instance(
            f"b{number}",
            Box(*given["box"]),
            given["ref"],
            given["label"],
            rotation=given["rot"],
            flip=given["flip"],
            strength=given["strength"],
            hidden=given["hidden"],
        )
        for number, given in enumerate(case["boxes"])
    )
    return compose(Layout(width, height, instances), references, case["fit"])


def settings_of(case: Case, name: str, kernel: str = "auto", prune: bool | None = None) -> Any:
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in case["settings"][name].items()}
    if "rule" in given:
        given["rule"] = Rule(given["rule"])
    if name in ("contextgen", "lamic", "eligen"):
        given["kernel"] = kernel
    if name == "contextgen" and prune is not None:
        given["prune"] = prune
    if name == "instance_assemble":
        given["pictures"] = case["model"] == "flux"
    return SETTINGS[name](**given)


def build(case: Case, kernel: str = "auto", prune: bool | None = None) -> Built:
    """Raises InputError where a method cannot take the layout."""
    scene = scene_of(case)
    bounds, latents, vectors = [], [], {}
    for name in case["methods"]:
        method = method_named(name)
        prepared = method.prepare(scene, _told(case, name, scene))
        plan = prepared.plan
        if name == "eligen":
            plan = plan.with_lengths(case["options"][name]["tokens"][: len(plan.phrases)])
            vectors[name] = {"phrases": normal(case, "words", 1, plan.phrase_tokens, TEXT[case["model"]])}
        if name == "instance_assemble":
            plan = replace(plan, pooled=POOLED)
            vectors[name] = {PHRASES: normal(case, "phrases", 1, sum(box.phrase for box in plan.boxes), POOLED)}
            if prepared.content:
                tokens = sum(box.picture.size for box in plan.boxes if box.picture)
                vectors[name][CONTENT] = normal(case, "content", 1, tokens, 64)
        for picture in prepared.pictures:
            h, w = (side // TOKEN * 2 for side in picture.shape[:2])
            latents.append(normal(case, f"picture {len(latents)}", 1, 16, h, w))
        bounds.append(Bound(method, plan, settings_of(case, name, kernel, prune)))
    rows, columns = bounds[0].method.sizes(bounds[0].plan)[0]
    return Built(tuple(bounds), columns, rows, tuple(latents), vectors)


def _told(case: Case, name: str, scene: Scene) -> Any:
    given = case["options"][name]
    width, height = case["canvas"]
    masks = {
        int(number): mask_of(kind, width, height, case["seed"] + int(number))
        for number, kind in given.get("masks", {}).items()
        if int(number) < len(case["boxes"])
    }
    if name == "lamic":
        count = sum(reference is not None for reference in scene.references)
        counts = (*given["counts"][:count], given["scene"])
        ways = giving_way_to_the_front(count) if given["gives_way"] else {}
        return LamicOptions(counts, ways, {number: mask for number, mask in masks.items() if number < count})
    if name == "eligen":
        labelled = [number for number, box in enumerate(case["boxes"]) if box["label"] and not box["hidden"]]
        readings = {int(n): PhraseReading(*r) for n, r in given["readings"].items() if int(n) in labelled}
        return EliGenOptions({n: m for n, m in masks.items() if n in labelled}, readings=readings)
    if name == "instance_assemble":
        content = given["content"] if case["model"] == "flux" else "phrases"
        own = {int(n) + 1: BoxOptions(*o) for n, o in given["boxes"].items() if int(n) < len(case["boxes"])}
        return PhraseOptions(own, {number + 1: mask for number, mask in masks.items()}, content=content)
    if name == "sigma_gen":
        return ControlOptions(Cell(*given["cell"]), given["shape"])
    return None


def refuses(case: Case) -> str:
    """The sentence with which the case is refused, "" where it is not."""
    try:
        build(case)
    except InputError as error:
        return str(error)
    return ""


# --- smaller cases --------------------------------------------------------------------------------------------------


def smaller(case: Case) -> Iterator[Case]:
    """Cases that say less, the shortest first: half of the boxes, each box gone, each word gone back to its default."""

    def with_boxes(chosen: list[int]) -> Case:
        made = copy.deepcopy(case)
        made["boxes"] = [made["boxes"][number] for number in chosen]
        return made

    count = len(case["boxes"])
    if count > 3:
        yield with_boxes(list(range(count // 2)))
        yield with_boxes(list(range(count // 2, count)))
    if count > 1:
        for gone in range(count):
            yield with_boxes([number for number in range(count) if number != gone])
    if len(case["methods"]) > 1:
        for gone in case["methods"]:
            yield {**copy.deepcopy(case), "methods": [name for name in case["methods"] if name != gone]}
    plain: dict[str, Any] = {"batch": 1, "cfg": 1.0, "negative": None, "sigmas": [1.0, 0.0], "fit": "instance"}
    for key, value in plain.items():
        if case[key] != value:
            more = {"negative": None} if key == "cfg" else {"cfg": 1.0} if key == "negative" else {}
            yield {**copy.deepcopy(case), key: value, **more}
    for name in case["methods"]:
        for key in case["settings"][name]:
            made = copy.deepcopy(case)
            del made["settings"][name][key]
            yield made
        for key, value in case["options"][name].items():
            if isinstance(value, dict) and value:
                made = copy.deepcopy(case)
                made["options"][name][key] = {}
                yield made
    for number, box in enumerate(case["boxes"]):
        for key, value in {"rot": 0.0, "flip": "", "strength": 1.0, "hidden": False}.items():
            if box[key] != value:
                made = copy.deepcopy(case)
                made["boxes"][number][key] = value
                yield made
    for number, reference in enumerate(case["references"]):
        for key, value in {"strength": 1.0, "window": [0.0, 1.0], "crop": False, "mask": "whole", "tokens": 1}.items():
            if reference[key] != value:
                made = copy.deepcopy(case)
                made["references"][number][key] = value
                yield made


def shrunk(case: Case, fails: Callable[[Case], bool], tries: int = 200) -> Case:
    """The smallest case near this one that still fails, within so many tries."""
    found = True
    while found and tries > 0:
        found = False
        for made in smaller(case):
            tries -= 1
            if fails(made):
                case, found = made, True
                break
            if tries <= 0:
                break
    return case
