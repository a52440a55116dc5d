"""COCO-style annotations: a box's category and caption become a phrase; what is not usable is left out or told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotated_pictures import write_annotations

from contextgen_core.errors import InputError
from contextgen_core.tiny.text import encode_words
from contextgen_core.training.coco import FILE, read_annotations
from contextgen_core.training.config import load
from contextgen_core.training.small_world import world
from contextgen_core.training.stages import open_data, train

CONFIG = Path(__file__).parents[2] / "configs" / "flux_instance_assemble.yaml"
SMALL = [
    "model.kind=tiny",
    "model.weights=shipped",
    "model.checkpointing=false",
    "data.size=128",
    "precision=fp32",
    "flow.guidance=null",
    "method.kernel=batched",
    "accumulate=1",
]


@pytest.fixture
def scenes(tmp_path: Path) -> list[world.Scene]:
    made = [world.scene(0, "train", i, "basic") for i in range(3)]
    write_annotations(tmp_path, made)
    return made


def test_boxes_and_words_are_read_and_follow_the_picture_to_its_size(tmp_path: Path, scenes: list[world.Scene]) -> None:
    items = read_annotations(tmp_path)
    assert [len(item.phrases) for item in items] == [len(s.members) for s in scenes]
    member, (phrase, box) = scenes[0].members[0], items[0].phrases[0]
    creature = member.creature
    colours = f"{world.COLOURS[creature.first]} and {world.COLOURS[creature.second]}"
    assert phrase == f"{world.SHAPES[creature.shape]}, {colours}"
    assert (box.x1, box.y2) == (2 * member.box[0], member.box[3])
    config = load(CONFIG, [*SMALL, f"data.path={tmp_path}", f"output={tmp_path}/out", "batch=2", "data.caption_drop=0"])
    batch = open_data(config).draw(np.random.default_rng(3), config)
    assert len({len(plan.boxes) for plan in batch.plans}) == 1 and batch.conditions.shape[1] == 0
    (vectors,) = batch.vectors.values()
    for row, plan in enumerate(batch.plans):
        corners = np.array([b.corners for b in plan.boxes]) * 128
        index = next(
            k
            for k, s in enumerate(scenes)
            if len(s.members) == len(corners) and np.allclose(corners, [m.box for m in s.members])
        )
        words = [encode_words(p) for p, _ in items[index].phrases]
        assert torch.equal(vectors[row], torch.stack([w.pooled for w in words]))


def test_a_batch_does_not_look_at_each_picture_of_the_folder(tmp_path: Path, scenes: list[world.Scene]) -> None:
    config = load(CONFIG, [*SMALL, f"data.path={tmp_path}", f"output={tmp_path}/out", "batch=2"])
    data = open_data(config)
    looked: list[int] = []

    class Counted(tuple):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            looked.append(1)
            return super().__getitem__(index)

        def __iter__(self) -> Any:
            raise AssertionError("the whole folder was looked through")

    data.subsets = [Counted(subset) for subset in data.subsets]
    data.draw(np.random.default_rng(0), config)
    assert len(looked) == 2


def test_the_config_for_the_real_model_trains_on_the_small_one(tmp_path: Path, scenes: list[world.Scene]) -> None:
    config = load(CONFIG, [*SMALL, f"data.path={tmp_path}", f"output={tmp_path}/out", "steps=1"])
    assert train(config) == 1
    assert (tmp_path / "out" / "adapter.safetensors").is_file()


def test_what_cannot_be_used_is_left_out_or_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"There is no {FILE}"):
        read_annotations(tmp_path)
    scene = world.scene(0, "train", 0, "basic")
    write_annotations(tmp_path, [scene])
    tree = json.loads((tmp_path / FILE).read_text())
    bad = [
        {**tree["annotations"][0], **change} for change in ({"bbox": [0, 0, 0, 5]}, {"category_id": 0, "caption": ""})
    ]
    write_annotations(tmp_path, [scene], annotations=[*tree["annotations"], *bad])
    assert len(read_annotations(tmp_path)[0].phrases) == len(scene.members)
    for broken, message in (
        ({"annotations": bad}, "No picture"),
        ({"annotations": [{}]}, "not in COCO's form"),
        ({"images": [{**tree["images"][0], "file_name": "../x.png"}]}, "leaves the folder"),
    ):
        write_annotations(tmp_path, [scene], **broken)
        with pytest.raises(InputError, match=message):
            read_annotations(tmp_path)
    config = load(CONFIG, [*SMALL, f"data.path={tmp_path}", "method.name=contextgen"])
    with pytest.raises(InputError, match="contextgen reads no phrases"):
        open_data(config)
