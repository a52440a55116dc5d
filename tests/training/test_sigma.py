"""SIGMA-GEN under training: what trains is what the product runs, what it is shown is what the product draws, and the
folders it is read from are checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import randomise
from PIL import Image

from contextgen_core.composite.compose import compose
from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers import FluxHost, merge_adapter
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.lora.switched import SwitchedAdapter
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.sigma_gen.control import Cell
from contextgen_core.methods.sigma_gen.method import SIGMA_GEN, ControlOptions, Settings
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training import sigma_figures, sigma_set
from contextgen_core.training.config import Config, RoutingConfig, from_dict, load, subjects_at
from contextgen_core.training.latents import LatentMix, LatentSet, encode, encode_scenes
from contextgen_core.training.routing import KINDS, route
from contextgen_core.training.small_world import evaluate, world
from contextgen_core.training.small_world.controls import ROUTED, RoutedSet, encode_routed, regions, routed_batch
from contextgen_core.training.stages import open_data, train
from contextgen_core.training.tasks import TransformerTask, build_transformer

EXACT = RoutingConfig(dilation=0.0, jitter=0.0, drop=0.0)
TIERS = ("flexible", "complex", "solid")


def config(**more: Any) -> Config:
    tree: dict[str, Any] = {
        "stage": "sft",
        "output": "unused",
        "batch": 2,
        "lora": {"rank": 4},
        "method": {"name": "sigma_gen", "kernel": "batched"},
        "model": {"layers": 1, "single_layers": 2},
        "seed": 5,
    }
    return from_dict({**tree, **more})


@pytest.fixture(scope="module")
def vae() -> Taesd:
    torch.manual_seed(0)
    return Taesd(NARROW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vae: Taesd) -> Path:
    """A set of scenes with what the stage `controls` leaves in it."""
    path = tmp_path_factory.mktemp("scenes")
    keys = [(0, world.TIERS.index(TIERS[i % 3]), i) for i in range(6)]
    scenes = [world.scene(0, "train", i, TIERS[i % 3]) for i in range(6)]
    encode_scenes(vae, scenes, [world.render(s) for s in scenes], keys=keys).save(path)
    assert train(config(stage="controls", data={"path": str(path)}, threads=1)) == 6
    return path


def routed(folder: Path) -> LatentMix:
    return LatentMix((RoutedSet.load(folder),), reader=ROUTED)


def shaken(task: TransformerTask) -> TransformerTask:
    """Weights at random: every path carries something."""
    randomise(task.network)
    return task


# ---- the adapter ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routing", "kernel", "folded"),
    [
        ({}, "batched", True),
        ({}, "grouped", False),
        ({"timestep": "zero"}, "batched", True),
        ({"scope": "conditions"}, "batched", False),
        ({"scope": "conditions", "timestep": "zero", "cross": False}, "grouped", False),
    ],
)
def test_the_file_gives_the_trained_velocity_through_the_products_own_method(
    folder: Path, tmp_path: Path, routing: dict[str, Any], kernel: str, folded: bool
) -> None:
    settings = config(
        routing=routing, method={"name": "sigma_gen", "kernel": kernel}, lora={"rank": 4, "folded": folded}
    )
    task = shaken(TransformerTask(settings, routed(folder)))
    batch, times, noise = task.inputs(3, 0)
    with torch.no_grad():
        expected = task.network(batch, noise, times)
    task.finish(tmp_path)

    adapter, transformer = load_adapter(tmp_path / "adapter.safetensors"), build_transformer(settings)
    trained = task.network.transformer.state_dict()
    own = {name.replace(".base_layer.", "."): value for name, value in trained.items() if "lora_" not in name}
    transformer.load_state_dict(own)
    modules = None
    if routing.get("scope") == "conditions":
        modules = {SIGMA_GEN.name: SwitchedAdapter(adapter, len(transformer.transformer_blocks))}
    else:
        merge_adapter(transformer, adapter)
    switches = {name: value for name, value in routing.items()}
    with torch.no_grad(), FluxHost(transformer) as host:
        velocity = host.velocity(
            Bound(SIGMA_GEN, batch.plans[0], Settings(**switches)),
            noise,
            batch.conditions,
            text=batch.text,
            pooled=batch.pooled,
            timestep=times,
            modules=modules,
        )
    assert expected.abs().max() > 0.1
    assert (velocity - expected).abs().max() < 5e-3 * expected.abs().max()  # the file is in half precision


@pytest.mark.parametrize("routing", [{}, {"scope": "conditions"}])
def test_all_of_the_adapter_trains_and_its_file_is_taken_up(
    folder: Path, tmp_path: Path, routing: dict[str, Any]
) -> None:
    task = shaken(TransformerTask(config(routing=routing), routed(folder)))
    loss, _ = task.model(*task.inputs(1, 0))
    loss.backward()
    idle = [n for n, p in task.network.named_parameters() if p.requires_grad and not _moves(p)]
    # On condition tokens alone the last block's queries and outputs reach no picture: A and B of three layers.
    assert len(idle) == (6 if routing else 0)
    task.finish(tmp_path)
    again = TransformerTask(
        config(
            routing=routing, model={"layers": 1, "single_layers": 2, "adapter": str(tmp_path / "adapter.safetensors")}
        ),
        None,
    )
    before, after = task.recipe.state(task.network), again.recipe.state(again.network)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k].half().float(), after[k]) for k in before)


def _moves(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().max() > 0)


# ---- what it is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["complex", "dense", "words"])
def test_boxes_and_cells_are_those_that_the_product_draws(tier: str, vae: Taesd) -> None:
    scene = world.scene(3, "train", 2, tier)
    layout, references = world.request(scene)
    wanted = SIGMA_GEN.prepare(compose(layout, references), ControlOptions(Cell(64, 64)))
    routing = route(regions(scene, "box", EXACT), EXACT, None)
    assert np.array_equal(routing.picture, wanted.pictures[1])
    own = encode_routed(vae, [scene], EXACT, ["box"])
    stack = encode(vae, wanted.pictures[0][None])[0].half().numpy()
    assert np.array_equal(own["cells"][0, : len(references)].reshape(stack.shape), stack)
    data = RoutedSet.of(encode_scenes(vae, [scene], [world.render(scene)]), own)
    assert routed_batch(data, np.array([0])).plans[0] == wanted.plan


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_level_names_the_row_of_the_stack(kind: str) -> None:
    scene = world.scene(0, "train", 4, "solid")
    exact = regions(scene, kind, EXACT)
    for seed in range(4):
        picture, order = route(exact, EXACT, np.random.default_rng(seed))
        for row, subject in enumerate(order):
            seen = (picture[..., :2] == 10 * (row + 1)).any(-1)
            assert seen.any() and not (seen & ~exact.masks[subject]).any()
        assert (picture[..., 2] > 0).any() == (kind in ("mask", "cuboid"))


def test_inexactness_is_a_function_of_the_seed_and_as_large_as_asked() -> None:
    scene, settings = world.scene(0, "train", 4, "complex"), RoutingConfig(drop=0.1)
    for kind in KINDS:
        first, again, other = (regions(scene, kind, settings, np.random.default_rng(s)).masks for s in (1, 1, 2))
        exact = regions(scene, kind, settings).masks
        assert np.array_equal(first, again) and not np.array_equal(first, other)
        assert kind in ("box", "ellipse") or (first | ~exact).all()  # masks only grow
        reach = 1.42 * 128 * settings.dilation + 2
        rows = [np.flatnonzero(m.any(1))[[0, -1]] for m in (first[0], exact[0])]
        assert np.abs(rows[0] - rows[1]).max() <= reach
    exact = regions(scene, "mask", settings)
    empty = [not route(exact, settings, np.random.default_rng(s)).picture.any((0, 1)).all() for s in range(600)]
    assert 0.06 < np.mean(empty) < 0.14


def test_planes_can_be_taken_away() -> None:
    exact = regions(world.scene(0, "train", 4, "flexible"), "box", EXACT)
    both, one, unnamed = (
        route(exact, dataclasses.replace(EXACT, planes=planes), None).picture for planes in ("both", "one", "unnamed")
    )
    assert np.array_equal(both[..., 0], one[..., 0]) and not one[..., 1].any() and (both[..., 1] == 10).any()
    assert set(np.unique(unnamed[..., :2])) == {0, 10} and np.array_equal(unnamed > 0, both > 0)


def test_encoded_controls_are_drawn_again_alike_and_read_as_written(folder: Path) -> None:
    data = RoutedSet.load(folder)
    assert data.control.shape == (6, 3, 64, 64) and data.cells.shape[2] == 16
    for i in range(6):
        order = np.asarray(data.orders[i])
        assert all(sorted(row[: data.count[i]]) == list(range(data.count[i])) for row in order)
    batches = [data.draw(np.random.default_rng(s), config(), reader=ROUTED) for s in (7, 7, 8)]
    assert torch.equal(torch.as_tensor(batches[0].conditions), torch.as_tensor(batches[1].conditions))
    assert not torch.equal(batches[0].target, batches[2].target)
    stack, noise = batches[0].plans[0].stack_tokens, batches[0].plans[0].noise_tokens
    assert batches[0].tokens == batches[0].text.shape[1] + stack + 2 * noise
    with pytest.raises(InputError, match="run the stage 'controls' first"):
        RoutedSet.load(_plain(folder))


def _plain(folder: Path) -> Path:
    other = folder / "plain"
    if not other.is_dir():
        LatentSet.load(folder).save(other)
    return other


# ---- the curriculum ------------------------------------------------------------------------------


def test_phases_follow_each_other_and_bound_the_subjects(folder: Path) -> None:
    phases = {"1-2": 1.0, "3-": 1.0, "4-": 2.0}
    assert [subjects_at(phases, d) for d in (0, 0.24, 0.26, 0.6, 1)] == [
        (1, 2),
        (1, 2),
        (3, float("inf")),
        (4, float("inf")),
        (4, float("inf")),
    ]
    made = config(data={"path": str(folder), "curriculum": {"1-2": 1, "3-": 1}})
    data = open_data(made)
    for seed in range(8):
        few, many = (data.draw(np.random.default_rng(seed), made, d).plans[0].stack_tokens // 16 for d in (0.1, 0.9))
        assert few <= 2 and many >= 3
    with pytest.raises(InputError, match="No scene has the numbers"):
        none = config(data={"path": str(folder), "curriculum": {"7-": 1}})
        data.draw(np.random.default_rng(0), none)
    with pytest.raises(InputError, match="write phases like"):
        config(data={"curriculum": {"few": 1}})


# ---- judging -------------------------------------------------------------------------------------


def test_mix_ups_and_leans_are_told() -> None:
    scene = world.scene(1, "test", 3, "solid")
    truth = (world.render_target(scene) * 255 + 0.5).astype(np.uint8)
    count = len(scene.members)
    assert not any(evaluate.swapped(scene, k, truth) for k in range(count))
    assert all(
        evaluate.lean_error(scene, k, truth) in (0.0,) or np.isnan(evaluate.lean_error(scene, k, truth))
        for k in range(count)
    )
    first, second = scene.members[:2]
    mixed = (first._replace(creature=second.creature), second._replace(creature=first.creature), *scene.members[2:])
    painted = (world.render_target(scene._replace(members=mixed)) * 255 + 0.5).astype(np.uint8)
    assert [evaluate.swapped(scene, k, painted) for k in range(count)] == [True, True] + [False] * (count - 2)
    leaning = max(range(count), key=lambda k: abs(scene.members[k].solid.roll))  # type: ignore[union-attr]
    member = scene.members[leaning]
    assert member.solid is not None
    other = dataclasses.replace(member.solid, roll=-member.solid.roll)
    turned = scene._replace(
        members=tuple(member._replace(solid=other) if k == leaning else m for k, m in enumerate(scene.members))
    )
    picture = (world.render_target(turned) * 255 + 0.5).astype(np.uint8)
    assert evaluate.lean_error(scene, leaning, picture) == pytest.approx(2 * abs(member.solid.roll), abs=3)


def test_insertion_leaves_the_latents_outside_as_they_are(folder: Path, vae: Taesd) -> None:
    network = shaken(TransformerTask(config(), routed(folder))).network
    each = [sigma_figures.insertion(vae, world.scene(0, "test", i, "complex")) for i in range(2)]
    tokens = sigma_figures.insert_all(network, vae, each)
    for made, one in zip(tokens, each, strict=True):
        kept = one.keep > 0
        assert torch.equal(made[kept], one.picture[kept])
        assert (made[~kept] - one.picture[~kept]).abs().mean() > 0.1
        assert 0 < len(one.inserted) < len(one.scene.members)


def test_the_figures_of_a_run_are_written_between_their_marks(folder: Path, tmp_path: Path) -> None:
    made = config(output=str(tmp_path / "run"), steps=1, data={"path": str(folder)})
    assert train(made) == 1
    few = [part for name in sigma_figures.Amounts._fields for part in (f"--{name}", "1")]
    paths = ["--evidence", str(tmp_path / "e.md"), "--picture", str(tmp_path / "p.png")]
    (tmp_path / "e.md").write_text("# Evidence\n\nbefore\n")
    assert sigma_figures.main([f"ours={tmp_path / 'run'}", *few, *paths]) == 0
    text = (tmp_path / "e.md").read_text()
    assert (
        "before" in text
        and text.count("| ours |") == len(KINDS) + len(sigma_figures.NUMBERS) + 1
        and (tmp_path / "p.png").is_file()
    )
    assert "| 0 |" in text  # no latent outside changed
    assert sigma_figures.main([str(tmp_path), *few, *paths]) == 2


# ---- folders like SIGMA-SET ----------------------------------------------------------------------


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    scenes = [world.scene(0, "train", i, "solid") for i in range(3)]
    assert sigma_set.write_world(tmp_path / "set", scenes) == 3
    return tmp_path / "set"


def test_a_folder_comes_back_as_it_was_drawn(miniature: Path) -> None:
    items = sigma_set.read_set(miniature)
    for i, item in enumerate(items):
        scene = world.scene(0, "train", i, "solid")
        assert [s.name for s in item.subjects] == [m.creature.name for m in scene.members]
        for kind in KINDS:
            own = sigma_set.item_regions(item, kind, (128, 128), np.random.default_rng(0), EXACT)
            wanted = regions(scene, kind, EXACT)
            assert np.array_equal(own.masks, wanted.masks)
            shown = wanted.masks.any(0)
            assert (own.depth is None) == (wanted.depth is None)
            if own.depth is not None and wanted.depth is not None:
                assert np.array_equal(np.where(shown, own.depth, 0), np.where(shown, wanted.depth, 0))
        for k, subject in enumerate(item.subjects):
            assert np.array_equal(sigma_set.identity(subject, 1, "").mask, world.render(scene).masks[k])


def test_a_folder_trains(miniature: Path, tmp_path: Path) -> None:
    small = ["model.kind=tiny", "model.weights=shipped", "model.checkpointing=false", "precision=fp32", "steps=2"]
    small += ["data.size=128", "routing.cell=64", "lora.rank=4", "lora.alpha=4", "flow.guidance=null", "batch=2"]
    paths = [f"data.path={miniature}", f"output={tmp_path}/run", "data.curriculum={1-: 1}"]
    made = load(Path(__file__).parents[2] / "configs" / "kontext_sigma_gen.yaml", [*small, *paths])
    assert train(made) == 2
    assert load_adapter(tmp_path / "run" / "adapter.safetensors").rank == 4
    prompts = {sigma_set.prompt(sigma_set.read_set(miniature)[0], np.random.default_rng(s)) for s in range(8)}
    assert len(prompts) == 2 and all(p.startswith("Place these subjects ") for p in prompts)


def _changed(folder: Path, **fields: Any) -> None:
    lines = [json.loads(line) for line in (folder / sigma_set.ITEMS).read_text().splitlines()]
    for name, value in fields.items():
        target = lines[1] if name in lines[1] else lines[1]["subjects"][0]
        target.pop(name) if value is None else target.update({name: value})
    (folder / sigma_set.ITEMS).write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"box": [1, 2, 3]}, "line 2, subject 1 has box = a list of 3; give a list of 4 numbers"),
        ({"box": [9, 9, 4, 12]}, "give left, top, right, bottom of an area"),
        ({"box": [0, 0, float("nan"), 4]}, "line 2"),
        ({"identity": "../items.jsonl"}, "which leaves the folder"),
        ({"identity": "identities/none.png"}, "which is no file; unpack the set whole"),
        ({"identity": 7}, "give the path of a picture below the folder"),
        ({"mask": None}, "has depth without mask"),
        ({"box3d": {"center": [0, 0, 3], "size": [1, 0, 1]}}, "three lengths above 0"),
        ({"box3d": 3}, "give an object with center and size"),
        ({"subjects": []}, "give a list of 1 to 25"),
        ({"focal": 0}, "give a number above 0, in widths of the picture"),
        ({"caption": ""}, "give a text of 1 to 4000 characters"),
    ],
)
def test_a_wrong_line_is_named(miniature: Path, fields: dict[str, Any], sentence: str) -> None:
    _changed(miniature, **fields)
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        sigma_set.read_set(miniature)


def test_wrong_pictures_and_folders_are_named(miniature: Path, tmp_path: Path) -> None:
    item = sigma_set.read_set(miniature)[0]
    subject = item.subjects[0]
    assert isinstance(subject.mask, Path)
    rng = np.random.default_rng(0)
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(subject.mask)
    with pytest.raises(InputError, match="is 128 x 64, the picture 128 x 128; give one of the same size"):
        sigma_set.item_regions(item, "mask", (128, 128), rng, EXACT)
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(subject.mask)
    with pytest.raises(InputError, match="line 1 has a mask that selects nothing"):
        sigma_set.item_regions(item, "mask", (128, 128), rng, EXACT)
    subject.mask.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"line 1: the picture .* cannot be read \(no picture of a known format\)"):
        sigma_set.item_regions(item, "silhouette", (128, 128), rng, EXACT)
    with pytest.raises(InputError, match="There is no items.jsonl"):
        sigma_set.read_set(tmp_path)
    (tmp_path / "items.jsonl").write_text("\n")
    with pytest.raises(InputError, match="has no items"):
        sigma_set.read_set(tmp_path)
    (tmp_path / "items.jsonl").write_text("{")
    with pytest.raises(InputError, match="line 1"):
        sigma_set.read_set(tmp_path)
