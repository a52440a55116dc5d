"""Cut-out to result, boxes from a detector, insert into a photograph, best of four: headless, with the small
model."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import live_server
import numpy as np
import pytest
import torch
from PIL import Image
from workflow_files import ROOT, load, pictures

TEMPLATES = ["cutout_to_result", "boxes_from_detector", "insert_into_photo", "four_seeds_best"]
WEIGHTS = {"unet_name", "clip_name1", "clip_name2", "vae_name", "adapter", "sam_model", "clip_name"}

sys.path.append(str(ROOT / "tests" / "support"))
from sam_tiny import tiny_state  # noqa: E402


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.int32)


def test_outside_the_boxes_only_the_vae_changes_the_photograph(stocked: live_server.Server) -> None:
    """The photograph's own latent, put back everywhere but around the boxes before decoding, changes not one pixel:
    outside the mask the sampler kept it, and what differs from the photograph there is the VAE's doing."""
    prompt = load("tiny_insert_into_photo")
    first = pixels(pictures(stocked, stocked.run(prompt), "42")[0])
    prompt["50"] = {"class_type": "GrowMask", "inputs": {"mask": ["30", 4], "expand": 16, "tapered_corners": False}}
    inputs = {"destination": ["27", 0], "source": ["40", 0], "x": 0, "y": 0, "resize_source": False, "mask": ["50", 0]}
    prompt["51"] = {"class_type": "LatentCompositeMasked", "inputs": inputs}
    prompt["41"]["inputs"]["samples"] = ["51", 0]
    put_back = pixels(pictures(stocked, stocked.run(prompt), "42")[0])
    assert np.abs(first - put_back).max() <= 1
    # And the boxes did change: the photograph's latent decoded alone differs there, and hardly elsewhere.
    prompt["41"]["inputs"]["samples"] = ["27", 0]
    alone = pixels(pictures(stocked, stocked.run(prompt), "42")[0])
    inside = np.zeros(first.shape[:2], bool)
    for box in json.loads(prompt["30"]["inputs"]["layout"])["boxes"]:
        inside[box["y"] : box["y"] + box["h"], box["x"] : box["x"] + box["w"]] = True
    change = np.abs(first - alone)
    assert change[inside].max() > 8 and change[inside].mean() > 3 * change[~inside].mean()


def test_paired_boxes_replace_the_drawn_ones(stocked: live_server.Server) -> None:
    entry = stocked.run(load("tiny_boxes_from_detector"))
    layout = json.loads(entry["outputs"]["30"]["contextgen_layout"][0])
    places = {box["ref"]: (box["x"], box["y"], box["w"], box["h"]) for box in layout["boxes"]}
    assert places == {"disc": (64, 36, 48, 48), "heart": (12, 52, 40, 40)}
    report = "".join(entry["outputs"]["24"]["text"])
    assert report.splitlines() == ["disc: box 1 (disc)", "heart: box 2 (heart)"]


def test_the_best_of_four_is_the_one_that_scores_best(stocked: live_server.Server) -> None:
    entry = stocked.run(load("tiny_four_seeds_best"))
    every, best = pictures(stocked, entry, "42"), pictures(stocked, entry, "49")
    assert len(every) == 4 and len(best) == 1
    assert len({picture.tobytes() for picture in every}) == 4
    assert best[0].tobytes() == every[2].tobytes(), "the third list of boxes lies in the layout's"
    assert "1. picture 3: 0.9" in "".join(entry["outputs"]["47"]["text"])


def test_cutouts_become_references_and_maps_show_where_they_are_read(stocked: live_server.Server) -> None:
    entry = stocked.run(load("tiny_cutout_to_result"))
    told = entry["outputs"]["16"]["contextgen_cutout"][0]
    assert told["count"] == 1 and (told["width"], told["height"]) == (64, 64)
    mask = Image.open(io.BytesIO(stocked.get("/view", **told["mask"])))
    assert mask.getbbox() == (4, 4, 53, 56)
    maps = pictures(stocked, entry, "45")
    assert [one.size for one in maps] == [(128, 128)] * 2 and maps[0].tobytes() != maps[1].tobytes()
    assert "identity blocks" in "".join(entry["outputs"]["44"]["text"])


@contextlib.contextmanager
def _server_with_sam(host: Path, folder: Path) -> Iterator[live_server.Server]:
    """A server whose Python finds segment-anything where the tests' tools lie, if it has none of its own."""
    import segment_anything

    (folder / "segment_anything").symlink_to(Path(segment_anything.__file__).parent, target_is_directory=True)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        with live_server.running(host) as server:
            yield server
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_clicks_cut_out_on_a_server(host_path: Path, tmp_path: Path) -> None:
    with _server_with_sam(host_path, tmp_path) as server:
        folder = server.base / "models" / "sams"
        folder.mkdir()
        sam = importlib.import_module("contextgen_pack.contextgen_core.cutout.sam")
        torch.save(tiny_state(sam, seed=3), folder / "tiny.pth")
        shutil.copy(ROOT / "assets" / "samples" / "contextgen_photo.png", server.base / "input")
        whole = load("cutout_to_result")
        prompt = {key: whole[key] for key in ("10", "14", "16")}
        for key in ("14", "16"):
            prompt[key]["inputs"]["sam_model"] = "tiny.pth"
        outputs = server.run(prompt)["outputs"]
        told = [outputs[key]["contextgen_cutout"][0] for key in ("14", "16")]
        assert all((one["width"], one["height"]) == (384, 384) and one["quality"] != [1.0] for one in told)
        assert all(Image.open(io.BytesIO(server.get("/view", **one["mask"]))).getbbox() for one in told)


@pytest.mark.parametrize("name", TEMPLATES)
def test_real_workflow_lacks_nothing_but_the_weights(stocked: live_server.Server, name: str) -> None:
    known = stocked.json("/object_info")
    if any(node["class_type"] not in known for node in load(name).values()):
        assert name == "boxes_from_detector" and "RTDETR_detect" not in known  # came with later hosts
        return
    try:
        accepted = stocked.submit(load(name))
    except live_server.PromptError as refused:
        missing = set()
        for node in refused.details["node_errors"].values():
            for error in node["errors"]:
                assert error["type"] == "value_not_in_list", error
                missing.add(error["extra_info"]["input_name"])
        assert missing <= WEIGHTS and "unet_name" in missing
        return
    # Older hosts do not check the choices of these nodes, and run what does not need the other weights.
    with pytest.raises(live_server.PromptError, match="sam_vit_b_01ec64.pth"):
        stocked.wait(accepted)
