"""Phrases in boxes under training: what a batch carries, that the quick kernel is the product's own method, and that a
saved adapter is one that the product loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import gradients, randomise
from safetensors.torch import load_file
from torch import Tensor

from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers import FlowPosition, FluxHost, load_transformer, merge_adapter
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.eligen.method import ELIGEN
from contextgen_core.methods.instance_assemble.files import read_files
from contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_core.methods.instance_assemble.step import PHRASES, AssembleSettings
from contextgen_core.tiny import model as tiny
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.tiny.text import encode_words
from contextgen_core.training import checkpoint
from contextgen_core.training.config import from_dict
from contextgen_core.training.latents import LatentMix, LatentSet, encode_scenes
from contextgen_core.training.recipes import RECIPES
from contextgen_core.training.run import Run
from contextgen_core.training.small_world import world
from contextgen_core.training.tasks import TransformerTask

METHODS = ("instance_assemble", "eligen")
SIZES = tiny.TinyConfig(num_layers=1, num_single_layers=2)


@pytest.fixture(scope="module")
def data() -> LatentSet:
    torch.manual_seed(0)
    scenes = [world.scene(0, "train", i, ("complex", "flexible", "words")[i % 3]) for i in range(9)]
    return encode_scenes(Taesd(NARROW), scenes, [world.render(s) for s in scenes])


def task(
    data: LatentSet, name: str, kernel: str = "batched", output: Path | str = "unused", **more: Any
) -> TransformerTask:
    tree = {
        "stage": "sft",
        "output": str(output),
        "batch": 3,
        "seed": 5,
        "ema": 0.9,
        "lora": {"rank": 4},
        "model": {"layers": 1, "single_layers": 2},
        "optimizer": {"rate": 1e-2},
        "every": {"log": 0, "save": 2},
        "method": {"name": name, "kernel": kernel},
        **more,
    }
    config = from_dict(tree)
    made = TransformerTask(config, LatentMix((data,), reader=RECIPES[name].reader(config)))
    randomise(made.network)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_the_quick_kernel_is_the_products_own_method(data: LatentSet, method: str) -> None:
    for seed in (1, 2):
        loss, quick = gradients(task(data, method), seed)
        wanted, own = gradients(task(data, method, "grouped"), seed)
        assert loss == pytest.approx(wanted, rel=1e-5)
        assert quick.keys() == own.keys() and quick
        largest = max(g.abs().max() for g in own.values())
        assert all((quick[n] - g).abs().max() < 2e-5 * largest for n, g in own.items())


def plain(network: Any) -> Any:
    """The transformer alone, without adapter and without the training's host."""
    state = {
        name.replace(".base_layer", ""): value
        for name, value in network.transformer.state_dict().items()
        if "lora_" not in name
    }
    return load_transformer(vars(SIZES).copy(), state)


