"""COCO-MIG (MIGC, arXiv 2402.05408): 800 pictures of 2 to 6 things, each in a box and of a colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ...input.checks import shorten
from ...layout.box import Box
from ...layout.foreign_boxes import LabelledBox
from ...score.colour import COLOURS, colour_right
from ...score.figures import Expected, judge
from ...score.grounding import crop_of
from ..backend import Task
from .case import Case, CaseBox, Share, entries, file_in, locate, read_document, share_of, wanted
from .eyes import Eyes
from .measure import Benchmark, Measure, Published

SEED, SIZE = 42, 512
ORIGIN = (
    "the MIG-Bench folder that LeyRio/MIG_Bench links to; with references, nenhang/ContextGen's cocomig_reference_pack"
)
FILES = ("mig_bench.json", "*/mig_bench.json")
REFERENCES = "bench_instance_categories_filtered.json"
TEMPLATES = "imagenet_templates.txt"
LEVELS = ("L2", "L3", "L4", "L5", "L6")


def cases(data: Path, size: int | None, seeds: Sequence[int]) -> Iterator[Case]:
    """The pictures by their number. Where the reference pack lies beside the file each box is bound to a picture, else
    to its phrase alone."""
    path = locate(data, FILES, ORIGIN)
    pack = _pack(path.parent)
    side = size or SIZE
    items = read_document(path)
    for position, (where, item) in enumerate(entries(items, path.name)):
        index = str(list(items)[position]) if isinstance(items, Mapping) else str(position)
        boxes, instances = [], []
        for number, segment in enumerate(wanted(item, "segment", list, where), 1):
            here = f"{where}, segment {number}"
            if not isinstance(segment, Mapping):
                raise InputError(f"{here} is {shorten(segment)}; download the file again.")
            share = share_of(segment.get("bbox"), here)
            label = wanted(segment, "label", str, here)
            words = label.split()
            if len(words) < 3 or words[1] not in COLOURS:
                raise InputError(f"{here} has the label {shorten(label)}; it needs an article, a colour and a noun.")
            picture, mask = _reference(pack, path.parent, label, share, here) if pack else (None, None)
            boxes.append(CaseBox(share, label, picture, mask, label, "stretch"))
            instances.append({"box": list(share), "colour": words[1], "noun": " ".join(words[2:]), "label": label})
        for seed in seeds or (SEED,):
            name = f"{index}_{seed}" if len(seeds) > 1 else index
            prompt = wanted(item, "caption", str, where)
            yield Case(name, prompt, (side, side), seed, tuple(boxes), {"instances": instances})


def _pack(folder: Path) -> dict[str, tuple[int, list[int]]]:
    """Label -> its number and those of its pictures, of the reference pack; empty without one."""
    if not (folder / REFERENCES).is_file():
        return {}
    labels = {}
    for where, item in entries(read_document(folder / REFERENCES), REFERENCES):
        numbers = item.get("available_mask_image") or []
        if not isinstance(numbers, list) or not all(isinstance(n, int) for n in numbers):
            raise InputError(f"{where} has available_mask_image = {shorten(numbers)}; download the file again.")
        labels[wanted(item, "caption", str, where)] = (wanted(item, "index", int, where), numbers)
    return labels


def _reference(
    pack: Mapping[str, tuple[int, list[int]]], folder: Path, label: str, share: Share, where: str
) -> tuple[Path, Path]:
    """Of a label's pictures the one whose sides are most like the box's, the first of equals."""
    index, numbers = pack.get(label, (0, []))
    ratio = (share[2] - share[0]) / (share[3] - share[1])
    best: tuple[float, Path, Path] | None = None
    for number in numbers:
        stem = f"{index:04d}_{number:02d}_{label.strip().replace(' ', '_')}"
        picture = file_in(folder / "reference_images", f"{stem}.jpg", where)
        masks = [file_in(folder / "reference_masks", f"{stem}_mask.{kind}", where) for kind in ("png", "jpg")]
        mask = next((path for path in masks if path.is_file()), None)
        if mask is None or not picture.is_file():
            continue
        off = abs(_ratio(picture) - ratio)
        if best is None or off < best[0]:
            best = off, picture, mask
    if best is None:
        raise InputError(f"{where} finds no picture and mask of {label!r} in the reference pack; unpack it anew.")
    return best[1], best[2]


@lru_cache(maxsize=65536)
def _ratio(picture: Path) -> float:
    """Width over height, from the file's head alone: a pack has thousands."""
    try:
        with Image.open(picture, formats=("JPEG", "PNG")) as opened:
            return opened.width / opened.height
    except OSError as error:
        raise InputError(f"the picture {picture.name} cannot be read ({shorten(str(error), 80)}).") from None


