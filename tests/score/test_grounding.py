"""The Layout Grounding Score: what counts, both readings of it, the data set's records, and a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextgen_core.commands import layout_score
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.score import grounding
from contextgen_core.score.grounding import Asked, Grounded, Record, ResultsLog, figures, ground, read_records, table
from contextgen_core.training.small_world import eyes, world

PICTURE = np.zeros((100, 200, 3), np.uint8)


def record(*instances: Asked) -> Record:
    return Record("a", "a room", 400, 200, instances)


class Eyes:
    """Finds given boxes by category, and says one thing of everything that it sees."""

    def __init__(self, boxes: dict[str, list[Box]], says: str = "Yes.") -> None:
        self.boxes, self.says = boxes, says
        self.asked: list[tuple[tuple[int, ...], str]] = []
        self.looked: list[str] = []

    def detect(self, picture: np.ndarray, category: str, prompt: str) -> Sequence[Box]:
        self.looked.append(category)
        return self.boxes.get(category, [])

    def judge(self, crop: np.ndarray, category: str, description: str, attribute: str) -> str:
        self.asked.append((crop.shape, attribute))
        return self.says if attribute != "texture" else "no, not at all"


def test_an_instance_counts_by_its_best_detection_and_its_attributes_by_its_iou() -> None:
    # The picture is half the record's canvas: boxes are scaled to it.
    cat = Asked(Box(0, 0, 200, 200), "cat", "grey cat")
    seen = Eyes({"cat": [Box(50, 0, 150, 100), Box(0, 0, 80, 100)]})
    (one,) = ground(PICTURE, record(cat), seen.detect, seen.judge)
    assert one.iou == pytest.approx(0.8) and one.attributes == (True, False, True)
    assert seen.asked == [((100, 80, 3), name) for name in ("colour", "texture", "shape")]  # the detected box's crop
    value = figures([[one]])
    assert (value.spatial, value.colour, value.texture, value.shape) == pytest.approx((0.8, 0.8, 0.0, 0.8))


def test_what_is_not_located_counts_as_0_and_is_not_judged() -> None:
    seen = Eyes({"cat": [Box(0, 0, 49, 100)]})
    (one,) = ground(PICTURE, record(Asked(Box(0, 0, 200, 200), "cat", "grey cat")), seen.detect, seen.judge)
    assert one.iou == pytest.approx(0.49) and one.attributes == (False,) * 3 and not seen.asked
    assert figures([[one]]).spatial == 0
    seen = Eyes({"cat": [Box(0, 0, 50, 100)]})
    (one,) = ground(PICTURE, record(Asked(Box(0, 0, 200, 200), "cat", "grey cat")), seen.detect, seen.judge)
    assert one.located and figures([[one]]).colour == 0.5
    (none,) = ground(PICTURE, record(Asked(Box(0, 0, 9, 9), "dog", "dog")), seen.detect, seen.judge)
    assert none == Grounded(0.0, None)


def test_boxes_without_a_description_are_in_the_published_denominator_alone() -> None:
    good, plain = Grounded(0.9, (True, True, False)), Grounded(0.7, None)
    value = figures([[good, plain], [plain]])
    assert (value.pictures, value.boxes, value.described) == (2, 3, 1)
    assert value.spatial == pytest.approx(2.3 / 3)
    assert (value.colour, value.shape) == pytest.approx((0.3, 0.0))
    assert (value.described_colour, value.described_shape) == pytest.approx((0.9, 0.0))
    text = table(value)
    assert "0.3000" in text and "0.9000" in text and "as published" in text
    assert figures([[plain]]).described_texture is None and "-" in table(figures([[plain]]))
    with pytest.raises(InputError, match="no instance"):
        figures([[], []])


def test_a_category_is_looked_for_once_and_one_detection_may_serve_two_boxes() -> None:
    seen = Eyes({"cat": [Box(0, 0, 100, 100)]})
    boxes = [Asked(Box(0, 0, 200, 200), "cat"), Asked(Box(0, 0, 190, 200), "cat", "cat")]
    out = ground(PICTURE, record(*boxes), seen.detect, seen.judge)
    assert [one.located for one in out] == [True, True] and seen.looked == ["cat"] and not seen.asked


# --- records --------------------------------------------------------------------------------------------------------

ANNO = {"bbox": [0, 0, 10, 20], "category_name": "cat", "caption": "grey cat"}
ENTRY = {"id": 7, "prompt": "a room", "width": 64, "height": 48, "annos": [ANNO, {**ANNO, "caption": None}]}


def test_records_as_a_list_as_lines_and_as_the_data_sets_own_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ENTRY]))
    (tmp_path / "a.jsonl").write_text(json.dumps({**ENTRY, "annos": json.dumps(ENTRY["annos"])}) + "\n\n")
    want = [
        Record("7", "a room", 64, 48, (Asked(Box(0, 0, 10, 20), "cat", "grey cat"), Asked(Box(0, 0, 10, 20), "cat")))
    ]
    assert read_records(tmp_path / "a.json") == read_records(tmp_path / "a.jsonl") == want
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist([{**ENTRY, "image": b"x"}]), tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet") == want


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annos": [{**ANNO, "bbox": [5, 0, 1, 2]}]}, "record 1, box 1 has the bbox"),
        ({"annos": [{**ANNO, "bbox": [0, 0, 1]}]}, "record 1, box 1 is"),
        ({"annos": [{**ANNO, "category_name": ""}]}, "record 1, box 1 has the category_name"),
        ({"annos": [ANNO] * 1001}, "at most 1000"),
        ({"annos": None}, "record 1 has annos"),
        ({"width": 0}, "record 1 is 0 x 48"),
        ({"height": "tall"}, "height"),
    ],
)
def test_a_bad_record_is_named(change: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{**ENTRY, **change}]))
    with pytest.raises(InputError) as caught:
        read_records(tmp_path / "a.json")
    assert words in str(caught.value) and str(caught.value).endswith(".")


def test_lines_beyond_the_limit_are_refused_and_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({**ENTRY, "id": number}) + "\n" for number in (7, 8)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    monkeypatch.setattr(grounding, "MAX_RECORDS_BYTES", len(lines[0]) - 1)
    with pytest.raises(InputError, match="larger than"):
        read_records(tmp_path / "a.jsonl")


def test_ids_are_unique_and_numbers_finite(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ENTRY, ENTRY]))
    with pytest.raises(InputError, match="record 2 has the id '7' of an earlier one"):
        read_records(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('[{"width": NaN}]')
    with pytest.raises(InputError, match="NaN"):
        read_records(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path / "b.json")


# --- a run over a folder --------------------------------------------------------------------------------------------


def creature(name: str) -> world.Creature:
    return next(c for split in world.SPLITS for c in world.identities(split) if c.name == name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small pictures: one as asked; in the other, one creature is of other colours and one stands elsewhere."""
    path = tmp_path_factory.mktemp("pictures")
    asked = ("red and yellow halved square", "blue and white halved square")
    drawn = {"good": asked, "bad": ("green and black halved square", asked[1])}
    boxes = ((8, 8, 40, 40), (80, 72, 112, 104))
    records = []
    for name, creatures in drawn.items():
        corners = boxes if name == "good" else (boxes[0], (80, 8, 112, 40))
        members = [world.Member(creature(c), b, 0.0, (1, 1, 1)) for c, b in zip(creatures, corners, strict=True)]
        picture = world.render_target(world.Scene("words", 0, 0, tuple(members)))
        Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).save(path / f"{name}.png")
        annos = [
            {"bbox": list(box), "category_name": "square", "caption": caption}
            for box, caption in zip(boxes, asked, strict=True)
        ]
        records.append({"id": name, "prompt": "meadow at noon", "width": 128, "height": 128, "annos": annos})
    records.append({**records[0], "id": "missing"})
    (path / "records.json").write_text(json.dumps(records))
    return path