@pytest.mark.parametrize("method", METHODS)
def test_the_product_loads_a_saved_adapter_and_gives_the_same_velocity(
    data: LatentSet, method: str, tmp_path: Path
) -> None:
    made = task(data, method)
    path, recipe = tmp_path / "adapter.safetensors", RECIPES[method]
    recipe.write(path, recipe.state(made.network), made.config)
    batch, times, noise = made.inputs(7, 0)
    again = task(data, method)
    recipe.load(again.network, {k: torch.zeros_like(v) for k, v in recipe.state(again.network).items()})
    recipe.load(again.network, recipe.read(path, made.config))  # as the file's half precision has it
    transformer = plain(made.network)
    modules: dict[str, Any] = {}
    if method == "eligen":
        merge_adapter(transformer, load_adapter(path))
        bound, settings = ELIGEN, ELIGEN.default_settings()
    else:
        modules[INSTANCE_ASSEMBLE.name] = read_files(path).build(dtype=torch.float32)
        bound, settings = INSTANCE_ASSEMBLE, AssembleSettings(ratio=1.0)
    with torch.no_grad(), FluxHost(transformer) as host:
        quick = again.network(batch, noise, times)
        own = host.velocity(
            [(Bound(bound, plan, settings),) for plan in batch.plans],
            noise,
            text=batch.text,
            pooled=batch.pooled,
            timestep=times,
            vectors=batch.vectors,
            modules=modules,
        )
        trained = made.network(batch, noise, times)
    assert (quick - own).abs().max() < 1e-5 * own.abs().max()
    assert 0 < (trained - own).abs().max() < 3e-3 * own.abs().max()  # half precision on disk


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_is_the_same_as_straight_through(data: LatentSet, method: str, tmp_path: Path) -> None:
    whole = task(data, method, output=tmp_path / "whole", steps=3)
    Run(whole.config, whole).go()
    first = task(data, method, output=tmp_path / "parts", steps=2)
    Run(first.config, first).go()
    second = task(data, method, output=tmp_path / "parts", steps=3)
    Run(second.config, second).go()
    ends = [checkpoint.training_state(made.model) for made in (whole, second)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    files = [load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "parts")]
    assert files[0].keys() == files[1].keys() and all(torch.equal(v, files[1][k]) for k, v in files[0].items())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_binds_each_phrase_to_the_box_of_its_creature(data: LatentSet, method: str) -> None:
    reader = RECIPES[method].reader(from_dict({"stage": "sft", "output": "x"}))
    counts = reader.counts(data)
    for indices in reader.buckets(data):
        batch = reader.collate(data, indices)
        assert batch.conditions.shape[1] == 0  # type: ignore[union-attr]
        n = int(counts[indices[0]])
        assert all(counts[i] == n for i in indices)
        ((name, vectors),) = batch.vectors.items()
        for row, index in enumerate(indices):
            scene = world.scene(
                *(int(data.keys[index, 0]), "train", int(index), ("complex", "flexible", "words")[index % 3])
            )
            members = sorted(scene.members, key=lambda m: m.told)
            assert len(members) == n
            for k, member in enumerate(members):
                words = encode_words(member.creature.name)
                x1, y1, x2, y2 = member.box
                if method == "eligen":
                    tokens = len(words.tokens)
                    assert torch.equal(vectors[row, k * tokens : (k + 1) * tokens], words.tokens)
                    inside = batch.plans[row].inside[k].reshape(8, 8)
                    assert inside[y1 // 16 : -(-y2 // 16), x1 // 16 : -(-x2 // 16)].mean() > 0.7
                    assert not inside[: y1 // 16].any() and not inside[:, -(-x2 // 16) :].any()
                else:
                    assert name == PHRASES and torch.equal(vectors[row, k], words.pooled)
                    assert np.allclose(np.array(batch.plans[row].boxes[k].corners) * 128, member.box)
    assert {int(c) for c in counts} <= set(range(1, 10)) and counts.min() >= 1  # scenes without references, too


def test_the_grounding_ratio_ends_the_boxes_in_a_sampling_run(data: LatentSet) -> None:
    made = task(data, "instance_assemble")
    batch, times, noise = made.inputs(3, 0)
    sigmas = [1.0, 0.8, 0.6, 0.3, 0.0]
    with torch.no_grad():
        always = [made.network(batch, noise, times, FlowPosition(s, sigmas, 64)) for s in sigmas[:-1]]
        made.network.settings = replace(made.network.settings, ratio=0.5)
        half = [made.network(batch, noise, times, FlowPosition(s, sigmas, 64)) for s in sigmas[:-1]]
        never = plain_velocity(made, batch, noise, times)
    assert all(torch.equal(always[0], v) for v in always)
    assert torch.equal(half[0], always[0]) and torch.equal(half[1], always[0])
    for late in half[2:]:
        assert torch.allclose(late, never, atol=1e-5) and not torch.allclose(late, always[0], atol=1e-3)


def plain_velocity(made: TransformerTask, batch: Any, noise: Tensor, times: Tensor) -> Tensor:
    from contextgen_core.hosts.diffusers import noise_ids

    return plain(made.network)(
        hidden_states=noise,
        encoder_hidden_states=batch.text,
        pooled_projections=batch.pooled,
        timestep=times,
        img_ids=noise_ids(8, 8),
        txt_ids=torch.zeros(batch.text.shape[1], 3),
        return_dict=False,
    )[0]


def test_untrained_eligen_changes_no_weight_and_untrained_boxes_add_nothing(data: LatentSet) -> None:
    config = {"stage": "sft", "output": "x", "model": {"layers": 1, "single_layers": 2}, "lora": {"rank": 4}}
    for method in METHODS:
        made = TransformerTask(from_dict({**config, "method": {"name": method}}), None)
        state = RECIPES[method].state(made.network)
        ends = [v for k, v in state.items() if k.endswith((".up.weight", "lora_B.weight")) or "layout_forward" in k]
        assert ends and not any(v.any() for v in ends)


def test_an_adapter_of_another_rank_is_refused(data: LatentSet, tmp_path: Path) -> None:
    made, other = task(data, "instance_assemble"), task(data, "instance_assemble", lora={"rank": 3})
    recipe = RECIPES["instance_assemble"]
    path = tmp_path / "adapter.safetensors"
    recipe.write(path, recipe.state(made.network), made.config)
    assert recipe.sizes(path) == {"lora": {"rank": 4}}
    with pytest.raises(InputError, match="set lora.rank"):
        recipe.load(other.network, recipe.read(path, other.config))
