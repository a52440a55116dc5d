"""ContextGenCutout inside the host: SAM through its model management, masks, boxes, and what the editor is told."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from pathlib import Path
from types import ModuleType

import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from sam_tiny import picture, tiny_state  # noqa: E402

PACK = "contextgen_pack"


@pytest.fixture(scope="module")
def node(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{PACK}.nodes.cutout")


@pytest.fixture(scope="module")
def models(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{PACK}.nodes.sam_model")


@pytest.fixture(scope="module")
def checkpoint(models: ModuleType) -> str:
    models.register_folder()
    folder = Path(folder_paths.get_folder_paths("sams")[0])
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tiny_state(importlib.import_module(f"{PACK}.contextgen_core.cutout.sam")), folder / "sam_tiny.pth")
    (folder / "readme.txt").write_text("not a model")
    folder_paths.filename_list_cache.pop("sams", None)
    return "sam_tiny.pth"


def image(pixels: np.ndarray | None = None) -> torch.Tensor:
    return torch.from_numpy(picture() if pixels is None else pixels).float().div(255)[None]


def click(x: float = 60, y: float = 45) -> str:
    return json.dumps({"v": 1, "picture": {"w": 120, "h": 90}, "points": [{"x": x, "y": y, "keep": True}]})


def test_the_folder_list_offers_checkpoints_only(models, checkpoint):
    assert models.model_names() == ["none", checkpoint]


def test_schema_names_everything(node):
    schema = node.ContextGenCutout.GET_SCHEMA()
    assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs]) and schema.description
    assert node.ContextGenCutout.INPUT_TYPES()["required"]["sam_model"]


def test_a_click_cuts_out_and_the_next_one_costs_no_encoding(node, models, checkpoint):
    run = node.ContextGenCutout.execute
    cutout, mask, box, quality = run(image(), sam_model=checkpoint, prompts=click()).args
    assert cutout.shape == (1, 90, 120, 4) and mask.shape == (1, 90, 120)
    assert torch.equal(cutout[..., 3], mask) and torch.equal(cutout[..., :3], image())
    ys, xs = torch.nonzero(mask[0] >= 0.5, as_tuple=True)
    expected = {"x": int(xs.min()), "y": int(ys.min()), "width": int(xs.max() - xs.min()) + 1}
    assert box == [[{**expected, "height": int(ys.max() - ys.min()) + 1}]] and isinstance(quality, float)
    model = models.load(checkpoint)
    before = model.encoded
    for x in (10, 30, 50):
        run(image(), sam_model=checkpoint, prompts=click(x))
    assert models.load(checkpoint) is model and model.encoded == before
    run(image(picture(seed=5)), sam_model=checkpoint, prompts=click())
    assert model.encoded == before + 1


def test_the_host_moves_the_model_and_it_still_works(node, models, checkpoint):
    import comfy.model_management

    run = node.ContextGenCutout.execute
    first = run(image(), sam_model=checkpoint, prompts=click()).args
    assert any(loaded.model is models._kept[0].patcher for loaded in comfy.model_management.current_loaded_models)
    comfy.model_management.unload_all_models()
    assert not any(loaded.model is models._kept[0].patcher for loaded in comfy.model_management.current_loaded_models)
    again = run(image(), sam_model=checkpoint, prompts=click()).args
    assert torch.equal(first[1], again[1])


def test_a_changed_file_is_read_again(models, checkpoint):
    model = models.load(checkpoint)
    path = Path(folder_paths.get_full_path("sams", checkpoint))
    before = path.read_bytes()
    torch.save(tiny_state(importlib.import_module(f"{PACK}.contextgen_core.cutout.sam"), seed=1), path)
    assert models.load(checkpoint) is not model and len(models._kept) == 1
    path.write_bytes(before)


def test_every_box_gives_a_cutout(node, checkpoint):
    boxes = [[{"x": 30, "y": 20, "width": 60, "height": 50}, {"x": 0, "y": 0, "width": 40, "height": 40}]]
    result = node.ContextGenCutout.execute(image(), sam_model=checkpoint, boxes=boxes, fill_holes=False)
    cutout, mask, found, _ = result.args
    assert cutout.shape == (2, 90, 120, 4) and len(found) == 2 and not torch.equal(mask[0], mask[1])
    alone = node.ContextGenCutout.execute(image(), sam_model=checkpoint, boxes=[boxes[0][1:]], fill_holes=False)
    assert torch.equal(alone.args[1][0], mask[1])
    rows = node.ContextGenCutout.execute(
        image(), sam_model=checkpoint, boxes=[(30, 20, 90, 70)], boxes_format="xyxy", fill_holes=False
    )
    assert torch.equal(rows.args[1][0], mask[0])


def test_without_a_model_alpha_masks_and_plain_backgrounds_work(node):
    run = node.ContextGenCutout.execute
    pixels = np.full((40, 50, 3), 255, np.uint8)
    pixels[10:30, 10:40] = (10, 90, 200)
    subject = torch.zeros(1, 40, 50)
    subject[:, 10:30, 10:40] = 1
    plain = run(image(pixels))
    assert torch.equal(plain.args[1], subject) and plain.args[2] == [[{"x": 10, "y": 10, "width": 30, "height": 20}]]
    assert torch.equal(run(torch.cat([image(pixels), subject[..., None]], -1)).args[1], subject)
    assert torch.equal(run(image(pixels), subject_mask=subject).args[1], subject)
    assert torch.equal(run(image(pixels), subject_mask=1 - subject, invert_mask=True).args[1], subject)
    assert plain.args[3] == 1.0


def test_an_inverted_mask_is_named_in_the_log_and_for_the_editor(node, caplog):
    mask = torch.ones(1, 90, 120)
    mask[:, 20:70, 30:90] = 0
    with caplog.at_level(logging.WARNING, "contextgen"):
        result = node.ContextGenCutout.execute(image(), subject_mask=mask, fill_holes=False)
    (said,) = result.ui["contextgen_cutout"][0]["warnings"]
    assert "exchanged" in said and said in caplog.text and result.ui["contextgen_warnings"] == [said]


def test_the_editor_is_told_where_picture_and_mask_lie(node, checkpoint):
    told = node.ContextGenCutout.execute(image(), sam_model=checkpoint, prompts=click()).ui["contextgen_cutout"][0]
    folder = Path(folder_paths.get_temp_directory())
    with (
        Image.open(folder / told["picture"]["filename"]) as shown,
        Image.open(folder / told["mask"]["filename"]) as mask,
    ):
        assert mask.mode == "L" and mask.size == shown.size
    assert shown.size == (120, 90) == (told["width"], told["height"]) and told["picture"]["type"] == "temp"
    assert json.loads(json.dumps(told)) == told


def test_the_editor_is_told_of_all_masks_that_sam_proposes(node, checkpoint):
    def told(**more):
        result = node.ContextGenCutout.execute(image(), sam_model=checkpoint, prompts=click(), **more)
        return result.ui["contextgen_cutout"][0]

    def shown(candidate):
        with Image.open(Path(folder_paths.get_temp_directory()) / candidate["mask"]["filename"]) as mask:
            assert mask.mode == "L" and mask.size == (120, 90)
            return np.asarray(mask)

    best = told()
    qualities = [candidate["quality"] for candidate in best["candidates"]]
    assert len(qualities) == 3 and best["quality"] == [max(qualities)] == [qualities[best["taken"]]]
    for number in range(3):
        if shown(best["candidates"][number]).any():  # weights at random may propose nothing
            one = told(mask_choice=str(number + 1))
            assert one["taken"] == number and one["quality"] == [qualities[number]]
            assert [candidate["quality"] for candidate in one["candidates"]] == qualities
    assert node.ContextGenCutout.execute(image()).ui["contextgen_cutout"][0]["candidates"] == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"source": "SAM model"}, "ContextGenCutout, SAM model: no model is chosen"),
        ({"source": "SAM model", "sam_model": "gone.pth"}, 'there is no "gone.pth"'),
        ({"sam_model": "sam_tiny.pth", "source": "SAM model"}, "ContextGenCutout, prompts: nothing says what"),
        ({"prompts": "["}, "ContextGenCutout, prompts: the field of clicks is"),
        ({"prompts": '{"points": [{"x": 1, "y": 2}]}'}, "no model to use them"),
        ({"boxes": [(1, 2, 3, 4)]}, "ContextGenCutout, boxes: box 1"),
        ({"subject_mask": torch.ones(1, 64, 64)}, "ContextGenCutout, subject_mask: the mask is 64 x 64"),
        ({"source": "mask or alpha"}, "no mask arrives"),
    ],
)
def test_mistakes_are_named(node, checkpoint, values, says):
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        node.ContextGenCutout.execute(image(), **values)
