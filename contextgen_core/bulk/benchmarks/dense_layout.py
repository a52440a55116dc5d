"""DenseLayout with the Layout Grounding Score (InstanceAssemble, arXiv 2509.16691): 5,000 pictures, 18 boxes each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...layout.box import Box
from ...score.grounding import ATTRIBUTES, Asked, Grounded, Record, ground, read_records, sums
from ..backend import Task
from .case import Case, CaseBox, locate
from .eyes import Eyes
from .measure import Benchmark, Measure

SEED = 42
FILES = ("**/test*.parquet", "**/*.parquet", "*.jsonl", "*.json")
ORIGIN = "the data set FireRedTeam/DenseLayout on Hugging Face"


def cases(data: Path, size: int | None, seeds: Sequence[int]) -> Iterator[Case]:
    """The records in their order; the canvas is the record's, or `size` pixels on its longer side."""
    first = locate(data, FILES, ORIGIN)
    seen: set[str] = set()
    for path in sorted(first.parent.glob(f"*{first.suffix}")):
        for record in read_records(path):
            if record.id in seen:
                raise InputError(f"{path.name} has the record {record.id!r} of another file; keep one of them.")
            seen.add(record.id)
            for seed in seeds or (SEED,):
                yield _case(record, size, seed, len(seeds) > 1)


def _case(record: Record, size: int | None, seed: int, several: bool) -> Case:
    boxes = []
    for asked in record.instances:
        seen = asked.box.clipped(record.width, record.height)
        if seen.area > 0:  # what covers nothing cannot be drawn; it is judged like the others
            share = (seen.x1 / record.width, seen.y1 / record.height, seen.x2 / record.width, seen.y2 / record.height)
            boxes.append(CaseBox(share, asked.caption or asked.category))
    factor = 1.0 if size is None else size / max(record.width, record.height)
    canvas = (round(record.width * factor / 16) * 16, round(record.height * factor / 16) * 16)
    instances = [[[b.x1, b.y1, b.x2, b.y2], category, caption] for b, category, caption in record.instances]
    facts = {"width": record.width, "height": record.height, "instances": instances}
    return Case(f"{record.id}_{seed}" if several else record.id, record.prompt, canvas, seed, tuple(boxes), facts)


class LayoutGrounding:
    """The sums of the Layout Grounding Score, see :mod:`contextgen_core.score.grounding`."""

    def __init__(self, eyes: Eyes, data: Path) -> None:
        self.eyes = eyes

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        asked = task.row.values["asked"]
        instances = tuple(Asked(Box(*corners), category, caption) for corners, category, caption in asked["instances"])
        record = Record(task.row.id, task.row.values["prompt"], asked["width"], asked["height"], instances)
        return [self._one(picture, record) for picture in pictures]

    def _one(self, picture: np.ndarray, record: Record) -> dict[str, float | None]:
        if self.eyes.detector is None:
            return {"boxes": float(len(record.instances))}
        judge = self.eyes.judge
        found: Sequence[Grounded] = ground(picture, record, self.eyes.detector, judge or _nobody)
        result: dict[str, float | None] = dict(sums(found))
        return result if judge is not None else result | dict.fromkeys(ATTRIBUTES)


def _nobody(crop: np.ndarray, category: str, description: str, attribute: str) -> str:
    return ""


def _everything(asked: Mapping[str, Any]) -> tuple[str, ...]:
    return ("all",)


_NEEDS = ("detector", "judge")
BENCHMARK = Benchmark(
    "dense-layout",
    "DenseLayout: Layout Grounding Score",
    ORIGIN,
    "arXiv 2509.16691; FireRedTeam/InstanceAssemble, benchmark/score_LGS.py",
    cases,
    LayoutGrounding,
    ("all",),
    _everything,
    (
        Measure("mIoU", "spatial", "boxes", "IoU of each box with the best detection of its category, 0 below 0.5; mean"
                " over all boxes", ("detector",)),
        *(
            Measure(name, name, "boxes", f"the same IoU where the judge finds the {name} of the detected crop as"
                    " described, else 0; mean over all boxes, described or not", _NEEDS)
            for name in ATTRIBUTES
        ),
        *(
            Measure(f"{name} (described)", name, "described", f"{name}, mean over the boxes whose description says more"
                    " than their category: not a published figure", _NEEDS)
            for name in ATTRIBUTES
        ),
    ),
    (0.35, 0.25, None),
    {"detector": "Grounding DINO Swin-T OGC", "judge": "MiniCPM-V 2.6"},
    (),
    (
        "One picture for each record, seed 42, on the record's canvas (generate_denselayout.py).",
        "A layout here holds 50 boxes of up to 200 characters: of a record with more, the first 50 are asked for and"
        " all are judged; the published code asks for 100.",
        "The judge is asked in other words than the published code's, and is any picture-and-text model that"
        " transformers runs without code from the model's folder; MiniCPM-V 2.6 needs such code and is not run.",
    ),
)  # fmt: skip
