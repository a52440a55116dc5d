"""Each benchmark's reader and protocol alone, without Ray: what is asked for, and what a picture is worth."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contextgen_core.bulk.backend import Task
from contextgen_core.bulk.benchmarks import measure
from contextgen_core.bulk.benchmarks.eyes import Eyes, open_eyes, read_eyes
from contextgen_core.bulk.benchmarks.judging import Seen
from contextgen_core.bulk.benchmarks.registry import MODULES, benchmark
from contextgen_core.bulk.benchmarks.report import write_report
from contextgen_core.bulk.benchmarks.rows import COMPOSITE, Cut, Rows
from contextgen_core.bulk.graph import Graph
from contextgen_core.bulk.table import Row
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Layout

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def minis() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("miniatures", Path(__file__).with_name("miniatures.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules["miniatures"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["miniatures"]


def judged(name: str, data: Path, minis: Any, moved: tuple[str, ...] = (), eyes: Eyes | None = None) -> dict[str, Any]:
    """What the protocol says of each case's picture, painted as asked for."""
    bench = benchmark(name)
    scorer = bench.scorer(eyes or open_eyes(read_eyes(["small-world"]), bench.thresholds), data)
    rows, painter, found = Rows(data.parent / "out"), minis.Painter(moved), {}
    for case in bench.cases(data, 128, ()):
        row = Row(0, case.id, {k: v for k, v in rows.row(case).items() if k != "id"})
        (made,) = painter.make(painter.prepare(row, data), [1])
        picture = np.asarray(Image.open(io.BytesIO(made.picture)))
        (found[case.id],) = scorer([picture], Task(row, None, 0))
    return found


def test_coco_mig_counts_place_and_colour(minis: Any, tmp_path: Path) -> None:
    minis.coco_mig(tmp_path / "data")
    got = judged("coco-mig", tmp_path / "data", minis, moved=("1",))
    assert [got[id]["right"] for id in "012"] == [2, 0, 3] and [got[id]["success"] for id in "012"] == [1, 0, 1]
    assert got["0"]["iou"] == pytest.approx(2, abs=0.1) and got["1"]["iou"] < 1
    assert got["0"]["clip"] == 100 and "local" not in got["0"]
    (tmp_path / "data" / "imagenet_templates.txt").write_text("a photo of {}.\n\nart of {}.\n")
    assert judged("coco-mig", tmp_path / "data", minis)["0"]["local"] is not None
    (tmp_path / "data" / "imagenet_templates.txt").write_text("a photo.\n")
    with pytest.raises(InputError, match="without {}"):
        judged("coco-mig", tmp_path / "data", minis)


def test_coco_mig_takes_the_reference_of_the_box_s_shape_and_words_alone_without_a_pack(
    minis: Any, tmp_path: Path
) -> None:
    minis.coco_mig(tmp_path / "data")
    wide = next((tmp_path / "data" / "reference_images").glob("0002_03*"))
    Image.new("RGB", (64, 64), "red").resize((32, 64)).save(wide)
    (case, *_) = [c for c in benchmark("coco-mig").cases(tmp_path / "data", None, ()) if c.id == "2"]
    assert case.size == (512, 512) and case.seed == 42
    assert [box.picture.name[:7] for box in case.boxes if box.picture] == ["0000_00", "0001_00", "0002_00"]
    assert {box.fit for box in case.boxes} == {"stretch"}
    minis.coco_mig(tmp_path / "words", references=False)
    cases = list(benchmark("coco-mig").cases(tmp_path / "words", None, (1, 2)))
    assert [c.id for c in cases][:2] == ["0_1", "0_2"] and all(box.picture is None for c in cases for box in c.boxes)


