"""Pictures as content of boxes under training: they are what the product reads, the quick kernel is the product's own
method, and a saved adapter is one that the product loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import gradients, randomise

from contextgen_core.composite.compose import compose
from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers import FluxHost, load_transformer
from contextgen_core.methods.boundary import CONTENT, Bound
from contextgen_core.methods.instance_assemble.files import read_files
from contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_core.methods.instance_assemble.plan import PhraseOptions
from contextgen_core.methods.instance_assemble.step import PHRASES, AssembleSettings
from contextgen_core.tiny import model as tiny
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training import compare
from contextgen_core.training.config import Config, from_dict
from contextgen_core.training.latents import LatentMix, encode
from contextgen_core.training.recipes import RECIPES
from contextgen_core.training.run import Run
from contextgen_core.training.small_world import world
from contextgen_core.training.small_world.contents import PicturedSet, encode_scenes_pictured
from contextgen_core.training.stages import open_data, train
from contextgen_core.training.tasks import TransformerTask

TIERS = ("complex", "flexible", "words")
SIZES = tiny.TinyConfig(num_layers=1, num_single_layers=1)


def vae() -> Taesd:
    torch.manual_seed(0)
    return Taesd(NARROW)


@pytest.fixture(scope="module")
def scenes() -> list[world.Scene]:
    return [world.scene(0, "train", i, TIERS[i % 3]) for i in range(6)]


@pytest.fixture(scope="module")
def data(scenes: list[world.Scene]) -> PicturedSet:
    return encode_scenes_pictured(vae(), scenes, [world.render(s) for s in scenes])


def config_of(**more: Any) -> Config:
    method = {"name": "instance_assemble", "kernel": "batched", "content": "mixed", **more.pop("method", {})}
    tree = {
        "stage": "sft",
        "output": "unused",
        "batch": 3,
        "seed": 5,
        "lora": {"rank": 4},
        "model": {"layers": 1, "single_layers": 1},
        "optimizer": {"rate": 1e-2, "warmup": 0},
        "every": {"log": 0, "save": 0},
        **more,
    }
    return from_dict({**tree, "method": method})


def task(data: PicturedSet, config: Config) -> TransformerTask:
    made = TransformerTask(config, LatentMix((data,), reader=RECIPES["instance_assemble"].reader(config)))
    randomise(made.network)
    return made


def test_a_boxs_picture_is_what_the_product_reads(scenes: list[world.Scene], data: PicturedSet) -> None:
    for index, scene in enumerate(scenes):
        layout, references = world.request(scene)
        shown = len(references)
        assert all(data.picture(index, k) is None for k in range(shown, data.members(index)))
        if not shown:
            continue
        prepared = INSTANCE_ASSEMBLE.prepare(compose(layout, references), PhraseOptions(content="both"))
        for k, (box, picture) in enumerate(zip(prepared.plan.boxes, prepared.content, strict=True)):
            kept = data.picture(index, k)
            assert kept is not None and box.picture is not None
            assert np.allclose(kept[0], box.picture, atol=1e-6) and kept[1].shape == (box.picture.size, 64)
            assert torch.allclose(kept[1], encode(vae(), picture[None])[0], atol=2e-3)


def test_a_batch_fills_boxes_at_random_and_those_that_are_judged_as_asked(data: PicturedSet) -> None:
    reader = RECIPES["instance_assemble"].reader(config_of())
    seen = set()
    for bucket in reader.buckets(data):
        for seed in range(6):
            batch = reader.collate(data, bucket, rng=np.random.default_rng(seed))
            for row, plan in enumerate(batch.plans):
                phrases = sum(box.phrase for box in plan.boxes)
                tokens = sum(box.picture.size for box in plan.boxes if box.picture)
                assert not batch.vectors[PHRASES][row, phrases:].any()
                assert not batch.vectors[CONTENT][row, tokens:].any() and batch.vectors[CONTENT].shape[1] >= tokens
                seen |= {(box.phrase, box.picture is not None) for box in plan.boxes}
    assert seen == {(True, False), (False, True), (True, True)}
    for judged, wanted in (("phrases", (True, False)), ("pictures", (False, True)), ("both", (True, True))):
        reader = RECIPES["instance_assemble"].reader(config_of(method={"judged": judged}))
        batch = reader.collate(data, reader.buckets(data)[-1])
        for index, plan in zip(reader.buckets(data)[-1], batch.plans, strict=True):
            for k, box in enumerate(plan.boxes):
                shown = data.picture(int(index), k) is not None
                assert (box.phrase, box.picture is not None) == (wanted if shown else (True, False))


def test_the_quick_kernel_is_the_products_own_method(data: PicturedSet) -> None:
    for seed in (1, 2, 3):
        loss, quick = gradients(task(data, config_of()), seed)
        wanted, own = gradients(task(data, config_of(method={"kernel": "grouped"})), seed)
        assert loss == pytest.approx(wanted, rel=1e-5)
        largest = max(g.abs().max() for g in own.values())
        assert any("picture_net" in name and g.any() for name, g in own.items())
        assert all((quick[n] - g).abs().max() < 2e-5 * largest for n, g in own.items())


def test_the_product_loads_a_saved_adapter_and_gives_the_same_velocity(data: PicturedSet, tmp_path: Path) -> None:
    made = task(data, config_of())
    path, recipe = tmp_path / "adapter.safetensors", RECIPES["instance_assemble"]
    recipe.write(path, recipe.state(made.network), made.config)
    assert recipe.sizes(path) == {"lora": {"rank": 4}, "method": {"content": "mixed"}} and read_files(path).pictures
    recipe.load(made.network, recipe.read(path, made.config))  # as the file's half precision has it
    batch, times, noise = made.inputs(7, 0)
    transformer = load_transformer(vars(SIZES).copy(), made.network.transformer.state_dict())
    with torch.no_grad(), FluxHost(transformer) as host:
        quick = made.network(batch, noise, times)
        for row, plan in enumerate(batch.plans):
            one = slice(row, row + 1)
            own = host.velocity(
                Bound(INSTANCE_ASSEMBLE, plan, AssembleSettings(ratio=1.0)),
                noise[one],
                text=batch.text[one],
                pooled=batch.pooled[one],
                timestep=times[one],
                vectors={name: vector[one] for name, vector in batch.vectors.items()},
                modules={INSTANCE_ASSEMBLE.name: read_files(path).build(dtype=torch.float32)},
            )
            assert (quick[one] - own).abs().max() < 1e-5 * own.abs().max()


def test_training_moves_the_encoder_of_pictures(data: PicturedSet, tmp_path: Path) -> None:
    config = config_of(output=str(tmp_path), steps=6)  # the first four draw scenes that words alone tell of
    made = task(data, config)
    encoder: Any = made.network.weights.picture_net  # type: ignore[union-attr]
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    assert Run(config, made).go() == 6
    assert [name for name, p in encoder.named_parameters() if torch.equal(p, before[name])] == []


def test_the_stage_contents_keeps_the_pictures_beside_the_scenes(tmp_path: Path) -> None:
    small = {"path": str(tmp_path / "scenes"), "count": 3}
    shared: dict[str, Any] = {"output": str(tmp_path / "out"), "threads": 1, "data": small}
    assert train(from_dict({**shared, "stage": "scenes"})) == 3
    config = config_of(**shared)
    with pytest.raises(InputError, match="run the stage 'contents' first"):
        open_data(config)
    assert train(from_dict({**shared, "stage": "contents"})) == 3
    (kept,) = open_data(config).sets
    assert isinstance(kept, PicturedSet) and kept.picture(0, 0) is not None
    assert open_data(config_of(**shared, method={"content": "phrases"})).sets[0].count.shape == (3,)


def test_what_cannot_be_filled_with_pictures_is_told() -> None:
    with pytest.raises(InputError, match=r"set content to phrases"):
        TransformerTask(config_of(method={"isolated": False}), None)
    with pytest.raises(InputError, match=r"data\.kind coco has no pictures for boxes"):
        open_data(config_of(data={"kind": "coco", "path": "nowhere"}))


def test_ablations_judge_one_training_with_each_content(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"data": {"kind": "world", "path": "x"}}
    names = [name for name in compare.names() if name.startswith("instance_assemble")]
    assert {"off", "together", "corners", "ratio_10", "ratio_30", "nonzero", "pictures"} <= {
        name.partition("/")[2] for name in names
    }
    configs = {name: compare.config_of(name, 2, shared, tmp_path) for name in names}
    trained = tmp_path / "instance_assemble_pictures_2" / "adapter.safetensors"
    for kind in ("phrase", "picture"):
        config = configs[f"instance_assemble/pictures_{kind}"]
        assert config.model.adapter == str(trained) and config.method.judged == f"{kind}s"
        assert config.method.content == "mixed"
    assert configs["instance_assemble/off"].method.ratio == 0
    assert configs["instance_assemble/off"].model.adapter == str(
        tmp_path / "instance_assemble_2" / "adapter.safetensors"
    )
    routed = {name: compare.config_of(name, 0, shared, tmp_path).routing for name in compare.names() if "sigma" in name}
    assert routed["sigma_gen/one_plane"].planes == "one" and routed["sigma_gen/unrouted"].planes == "unnamed"
    assert routed["sigma_gen/zero"].timestep == "zero" and routed["sigma_gen/conditions"].scope == "conditions"
