"""Scenes of the small world as annotated pictures in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from contextgen_core.training.coco import FILE
from contextgen_core.training.small_world import world


def write_annotations(folder: Path, scenes: list[world.Scene], **more: Any) -> None:
    """Pictures of 256 x 128 pixels; ``more`` replaces entries of the file."""
    tree: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    tree["categories"] = [{"id": 7 + k, "name": name} for k, name in enumerate(world.SHAPES)]
    for number, scene in enumerate(scenes):
        Image.fromarray(world.render(scene).target).resize((256, 128)).save(folder / f"{number}.png")
        tree["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": 256, "height": 128, "caption": scene.caption}
        )
        for member in scene.members:
            x1, y1, x2, y2 = member.box
            colours = " and ".join(world.COLOURS[c] for c in (member.creature.first, member.creature.second))
            box = [2 * x1, y1, 2 * (x2 - x1), y2 - y1]
            tree["annotations"].append(
                {"image_id": number, "bbox": box, "category_id": 7 + member.creature.shape, "caption": colours}
            )
    (folder / FILE).write_text(json.dumps({**tree, **more}))
