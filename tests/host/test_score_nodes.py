"""Scoring, picking and pairing inside the host, with the host's own vision models at tiny sizes."""

from __future__ import annotations

import importlib
import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

PACK = "contextgen_pack"
RED, BLUE, GREEN = (220, 30, 30), (30, 60, 220), (30, 160, 40)
BOXES = ((8, 8, 40, 40), (72, 16, 40, 64))  # x, y, width, height


def core(name: str) -> ModuleType:
    return importlib.import_module(f"{PACK}.contextgen_core.{name}")


@pytest.fixture(scope="module")
def score(pack: ModuleType) -> Any:
    return importlib.import_module(f"{PACK}.nodes.score").ContextGenScore


@pytest.fixture(scope="module")
def pick(pack: ModuleType) -> Any:
    return importlib.import_module(f"{PACK}.nodes.pick_best").ContextGenPickBest


@pytest.fixture(scope="module")
def pair(pack: ModuleType) -> Any:
    return importlib.import_module(f"{PACK}.nodes.pairing").ContextGenPairBoxes


def drawn(*colours: tuple[int, int, int], shift: int = 0) -> torch.Tensor:
    """A grey picture of 128 x 96 with a square in each box."""
    pixels = np.full((96, 128, 3), 128, np.uint8)
    for (x, y, width, height), colour in zip(BOXES, colours, strict=True):
        pixels[y : y + height, x + shift : x + shift + width] = colour
    return torch.from_numpy(pixels).float().div(255)[None]


def reference(name: str, colour: tuple[int, int, int]) -> Any:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:56, 8:56] = 255
    pixels = np.where(mask[..., None] > 0, np.array(colour, np.uint8), np.uint8(0))
    return core("composite.references").Reference(name, np.ascontiguousarray(pixels), mask)


@pytest.fixture(scope="module")
def references(pack: ModuleType) -> tuple[Any, ...]:
    return (reference("red square", RED), reference("blue square", BLUE))


@pytest.fixture(scope="module")
def scene(references: tuple[Any, ...]) -> Any:
    layout = core("layout.layout")
    instances = tuple(
        layout.Instance(f"b{n}", layout.Box(x, y, x + w, y + h), n, one.name)
        for n, ((x, y, w, h), one) in enumerate(zip(BOXES, references, strict=True), 1)
    )
    return core("composite.compose").compose(layout.Layout(128, 96, instances), references)


def found(*boxes: tuple[int, int, int, int], label: str = "square") -> list[dict[str, Any]]:
    return [{"x": x, "y": y, "width": w, "height": h, "label": label} for x, y, w, h in boxes]


class ColourModel:
    """Stands for a vision model: patch features are the mean colours of a 4 x 4 grid behind a class token."""

    def encode_image(self, image: torch.Tensor, crop: bool = True) -> dict[str, torch.Tensor]:
        assert crop is False and image.shape[1] == image.shape[2]
        grid = torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), 4).flatten(2).transpose(1, 2)
        return {"last_hidden_state": torch.cat([torch.full((1, 1, 3), 9.0), grid], 1), "image_embeds": grid.mean(1)}


def tiny_clip_vision(kind: str) -> Any:
    """One of the host's own vision models with random weights."""
    import comfy.clip_vision

    common = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    if kind == "dinov2":
        config = {**common, "model_type": "dinov2", "use_swiglu_ffn": False, "layer_norm_eps": 1e-6, "num_channels": 3}
        config |= {"mlp_ratio": 4, "intermediate_size": 128, "image_size": 518}  # older hosts know this size only
    else:
        config = {
            **common,
            "intermediate_size": 64,
            "hidden_act": "quick_gelu",
            "projection_dim": 16,
            "num_channels": 3,
        }
        config |= {"model_type": "clip_vision_model", "layer_norm_eps": 1e-5}
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        model = comfy.clip_vision.ClipVisionModel(file.name)
    torch.manual_seed(0)
    state = {key: torch.randn(value.shape) * 0.2 for key, value in model.get_sd().items()}
    model.load_sd(state)
    return model


def test_schemas_name_everything(score, pick, pair):
    for node in (score, pick, pair):
        schema = node.GET_SCHEMA()
        assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs]) and schema.description


def test_a_batch_is_scored_and_the_best_is_kept(score, pick, scene):
    images = torch.cat([drawn(RED, BLUE, shift=16), drawn(RED, BLUE), drawn(RED, BLUE, shift=8)])
    boxes = [[*found(*((x + s, y, w, h) for x, y, w, h in BOXES))] for s in (16, 0, 8)]
    scores, report, chart, text = score.execute(images, scene, boxes=boxes).args
    iou = [[one.iou for one in image.instances] for image in scores]
    assert np.allclose(iou, [[24 / 56, 24 / 56], [1, 1], [32 / 48, 32 / 48]])
    assert [image.success for image in scores] == [False, True, True]
    assert "66.67" in report and chart.shape[0] == 1 and json.loads(text)["all"]["success"] == pytest.approx(2 / 3)
    best, index, value, ranking = pick.execute(images, scores, "mIoU", 2).args
    assert index == 1 and value == 1.0 and torch.equal(best, images[[1, 2]]) and "picture 2: 1.0000" in ranking


