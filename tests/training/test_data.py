"""The authors' dataset format, the latents of the small world, its words and its autoencoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.backbones.flux import pack, unpack
from contextgen_core.errors import InputError
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.tiny import model as tiny
from contextgen_core.tiny.autoencoder import FULL, NARROW, Taesd, compact, full_state
from contextgen_core.tiny.text import LIGHTS, PLACES, encode_words
from contextgen_core.training import imig, stages
from contextgen_core.training.config import from_dict, load
from contextgen_core.training.latents import LatentSet, encode_scenes, training_scenes
from contextgen_core.training.small_world import world
from contextgen_core.training.small_world.pixels import PixelSet, arrange
from contextgen_core.training.stages import train
from contextgen_core.training.tasks import TransformerTask


@pytest.fixture(scope="module")
def scenes() -> list[world.Scene]:
    return [world.scene(0, "train", i, world.TIERS[i % 3]) for i in range(5)]


@pytest.fixture
def subset(tmp_path: Path, scenes: list[world.Scene]) -> Path:
    assert imig.write_world(tmp_path / "imig-basic", scenes) == len(scenes)
    return tmp_path / "imig-basic"


def config(root: Path, stage: str = "sft", **more: Any) -> Any:
    tree = {
        "stage": stage,
        "output": str(root / "out"),
        "batch": 3,
        "lora": {"rank": 4},
        "model": {"layers": 1, "single_layers": 2},
    }
    return from_dict({**tree, "data": {"kind": "imig", "path": str(root), "folders": {"imig-basic": 1}}, **more})


# ---- the authors' format -------------------------------------------------------------------------


def test_scenes_come_back_from_the_authors_format(subset: Path, scenes: list[world.Scene]) -> None:
    items = imig.read_subset(subset)
    assert len(items) == len(scenes)
    for item, scene in zip(items, scenes, strict=True):
        picture = world.render(scene)
        assert item.prompt == scene.caption
        assert np.array_equal(imig.read_picture(item.target), picture.target)
        assert [(s.box.x1, s.box.y1, s.box.x2, s.box.y2) for s in item.subjects] == [m.box for m in scene.members]
        assert [s.phrase for s in item.subjects] == [m.creature.name for m in scene.members]
        for k, subject in enumerate(item.subjects):
            assert np.array_equal(imig.read_picture(subject.reference), picture.references[k])
            assert np.array_equal(imig.read_mask(subject.mask, (64, 64)), picture.masks[k])


def test_composing_a_stored_scene_paints_the_worlds_own_composite(subset: Path, scenes: list[world.Scene]) -> None:
    """Training (world) and use (compose) must show the model the same picture."""
    made = config(subset.parent)
    for item, scene in zip(imig.read_subset(subset), scenes, strict=True):
        composed, target = arrange(item, made, np.random.default_rng(0))
        picture = world.render(scene)
        assert np.array_equal(target, picture.target)
        difference = np.abs(composed.composite.astype(int) - picture.composite).max(-1) > 40
        assert difference.mean() < 0.06  # rims of the cut-outs


def test_base_items_use_repaints_by_their_share(subset: Path) -> None:
    (subset / "kontext_data").mkdir()
    (subset / "masked_kontext_data").mkdir()
    for path in (subset / "instance_data").iterdir():
        (subset / "kontext_data" / path.name).write_bytes(path.read_bytes())
    items = imig.read_subset(subset)
    assert all(s.repaint is not None for i in items for s in i.subjects)


def test_composite_items_are_read_and_null_boxes_left_out(tmp_path: Path, scenes: list[world.Scene]) -> None:
    from PIL import Image

    for name in ("composite_images", "references", "reference_masks"):
        (tmp_path / name).mkdir()
    picture = world.render(scenes[0])
    Image.fromarray(picture.target).save(tmp_path / "composite_images" / "000000.png")
    for k in range(2):
        Image.fromarray(picture.references[k]).save(tmp_path / "references" / f"{k}.png")
        Image.fromarray(picture.masks[k]).save(tmp_path / "reference_masks" / f"{k}_mask.png")
    record = {
        "prompt": "two",
        "instance": ["a", "b"],
        "indices": [0, 1],
        "bbox": [{"bbox": [1, 2, 30, 40], "score": 0.9}, None],
    }
    (tmp_path / imig.PROMPTS).write_text(json.dumps([record, "noise", {"prompt": "no pictures"}]))
    (item,) = imig.read_subset(tmp_path)
    assert len(item.subjects) == 1 and item.subjects[0].box.x2 == 30


def test_names_cannot_leave_the_subset(tmp_path: Path, scenes: list[world.Scene]) -> None:
    from PIL import Image

    folder = tmp_path / "set"
    for name in ("composite_images", "references"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(world.render(scenes[0]).target).save(folder / "composite_images" / "000000.png")
    Image.fromarray(world.render(scenes[0]).target).save(tmp_path / "secret.png")
    record = {"prompt": "x", "instance": ["a"], "indices": ["../../secret"], "bbox": [{"bbox": [0, 0, 9, 9]}]}
    (folder / imig.PROMPTS).write_text(json.dumps([record]))
    with pytest.raises(InputError, match="None of the 1 items"):
        imig.read_subset(folder)


@pytest.mark.parametrize("text", ["{", '{"a": 1}'])
def test_a_broken_prompt_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / imig.PROMPTS).write_text(text)
    with pytest.raises(InputError, match="fetch the subset again"):
        imig.read_subset(tmp_path)


@pytest.mark.parametrize("stage", ["base", "sft"])
def test_a_step_from_disk_trains_on_pictures_with_different_numbers_of_references(subset: Path, stage: str) -> None:
    made = config(subset.parent, stage)
    data = PixelSet(made)
    batch = data.draw(np.random.default_rng(1), made)
    again = data.draw(np.random.default_rng(1), made)
    assert torch.equal(batch.target, again.target)
    task = TransformerTask(made, data)
    loss, _ = task.model(*task.inputs(3, 0))
    loss.backward()
    assert torch.isfinite(loss)


def test_dpo_from_disk_has_an_unwanted_picture_of_either_kind(subset: Path) -> None:
    plain = config(subset.parent, "dpo")
    pasted = config(subset.parent, "dpo", dpo={"lose": "pasted"})
    data = PixelSet(plain)
    first, second = (data.draw(np.random.default_rng(1), c) for c in (plain, pasted))
    assert first.lose is not None and second.lose is not None
    assert torch.equal(first.lose, torch.stack([c[:64] for c in first.conditions]))  # the layout itself
    assert (second.lose - second.target).abs().mean() < (first.lose - first.target).abs().mean()


# ---- latents -------------------------------------------------------------------------------------


def test_packing_is_channel_major_inside_a_token_and_undone() -> None:
    latents = torch.randn(2, 16, 6, 4)
    tokens = pack(latents)
    assert tokens.shape == (2, 6, 64)
    assert (
        tokens[1, 2 * 1 + 1, 5 * 4 + 1 * 2 + 0] == latents[1, 5, 2 * 1 + 1, 2 * 1 + 0]
    )  # token (y 1, x 1), channel 5, dy 1, dx 0
    assert torch.equal(unpack(tokens, 2, 3), latents)


def test_a_set_survives_the_disk_and_knows_its_geometry(tmp_path: Path, scenes: list[world.Scene]) -> None:
    torch.manual_seed(0)
    made = encode_scenes(Taesd(NARROW), scenes, [world.render(s) for s in scenes], lose=True)
    made.save(tmp_path)
    read = LatentSet.load(tmp_path)
    assert np.array_equal(read.target, made.target) and read.lose is not None
    for k, scene in enumerate(scenes):
        plan = read.plan(k)
        assert len(plan.references) == len(scene.members)
        for reference, member in zip(plan.references, scene.members, strict=True):
            box = reference.box
            assert box.x1 * 16 <= member.box[0] and box.x2 * 16 >= member.box[2]
            assert 0 < sum(reference.valid) <= 16
        assert read.hidden[k] == (0 if scene.tier == "flexible" else -1)


def test_the_weight_marks_boxes_and_the_hidden_one(scenes: list[world.Scene]) -> None:
    torch.manual_seed(0)
    made = encode_scenes(Taesd(NARROW), scenes, [world.render(s) for s in scenes])
    number = next(k for k, s in enumerate(scenes) if s.tier == "flexible")
    weight = made.batch(np.array([number]), True, box=2.0, hidden=5.0).weight
    assert weight is not None
    grid = weight.reshape(8, 8)
    x1, y1, x2, y2 = (v // 16 for v in scenes[number].members[0].box)
    assert (grid[y1:y2, x1:x2] == 5).all() and (grid == 5).sum() == (y2 - y1) * (x2 - x1)
    assert set(grid.unique().tolist()) <= {1.0, 2.0, 5.0}


def test_a_mixture_is_made_of_rounds_and_every_scene_can_be_drawn_again_from_its_key() -> None:
    made = list(training_scenes(3, {"flexible": 3, "words": 2}, 5, 25))
    assert [s.tier for _, s in made].count("flexible") == 12 and {s.tier for _, s in made} == {"flexible", "words"}
    for (seed, tier, index), scene in made:
        assert world.scene(seed, "train", index, world.TIERS[tier]) == scene


def test_scenes_are_the_same_however_many_processes_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, threads: int) -> LatentSet:
        tree = {"stage": "scenes", "output": str(tmp_path), "data": {"path": str(tmp_path / name), "count": 7}}
        assert stages.make_scenes(from_dict({**tree, "threads": threads})) == 7
        return LatentSet.load(tmp_path / name)

    monkeypatch.setattr(stages, "_PORTION", 4)
    several = made("several", 2)
    alone = made("alone", 1)
    for name in ("target", "references", "boxes", "hidden", "words"):
        assert np.array_equal(getattr(several, name), getattr(alone, name))


# ---- words and autoencoder -----------------------------------------------------------------------


def test_places_and_lights_are_told_in_any_words_around_them() -> None:
    seen = {tuple(encode_words(f"{p[0]} {q[0]}").pooled.tolist()) for p in PLACES for q in LIGHTS}
    assert len(seen) == 16
    plain = encode_words("creatures on the shore at night")
    framed = encode_words('Edit this until it shows "two cats on the BEACH, midnight". The result must look natural.')
    assert torch.equal(plain.tokens, framed.tokens) and torch.equal(plain.pooled, framed.pooled)


def test_each_creature_has_words_of_its_own_and_none_is_another() -> None:
    """One token a creature: which colour comes first is told, in the token and in the pooled vector."""
    every = [c for split in world.SPLITS for c in world.identities(split)]
    said = [encode_words(f"a {c.name}") for c in every]
    for pick in ([w.tokens[0] for w in said], [w.pooled for w in said]):
        near = torch.cdist(torch.stack(pick)[None], torch.stack(pick)[None])[0] + 1e3 * torch.eye(len(every))
        assert near.min() > 1
    assert all(not w.tokens[1:].any() and torch.equal(w.tokens[0], w.pooled) for w in said)


@given(
    st.lists(st.sampled_from(world.identities("train")), max_size=9),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_a_prompt_holds_the_token_of_each_phrase_and_of_place_and_light(
    creatures: list[world.Creature], place: int, light: int
) -> None:
    whole = encode_words(world.caption(creatures, place, light))
    scene = [encode_words(w).tokens[0] for w in (world.PLACES[place], world.LIGHTS[light])]
    expected = scene + [encode_words(c.name).tokens[0] for c in creatures]
    assert torch.equal(whole.tokens[: len(expected)], torch.stack(expected)) and not whole.tokens[len(expected) :].any()
    means = [torch.stack(part).mean(0) for part in (scene, expected[2:]) if part]
    assert torch.allclose(whole.pooled, sum(means, torch.zeros(64)), atol=1e-6)


def test_words_that_leave_something_open_or_mean_nothing() -> None:
    blank = encode_words("")
    assert not blank.tokens.any() and not blank.pooled.any()
    assert torch.equal(encode_words("the very quick brown fox").tokens, blank.tokens)
    assert torch.equal(encode_words("a striped ball").tokens, encode_words("banded disc").tokens)
    assert torch.equal(encode_words("creatures").tokens, blank.tokens)
    assert encode_words("a red creature").tokens[0].any() and not encode_words("white snow").tokens[1:].any()
    many = encode_words(", ".join(c.name for c in world.identities("train")[:30]))
    assert many.tokens.shape == (12, 64) and many.tokens.any(1).all()


def test_padding_to_the_full_form_and_stripping_it_compute_the_same() -> None:
    torch.manual_seed(0)
    narrow = Taesd(NARROW)
    mean, deviation = torch.randn(16), torch.rand(16) + 0.5
    padded = full_state(narrow.state_dict(), mean, deviation)
    assert (padded["vae_scale"], padded["vae_shift"]) == (pytest.approx(0.3611), pytest.approx(0.1159))
    state = {k: v for k, v in padded.items() if not k.startswith("vae_")}
    full = Taesd(FULL)
    full.load_state_dict(state)
    stripped = compact(state)
    assert stripped.shape == NARROW
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = (narrow.encode(pictures) - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)
        for net in (full, stripped):
            assert (net.encode(pictures) - expected).abs().max() < 1e-5
            assert (net.decode(expected) - narrow.decode(expected)).abs().max() < 1e-5


def test_random_weights_are_the_same_twice_and_the_adapter_names_are_known() -> None:
    first = tiny.random_transformer_state(tiny.CONFIG, 3)
    again = tiny.random_transformer_state(tiny.CONFIG, 3)
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    with pytest.raises(InputError, match="no adapter 'odd'"):
        tiny.adapter_path("odd")


def test_the_authors_configs_run_through_on_the_small_model(subset: Path, tmp_path: Path) -> None:
    """The override that the head of each file names, one step, then DPO from the adapter that SFT left."""
    configs = Path(__file__).parents[2] / "configs"
    small = [
        "model.kind=tiny", "model.weights=shipped", "model.checkpointing=false", "data.size=128", "data.reference=64",
        "lora.rank=16", "lora.alpha=16", "precision=fp32", "flow.guidance=null", "steps=1", "batch=1", "accumulate=2",
        f"data.path={subset.parent}",
    ]  # fmt: skip
    for stage, more in (("sft", []), ("dpo", [f"model.adapter={tmp_path}/sft/adapter.safetensors"])):
        made = load(configs / f"kontext_{stage}.yaml", [*small, *more, f"output={tmp_path}/{stage}"])
        folders = from_dict({**made.to_dict(), "data": {**made.to_dict()["data"], "folders": {"imig-basic": 1}}})
        assert train(folders) == 1
        assert load_adapter(tmp_path / stage / "adapter.safetensors").rank == 16
