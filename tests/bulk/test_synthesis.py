"""Synthesised sets: the same bytes however the run went, what is dropped is said, and training reads what comes out."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contextgen_core.bulk.backend import HostError, Made
from contextgen_core.bulk.records import DONE, JOURNAL, Outcome
from contextgen_core.bulk.synthesis import hosts, models, small_world
from contextgen_core.bulk.synthesis.draft import (
    BASIC,
    COMPLEX,
    CONTEXTGEN,
    FLEXIBLE,
    FOLDERS,
    KINDS,
    SIGMA,
    Cutting,
    Draft,
    Found,
    Limits,
    Settings,
    Story,
)
from contextgen_core.bulk.synthesis.plan import plan_boxes
from contextgen_core.bulk.synthesis.steps import STEPS, solid_of
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout
from contextgen_core.training import imig, sigma_set, stream
from contextgen_core.training.small_world import world

ROOT = Path(__file__).resolve().parents[2]
SMALL = {role: models.Model(role) for role in models.ROLES}
PLAIN = Settings()


def made(kind: str, number: int = 0, settings: Settings = PLAIN, **other: Any) -> Draft:
    """A sample through all steps, some models replaced."""
    draft = Draft(Outcome(number, f"{kind}/{number}", "key", DONE), kind, number, settings)
    for role, step in STEPS:
        if draft.lives:
            model = other.get(role) or SMALL[role].open()
            draft = step(draft, model, *((True,) if role == "segmenter" else ()))
    return draft


def packed(draft: Draft) -> stream.PackedSample:
    class Held:
        def __init__(self, content: bytes) -> None:
            self.content, self.name = content, "held"

        def open(self, mode: str = "rb") -> io.BytesIO:
            return io.BytesIO(self.content)

    assert draft.files is not None
    files: Any = {name: Held(content) for name, content in draft.files.items()}
    return stream.PackedSample(json.loads(draft.files["json"]), files, "here")


# ---- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTEXTGEN)
def test_a_sample_of_a_tier_shows_what_its_record_says(kind: str) -> None:
    draft = made(kind, 1)
    assert draft.lives and draft.story is not None
    item = imig.packed_item(packed(draft))
    target, unwanted = imig.read_picture(item.target), imig.read_picture(item.unwanted or item.target)
    assert target.shape == unwanted.shape == (128, 128, 3) and not np.array_equal(target, unwanted)
    empty = world.background(*(small_world.scenery_of(draft.story.place) or (0, 0)))
    for subject in item.subjects:
        creature = small_world.creature_of(subject.phrase)
        own = subject.repaint or subject.reference
        pixels = imig.read_picture(own)
        mask = imig.read_mask(subject.repaint_mask or subject.mask, pixels.shape[:2])
        assert small_world.recognised(Cutting(pixels, mask)) == creature
        x1, y1, x2, y2 = (int(v) for v in (subject.box.x1, subject.box.y1, subject.box.x2, subject.box.y2))
        assert np.abs(target[y1:y2, x1:x2] / 255 - empty[y1:y2, x1:x2]).max() > 0.2  # it stands there
        assert not creature.held_out
        if kind == FLEXIBLE:
            assert subject.repaint is None and pixels.shape == (64, 64, 3)
        else:
            crop = imig.read_picture(subject.reference)
            assert np.array_equal(crop, target[y1:y2, x1:x2])


def test_a_sample_of_sigma_gen_has_all_kinds_of_regions() -> None:
    item = sigma_set.packed_item(packed(made(SIGMA, 2)))
    assert item.kinds == ("mask", "silhouette", "cuboid", "box", "ellipse")
    size = (128, 128)
    exact = sigma_set.RoutingConfig(dilation=0, jitter=0, drop=0)
    masks = sigma_set.item_regions(item, "mask", size, np.random.default_rng(0), exact)
    solids = sigma_set.item_regions(item, "cuboid", size, np.random.default_rng(0), exact)
    assert masks.depth is not None and masks.depth.max() == 255
    for subject, mask, solid in zip(item.subjects, masks.masks, solids.masks, strict=True):
        rows, cols = np.nonzero(mask)
        assert subject.box.x1 <= cols.min() and cols.max() < subject.box.x2 and subject.box.y1 <= rows.min()
        assert (mask & solid).sum() > 0.95 * mask.sum() and solid.sum() < 2.5 * mask.sum()
        identity = sigma_set.identity(subject, 1, "")
        cutting = Cutting(identity.pixels, identity.mask)
        assert small_world.recognised(cutting) == small_world.creature_of(subject.name)


def test_a_box_in_space_is_around_the_points() -> None:
    depth, mask = np.full((100, 200), np.inf, np.float32), np.zeros((100, 200), bool)
    mask[40:60, 120:160] = True
    depth[mask] = np.linspace(4, 6, mask.sum())
    solid = solid_of(depth, mask)
    assert solid.center[2] - solid.size[2] / 2 == pytest.approx(4.04, abs=0.01)
    assert solid.center[2] + solid.size[2] / 2 == pytest.approx(5.96, abs=0.01)
    assert (solid.center[0], solid.center[1]) == pytest.approx((1.0, 0.0), abs=1e-3)
    assert solid.size[:2] == pytest.approx((1.0, 0.5), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 4])
def test_plans_keep_to_their_tier(kind: str, count: int) -> None:
    for seed in range(8):
        boxes = plan_boxes(np.random.default_rng(seed), kind, count, 256)
        assert len(boxes) == count and all(b.x1 >= 0 and b.y1 >= 0 and b.x2 <= 256 and b.y2 <= 256 for b in boxes)
        crossing = [
            max(min(a.x2, b.x2) - max(a.x1, b.x1), 0) * max(min(a.y2, b.y2) - max(a.y1, b.y1), 0) / min(a.area, b.area)
            for i, a in enumerate(boxes) for b in boxes[:i]
        ]  # fmt: skip
        if kind == BASIC:
            assert max(crossing) == 0
        if kind == COMPLEX:
            assert 0.1 < max(crossing) <= 0.4
        if kind == FLEXIBLE:
            small, big = boxes[:2]
            assert big.x1 < small.x1 and big.y1 < small.y1 and small.x2 < big.x2 and small.y2 < big.y2
    with pytest.raises(InputError, match="30 subjects do not fit .* --subjects"):
        plan_boxes(np.random.default_rng(0), BASIC, 30, 256)


# ---- what is dropped -------------------------------------------------------------------------------


class Forgetful(small_world.SmallPainter):
    def paint(self, story: Story, layout: Layout, seed: int) -> np.ndarray:
        return super().paint(story, replace(layout, instances=layout.instances[1:]), seed)


class Confusing(small_world.SmallEditor):
    """Repaints another creature."""

    def repaint(self, cutting: Cutting, phrase: str, seed: int, side: int) -> np.ndarray:
        other = small_world.recognised(cutting)
        return small_world._reference(other._replace(shape=(other.shape + 1) % 5), seed)


class Blind(small_world.SmallSegmenter):
    def find(self, picture: np.ndarray, phrase: str, place: str, near: Box | None) -> Found | None:
        return None if not place else super().find(picture, phrase, place, near)


class Overlooking(small_world.SmallSegmenter):
    def __init__(self, phrase: str) -> None:
        self.phrase = phrase

    def find(self, picture: np.ndarray, phrase: str, place: str, near: Box | None) -> Found | None:
        return None if phrase == self.phrase else super().find(picture, phrase, place, near)


class Seeing(small_world.SmallSegmenter):
    """Takes the first thing that it sees for every subject."""

    def find(self, picture: np.ndarray, phrase: str, place: str, near: Box | None) -> Found | None:
        return Found(Box(16, 16, 80, 80), np.ones(picture.shape[:2], bool)) if place else None


class Doubling(small_world.SmallWriter):
    def story(self, seed: int, number: int, count: int) -> Story:
        story = super().story(seed, number, count)
        return replace(story, phrases=(story.phrases[0],) * count)


FOUR = Settings(subjects=(4, 4))


def filters(draft: Draft) -> list[tuple[str, int | None]]:
    return [(drop.filter, drop.subject) for drop in draft.drops]


def test_filters_say_what_they_drop_and_why() -> None:
    whole = made(BASIC, settings=FOUR)
    assert whole.lives and not whole.drops and len(whole.parts) == 4

    forgotten = made(BASIC, settings=FOUR, painter=Forgetful())
    assert forgotten.lives and filters(forgotten) == [("fill", 0)]  # some of the ground looks like it, not enough
    overlooked = made(BASIC, settings=FOUR, segmenter=Overlooking(whole.parts[0].phrase))
    assert overlooked.lives and filters(overlooked) == [("found", 0)]
    record = json.loads((forgotten.files or {})["json"])
    assert [e["phrase"] for e in record["reference_images"]] == [p.phrase for p in whole.parts[1:]]

    confused = made(BASIC, settings=FOUR, editor=Confusing())
    assert not confused.lives and filters(confused) == [*(("identity", k) for k in range(4)), ("subjects", None)]
    assert confused.drops[0].value == 0.75 and "alike by 0.750, at least 0.82" in confused.drops[0].why
    assert confused.ended().extra == {"subjects": 4, "drops": [
        {k: v for k, v in vars(drop).items() if v is not None} for drop in confused.drops]}  # fmt: skip

    assert filters(made(BASIC, settings=FOUR, segmenter=Blind()))[-1] == ("subjects", None)
    assert ("twin", 1) in filters(made(BASIC, settings=replace(FOUR, limits=Limits(iou=0)), segmenter=Seeing()))
    assert filters(made(BASIC, writer=Doubling())) == [("words", None)]
    strict = replace(FOUR, limits=Limits(fill=0.99))
    assert {name for name, _ in filters(made(BASIC, settings=strict))} == {"fill", "subjects"}


@pytest.mark.parametrize(
    ("texts", "says"),
    [(["fill"], "NAME=NUMBER"), (["fil=1"], "one of subjects, area"), (["fill=-1"], "NAME="), (["iou=nan"], "NAME=")],
)
def test_limits_are_numbers_by_name(texts: list[str], says: str) -> None:
    assert Limits.parse(["fill=0.6", "identity=0.9"]) == Limits(fill=0.6, identity=0.9)
    with pytest.raises(InputError, match=says):
        Limits.parse(texts)


# ---- faults of models ------------------------------------------------------------------------------


class Faulty:
    """A painter that fails as often as asked."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left = error, times

    def paint(self, *_: Any) -> np.ndarray:
        if self.left:
            self.left -= 1
            raise self.error
        return np.zeros((128, 128, 3), np.uint8)


