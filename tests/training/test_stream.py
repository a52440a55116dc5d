"""Shards as training reads them: the same items as from folders, an order that a batch's number alone decides, and one
sentence for what is spoiled."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from contextgen_core.errors import InputError
from contextgen_core.training import imig, run, sigma_set, stages, stream
from contextgen_core.training.config import from_dict
from contextgen_core.training.small_world import world

TIERS = ("basic", "complex", "flexible")


def imig_shards(folder: Path, scenes: list[world.Scene], size: int) -> Path:
    """Scenes of the small world as shards, from the folder that `imig.write_world` makes of them."""
    plain = folder / "plain"
    imig.write_world(plain, scenes)
    kinds = {"target": "data/{}.png", "{}.reference": "instance_data/{}_{}.png",
             "{}.mask": "masked_instance_data/{}_{}_mask.png"}  # fmt: skip
    parts = []
    for record in json.loads((plain / imig.PROMPTS).read_text()):
        name, files = f"{record['index']:06d}", {"json": json.dumps(record).encode()}
        for kind, path in kinds.items():
            for k in range(len(record["reference_images"])) if "{}" in kind else (0,):
                files[f"{kind.format(k)}.png"] = (plain / path.format(name, k)).read_bytes()
        parts.append((len(record["reference_images"]), stream.entries(name, files)))
    return pack(folder / "imig-small", "imig", parts, size)


def sigma_shards(folder: Path, scenes: list[world.Scene], size: int) -> Path:
    plain = folder / "set"
    sigma_set.write_world(plain, scenes)
    parts = []
    for index, line in enumerate((plain / sigma_set.ITEMS).read_text().splitlines()):
        record, files = json.loads(line), {}
        places = [(record, "picture", "picture.png")] + [
            (s, name, "depth.png" if name == "depth" else f"{k}.{name}.png")
            for k, s in enumerate(record["subjects"]) for name in ("identity", "mask", "depth")
        ]  # fmt: skip
        for holder, name, new in places:
            files[new] = (plain / holder[name]).read_bytes()
            holder[name] = new
        content = {"json": json.dumps(record).encode(), **files}
        parts.append((len(record["subjects"]), stream.entries(f"{index:06d}", content)))
    return pack(folder / "sigma-small", "sigma_set", parts, size)


def pack(folder: Path, form: str, parts: list[tuple[int, bytes]], size: int) -> Path:
    folder.mkdir()
    listed = []
    for start in range(0, len(parts), size):
        few, name = parts[start : start + size], f"shard-{start // size:06d}.tar"
        (folder / name).write_bytes(b"".join(content for _, content in few) + stream.END)
        listed.append({"name": name, "bytes": (folder / name).stat().st_size, "subjects": [n for n, _ in few]})
    (folder / stream.INDEX).write_bytes(stream.index_of(form, listed))
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[world.Scene]:
    return [world.scene(0, "train", i, TIERS[i % 3]) for i in range(7)]


@pytest.fixture
def shards(tmp_path: Path, scenes: list[world.Scene]) -> Path:
    return imig_shards(tmp_path, scenes, 3)


def config(root: Path, **more: Any) -> Any:
    tree = {
        "stage": "sft", "output": str(root / "out"), "batch": 2, "steps": 4, "threads": 1, "lora": {"rank": 4},
        "model": {"layers": 1, "single_layers": 2}, "every": {"log": 1, "save": 0},
        "data": {"kind": "imig", "path": str(root), "folders": {"imig-small": 1}, "window": 2},
    }  # fmt: skip
    return from_dict(tree | more)


# ---- items -----------------------------------------------------------------------------------------


def test_items_of_shards_are_those_of_the_folder(shards: Path) -> None:
    plain, packed = imig.read_subset(shards.parent / "plain"), stream.ShardFolder(shards, "imig")
    assert [len(s) for s in packed.subjects] == [3, 3, 1]
    for number, item in enumerate(plain):
        other = imig.packed_item(packed.sample(*divmod(number, 3)))
        assert (item.prompt, [s.box for s in item.subjects]) == (other.prompt, [s.box for s in other.subjects])
        assert np.array_equal(imig.read_picture(item.target), imig.read_picture(other.target))
        for mine, theirs in zip(item.subjects, other.subjects, strict=True):
            assert np.array_equal(imig.read_picture(mine.reference), imig.read_picture(theirs.reference))
            assert np.array_equal(imig.read_mask(mine.mask, (64, 64)), imig.read_mask(theirs.mask, (64, 64)))


def test_items_of_the_other_form_too(tmp_path: Path, scenes: list[world.Scene]) -> None:
    packed = stream.ShardFolder(sigma_shards(tmp_path, scenes[:4], 2), "sigma_set")
    rng = np.random.default_rng
    for number, item in enumerate(sigma_set.read_set(tmp_path / "set")):
        other = sigma_set.packed_item(packed.sample(*divmod(number, 2)))
        assert (item.caption, item.kinds) == (other.caption, other.kinds)
        assert [s.cuboid for s in item.subjects] == [s.cuboid for s in other.subjects]
        mine, theirs = (sigma_set.item_regions(i, "mask", (128, 128), rng(0), config(tmp_path).routing)
                        for i in (item, other))  # fmt: skip
        assert np.array_equal(mine.masks, theirs.masks) and mine.depth is not None
        assert theirs.depth is not None and np.array_equal(mine.depth, theirs.depth)


def test_the_unwanted_picture_of_a_set_is_what_dpo_turns_away_from(tmp_path: Path, scenes: list[world.Scene]) -> None:
    plain = imig_shards(tmp_path, scenes[:1], 1)
    sample = stream.ShardFolder(plain, "imig").sample(0, 0)
    files = {name: file.open().read() for name, file in sample.files.items()}
    files["unwanted.png"] = files["target.png"]
    (tmp_path / "other").mkdir()
    pack(tmp_path / "other" / "imig-small", "imig", [(2, stream.entries("0", files))], 1)
    loses = []
    for root in (tmp_path, tmp_path / "other"):
        made = config(root, stage="dpo", dpo={"lose": "pasted"}, batch=1)
        batch = stages.open_data(made).draw(np.random.default_rng(0), made)
        loses.append(torch.equal(batch.lose, batch.target))
    assert loses == [False, True]


# ---- order -----------------------------------------------------------------------------------------


SHARDS = st.lists(st.lists(st.integers(1, 4), max_size=9), min_size=1, max_size=7).filter(any)


@settings(deadline=None, max_examples=60)
@given(SHARDS, st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_an_epoch_has_each_sample_at_most_once_and_few_are_left_out(
    subjects: list[list[int]], batch: int, window: int, alike: bool, epoch: int
) -> None:
    order = stream.Order([np.array(s, np.int64) for s in subjects], 5, batch, window, alike)
    made = order.epoch(epoch)
    assert made.shape == (order.batches(), batch, 2)
    numbers = [[subjects[s][k] for s, k in one] for one in made.tolist()]
    if alike:
        assert all(len(set(one)) == 1 for one in numbers)
    everything = [n for s in subjects for n in s]
    for kind in set(everything) if alike else {0}:
        there = sum(1 for n in everything if n == kind or not alike)
        read = [
            tuple(p) for one, n in zip(made.tolist(), numbers, strict=True) for p in one if n[0] == kind or not alike
        ]
        if there >= batch:
            assert len(set(read)) == len(read) > there - batch
        else:
            assert len(read) == batch and len(set(read)) == there


def test_epochs_differ_and_a_batch_mixes_the_shards_of_its_window() -> None:
    order = stream.Order([np.ones(20, np.int64)] * 6, 1, 8, window=2)
    first, second = order.epoch(0), order.epoch(1)
    assert not np.array_equal(first, second)
    assert all(len(set(one[:, 0].tolist())) <= 4 for one in first)  # two windows at most
    assert np.mean([len(set(one[:, 0].tolist())) for one in first]) > 1.5


def test_processes_read_different_samples_and_together_all(shards: Path) -> None:
    made = stream.Stream({shards: 1.0}, "imig", seed=3, batch=1, window=2)
    seen = [made.batch(number)[0].record["index"] for number in range(7)]
    assert sorted(seen) == list(range(7))
    assert seen != sorted(seen)


def test_shares_of_several_folders_come_out(tmp_path: Path, scenes: list[world.Scene]) -> None:
    roots = [tmp_path / name for name in "ab"]
    for root, few in zip(roots, (scenes[:2], scenes[2:5]), strict=True):
        root.mkdir()
        imig_shards(root, few, 2)
    made = stream.Stream({roots[0] / "imig-small": 1.0, roots[1] / "imig-small": 3.0}, "imig", 0, batch=1)
    turns = [made._turn(n, made.shares) for n in range(2000)]
    assert [sum(k == folder for k, _ in turns) for folder in (0, 1)] == [500, 1500]
    for folder in (0, 1):
        assert [place for k, place in turns if k == folder] == list(range((500, 1500)[folder]))


class Reading:
    """Which samples a training has read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int, int]] = []
        self.then = lambda: None
        inner = stream.ShardFolder.sample

        def sample(folder: stream.ShardFolder, shard: int, place: int) -> stream.PackedSample:
            self.seen.append((shard, place))
            self.then()
            return inner(folder, shard, place)

        monkeypatch.setattr(stream.ShardFolder, "sample", sample)


