"""SAM's mechanics with SAM's own classes at a tiny size: reading, preparing, prompting, remembering."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sam_tiny import TINY, import_segment_anything, picture, tiny_state

from contextgen_core.commands import sam_check
from contextgen_core.cutout import sam
from contextgen_core.cutout.sam import Point, Segmenter, Shape, build, read_shape, read_state
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box

SHAPE = Shape(**TINY)

OFFICIAL = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


@pytest.fixture(scope="module")
def state():
    return tiny_state(sam)


@pytest.fixture(scope="module")
def segmenter(state):
    return Segmenter.from_state(state)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_sizes_are_recognised_from_their_tensors(name):
    width, depth, heads, everywhere = OFFICIAL[name]
    shape = SHAPE._replace(
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=4 * width,
        image_size=1024,
        window=14,
        global_blocks=everywhere,
        prompt_width=256,
        mask_channels=16,
        decoder_mlp=2048,
        quality_width=256,
    )
    import_segment_anything()
    import segment_anything

    if name == "vit_b":  # the package's own builder, once: it fills real memory
        official = segment_anything.sam_model_registry["vit_b"]().state_dict()
    else:
        official = build(shape).state_dict()
    assert read_shape(official) == shape and read_shape(official).name == name


def test_the_tiny_size_is_recognised(state):
    assert read_shape(state) == SHAPE and read_shape(state).name == "vit_32"


@pytest.mark.parametrize("size", [(90, 120), (120, 90), (64, 64), (300, 40)])
def test_masks_equal_those_of_sams_own_predictor(segmenter, size):
    from segment_anything import SamPredictor

    pixels = picture(*size)
    height, width = size
    predictor = SamPredictor(segmenter.sam)
    predictor.set_image(pixels)
    points = (Point(width / 2, height / 2), Point(width / 4, 3.0, keep=False))
    box = Box(width / 4, height / 4, width * 3 / 4, height * 3 / 4)
    for use_box, use_points in ((True, False), (False, True), (True, True)):
        masks, quality, _ = predictor.predict(
            point_coords=np.array([p[:2] for p in points]) if use_points else None,
            point_labels=np.array([1, 0]) if use_points else None,
            box=np.array([box.x1, box.y1, box.x2, box.y2]) if use_box else None,
        )
        found = segmenter.propose(pixels, box=box if use_box else None, points=points if use_points else ())
        assert found.masks.shape == (3, height, width)
        assert np.allclose(found.quality, quality, atol=1e-5)
        assert (found.masks != masks).mean() < 1e-3
        assert found.best() == int(np.argmax(quality))


def test_prompts_matter(segmenter):
    pixels = picture()
    one = segmenter.propose(pixels, points=(Point(60, 45),))
    other = segmenter.propose(pixels, points=(Point(5, 5),))
    against = segmenter.propose(pixels, points=(Point(60, 45), Point(5, 5, keep=False)))
    rough = np.zeros((90, 120), np.uint8)
    rough[20:70, 30:90] = 255
    boxed = segmenter.propose(pixels, box=Box(30, 20, 90, 70))
    hinted = segmenter.propose(pixels, mask=rough)
    results = [one, other, against, boxed, hinted]
    for i, a in enumerate(results):
        for b in results[:i]:
            assert not np.allclose(a.quality, b.quality, atol=1e-6)


def test_a_picture_is_encoded_once(state):
    segmenter = Segmenter.from_state(state)
    first, second = picture(seed=1), picture(seed=2)
    for x in (10, 40, 70):
        segmenter.propose(first, points=(Point(x, 20),))
    assert segmenter.encoded == 1
    again = segmenter.propose(first.copy(), points=(Point(10, 20),))
    segmenter.propose(second, points=(Point(10, 20),))
    assert segmenter.encoded == 2
    fresh = Segmenter.from_state(state).propose(first, points=(Point(10, 20),))
    assert np.array_equal(again.masks, fresh.masks) and np.array_equal(again.quality, fresh.quality)


def test_the_memory_of_pictures_is_bounded_and_its_own(state):
    a, b = Segmenter.from_state(state), Segmenter.from_state(state)
    for seed in range(7):
        a.embed(picture(40, 40, seed))
    assert len(a._embeddings) == 4 and len(b._embeddings) == 0
    a.embed(picture(40, 40, 6))
    assert a.encoded == 7
    a.embed(picture(40, 40, 0))
    assert a.encoded == 8, "the oldest picture was dropped"


def test_both_kinds_of_file_give_the_same_network(state, tmp_path):
    torch.save(state, tmp_path / "sam.pth")
    save_file(state, tmp_path / "sam.safetensors")
    half = {key: tensor.half() for key, tensor in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    pixels = picture()
    results = [
        Segmenter.from_file(tmp_path / name).propose(pixels, points=(Point(60, 45),))
        for name in ("sam.pth", "sam.safetensors")
    ]
    assert np.array_equal(results[0].masks, results[1].masks)
    assert Segmenter.from_file(tmp_path / "half.safetensors").sam.mask_decoder.iou_token.weight.dtype == torch.float32


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_files_with_code_or_nonsense_are_refused(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"image_encoder.pos_embed": Payload()}, "code.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "text.safetensors").write_bytes(b"not a checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"epoch": 3}, "dict.pth")
    torch.save({"big": torch.zeros(1).expand(1 << 40)}, "bomb.pth")
    for name in ("code.pth", "raw.pth", "text.safetensors", "empty.pth", "dict.pth", "bomb.pth"):
        with pytest.raises(InputError, match=name):
            read_state(name)
    assert not (tmp_path / "executed").exists()
    torch.save({"vision_encoder.pos_embed": torch.zeros(1)}, "other.pth")
    with pytest.raises(InputError, match="SAM 1"):
        Segmenter.from_file("other.pth")
    damaged = dict(state)
    del damaged["mask_decoder.iou_token.weight"]
    with pytest.raises(InputError, match="do not fit"):
        Segmenter.from_state(damaged)


def test_without_the_package_one_sentence_says_what_to_install(state, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "segment_anything.modeling", None)
    with pytest.raises(InputError, match="pip install segment-anything"):
        Segmenter.from_state(state)


def test_no_prompt_is_an_error(segmenter):
    with pytest.raises(InputError, match="click a point"):
        segmenter.propose(picture())
    with pytest.raises(InputError, match="click a point"):
        segmenter.propose(picture(), points=(Point(1, 1, keep=False),))


def test_the_check_command_compares_with_the_packages_own_predictor(state, tmp_path, capsys):
    torch.save(tiny_state(sam, seed=3), tmp_path / "tiny.pth")
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    out = tmp_path / "cut.png"
    arguments = [str(tmp_path / "tiny.pth"), str(tmp_path / "photo.png"), "--point", "60,45", "--box", "20,10,100,80"]
    assert sam_check.run([*arguments, "--out", str(out)], sys.stdout.write) == 0
    said = capsys.readouterr().out
    assert "vit_32" in said and "equal mask pixels 100" in said
    with Image.open(out) as made:
        assert made.mode == "RGBA" and made.size == (120, 90)
    assert sam_check.run([str(tmp_path / "missing.pth"), str(tmp_path / "photo.png"), "--point", "1,1"]) == 2