def test_a_hot_dog_is_no_dog(minis: Any, tmp_path: Path) -> None:
    """Each thing is looked for by its noun alone."""
    box = [0.1, 0.1, 0.5, 0.5]
    segments = [{"bbox": box, "label": f"a red {noun}"} for noun in ("hot dog", "dog")]
    minis.write_json(tmp_path / "data" / "mig_bench.json", {"0": {"caption": "x", "segment": segments}})
    eyes = Eyes(
        detector=lambda picture, category, prompt: [Box(51.2, 51.2, 256, 256)] if category == "dog" else [],
        segmenter=lambda picture, box: np.ones(picture.shape[:2], bool),
    )
    bench = benchmark("coco-mig")
    (case,) = bench.cases(tmp_path / "data", None, ())
    row = Row(0, "0", {"asked": dict(case.asked), "prompt": "x"})
    red = np.full((512, 512, 3), (200, 20, 20), np.uint8)
    (got,) = bench.scorer(eyes, tmp_path)([red], Task(row, None, 0))
    assert got["right"] == 1 and got["iou"] == pytest.approx(1)
    (got,) = bench.scorer(eyes, tmp_path)([red[..., ::-1]], Task(row, None, 0))
    assert got["right"] == 0 and got["iou"] == 0  # in its place, in the wrong colour


def test_layout_sam_asks_of_each_crop(minis: Any, tmp_path: Path) -> None:
    minis.layout_sam(tmp_path / "data")
    got = judged("layout-sam", tmp_path / "data", minis, moved=("0002",))
    assert got["0000"] | {"clip": 0} == {
        "boxes": 2, "pictures": 1, "spatial": 2, "colour": 2, "texture": 2, "shape": 2, "clip": 0
    }  # fmt: skip
    assert got["0002"]["spatial"] == 0 and list(got) == ["0000", "0002"]  # those of the reference pack
    minis.layout_sam(tmp_path / "all", references=False)
    assert len(list(benchmark("layout-sam").cases(tmp_path / "all", None, ()))) == 3
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [json.loads(line) for line in (tmp_path / "all" / "test.jsonl").read_text().splitlines()]
    (tmp_path / "own").mkdir()
    table = pyarrow.Table.from_pylist([{**row, "image": {"bytes": b"x"}} for row in rows])
    parquet.write_table(table, tmp_path / "own" / "test-00000-of-00001.parquet")
    bench = benchmark("layout-sam")
    assert list(bench.cases(tmp_path / "own", None, ())) == list(bench.cases(tmp_path / "all", None, ()))


def test_lamicbench_knows_faces_and_things_and_asks_its_questions(minis: Any, tmp_path: Path) -> None:
    minis.lamicbench(tmp_path / "data")
    bench = benchmark("lamicbench")
    cases = list(bench.cases(tmp_path / "data", None, ()))
    assert [(c.id, c.seed) for c in cases[:4]] == [(f"0000_{n}", 42 + n) for n in range(4)] and len(cases) == 8
    assert cases[0].composite is not None and cases[4].composite is None and cases[0].size == (768, 768)
    got = judged("lamicbench", tmp_path / "data", minis, moved=("0000_1",))
    assert {k: got["0000_0"][k] for k in ("faces", "objects", "itc")} == {"faces": 1, "objects": 1, "itc": 0.5}
    assert got["0000_0"]["ids"] == pytest.approx(1) and got["0000_0"]["ips"] == pytest.approx(1)
    assert got["0000_1"]["itc"] == 0 and "aes" not in got["0000_0"]
    sums = [{**one, "aes": 5.0} for one in got.values()]
    values = {m.title: measure.value_of(m, bench.measures, sums) for m in bench.measures}
    four = [values[title] for title in ("ITC", "AES", "IDS", "IPS")]
    assert values["AES"] == 50 and values["AVG"] == pytest.approx(sum(v for v in four if v is not None) / 4)
    assert measure.value_of(bench.measures[-1], bench.measures, got.values()) is None  # without AES no mean
    assert bench.group_of(cases[0].asked) == ("all", "2-3 references")
    assert bench.group_of(cases[4].asked) == ("all", "4 and more")


