"""LayoutSAM-Eval (CreatiLayout, arXiv 2412.03859): 5,000 photographs' layouts, judged crop by crop with questions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...input.checks import shorten
from ...layout.box import Box
from ...score.figures import DIMENSIONS, Answers
from ...score.grounding import PRESENCE, crop_of
from ..backend import Task
from ..table import read
from .case import Case, CaseBox, entries, file_in, locate, read_document, share_of, wanted
from .eyes import Eyes
from .measure import Benchmark, Measure, Published

SEED, SIZE = 42, 768
ORIGIN = (
    "the data set HuiZhang0812/LayoutSAM-eval on Hugging Face; with references, nenhang/ContextGen's"
    " layoutsam_reference_pack"
)
FILES = ("**/test*.parquet", "**/*.parquet", "*.jsonl")
PACKS = ("layoutsam_benchmark_filtered_sampled.json", "layoutsam_sampled.json")
COLUMNS = ("global_caption", "width", "height", "bbox_list", "region_captions", "detail_region_captions")
MAX_TEXT = 1 << 20


def cases(data: Path, size: int | None, seeds: Sequence[int]) -> Iterator[Case]:
    """The pictures by their number in the data set. Where the reference pack lies there, its pictures alone, each box
    bound to its subject; else all, bound to their descriptions."""
    side = size or SIZE
    first = locate(data, FILES, ORIGIN)
    found = (path for name in PACKS for path in sorted(data.rglob(name)))
    pack = next(found, None)
    chosen = None if pack is None else _pack(pack)
    for index, row in enumerate(_rows(first)):
        if chosen is not None and index not in chosen:
            continue
        where = f"{first.name}, row {index}"
        width, height = (int(wanted(row, name, (int, float, str), where)) for name in ("width", "height"))
        boxes, regions = [], []
        lists = [_list(row, name, where) for name in COLUMNS[3:]]
        if len({len(one) for one in lists}) > 1:
            raise InputError(f"{where} has lists of {', '.join(str(len(one)) for one in lists)}; download it again.")
        files = chosen[index] if chosen is not None else []
        for number, (corners, words, details) in enumerate(zip(*lists, strict=True)):
            share = share_of(corners, f"{where}, box {number}", width, height)
            picture, mask = files[number] if number < len(files) else (None, None)
            boxes.append(CaseBox(share, str(details), picture, mask, str(words), "instance"))
            regions.append({"box": [round(v, 3) for v in share], "words": str(words), "details": str(details)})
        for seed in seeds or (SEED,):
            name = f"{index:04d}_{seed}" if len(seeds) > 1 else f"{index:04d}"
            prompt = wanted(row, "global_caption", str, where)
            yield Case(name, prompt, (side, side), seed, tuple(boxes), {"regions": regions})


def _rows(first: Path) -> Iterator[Mapping[str, Any]]:
    """The data set's rows in the order of its files, without their pictures."""
    for path in sorted(first.parent.glob(f"*{first.suffix}")):
        if path.suffix == ".parquet":
            yield from _parquet(path)
            continue
        for number, (row, problem) in enumerate(read(path)):
            if problem:
                raise InputError(f"{path.name}, row {number}: {problem}")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"{path.name} has no column {', '.join(missing)}; give LayoutSAM-eval's own files.")
            for batch in file.iter_batches(500, columns=list(COLUMNS)):
                yield from batch.to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read ({shorten(str(error), 80)}); download it again.") from None


def _list(row: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """A list that the data set writes as Python's text."""
    value = row.get(name)
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, list):
        raise InputError(f"{where} has {name} = {shorten(row.get(name))}; it needs a list.")
    return value


def _pack(path: Path) -> dict[int, list[tuple[Path, Path]]]:
    """Number of a picture -> the picture and mask of each of its boxes."""
    chosen: dict[int, list[tuple[Path, Path]]] = {}
    for where, item in entries(read_document(path), path.name):
        files = []
        for segment in wanted(item, "segments", list, where):
            valid = segment.get("valid_bbox") if isinstance(segment, Mapping) else None
            if not isinstance(valid, list) or not valid or not isinstance(valid[0], Mapping):
                raise InputError(f"{where} has a segment without valid_bbox; unpack the reference pack anew.")
            files.append(tuple(file_in(path.parent, valid[0].get(name), where) for name in ("image_path", "mask_path")))
        chosen[wanted(item, "index", int, where)] = files
    return chosen