def stage_of(monkeypatch: pytest.MonkeyPatch, opened: Any) -> Any:
    from contextgen_core.bulk.synthesis import run

    monkeypatch.setattr(run, "PAUSES", (0.0,))
    stage = run.Stage(1, SMALL["painter"], True, 1, 1)
    monkeypatch.setattr(models.Model, "open", lambda _: opened())
    return stage


def test_a_host_that_fails_costs_attempts_and_an_error_only_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(Outcome(0, "basic/0", "key", DONE), BASIC, 0, Settings())
    draft = STEPS[0][1](draft, small_world.SmallWriter())
    for error, times, status, says in (
        (HostError("it is busy."), 1, "done", None),
        (HostError("it is busy."), 9, "failed", "it is busy. (2 attempts)"),
        (InputError("no such words."), 9, "dropped", "paint: no such words."),
        (ZeroDivisionError("x"), 9, "failed", "unexpected ZeroDivisionError: 'x'"),
    ):
        painter = Faulty(error, times)
        outcome = stage_of(monkeypatch, lambda painter=painter: painter).one(draft).outcome
        assert (outcome.status, outcome.error) == (status, says)

    def broken() -> None:
        raise InputError("the folder has no model.")

    assert stage_of(monkeypatch, broken).one(draft).outcome.stop == "the folder has no model."


