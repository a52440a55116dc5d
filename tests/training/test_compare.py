"""The bench of methods: all train on the same terms, and what is judged is what is claimed."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contextgen_core.errors import InputError
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training import compare, stages
from contextgen_core.training.config import from_dict
from contextgen_core.training.latents import encode_scenes, training_scenes
from contextgen_core.training.recipes import RECIPES, base_network, recipe_of
from contextgen_core.training.small_world import evaluate, world
from contextgen_core.training.tasks import build_transformer

FEW = compare.Counts(1, 1, 1, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    torch.manual_seed(0)
    vae = Taesd(NARROW)
    for name, tiers in (("128", {"flexible": 1, "complex": 1, "words": 1}), ("192", {"dense": 1})):
        keys, scenes = zip(*training_scenes(0, tiers, 0, 6), strict=True)
        encode_scenes(vae, scenes, [world.render(s) for s in scenes], keys=keys).save(folder / name)
        stages.train(
            from_dict({"stage": "controls", "output": "x", "data": {"path": str(folder / name)}, "threads": 1})
        )
    return folder


def arguments(data: Path, folder: Path, *more: str) -> list[str]:
    fixed = ["--data", str(data), "--folders", "128=0.5", "192=0.5", "--seeds", "1", "--steps", "2", "--batch", "2"]
    counts = [part for kind, count in FEW._asdict().items() for part in (f"--{kind}", str(count))]
    paths = ["--output", str(folder), "--evidence", str(folder / "e.md"), "--picture", str(folder / "m.png")]
    return [*fixed, *counts, "--jobs", "1", *paths, *more]


def test_the_command_trains_judges_and_writes_and_takes_up_what_is_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "STEPS", 2)
    (tmp_path / "e.md").write_text(f"# Evidence\n\nbefore\n\n{compare.MARKS[0]}\nstale\n{compare.MARKS[1]}\n\nafter\n")
    chosen = ["contextgen", "instance_assemble", "instance_assemble/ratio_30"]
    command = arguments(data, tmp_path, "--methods", *chosen)
    assert compare.main(command) == 0
    text = (tmp_path / "e.md").read_text()
    assert "before" in text and "after" in text and "stale" not in text
    titles = ["ContextGen", "InstanceAssemble", "InstanceAssemble, boxes in the first 0.3 of the steps"]
    assert all(text.count(f"| {title} |") >= 2 for title in [*titles, *compare.CONTROLS.values()])
    assert "](m.png)" in text and (tmp_path / "m.png").is_file()
    paths = {name: tmp_path / f"{name.replace('/', '_')}_0" / "outcome.json" for name in chosen}
    for name, path in paths.items():
        outcome = compare.Outcome.load(path)
        assert (
            outcome.samples == (0 if "/" in name else 4)
            and outcome.parameters > 1e5
            and outcome.tokens > 64
            and outcome.flops > 1e8
        )
    before = {name: path.stat().st_mtime_ns for name, path in paths.items()}
    assert compare.main(command) == 0
    assert before == {name: path.stat().st_mtime_ns for name, path in paths.items()}


def test_the_shipped_adapters_are_judged_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setattr(compare, "STEPS", 2)
    assert compare.main(arguments(data, tmp_path, "--shipped", "--data", "", "--methods", "contextgen")) == 0
    text = (tmp_path / "e.md").read_text()
    assert compare.SHIPPED_MARKS[0] in text and compare.MARKS[0] not in text
    assert text.count("| ContextGen |") == 3
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_budget_of_time_becomes_steps_once(data: Path, tmp_path: Path) -> None:
    tree: dict[str, Any] = {
        "steps": 2,
        "batch": 2,
        "model": {"weights": "shipped"},
        "data": {"path": str(data / "128")},
    }
    config = compare.config_of("contextgen", 0, tree, tmp_path)
    task_data = compare.open_data(config)
    steps = compare._steps_in(config, task_data, 5.0)
    assert steps >= 1 and compare._steps_in(config, task_data, 500.0) == steps


def test_the_truth_is_perfect_and_an_empty_scene_is_nothing() -> None:
    made, empty = {}, {}
    for name, scenes in FEW.sets().items():
        test = compare.TestScenes(scenes, [world.render(s) for s in scenes], None)  # type: ignore[arg-type]
        made[name] = test, np.stack([p.target for p in test.rendered])
        bare = [(world.background(s.place, s.light, s.size) * 255 + 0.5).astype(np.uint8) for s in scenes]
        empty[name] = test, np.stack(bare)
    good, bad = compare._outcome(made, 1, 1.0, 1.0), compare._outcome(empty, 1, 1.0, 1.0)
    for kind in ("plain", "dense"):
        assert all(j.exact for j in getattr(good, kind)) and not any(j.exact for j in getattr(bad, kind))
    assert good.scenery == bad.scenery == 1.0
    for found in ("found", "found_plain"):
        assert all(math.isnan(v) or v >= 0.85 for v in getattr(good, found))
        assert all(math.isnan(v) or v == 0 for v in getattr(bad, found))
    assert good.leaked and all(leak.neighbour == leak.other == 0 for leak in good.leaked)
    assert good.told and all(j.exact for j in good.told) and not any(any(j.nearer) for j in bad.told)


def test_another_place_or_light_is_told() -> None:
    scene = world.scene(0, "test", 0, "complex")
    for place in range(4):
        for light in range(4):
            picture = (world.render_target(scene._replace(place=place, light=light)) * 255).astype(np.uint8)
            assert evaluate.scenery(scene, picture) == (place, light)


def test_a_neighbours_colour_counts_as_taken_over_and_the_truth_as_nothing() -> None:
    found, clean = [], []
    for scene in (s for i in range(40) if len((s := world.scene(0, "test", i, "basic")).members) == 2):
        first, second = scene.members
        dyed = first.creature._replace(first=second.creature.first)
        if dyed in (first.creature, second.creature) or dyed.first == dyed.second:
            continue
        pictures = [
            (world.render_target(scene._replace(members=(first._replace(creature=c), second))) * 255).astype(np.uint8)
            for c in (dyed, first.creature)
        ]
        found.append(evaluate.leaks(scene, pictures[0])[0])
        clean += evaluate.leaks(scene, pictures[1])
    theirs, others = (np.mean([getattr(leak, side) for leak in found]) for side in ("neighbour", "other"))
    assert len(found) > 5 and theirs > others + 0.1 and all(leak.neighbour > 0 for leak in found)
    assert not any(leak.neighbour or leak.other for leak in clean)


def test_outcomes_survive_the_disk(tmp_path: Path) -> None:
    judgement = evaluate.Judgement(1, 2, True, (True, False, True, True, True), 12.5, float("nan"))
    told = evaluate.Somewhere(0, 1, (True,) * 5)
    leak = evaluate.Leak(0, 1, 0.5, 0.25)
    outcome = compare.Outcome(
        [judgement], [], [0.5, float("nan")], [0.7], [leak], [told], 0.5, 100, 1e9, 0.2, 3.0, 64, 10
    )
    outcome.save(tmp_path / "o.json")
    again = compare.Outcome.load(tmp_path / "o.json")
    assert repr(again) == repr(outcome) and again.told[0].exact and not again.plain[0].exact


def test_adapters_in_files_are_judged_by_name(tmp_path: Path) -> None:
    def given(*adapters: str, shipped: bool = False, methods: list[str] | None = None) -> dict[str, Path]:
        return compare._given(argparse.Namespace(adapters=list(adapters), shipped=shipped, methods=methods))

    assert given("eligen=a=b.safetensors") == {"eligen": Path("a=b.safetensors")}
    assert given(shipped=True)["contextgen"].is_file() and given() == {}
    for wrong in ("odd=a", "eligen"):
        with pytest.raises(InputError, match="write each as NAME=FILE"):
            given(wrong)
    with pytest.raises(InputError, match="no adapter of EliGen at"):
        compare.given_config("eligen", tmp_path / "none", {}, tmp_path)


def test_a_kind_without_scenes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*arguments(tmp_path, tmp_path), "--dense", "0"]) == 2
    assert capsys.readouterr().err == "--dense is 0; judge at least 1 held-out scene of each kind.\n"


def test_a_method_nobody_registered_is_named() -> None:
    config = from_dict({"stage": "sft", "output": "x", "method": {"name": "odd"}})
    with pytest.raises(InputError, match="method.name is 'odd'"):
        recipe_of(config)
    with pytest.raises(InputError, match="--folders is 'odd'"):
        compare._shared(argparse.Namespace(data="x", shipped=False, adapters=[], folders=["odd"]))
    with pytest.raises(InputError, match="--data is missing"):
        compare._shared(argparse.Namespace(data="", shipped=False, adapters=[], folders=[]))


def test_contextgen_starts_as_the_base_itself(data: Path, tmp_path: Path) -> None:
    """An untrained adapter changes nothing."""
    shared = {"steps": 1, "batch": 2, "model": {"weights": "shipped"}, "data": {"path": str(data / "128")}}
    config, recipe = compare.config_of("contextgen", 0, shared, tmp_path), RECIPES["contextgen"]
    loaded = compare.open_data(config)
    indices = recipe.reader(config).buckets(loaded.sets[0])[-1][:1]
    batch = recipe.reader(config).collate(loaded.sets[0], indices, True)
    noisy, times = torch.randn(batch.target.shape), torch.ones(1)
    with torch.no_grad():
        plain, adapted = (make(build_transformer(config), config) for make in (base_network, recipe.network))
        assert torch.allclose(plain(batch, noisy, times), adapted(batch, noisy, times), atol=1e-6)
