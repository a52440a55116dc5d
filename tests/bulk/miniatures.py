"""Small data sets in the published forms, with creatures of the small world; and a backend that paints what a row asks
for, so that the figures are known."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextgen_core.bulk.backend import Made, Task
from contextgen_core.bulk.table import Row
from contextgen_core.layout.layout import Layout
from contextgen_core.training.small_world import world

SIDE = 128
PROMPT = "a square, a disc on the meadow at noon"
LEFT, RIGHT = (8, 8, 56, 56), (64, 64, 120, 120)


def creature(name: str) -> world.Creature:
    first, second, pattern, shape = re.findall(r"[a-z]+", name.replace(" and ", " "))
    names = (world.SHAPES.index(shape), world.PATTERNS.index(pattern))
    return world.Creature(*names, world.COLOURS.index(first), world.COLOURS.index(second))


def scene(*members: tuple[str, tuple[int, int, int, int]]) -> np.ndarray:
    """The picture of creatures in their boxes, uint8."""
    drawn = tuple(world.Member(creature(name), box, 0.0, (1, 1, 1)) for name, box in members)
    return (world.render_target(world.Scene("words", 0, 0, drawn)) * 255 + 0.5).astype(np.uint8)


def reference(name: str, picture: Path, mask: Path | None = None) -> None:
    """A creature on grey, and its mask."""
    pixels, subject = world.render_reference(world.Member(creature(name), LEFT, 0.0, (1.0, 1.0, 1.0)))
    for path, values in ((picture, pixels), (mask, subject)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path, quality=95) if path.suffix == ".jpg" else Image.fromarray(values).save(
                path
            )


@dataclass(frozen=True)
class Painter:
    """Paints the creatures that the layout's labels name into their boxes; `moved` ids get theirs elsewhere."""

    moved: tuple[str, ...] = ()
    workers: int | None = None

    @property
    def digest(self) -> str:
        return f"painter {self.moved}"

    def check(self) -> list[str]:
        return []

    def prepare(self, row: Row, base: Path) -> Task:
        return Task(row, Layout.from_json(row.values["layout"]), row.values["seed"])

    def open(self) -> Painter:
        return self

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        members = []
        for instance in task.work.instances:
            box = tuple(round(v) for v in (instance.box.x1, instance.box.y1, instance.box.x2, instance.box.y2))
            if task.row.id in self.moved:
                width, height = box[2] - box[0], box[3] - box[1]
                box = (SIDE - width, 0, SIDE, height)
            name = instance.label if re.search(r"\band\b", instance.label) else self.worded(instance.label)
            members.append((name, box))
        buffer = io.BytesIO()
        Image.fromarray(scene(*members)).save(buffer, "PNG")
        return [Made(buffer.getvalue(), seed, 0.0) for seed in seeds]

    def worded(self, label: str) -> str:
        """A creature of which the label is true: of one colour all but the second half."""
        words = re.findall(r"[a-z]+", label)
        colour = next((word for word in words if word in world.COLOURS), "green")
        shape = next(word for word in words if word in world.SHAPES)
        return f"{colour} and {'white' if colour != 'white' else 'yellow'} rimmed {shape}"

    def close(self) -> None:
        pass


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dense_layout(data: Path) -> None:
    names = ("red and yellow halved square", "blue and white banded disc")
    annos = [
        {"bbox": list(box), "category_name": name.split()[-1], "caption": name}
        for name, box in zip(names, (LEFT, RIGHT), strict=True)
    ]
    plain = [{**annos[0], "caption": ""}, annos[1]]
    records = [
        {"id": "first", "prompt": PROMPT, "width": SIDE, "height": SIDE, "annos": annos},
        {"id": "second", "prompt": PROMPT, "width": SIDE, "height": SIDE, "annos": plain},
        {"id": "third", "prompt": PROMPT, "width": SIDE, "height": SIDE, "annos": annos[:1]},
    ]
    data.mkdir(parents=True, exist_ok=True)
    (data / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def coco_mig(data: Path, references: bool = True) -> None:
    labels = ("a red square", "a blue disc")
    boxes = [[v / SIDE for v in box] for box in (LEFT, RIGHT)]
    segments = [{"bbox": box, "label": label} for box, label in zip(boxes, labels, strict=True)]
    items = {
        "0": {"caption": PROMPT, "segment": segments, "image_id": "11"},
        "1": {"caption": PROMPT, "segment": segments, "image_id": "12"},
        "2": {"caption": PROMPT, "segment": [*segments, {"bbox": [0.05, 0.6, 0.4, 0.95], "label": "a green heart"}],
              "image_id": "13"},
    }  # fmt: skip
    write_json(data / "mig_bench.json", items)
    if references:
        captions = (*labels, "a green heart")
        write_json(
            data / "bench_instance_categories_filtered.json",
            [{"caption": c, "index": n, "available_mask_image": [0, 3]} for n, c in enumerate(captions)],
        )
        for n, caption in enumerate(captions):
            name = Painter().worded(caption)
            for sample in (0, 3):
                stem = f"{n:04d}_{sample:02d}_{caption.replace(' ', '_')}"
                mask = data / "reference_masks" / f"{stem}_mask.png"
                reference(name, data / "reference_images" / f"{stem}.jpg", mask)


def layout_sam(data: Path, references: bool = True) -> None:
    """Rows as the data set has them, lists as Python's text; the last one has one thing less than its words say."""
    names = ("red and yellow halved square", "blue and white banded disc")
    rows = [
        {"file_name": f"{n}.jpg", "global_caption": PROMPT, "width": 256, "height": 64,
         "bbox_list": str([[b[0] * 2, b[1] / 2, b[2] * 2, b[3] / 2] for b in (LEFT, RIGHT)]),
         "region_captions": str([name.split()[-1] for name in names]), "detail_region_captions": str(list(names))}
        for n in range(3)
    ]  # fmt: skip
    data.mkdir(parents=True, exist_ok=True)
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if references:
        segments = []
        for n, name in enumerate(names):
            files = {"image_path": f"reference_images/{n}.jpg", "mask_path": f"reference_masks/{n}.png"}
            reference(name, data / files["image_path"], data / files["mask_path"])
            segments.append({"index": n, "caption": name, "valid_bbox": [files]})
        write_json(data / "layoutsam_sampled.json", [{"index": n, "segments": segments} for n in (0, 2)])


def lamicbench(data: Path) -> None:
    names = ("red and yellow halved square", "blue and white banded disc")
    places = ("face/0.jpg", "animal/1.jpg")
    boxes = [[v / SIDE for v in box] for box in (LEFT, RIGHT)]
    files, layouts = data / "lamicbench_plus_files", data / "lamicbench_layout_pack"
    questions = {"1": f"Is there a {names[0]}?", "2": "Is there a heart?"}
    references = []
    for n, (name, place, box) in enumerate(zip(names, places, boxes, strict=True)):
        mask = files / "reference_masks" / place.replace(".jpg", "_mask.png")
        reference(name, files / "reference_images" / place, mask)
        references.append({"ref_index": n, "image_path": place, "phrase": name, "bbox": box})
    more = [references[0], references[1], references[0], references[1]]
    items = [
        {"index": 0, "prompt": PROMPT, "references": references},
        {"index": 7, "prompt": PROMPT, "references": more},
    ]
    write_json(layouts / "lamicbench_layout.json", items)
    write_json(files / "lamicbench_plus.json", [{**item, "vqa_prompts": questions} for item in items])
    composite = np.zeros((SIDE, SIDE, 4), np.uint8)
    composite[8:56, 8:56] = (200, 30, 30, 255)
    (layouts / "layout_images").mkdir()
    Image.fromarray(composite).save(layouts / "layout_images" / "layout_0000.png")


def lamic(data: Path) -> None:
    names = ("red and yellow halved square", "blue and white banded disc")
    places = ("human/00_square.png", "object/01_disc.png")
    boxes = [[v / SIDE for v in box] for box in (LEFT, RIGHT)]
    for name, place in zip(names, places, strict=True):
        reference(name, data / "images" / place)

    def item(count: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"prompt": "not read", "CEI": PROMPT}
        for n in range(count):
            sample[f"ref_img_{n + 1}"] = {
                "image_path": f"./dataset/images/{places[n % 2]}", "SAD": {"id": names[n % 2], "desc": names[n % 2]}
            } | ({"bbox": boxes[n], "to_area": 4096} if n < 2 else {})  # fmt: skip
        return sample

    graph = {
        "prompt": "not read", "qid2tuple": {},
        "qid2question": {"1": f"Is there a {names[0]}?", "2": "Is there a heart?", "3": "Is there a disc?"},
        "qid2dependency": {"1": [0], "2": [0], "3": [2]},
    }  # fmt: skip
    forms = {"Two-Reference": 2, "Three-Reference": 3, "Four-Reference": 4}
    for name, count in forms.items():
        write_json(data / "structured_inputs" / f"{name}.json", {"sample_000": item(count)})
        joined = "Four_Reference" if count == 4 else name
        write_json(data / "DSGs_for_DPG_Score" / f"{joined}_DSG.json", {"sample_000": graph})