def test_a_training_that_was_stopped_in_a_shard_goes_on_in_the_same_order(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch)
    root = shards.parent
    stages.train(config(root, output=str(root / "whole")))
    whole, reading.seen = reading.seen, []
    assert len(whole) == 8 and len(set(whole[:6])) == 6  # an epoch is three batches of two

    def interrupt() -> None:
        if len(reading.seen) == 3:  # in the second batch: the step at hand is finished
            os.kill(os.getpid(), signal.SIGTERM)

    reading.then = interrupt
    assert stages.train(config(root, output=str(root / "parts"))) == 2
    reading.then = lambda: None
    assert stages.train(config(root, output=str(root / "parts"))) == 4
    assert reading.seen == whole
    one, other = (load_file(root / name / "adapter.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_batches_are_numbered_over_parts_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: dict[int, list[int]] = {}
    for process in (0, 1):
        torch.manual_seed(0)

        class Task:
            model: Any = torch.nn.Linear(1, 1)

            def inputs(self, seed: int, part: int, done: float = 0.0, number: int = 0, at: int = process) -> Any:
                numbers.setdefault(at, []).append(number)
                return (torch.zeros(1, 1),)

            def extra(self) -> dict[str, Any]:
                return {}

            def finish(self, output: Path | None) -> None: ...

        task = Task()
        inner = task.model.forward
        task.model.forward = lambda x, inner=inner: (inner(x).square().mean(), {})
        made = run.Run(config(tmp_path, output=str(tmp_path / str(process)), steps=2, accumulate=3), task)  # type: ignore[arg-type]
        monkeypatch.setattr(type(made.accelerator), "num_processes", 2)
        monkeypatch.setattr(type(made.accelerator), "process_index", process)
        for _ in range(2):
            made._one_step()
            made.step += 1
        monkeypatch.undo()
    assert numbers == {0: [0, 2, 4, 6, 8, 10], 1: [1, 3, 5, 7, 9, 11]}


# ---- what is spoiled -------------------------------------------------------------------------------


def shorten(folder: Path) -> None:
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-700])