def test_colour_and_identity_decide(score, pick, scene):
    images = torch.cat([drawn(BLUE, RED), drawn(RED, BLUE)])
    boxes = found(*BOXES)  # flat: the same for every picture
    scores = score.execute(images, scene, boxes=boxes, check_colour=True, clip_vision=ColourModel()).args[0]
    assert [one.success for one in scores[0].instances] == [False, False] and scores[1].success
    assert min(one.identity for one in scores[1].instances) > 0.95 > max(one.identity for one in scores[0].instances)
    assert pick.execute(images, scores).args[1] == 1
    assert pick.execute(images, scores, "identity").args[1] == 1


def test_masks_say_where_the_subject_is(score, scene):
    """Half of the box is something else: only with the mask does the subject alone count."""
    image = drawn(RED, BLUE)
    image[0, 8:48, 28:48] = torch.tensor([0.0, 1.0, 0.0])
    masks = torch.zeros(2, 96, 128)
    masks[0, 8:48, 8:28] = 1
    masks[1, 16:80, 72:112] = 1
    model = ColourModel()
    whole = score.execute(image, scene, clip_vision=model).args[0][0].instances[0].identity
    masked = score.execute(image, scene, clip_vision=model, masks=masks).args[0][0].instances[0].identity
    assert masked > 0.9 > whole


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
@pytest.mark.parametrize("features", ["patches inside the mask", "whole crop"])
def test_the_hosts_own_vision_models_give_identity(score, scene, kind, features):
    scores = score.execute(drawn(RED, BLUE), scene, clip_vision=tiny_clip_vision(kind), features=features).args[0]
    identity = [one.identity for one in scores[0].instances]
    assert all(-1 <= value <= 1 for value in identity) and identity[0] != identity[1]
    assert all(one.iou is None for one in scores[0].instances)


def test_patch_features_stand_where_the_picture_has_them(pack):
    """The grid read from the tokens has the picture's orientation: a bright corner stays in its corner."""
    vision = importlib.import_module(f"{PACK}.nodes.vision")
    pixels = np.full((64, 64, 3), 10, np.uint8)
    pixels[:16, 48:] = (255, 0, 0)
    mask = np.zeros((64, 64), np.uint8)
    mask[:16, 48:] = 255
    feature = vision.features(ColourModel(), pixels, mask, vision.PATCHES)
    assert np.allclose(feature, [1, 0, 0], atol=1e-6)


def test_answers_give_layoutsam(score, scene):
    answers = '[{"spatial": true, "colour": true, "texture": false, "shape": true}, {"spatial": false}]'
    document = json.loads(score.execute(drawn(RED, BLUE), scene, answers=answers).args[3])
    assert [document["all"][name] for name in ("spatial", "colour", "texture", "shape")] == [0.5, 0.5, 0.0, 0.5]
    assert document["all"]["miou"] is None


def test_boxes_are_paired_by_label_order_and_appearance(pair, references, pack):
    image = drawn(BLUE, RED)  # the other way round
    by_look = pair.execute(image, found(*BOXES), references, "appearance", clip_vision=ColourModel()).args
    assert [box["x"] for box in by_look[0][0]] == [72, 8]
    assert [box["label"] for box in by_look[0][0]] == ["red square", "blue square"] and by_look[1] == [[]]
    by_place = pair.execute(image, found(*BOXES), references, "order").args
    assert [box["x"] for box in by_place[0][0]] == [8, 72]
    labelled = [{**box, "label": label} for box, label in zip(found(*BOXES), ("blue square", "cat"), strict=True)]
    paired, rest, report = pair.execute(image, labelled, references, "label").args
    assert [(box["x"], box["label"]) for box in paired[0]] == [(8, "blue square")]
    assert rest[0][0]["label"] == "cat" and "red square: no box" in report and "left over: box 2" in report


def test_paired_boxes_reach_their_references_in_the_composer(pair, references, pack_nodes):
    paired = pair.execute(drawn(BLUE, RED), found(*BOXES), references, "appearance", clip_vision=ColourModel()).args[0]
    made = pack_nodes["LayoutComposer"].execute(128, 96, "", references, boxes=paired).args[0]
    names = {one.reference: one.box.x1 for one in made.layout.instances}
    assert names == {"red square": 72.0, "blue square": 8.0}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda s, p, q, scene, refs: s.execute(drawn(RED, BLUE), scene, boxes=[(1, 2, 3, 4)]),
            "ContextGenScore, boxes",
        ),
        (lambda s, p, q, scene, refs: s.execute(drawn(RED, BLUE), scene, answers="[{}]"), "1 answers for 2 boxes"),
        (lambda s, p, q, scene, refs: s.execute(drawn(RED, BLUE), scene, answers="[{}, {}]"), "spatial = null"),
        (
            lambda s, p, q, scene, refs: s.execute(drawn(RED, BLUE), scene, masks=torch.zeros(3, 96, 128)),
            "3 masks for 2",
        ),
        (lambda s, p, q, scene, refs: p.execute(drawn(RED, BLUE), ()), "0 scores for 1 pictures"),
        (
            lambda s, p, q, scene, refs: p.execute(drawn(RED, BLUE), s.execute(drawn(RED, BLUE), scene).args[0]),
            "was not measured",
        ),
        (lambda s, p, q, scene, refs: q.execute(drawn(RED, BLUE), [], refs, "appearance"), "connect a model"),
    ],
)
def test_mistakes_are_named(score, pick, pair, scene, references, call, says):
    with pytest.raises(ValueError, match=says):
        call(score, pick, pair, scene, references)
