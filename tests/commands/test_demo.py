"""The demonstration makes what it promises, from the real photographs and from four drawn creatures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextgen_core import pictures as sheets
from contextgen_core.commands import demo
from contextgen_core.composite.compose import compose
from contextgen_core.layout.matching import iou_matrix
from contextgen_core.pictures import colour
from contextgen_core.tiny import model as tiny
from contextgen_core.training.small_world import world

ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_every_case_leaves_its_pictures_and_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STEPS", 1)
    assert demo.main(["--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    told = capsys.readouterr().out
    for case, entry in zip(demo.cases(), report["cases"], strict=True):
        assert entry["case"] == case.name and entry["host"] == "diffusers"
        assert f"{case.name} on diffusers" in told and demo.summary(entry) in told
        assert entry["tokens"] == sum(entry["tokens_per_part"].values()) > entry["kept_tokens"]
        assert entry["ours"]["step_flop"] < entry["dense"]["step_flop"]
        assert entry["seconds"]["sample"] > 0 and entry["weights"]
        for name in ("composite", "result", *(("cla_only", "wanted") if case.drawn else ())):
            assert read(tmp_path / f"{case.name}_{name}.png").shape == (case.layout.height, case.layout.width, 3)
        for name in ("token_grid", "visibility", *(("references", "boxes_found", "sheet") if case.drawn else ())):
            assert read(tmp_path / f"{case.name}_{name}.png").std() > 10


@pytest.mark.skipif(not tiny.trained(), reason="the small model has no weights yet")
def test_the_report_scores_every_creature_in_both_pictures_and_the_hidden_one_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "STEPS", 1)
    case = demo.creatures()
    assert case.drawn is not None
    parts = demo.run(case, tmp_path)["scores"]
    assert list(parts) == [demo.FULL, demo.CLA_ONLY]
    for method, name in ((demo.FULL, "result"), (demo.CLA_ONLY, "cla_only")):
        part = parts[method]
        assert part == demo.scores(case.drawn, read(tmp_path / f"creatures_{name}.png"))
        assert [one["name"] for one in part["creatures"]] == [r.name for r in case.references]
        assert [part[who]["count"] for who in ("all", "visible", "hidden")] == [4, 3, 1]
    full, cla, wanted = (read(tmp_path / f"creatures_{name}.png") for name in ("result", "cla_only", "wanted"))
    assert (full != cla).any()
    assert (wanted == world.render(case.drawn).target).all()


def test_scores_are_full_marks_for_the_wanted_picture_and_none_for_an_empty_one() -> None:
    scene = demo.four_creatures()
    part = demo.scores(scene, world.render(scene).target)
    for who, count in (("all", 4), ("visible", 3), ("hidden", 1)):
        assert all(part[who][key] == count for key in ("count", "exact", "random", *demo.LOOKS))
        assert part[who]["mean_box_iou"] > 0.85
    empty = (world.background(scene.place, scene.light) * 255).astype(np.uint8)
    assert demo.scores(scene, empty)["all"]["exact"] == 0
    assert demo.scores(scene, empty)["visible"]["mean_box_iou"] == 0
    # Without the hidden one alone, only its own scores fall.
    without = (world.render_target(scene, skip=(0,)) * 255).astype(np.uint8)
    part = demo.scores(scene, without)
    assert part["hidden"]["mean_box_iou"] == 0 and part["hidden"]["exact"] == 0
    assert part["visible"]["exact"] == 3 and part["visible"]["mean_box_iou"] > 0.85


def test_the_summary_says_what_is_right() -> None:
    scene = demo.four_creatures()
    right = demo.scores(scene, world.render(scene).target)
    wrong = demo.scores(scene, (world.render_target(scene, skip=(0,)) * 255).astype(np.uint8))
    entry = {"case": "creatures", "host": "here", "seconds": {"sample": 1.25}, "kept_tokens": 3, "tokens": 4}
    entry |= {"weights": "trained", "note": "a note", "scores": {demo.FULL: right, demo.CLA_ONLY: wrong}}
    lines = demo.summary(entry).splitlines()
    assert lines[0] == "creatures on here: 1.2 s, 3 of 4 tokens computed, weights trained"
    assert "16 of 16 looks right (4 of 4 of the hidden creature's)" in lines[-2]
    hidden = lines.index(f"  {scene.members[0].creature.name} (hidden)")
    assert "shape yes, pattern yes, first colour yes, second colour yes" in lines[hidden + 1]
    assert lines[hidden + 2].endswith("not there") and "(0 of 4 of the hidden creature's)" in lines[-1]


def test_the_photographs_overlap_and_stay_inside() -> None:
    case = demo.photographs()
    assert [reference.name for reference in case.references] == ["astronaut", "shuttle", "cat", "cup"]
    boxes = [instance.box for instance in case.layout.instances]
    assert (np.triu(iou_matrix(boxes, boxes), 1) > 0).any()
    assert all(0 <= b.x1 < b.x2 <= case.layout.width and 0 <= b.y1 < b.y2 <= case.layout.height for b in boxes)
    assert all(0.2 < (reference.mask >= 128).mean() < 0.95 for reference in case.references)


def test_the_creatures_are_four_and_none_was_trained_on() -> None:
    case = demo.creatures()
    assert case.drawn is not None and all(m.creature.held_out for m in case.drawn.members)
    assert len(case.references) == len(case.layout.instances) == 4
    assert len({reference.name for reference in case.references}) == 4


def test_one_creature_is_hidden_in_the_composite_and_in_sight_in_the_wanted_picture() -> None:
    case = demo.creatures()
    assert case.drawn is not None
    members = case.drawn.members
    (hidden,) = (k for k, member in enumerate(members) if member.hidden)
    scene = compose(case.layout, case.references)
    assert scene.visible[hidden] == 0
    assert min(share for k, share in enumerate(scene.visible) if k != hidden) > 0.5
    others = tuple(r for k, r in enumerate(case.references) if k != hidden)
    layout = demo.Layout(128, 128, tuple(i for k, i in enumerate(case.layout.instances) if k != hidden))
    assert (compose(layout, others).composite == scene.composite).all()
    without = world.render_target(case.drawn, skip=(hidden,))
    x1, y1, x2, y2 = members[hidden].box
    assert (np.abs(world.render_target(case.drawn) - without).max(-1) > 0.1)[y1:y2, x1:x2].mean() > 0.3
    # Beside the pair that hides, at least one more overlaps.
    pairs = [(a, b) for b in range(4) for a in range(b) if hidden not in (a, b)]
    assert any(world.overlap(members[a].box, members[b].box) > 0 for a, b in pairs)


def test_boxes_are_drawn_where_they_are_asked_and_where_they_are_found() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    drawn = sheets.draw_boxes(grey, [(8, 8, 40, 40), (20, 20, 60, 60)], [(10, 10, 38, 42), None], times=2)
    assert drawn.shape[1] == 128 and drawn.shape[0] > 128
    first, second = colour(0), colour(1)
    full = (drawn[30:80, 20] == first).all(-1)  # left edge of the box found
    dashed = (drawn[20:76, 16] == first).all(-1)
    assert full.all() and 0.3 < dashed.mean() < 0.9
    lines = (drawn[42:118, 40] == second).all(-1)
    assert 0.3 < lines.mean() < 0.9  # asked for, but not found
    assert (drawn[120:127, 120:127] == 128).all()


def test_the_sheet_shows_the_pictures_as_they_are() -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(3)]
    sheet = sheets.captioned([(str(n), picture) for n, picture in enumerate(pictures)], times=2)
    left = 2 * (32 + sheets.GAP)
    assert (sheet[-32:, left:] == pictures[2].repeat(2, 0).repeat(2, 1)).all()
    square = sheets.square_of(pictures)
    assert (square[16:, :16] == pictures[2]).all() and (square[16:, 16:] == 255).all()


def test_the_workflow_is_the_demonstration_s_scene() -> None:
    """workflows/api/tiny_demo.json says the same as the case: layout, words, references, noise, steps, adapter."""
    case = demo.creatures()
    prompt = json.loads((ROOT / "workflows" / "api" / "tiny_demo.json").read_text(encoding="utf-8"))

    def of(kind: str) -> list[dict]:
        return [node["inputs"] for node in prompt.values() if node["class_type"] == kind]

    (layout,), (text,) = of("LayoutComposer"), of("ContextGenTextEncode")
    assert json.loads(layout["layout"]) == json.loads(case.layout.to_json())
    assert (layout["width"], layout["height"]) == (case.layout.width, case.layout.height)
    assert text["prompt"] == case.prompt and "instruction" not in text
    for sampler in of("KSampler"):
        assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (demo.SEED, demo.STEPS, 1.0)
        assert (sampler["sampler_name"], sampler["scheduler"], sampler["denoise"]) == ("euler", "simple", 1.0)
    bundles = {bundle["name"]: bundle for bundle in of("ReferenceBundle")}
    assert [prompt[b["image"][0]]["inputs"]["image"] for b in (bundles[r.name] for r in case.references)] == [
        demo.sample_picture(n).name for n in range(1, 5)
    ]
    assert all(bundle["size"] == tiny.REFERENCE_TOKENS for bundle in bundles.values())
    assert sorted(patch["rule"] for patch in of("ContextGenPatchModel")) == ["cla", "official"]
    if case.adapter:
        assert [loader["adapter"] for loader in of("ContextGenDPOLoRALoader")] == [
            f"ContextGen small model: {case.adapter}"
        ]


def test_the_sample_pictures_are_the_references() -> None:
    """assets/samples/contextgen_creature_*.png: cut-outs with alpha, as `--update` writes them."""
    scene = demo.four_creatures()
    picture = world.render(scene)
    for number in range(4):
        sample = read(demo.sample_picture(number + 1))
        assert (sample[..., :3] == picture.references[number]).all()
        assert (sample[..., 3] == picture.masks[number]).all()


@pytest.mark.skipif(not tiny.trained(), reason="the small model has no weights yet")
def test_update_writes_the_pictures_that_the_repository_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("docs/images", "workflows", "assets"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copytree(demo.SAMPLES, tmp_path / "assets" / "samples")
    for name in ("ROOT", "SAMPLES", "SHEET", "THUMBNAIL"):
        monkeypatch.setattr(demo, name, tmp_path / getattr(demo, name).relative_to(ROOT))
    monkeypatch.setattr(demo, "STEPS", 1)
    before = [demo.sample_picture(n).read_bytes() for n in range(1, 5)]
    demo.sample_picture(2).unlink()
    assert demo.main(["--update"]) == 0
    assert [demo.sample_picture(n).read_bytes() for n in range(1, 5)] == before
    assert "docs/images/tiny_demo.png" in capsys.readouterr().out.replace("\\", "/")
    sheet, thumbnail = read(demo.SHEET), read(demo.THUMBNAIL)
    composite = compose(demo.creatures().layout, demo.creatures().references).composite
    assert (sheet[-256:, :256] == sheets.enlarged(composite, 2)).all()
    assert thumbnail.shape == (512, 512, 3)


def test_the_repository_s_pictures_are_small() -> None:
    assert demo.SHEET.stat().st_size < 200_000 and demo.THUMBNAIL.stat().st_size < 100_000
    assert read(demo.SHEET).shape == (280, 1304, 3)