class CocoMig:
    """Position by the detector, colour by the share of the segmented box in a range of hues."""

    def __init__(self, eyes: Eyes, data: Path) -> None:
        self.eyes = eyes
        path = data / TEMPLATES
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.templates = [line for line in lines if line.strip()]
        if any("{}" not in line for line in self.templates):
            raise InputError(f"{path.name} has a line without {{}}; give one sentence a line with {{}} for the thing.")

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        return [self._one(_squared(picture), task) for picture in pictures]

    def _one(self, picture: np.ndarray, task: Task) -> dict[str, float | None]:
        instances = task.row.values["asked"]["instances"]
        prompt, clip = task.row.values["prompt"], self.eyes.clip
        result: dict[str, float | None] = {"instances": float(len(instances)), "pictures": 1.0}
        if self.eyes.detector is not None and self.eyes.segmenter is not None:
            judged = [self._judged(picture, instance, prompt) for instance in instances]
            result["right"] = float(sum(success for success, _ in judged))
            result["success"] = float(all(success for success, _ in judged))
            result["iou"] = sum((iou for _, iou in judged), 0.0)
        if clip is not None:
            result["clip"] = clip(picture, [prompt])[0]
            if self.templates:
                result["local"] = sum(self._local(picture, instance) for instance in instances)
        return result

    def _judged(self, picture: np.ndarray, instance: Mapping[str, Any], prompt: str) -> tuple[bool, float]:
        assert self.eyes.detector is not None and self.eyes.segmenter is not None  # noqa: S101  asked before
        box, noun = _box(instance, picture), instance["noun"]
        found = [LabelledBox(one, noun) for one in self.eyes.detector(picture, noun, prompt)]
        (one,) = judge([Expected(box, noun)], found).instances
        if one.located:
            right = colour_right(picture, self.eyes.segmenter(picture, box), f"{instance['colour']} {noun}")
            (one,) = judge([Expected(box, noun, right)], found).instances
        return one.success, one.counted_iou

    def _local(self, picture: np.ndarray, instance: Mapping[str, Any]) -> float:
        assert self.eyes.clip is not None  # noqa: S101  asked before
        crop = _squared(crop_of(picture, _box(instance, picture)))
        values = self.eyes.clip(crop, [line.replace("{}", instance["label"]) for line in self.templates])
        return sum(values) / len(values)


def _box(instance: Mapping[str, Any], picture: np.ndarray) -> Box:
    height, width = picture.shape[:2]
    return Box(*instance["box"]).scaled(width, height)


def _squared(picture: np.ndarray) -> np.ndarray:
    """On the 512 x 512 pixels that the published code counts on."""
    if picture.shape[:2] == (SIZE, SIZE):
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _levels(asked: Mapping[str, Any]) -> tuple[str, ...]:
    return "all", f"L{min(max(len(asked['instances']), 2), 6)}"


def _row(**values: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """From L2 to L6, then all."""
    groups = (*LEVELS, "all")
    return {
        group: {title.replace("_", "-"): numbers[n] for title, numbers in values.items()}
        for n, group in enumerate(groups)
    }


_TABLE = "table of LeyRio/MIG_Bench, shares there given to two digits"
_NEEDS = ("detector", "segmenter")
BENCHMARK = Benchmark(
    "coco-mig",
    "COCO-MIG",
    ORIGIN,
    "arXiv 2402.05408; LeyRio/MIG_Bench, eval_mig.py",
    cases,
    CocoMig,
    ("all", *LEVELS),
    _levels,
    (
        Measure("SR", "success", "pictures", "pictures all of whose things stand in their boxes in their colours",
                _NEEDS),
        Measure("I-SR", "right", "instances", "things whose box has an IoU of 0.5 or more with a detection of their"
                " noun and whose segmented box has the colour on a fifth of its pixels", _NEEDS),
        Measure("mIoU", "iou", "instances", "mean of the best IoU of each thing; 0 where the place is right and the"
                " colour wrong", _NEEDS),
        Measure("G-C", "clip", "pictures", "CLIP's cosine, times 100, of picture and prompt", ("clip",), 1.0),
        Measure("L-C", "local", "instances", "the same of each box's crop and its label in the sentences of"
                f" {TEMPLATES}, the mean over these", ("clip",), 1.0),
    ),
    (0.25, 0.25, 0.8),
    {"detector": "Grounding DINO Swin-T OGC", "segmenter": "SAM ViT-H", "clip": "CLIP ViT-L/14"},
    (
        Published("ContextGen, released", "nenhang/ContextGen, bench/sample_scripts/README.md",
                  {"all": {"SR": 28.0, "I-SR": 64.91, "mIoU": 60.25, "G-C": 25.82, "L-C": 21.59}}),
        Published("ContextGen, paper", "arXiv 2510.11000", {"all": {"I-SR": 69.72, "mIoU": 65.12}}),
        Published("MIGC", _TABLE, _row(mIoU=(64, 58, 57, 54, 57, 56), I_SR=(74, 67, 67, 63, 66, 66))),
        Published("InstanceDiffusion", _TABLE, _row(mIoU=(52, 48, 50, 42, 42, 46), I_SR=(58, 52, 55, 47, 47, 51))),
        Published("GLIGEN", _TABLE, _row(mIoU=(37, 29, 25.3, 26, 26, 27), I_SR=(42, 32, 27, 27, 28, 30))),
    ),
    (
        "One picture of 512 x 512 for each prompt with seed 42, subjects stretched to their boxes: ContextGen's"
        " sampling. MIG_Bench itself names no seed and no number of pictures for a prompt; --seeds takes others.",
        "The colours' ranges are those of eval_mig.py's second version (3 March 2024); its first version had others,"
        " which still stand there as a comment.",
        "The published code hands BGR pictures to CLIP; so does this one, as otherwise G-C and L-C would not compare.",
        "L-C asks each label in CLIP's 80 ImageNet sentences, which are not part of the pack: put them, one a line"
        f" with {{}} for the thing, into {TEMPLATES} in the data folder; without it L-C is left out.",
        "A picture of another size is scaled to 512 x 512 first; the published code looks at its height alone.",
    ),
    bgr=True,
)  # fmt: skip