def scramble(folder: Path, where: bytes, behind: int = 0) -> None:
    for path in sorted(folder.glob("*.tar")):
        content = bytearray(path.read_bytes())
        at = content.find(where) + behind
        content[at : at + 40] = b"\xff" * 40
        path.write_bytes(content)


def reindex(folder: Path, change: Any) -> None:
    value = json.loads((folder / stream.INDEX).read_text())
    change(value)
    (folder / stream.INDEX).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shorten, "shard-000001.tar of .* has .* bytes instead of .*; fetch or make it again"),
        (lambda f: (f / "shard-000002.tar").unlink(), "shard-000002.tar.* is not there"),
        (lambda f: (f / stream.INDEX).write_text("{"), "shards.json.* is not"),
        (lambda f: (f / stream.INDEX).write_text("[]"), "is no index of shards"),
        (lambda f: reindex(f, lambda v: v.update(form="sigma_set")), "are of the form 'sigma_set'; set data.kind"),
        (lambda f: reindex(f, lambda v: v["shards"][0].update(name="../x.tar")), "'../x.tar' of .* is not there"),
        (lambda f: reindex(f, lambda v: v["shards"][0]["subjects"].append(2)), "holds 3 samples, its index says 4"),
        (lambda f: scramble(f, b"ustar", -120), "is damaged"),
        (lambda f: scramble(f, b'"prompt"'), "sample .* is not|not JSON|is no"),
        (lambda f: scramble(f, b"IDAT", 8), r"at .*png of .*tar: the picture "),
    ],
    ids=["short", "gone", "index", "list", "form", "outside", "count", "header", "record", "picture"],
)
def test_a_spoiled_shard_is_one_sentence(shards: Path, spoil: Any, says: str) -> None:
    spoil(shards)
    made = config(shards.parent)
    with pytest.raises(InputError, match=says) as caught:
        data = stages.open_data(made)
        for number in range(4):
            data.draw(np.random.default_rng(0), made, number=number)
    assert str(caught.value).count("\n") == 0 and len(str(caught.value)) < 400


def test_folders_and_shards_do_not_mix(shards: Path) -> None:
    mixed = config(
        shards.parent, data={"kind": "imig", "path": str(shards.parent), "folders": {"plain": 1, "imig-small": 1}}
    )
    with pytest.raises(InputError, match="'.*plain' has no shards.json, other folders"):
        stages.open_data(mixed)


def test_a_curriculum_chooses_among_shards(tmp_path: Path, scenes: list[world.Scene]) -> None:
    folder = sigma_shards(tmp_path, scenes, 4)
    made = stream.Stream({folder: 1.0}, "sigma_set", 0, batch=2, alike=True)
    for number in range(12):
        few = [len(s.record["subjects"]) for s in made.batch(number, 3, 3)]
        assert few == [3, 3]
    with pytest.raises(InputError, match=r"No picture has 9 to inf subjects; correct data\.curriculum"):
        made.batch(0, 9)