class LayoutSam:
    """Four questions about the crop of each box; the attributes are asked where the thing is there."""

    def __init__(self, eyes: Eyes, data: Path) -> None:
        self.eyes = eyes

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        return [self._one(picture, task) for picture in pictures]

    def _one(self, picture: np.ndarray, task: Task) -> dict[str, float | None]:
        regions, prompt = task.row.values["asked"]["regions"], task.row.values["prompt"]
        result: dict[str, float | None] = {"boxes": float(len(regions)), "pictures": 1.0}
        if self.eyes.judge is not None:
            said = [self._answers(picture, region) for region in regions]
            result |= {name: float(sum(one.counted(name) for one in said)) for name in DIMENSIONS}
        for name, likeness in (("clip", self.eyes.clip), ("pick", self.eyes.pick)):
            if likeness is not None:
                result[name] = likeness(picture, [prompt])[0]
        return result

    def _answers(self, picture: np.ndarray, region: Mapping[str, Any]) -> Answers:
        assert self.eyes.judge is not None  # noqa: S101  asked before
        height, width = picture.shape[:2]
        corners = Box(*(float(int(v * side)) for v, side in zip(region["box"], (width, height) * 2, strict=True)))
        crop, judge = crop_of(picture, corners), self.eyes.judge
        words, details = (region[name].replace("/", "") for name in ("words", "details"))

        def asked(what: str) -> bool:
            answer = judge(crop, words, details, what)
            return "Yes" in answer or "yes" in answer

        if not asked(PRESENCE):
            return Answers(False)
        return Answers(True, *(asked(attribute) for attribute in DIMENSIONS[1:]))


def _everything(asked: Mapping[str, Any]) -> tuple[str, ...]:
    return ("all",)


BENCHMARK = Benchmark(
    "layout-sam",
    "LayoutSAM-Eval",
    ORIGIN,
    "arXiv 2412.03859; HuiZhang0812/CreatiLayout, score_layoutsam_benchmark.py; for CLIP and Pick nenhang/ContextGen,"
    " bench/sample_scripts/layoutsam/layoutsam_eval.py",
    cases,
    LayoutSam,
    ("all",),
    _everything,
    (
        Measure("Spatial", "spatial", "boxes", "boxes whose crop shows, says the judge, the thing that they are for",
                ("judge",)),
        *(
            Measure(title, name, "boxes", f"boxes of which it says so, and that its {name} agrees with the detailed"
                    " description; of all boxes", ("judge",))
            for title, name in (("Color", "colour"), ("Texture", "texture"), ("Shape", "shape"))
        ),
        Measure("CLIP", "clip", "pictures", "CLIP's cosine, times 100, of picture and caption, which is cut at 77"
                " tokens", ("clip",), 1.0),
        Measure("Pick", "pick", "pictures", "PickScore of picture and caption", ("pick",), 1.0),
    ),
    (0.35, 0.25, None),
    {"judge": "MiniCPM-V 2.6", "clip": "CLIP ViT-L/14", "pick": "PickScore v1"},
    (
        Published("ContextGen, released", "nenhang/ContextGen, bench/sample_scripts/README.md, on the pictures of its"
                  " reference pack",
                  {"all": {"Spatial": 94.13, "Color": 86.41, "Texture": 88.11, "Shape": 87.57, "CLIP": 27.75,
                           "Pick": 22.88}}),
    ),
    (
        "768 x 768 and seed 42, as ContextGen samples it; CreatiLayout draws 1024 (SD3) or 512 (FLUX), seed 42. Boxes"
        " are stretched to the square with the picture; --size takes another.",
        "With the reference pack only its pictures are drawn, as in the published row; without it the whole data set.",
        "The judge is asked in other words than the published code's, without its sampling (its model draws answers"
        " with seed 42), and is any picture-and-text model that transformers runs without code from the model's folder;"
        " MiniCPM-V 2.6 needs such code and is not run.",
        "FID, IS and ImageReward of the paper are left out: the public code does not compute them.",
        "A layout here holds 50 boxes of up to 200 characters.",
    ),
)  # fmt: skip