def test_lamic_s_tasks_follow_the_graph_and_the_regions(minis: Any, tmp_path: Path) -> None:
    minis.lamic(tmp_path / "data")
    cases = list(benchmark("lamic").cases(tmp_path / "data", None, ()))
    assert [c.id for c in cases[::4]] == ["two_000_0", "three_000_0", "four_000_0"]
    assert [c.seed for c in cases[:4]] == [42, 44, 46, 48] and cases[0].prompt == minis.PROMPT
    assert cases[4].boxes[2].share == (0, 0, 1, 1) and cases[0].boxes[0].tokens == 16
    bench = benchmark("lamic")
    scorer = bench.scorer(open_eyes(read_eyes(["small-world"]), bench.thresholds), tmp_path / "data")
    names = [box.name for box in cases[0].boxes]
    row = Row(0, "x", {"asked": dict(cases[0].asked), "prompt": minis.PROMPT})
    right, half = minis.scene((names[0], minis.LEFT), (names[1], minis.RIGHT)), minis.scene((names[0], (32, 8, 80, 56)))
    good, bad = scorer([right, half], Task(row, None, 0))
    # the third question hangs on the second, which is not true
    assert good["dpg"] == pytest.approx(1 / 3) and good["ids"] == pytest.approx(1)
    assert good["inr"] == pytest.approx(2, abs=0.1) and good["fir"] == pytest.approx(2, abs=0.1)
    assert bad["inr"] == pytest.approx(0.5, abs=0.06) and bad["fir"] == pytest.approx(0.5, abs=0.06)


def test_what_a_layout_cannot_hold_is_counted(minis: Any, tmp_path: Path) -> None:
    anno = {"bbox": [0, 0, 9, 9], "category_name": "disc", "caption": "long " * 60}
    record = {"id": "a", "prompt": "p", "width": 128, "height": 64, "annos": [anno] * 60}
    flat = {**anno, "bbox": [3, 3, 3, 9], "caption": ""}
    minis.write_json(tmp_path / "data" / "test.json", [record, {**record, "id": "b", "annos": [flat, anno]}])
    cases = list(benchmark("dense-layout").cases(tmp_path / "data", 256, ()))
    rows = Rows(tmp_path)
    layout = Layout.from_json(rows.row(cases[0])["layout"])
    assert (layout.width, layout.height, len(layout.instances)) == (256, 128, 50)
    assert rows.cut == Cut(labels=50, boxes=10) and len(cases[0].asked["instances"]) == 60
    assert len(cases[1].boxes) == 1 and len(cases[1].asked["instances"]) == 2