# ---- on Ray ----------------------------------------------------------------------------------------


def content(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*"))
            if p.is_file() and p.name != JOURNAL}  # fmt: skip


class Stopped(Exception):
    pass


def test_the_same_bytes_for_any_number_of_workers_and_after_a_kill(ray: Any, tmp_path: Path) -> None:
    from contextgen_core.bulk.run import Options
    from contextgen_core.bulk.synthesis.run import sample_path, synthesize

    settings = Settings(seed=5, limits=Limits(fill=0.62))
    calm, rough = tmp_path / "calm", tmp_path / "rough"

    def go(out: Path, workers: int, count: int = 5, told: Any = lambda _: None, with_: Settings = settings) -> Any:
        return synthesize([COMPLEX, SIGMA], count, out, SMALL, with_, Options(workers=workers), 2, told)

    (complex_, sigma) = go(calm, 1)
    assert complex_.kept + sum(complex_.dropped.values()) == complex_.planned == 5 and complex_.failed == 0
    assert complex_.subjects_dropped.keys() == {"fill"}
    drops = [json.loads(line) for line in (calm / FOLDERS[COMPLEX] / "dropped.jsonl").read_text().splitlines()]
    assert len([d for d in drops if "subject" in d]) == complex_.subjects_dropped["fill"]
    assert all(d["least"] == 0.62 > d["value"] for d in drops if d["filter"] == "fill")

    def kill(progress: Any) -> None:
        if progress.done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        go(rough, 2, told=kill)
    folder = rough / FOLDERS[COMPLEX]
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"number": 4, "row": "complex/4", "sta')
    (folder / ".shard-000001.tar").write_bytes(b"half")
    for number in range(5):  # what was not packed yet, and is lost
        sample_path(folder, number).unlink(missing_ok=True)
    go(rough, 2)
    assert content(rough) == content(calm)
    names = {p.name for p in folder.iterdir()}
    assert {"shard-000000.tar", "shard-000001.tar", "shard-000002.tar", "shards.json", "report.json"} <= names
    assert not (folder / ".work").exists()

    # nothing is made twice; a shard that was spoiled is
    seen: list[int] = []
    go(rough, 2, told=lambda p: seen.append(p.done))
    assert not seen
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-9])
    go(rough, 2, told=lambda p: seen.append(p.done))
    held = len(json.loads((folder / "shards.json").read_text())["shards"][1]["subjects"])  # less what was dropped
    assert seen == list(range(1, held + 1)) and content(rough) == content(calm)

    # more of the same goes on; other settings do not mix
    go(rough, 2, count=6)
    before, after = (stream.ShardFolder(out / FOLDERS[SIGMA], "sigma_set") for out in (calm, rough))
    assert (before.folder / "shard-000001.tar").read_bytes() == (after.folder / "shard-000001.tar").read_bytes()
    assert sum(map(len, after.subjects)) >= sum(map(len, before.subjects))
    with pytest.raises(InputError, match="other settings, models or shards; give another --out"):
        go(rough, 2, with_=replace(settings, seed=6))
    assert sigma.kept == sum(map(len, before.subjects))