def run(folder: Path, *words: str) -> tuple[int, str]:
    said: list[str] = []
    eyes_of = ["--detector", "small-world", "--judge", "small-world", "--quiet"]
    status = layout_score.main([str(folder), str(folder / "records.json"), *eyes_of, *words], said.append)
    return status, "".join(said)


def test_the_small_worlds_eyes_over_a_folder(folder: Path, tmp_path: Path) -> None:
    status, said = run(folder, "--results", str(tmp_path / "r.jsonl"), "--json", str(tmp_path / "f.json"))
    assert status == 0 and "2 pictures, 4 boxes, 4 of them described" in said
    assert "1 of 3 records have no picture" in said
    value = json.loads((tmp_path / "f.json").read_text())
    # Three of four stand in their boxes; of one the colours are wrong.
    assert 0.6 < value["spatial"] <= 0.75
    assert value["colour"] == pytest.approx(value["spatial"] * 2 / 3, rel=0.05)
    assert value["shape"] == value["texture"] == value["spatial"]


def test_a_run_that_was_broken_off_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked: list[int] = []

    def find(picture: np.ndarray, category: str, prompt: str) -> list[Box]:
        looked.append(1)
        return [Box(8, 8, 40, 40)]

    monkeypatch.setattr(eyes, "detect", find)
    monkeypatch.setattr(eyes, "judge", lambda *_: "yes")
    results = tmp_path / "r.jsonl"
    status, whole = run(folder, "--results", str(results))
    assert status == 0 and len(looked) == 2
    assert run(folder, "--results", str(results)) == (0, whole) and len(looked) == 2
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(lines[:2]) + lines[2][:9])  # killed while it wrote
    assert run(folder, "--results", str(results)) == (0, whole) and len(looked) == 3
    assert results.read_bytes() == b"".join(lines)
    with pytest.raises(InputError, match="was written with"):
        ResultsLog(results, {"detector": "another", "judge": "small-world"}).read()
    results.write_text("no results\n")
    assert run(folder, "--results", str(results))[0] == 2
    assert "holds no results of this command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--detector", "eyes"], "the detector is 'eyes'"),
        (["--judge", "vision"], "the judge is 'vision'"),
        (["--limit", "0"], "--limit is 0; give 1 or more"),
        (["--limit", "-1"], "--limit is -1; give 1 or more"),
        (["--json", "nowhere/figures.json"], "No such file or directory"),
    ],
)
def test_bad_words_give_one_sentence(
    words: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = run(folder, "--results", str(tmp_path / "r.jsonl"), *words)
    assert status == 2 and sentence in capsys.readouterr().err
