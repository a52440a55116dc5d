"""The models that scores look through, on random ones of transformers in local folders."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
import transformers  # noqa: E402

from contextgen_core.errors import InputError  # noqa: E402
from contextgen_core.hosts import eyes  # noqa: E402
from contextgen_core.layout.box import Box  # noqa: E402
from contextgen_core.score.grounding import PRESENCE  # noqa: E402

PICTURE = (np.random.default_rng(0).random((48, 64, 3)) * 255).astype(np.uint8)
LAYERS: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    words = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    text = {
        **LAYERS,
        "intermediate_size": 16,
        "vocab_size": 4,
        "eos_token_id": 1,
        "bos_token_id": 0,
        "projection_dim": 8,
    }
    vision = {**LAYERS, "intermediate_size": 16, "image_size": 28, "patch_size": 14, "projection_dim": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    square = {"height": 28, "width": 28}
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=square)
    transformers.CLIPProcessor(pictures, words).save_pretrained(folder)
    return folder


def test_clip_compares_a_picture_with_texts_in_either_order_of_colours(clip: Path) -> None:
    plain = eyes.TextLikeness(str(clip))(PICTURE, ["a", "b b"])
    assert len(plain) == 2 and plain[0] != plain[1]
    assert eyes.TextLikeness(str(clip), bgr=True)(PICTURE[..., ::-1], ["a", "b b"]) == plain
    assert eyes.TextLikeness(str(clip), bgr=True)(PICTURE, ["a", "b b"]) != plain


def test_the_aesthetic_head_is_a_chain_of_layers_on_unit_features(clip: Path, tmp_path: Path) -> None:
    sizes, names = (8, 6, 1), (0, 2)
    head = {f"layers.{n}.weight": torch.randn(b, a) for n, a, b in zip(names, sizes, sizes[1:], strict=False)}
    head |= {f"layers.{n}.bias": torch.randn(b) for n, b in zip(names, sizes[1:], strict=True)}
    torch.save(head, tmp_path / "head.pth")
    model = eyes.Aesthetic(str(clip), str(tmp_path / "head.pth"))
    with torch.inference_mode():
        pixels = model.processor(images=PICTURE, return_tensors="pt")
        value = torch.nn.functional.normalize(model.model(**pixels).image_embeds)[0]
    for n in names:
        value = head[f"layers.{n}.weight"] @ value + head[f"layers.{n}.bias"]
    assert model(PICTURE) == pytest.approx(float(value), rel=1e-4)
    torch.save({"layers.0.weight": torch.ones(2, 8), "layers.0.bias": torch.ones(2)}, tmp_path / "bad.pth")
    for name in ("bad.pth", "none.pth"):
        with pytest.raises(InputError, match="the aesthetic head"):
            eyes.Aesthetic(str(clip), str(tmp_path / name))


def test_features_are_those_of_what_the_mask_covers(tmp_path: Path) -> None:
    config = transformers.Dinov2Config(**LAYERS, patch_size=14, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    square = {"height": 28, "width": 28}
    transformers.BitImageProcessor(size={"shortest_edge": 28}, crop_size=square).save_pretrained(tmp_path)
    features = eyes.PatchFeatures(str(tmp_path))
    left, right, all_ = (np.zeros((48, 64), bool) for _ in range(3))
    left[:, :32], right[:, 32:], all_[:] = True, True, True
    both = features(PICTURE, left), features(PICTURE, right)
    assert both[0].shape == (16,) and not np.allclose(*both)
    assert np.allclose(sum(both) / 2, features(PICTURE, all_), atol=1e-6)
    assert np.array_equal(features(PICTURE, all_), features(PICTURE, ~all_))  # an empty mask is none


def test_sam_gives_a_mask_of_the_picture_s_size(tmp_path: Path) -> None:
    vision = {**LAYERS, "output_channels": 8, "num_pos_feats": 4, "image_size": 64, "patch_size": 16, "mlp_dim": 16}
    vision |= {"global_attn_indexes": [0], "window_size": 2}
    prompt = {"hidden_size": 8, "image_size": 64, "patch_size": 16, "image_embedding_size": 4}
    decoder = {**LAYERS, "hidden_size": 8, "mlp_dim": 16, "iou_head_hidden_dim": 8}
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    transformers.SamModel(config).save_pretrained(tmp_path)
    square = {"height": 64, "width": 64}
    pictures = transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size=square)
    transformers.SamProcessor(pictures).save_pretrained(tmp_path)
    mask = eyes.BoxSegmenter(str(tmp_path))(PICTURE, Box(3, 4, 40, 30))
    assert mask.shape == (48, 64) and mask.dtype == bool


def test_a_box_that_overlaps_a_surer_one_is_dropped() -> None:
    boxes = [Box(0, 0, 10, 9), Box(50, 0, 60, 10), Box(0, 0, 10, 10), Box(0, 0, 10, 4)]
    assert eyes._apart(boxes, [0.4, 0.3, 0.9, 0.5], 0.8) == [boxes[2], boxes[3], boxes[1]]


def test_a_judge_is_asked_of_presence_and_of_attributes() -> None:
    class Asked(eyes.VisionJudge):
        def __init__(self) -> None:
            self.said: list[str] = []

        def answer(self, picture: np.ndarray, question: str) -> str:
            self.said.append(question)
            return "Yes."

    judge = Asked()
    assert judge(PICTURE, "cup", "a red cup", PRESENCE) == judge(PICTURE, "cup", "a red cup", "colour") == "Yes."
    assert '"cup"' in judge.said[0] and "red" not in judge.said[0]
    assert '"a red cup"' in judge.said[1] and "colour" in judge.said[1]


def test_faces_are_never_downloaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="buffalo_l"):
        eyes.InsightFaces(str(tmp_path))


class Processor:
    def apply_chat_template(self, *_: Any, **__: Any) -> Any:
        from transformers import BatchFeature

        return BatchFeature({"input_ids": torch.tensor([[5, 6]]), "pixel_values": torch.zeros(1, 3, 4, 4)})

    def batch_decode(self, said: torch.Tensor, **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in said.tolist()]


class Model(torch.nn.Conv2d):
    dtype = torch.bfloat16

    def generate(self, input_ids: torch.Tensor, pixel_values: torch.Tensor, **_: Any) -> torch.Tensor:
        self(pixel_values)  # fails where the types differ
        return torch.cat([input_ids, torch.tensor([[7]])], 1)


def test_a_judge_in_bfloat16_gets_its_picture_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = SimpleNamespace(AutoProcessor=Processor(), AutoModelForImageTextToText=Model(3, 1, 1).to(torch.bfloat16))
    monkeypatch.setattr(eyes, "loaded", lambda kind, *_, **__: getattr(parts, kind))
    assert eyes.VisionJudge("folder", "cpu")(np.zeros((4, 4, 3), np.uint8), "cat", "a red cat", "colour") == "7"