def test_a_workflow_gets_references_names_and_the_layout_s_picture(minis: Any, tmp_path: Path) -> None:
    minis.lamicbench(tmp_path / "data")
    nodes = dict(Graph.read(ROOT / "workflows" / "api" / "tiny_demo.json").nodes)
    nodes["99"] = {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": COMPOSITE}}
    graph = Graph(nodes)
    case = next(benchmark("lamicbench").cases(tmp_path / "data", 128, ()))
    rows = Rows(tmp_path / "out", graph)
    row = rows.row(case)
    filled = graph.fill({k: v for k, v in row.items() if k != "id"}, "a", tmp_path / "out")
    inputs = {id: node["inputs"] for id, node in filled.prompt.items()}
    names = [box.name for box in case.boxes]
    assert [inputs[id]["name"] for id in ("11", "13", "15", "17")] == [*names, "unused 0", "unused 1"]
    assert [instance.reference for instance in Layout.from_json(inputs["30"]["layout"]).instances] == names
    assert inputs["31"]["prompt"] == minis.PROMPT and filled.seed == 42 and inputs["40"]["seed"] == 42
    assert {place[0] for place in filled.files} == {"10", "12", "14", "16", "99"}
    with Image.open(filled.files["10", "image"]) as picture:
        assert picture.mode == "RGBA" and set(np.unique(np.asarray(picture.getchannel("A")))) == {0, 255}
    with Image.open(filled.files["99", "image"]) as picture:
        assert picture.getpixel((0, 0)) == (128, 128, 128) and picture.getpixel((9, 9)) == (200, 30, 30)
    few = Graph({id: node for id, node in nodes.items() if id not in ("12", "13", "14", "15", "16", "17")})
    with pytest.raises(InputError, match="has 2 references and the workflow takes 1"):
        Rows(tmp_path / "out", few).row(case)


BAD: list[tuple[str, str, Any, str]] = [
    ("coco-mig", "mig_bench.json", [1], "item 0 is 1"),
    ("coco-mig", "mig_bench.json", "text", "holds 'text'"),
    ("coco-mig", "mig_bench.json", {"0": {"caption": "x", "segment": [{"bbox": [0, 0, 1], "label": "a red cup"}]}},
     "item 0, segment 1 has the box"),
    ("coco-mig", "mig_bench.json", {"0": {"caption": "x", "segment": [{"bbox": [0, 0, 1, 1], "label": "cup"}]}},
     "an article, a colour and a noun"),
    ("coco-mig", "mig_bench.json", {"0": {"caption": "x", "segment": [{"bbox": [2, 2, 3, 3], "label": "a red cup"}]}},
     "covers nothing"),
    ("layout-sam", "test.jsonl", {"global_caption": "x", "width": 1, "height": 1, "bbox_list": "[1", "region_captions":
     "[]", "detail_region_captions": "[]"}, "row 0 has bbox_list"),
    ("lamicbench", "lamicbench_layout_pack/lamicbench_layout.json", [{"index": 5}], "number 5"),
    ("lamicbench", "lamicbench_layout_pack/lamicbench_layout.json",
     [{"index": 0, "references": [{"image_path": "../../../etc/passwd", "phrase": "x", "bbox": [0, 0, 1, 1]}]}],
     "lies outside the download"),
    ("lamic", "structured_inputs/Two-Reference.json", {"sample_000": {"CEI": "x", "ref_img_1": {"SAD": 1}}}, "has SAD"),
    ("lamic", "structured_inputs/Two-Reference.json", {"sample_001": {"CEI": "x"}}, "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "sentence"), BAD)
def test_a_download_that_is_none_is_one_sentence(
    name: str, file: str, content: Any, sentence: str, minis: Any, tmp_path: Path
) -> None:
    getattr(minis, name.replace("-", "_"))(tmp_path)
    minis.write_json(tmp_path / file, content)
    with pytest.raises(InputError) as caught:
        list(benchmark(name).cases(tmp_path, None, ()))
    assert sentence in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("name", list(MODULES))
def test_a_missing_file_is_named_with_where_it_comes_from(name: str, tmp_path: Path) -> None:
    bench = benchmark(name)
    with pytest.raises(InputError, match="it comes from") as caught:
        next(bench.cases(tmp_path, None, ()))
    assert bench.origin in str(caught.value)
    (tmp_path / "pack.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="unpack pack.tar.gz"):
        next(bench.cases(tmp_path, None, ()))


def test_a_pointer_a_lost_mask_and_an_unknown_name(minis: Any, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mig_bench.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="Git LFS pointer"):
        next(benchmark("coco-mig").cases(tmp_path / "p", None, ()))
    minis.lamicbench(tmp_path / "data")
    next((tmp_path / "data").rglob("*_mask.png")).unlink()
    with pytest.raises(InputError, match="is missing in"):
        [Rows(tmp_path / "out").row(case) for case in benchmark("lamicbench").cases(tmp_path / "data", None, ())]
    with pytest.raises(InputError, match="no benchmark 'x'"):
        benchmark("x")


def test_the_table_says_what_lacks_and_counts_no_row_twice(tmp_path: Path) -> None:
    bench = benchmark("coco-mig")
    asked = {"instances": [1, 2]}
    sums = {"instances": 2.0, "pictures": 1.0, "right": 1.0, "success": 0.0, "iou": 1.5}
    rows = {"a": (asked, Seen("a", "k", sums)), "b": (asked, Seen("b", "k", error="it | broke.")), "c": (asked, None)}
    said = write_report(bench, rows, {"detector": "D", "segmenter": "S"}, tmp_path, "ours", Cut(3, 0), True)
    assert "1 of 3 pictures judged" in said and "### L2" in said and "### L3" not in said
    assert "| **ours** | 0.00 | 50.00 | 75.00 |" in said
    assert "G-C, L-C need what compares picture and text" in said and "--with clip=PLACE" in said
    page = (tmp_path / "table.md").read_text()
    assert "it \\| broke." in page and "3 descriptions were cut" in page and "| segmenter | S | SAM ViT-H |" in page


def test_every_benchmark_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert all(f"`{name}`" in page for name in MODULES)