def test_bad_arguments_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from contextgen_core.bulk.command import main

    api = str(ROOT / "workflows" / "api" / "tiny_demo.json")
    for arguments, says in (
        (["--count", "0"], "--count is 0"),
        (["--subjects", "4-2"], "--subjects is 4-2"),
        (["--subjects", "two"], "write one number, or two like 2-4"),
        (["--size", "100"], "multiple of 32"),
        (["--painter", "dall-e"], "no painter 'dall-e'; use small_world, comfy, diffusers"),
        (["--painter", "diffusers"], "is written diffusers=PATH"),
        (["--painter", "diffusers=/nowhere"], "is not there"),
        (["--painter", f"comfy={api}"], "give --comfy URL or --comfy-path DIR"),
        (["--segmenter", "grounded=/tmp"], "is written grounded=PATH,PATH"),
        (["--least", "beauty=1"], "--least has 'beauty=1'"),
    ):
        assert main(["synthesize", "basic", "--out", str(tmp_path / "out"), *arguments]) == 1
        said = capsys.readouterr().err.strip()
        assert says in said and "\n" not in said


# ---- real hosts ------------------------------------------------------------------------------------


class Desk:
    """In the place of a worker in ComfyUI: it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def make(self, task: Any, seeds: list[int]) -> list[Made]:
        files = {title: path.read_bytes() for title, path in task.work.files.items()}
        self.asked.append((task.work.prompt, task.subjects, seeds, files))
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (9, 9, 9)).save(buffer, "PNG")
        return [Made(buffer.getvalue(), seeds[0], 0.0)]

    def close(self) -> None:
        pass


def test_workflows_are_filled_with_words_layout_seed_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setattr(hosts.ComfyBackend, "open", lambda _: desk)
    api = ROOT / "workflows" / "api" / "tiny_two_subjects.json"
    hosting = models.Hosting(comfy=("http://127.0.0.1:1",))
    assert models.named("painter", f"comfy={api}", hosting).follows
    instances = (Instance("b1", Box(0, 0, 64, 64), None, "cat"), Instance("b2", Box(64, 64, 128, 128), None, "dog"))
    layout, story = Layout(128, 128, instances), Story("a cat and a dog at sea", "the sea", ("cat", "dog"))
    editor = hosts.ComfyEditor(api, api, hosting)
    subject = Cutting(np.full((32, 32, 3), 200, np.uint8), np.full((32, 32), 255, np.uint8))
    made = editor.unite([subject, subject], story, layout, 77)
    assert made.shape == (48, 64, 3)
    prompt, subjects, seeds, files = desk.asked[0]
    texts = [v for node in prompt.values() for v in node["inputs"].values()]
    assert story.prompt in texts and seeds == [77] and 77 in texts
    assert len(files) == 2 and all(content.startswith(b"\x89PNG") for content in files.values())
    assert [s.words for s in subjects] == ["cat", "dog"]
    assert editor.empty(np.zeros((96, 64, 3), np.uint8), story, 1).shape == (96, 64, 3)
    with pytest.raises(InputError, match="second workflow"):
        hosts.ComfyEditor(api, hosting).unite([subject], story, layout, 1)


def test_a_box_and_a_knife_make_a_segmenter() -> None:
    class Knife:
        def propose(self, picture: np.ndarray, *, box: Box) -> Any:
            class Proposed:
                masks = np.stack([np.zeros(picture.shape[:2], bool), np.ones(picture.shape[:2], bool)])

                def best(self) -> int:
                    return 1

            return Proposed()

    segmenter: Any = hosts.GroundedSegmenter.__new__(hosts.GroundedSegmenter)
    boxes = [Box(0, 0, 30, 30), Box(40, 40, 60, 60), Box(-9, -9, 0, 0)]
    segmenter.knife, segmenter.eye = Knife(), lambda picture, phrase, place: boxes
    picture = np.zeros((64, 64, 3), np.uint8)
    for near, wanted in ((None, boxes[0]), (Box(38, 38, 64, 64), boxes[1])):
        found = segmenter.find(picture, "cat", "the sea", near)
        assert found.box == wanted and found.mask.sum() == wanted.area
    segmenter.eye = lambda *_: []
    assert segmenter.find(picture, "cat", "", None) is None


def test_a_depth_estimator_of_transformers_gives_distances(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, patch_size=14, reassemble_factors=[1, 0.5],
        neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    depth = hosts.DepthEstimator(tmp_path, models.Hosting())
    picture = np.random.default_rng(0).integers(0, 255, (40, 56, 3)).astype(np.uint8)
    made = depth.measure(picture, [])
    assert made.shape == (40, 56) and made.dtype == np.float32
    assert np.array_equal(made, depth.measure(picture, []))
    known = made[np.isfinite(made)]
    assert not known.size or (known.min() >= 1 and known.max() <= 20.001)


def test_stories_come_from_a_table_or_from_a_model_that_answers_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"place": "the sea", "subjects": ["a cat", "a dog"], "prompt": "both at sea"}, {"place": "a hill"}]
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stories = hosts.StoryFile(tmp_path / "stories.jsonl", models.Hosting())
    assert stories.story(0, 2, 2) == Story("both at sea", "the sea", ("a cat", "a dog"))
    assert stories.story(0, 0, 1) == Story("a cat; the sea", "the sea", ("a cat",))
    with pytest.raises(InputError, match="story 2 is"):
        stories.story(0, 1, 2)
    with pytest.raises(InputError, match="has 2 subjects, 3 are asked for"):
        stories.story(0, 0, 3)

    writer: Any = hosts.LanguageWriter.__new__(hosts.LanguageWriter)
    answers = iter(["I would rather not.", f"Here: {json.dumps(rows[0])} !", "{", "{}", "[]"])
    monkeypatch.setattr(writer, "_said", lambda *_: next(answers), raising=False)
    assert writer.story(3, 0, 2).phrases == ("a cat", "a dog")
    with pytest.raises(InputError, match="no story in three attempts"):
        writer.story(3, 0, 2)


def test_changes_of_a_view_have_the_published_shares() -> None:
    words = [hosts.change_of(seed) for seed in range(1500)]
    shares = [np.mean([w in texts for w in words]) for _, texts in hosts._CHANGES]
    assert shares == pytest.approx([0.4, 0.1, 0.5], abs=0.05)
