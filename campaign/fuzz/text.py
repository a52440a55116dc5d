"""Text and tables: the real ones, and what is done with a case."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..frame import ROOT


def _vectors(name: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "tests" / "vectors" / name).read_text("utf-8"))


def layout_seeds() -> list[bytes]:
    vectors = [entry["json"] for name in ("layout_valid.json", "layout_invalid.json") for entry in _vectors(name)]
    texts = [text for text in vectors if len(text) < 3000]
    for path in sorted((ROOT / "workflows" / "api").glob("*.json")):
        nodes = json.loads(path.read_text("utf-8")).values()
        texts += [n["inputs"]["layout"] for n in nodes if isinstance(n["inputs"].get("layout"), str)]
    return [text.encode("utf-8", "surrogatepass") for text in dict.fromkeys(texts)]


def layouts(_folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.layout.layout import Layout

    def attempt(case: bytes) -> object:
        layout = Layout.from_json(case, 832, 1216)
        text = layout.to_json()
        again = Layout.from_json(text)
        assert again.to_json() == text, "written text is read as another layout"
        layout.scaled_to(512, 768).to_json()
        return [instance.region for instance in layout.instances]

    return attempt


FOREIGN = (
    '[{"x":1,"y":2,"width":30,"height":40,"metadata":{"text":"a cat"}}]',
    '[[{"x":1,"y":2,"width":30,"height":40,"label":"cat","score":0.5}],[]]',
    '{"boxes":[{"x":1,"y":2,"w":30,"h":40}],"canvas":{"w":100,"h":100}}',
    '{"elements":[{"bbox":[10,20,300,400],"desc":"a dog"}]}',
    '{"<OD>":{"bboxes":[[1,2,30,40]],"labels":["cat"]}}',
    '[{"bboxes":[[1,2,30,40]],"labels":["cat"],"scores":[0.9]}]',
    '[[512,640],[{"bbox":[1,2,30,40],"label":"x","confidence":0.7}]]',
    '[[1,2,30,40],[5,6,70,80]]',
    '{"x1":1,"y1":2,"x2":30,"y2":40}',
)  # fmt: skip


def box_seeds() -> list[bytes]:
    return [*(text.encode() for text in FOREIGN), *(e["text"].encode() for e in _vectors("requests.json"))]


def boxes(_folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.layout.layout import boxes_from_any

    def attempt(case: bytes) -> object:
        form = (None, "xywh", "xyxy")[len(case) % 3]
        return boxes_from_any(case, 640, 480, format=form, frame=len(case) % 2, limit=50)

    return attempt


def requests(_folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.layout.layout import Layout
    from contextgen_core.layout.request_file import read_requests

    return lambda case: [Layout.from_request(request).to_json() for request in read_requests(case)]


def request_seeds() -> list[bytes]:
    return [entry["text"].encode() for entry in _vectors("requests.json") if "instances" in entry["text"]]


CLICKS = (
    '{"v":1,"pictures":[{"points":[{"x":10,"y":20,"keep":true}],"box":{"x":1,"y":2,"w":30,"h":40}}]}',
    '{"points":[[1,2,1],[3,4,0]],"box":[1,2,30,40]}',
    '[{"x":10,"y":20,"label":1}]',
)


def clicks(_folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.cutout.cutout import Prompts

    return Prompts.from_json


def click_seeds() -> list[bytes]:
    texts = list(CLICKS)
    for path in sorted((ROOT / "workflows" / "api").glob("*.json")):
        nodes = json.loads(path.read_text("utf-8")).values()
        texts += [n["inputs"]["prompts"] for n in nodes if isinstance(n["inputs"].get("prompts"), str)]
    return [text.encode() for text in texts]


RESULTS = (
    '{"id":"1","instances":[{"label":"red cup","box":[1,2,30,40],"colour_right":true,"answers":{"spatial":true,'
    '"colour":true,"texture":true,"shape":false},"identity":0.83}],"detections":[{"box":[1,2,30,40],"label":"cup",'
    '"score":0.9}]}\n{"id":"2","instances":[{"box":[0,0,9,9]}],"detections":[]}',
    '{"size":[512,512],"instances":[{"box":[0,0,9,9]}],"detections":null}',
)


def result_seeds() -> list[bytes]:
    return [text.encode() for text in RESULTS]


def results(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.layout.request_file import read_requests
    from contextgen_core.score.results_file import read_results

    asked = read_requests(request_seeds()[0])
    file = folder / "results.jsonl"

    def attempt(case: bytes) -> object:
        file.write_bytes(case)
        return list(read_results(file, 0.5, len(case) % 2 == 1, None, asked if len(case) % 3 == 0 else None))

    return attempt


# --- tables ---------------------------------------------------------------------------------------------------------

TABLE_API = "tiny_two_subjects.json"


def table_seeds() -> list[bytes]:
    layout = max(layout_seeds(), key=len).decode()
    row = {"id": "a", "layout": layout, "prompt": "a cat", "seed": 3, "references": ["a.png", "sub/b.png"], "steps": 4}
    lines = [json.dumps({**row, "id": name, "note": [1, {"x": None}]}) for name in ("a", "b", "7")]
    cells = json.dumps(layout).replace('\\"', '""')
    texts = [
        f'id,layout,prompt,seed\n1,{cells},"a, cat",5\n2,{cells},dog,\n',
        "prompt\ncat\n",
        *lines,
        "\n".join(lines),
    ]
    return [text.encode() for text in texts] + _parquet()


def _parquet() -> list[bytes]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ImportError:
        return []
    made = []
    for compression in ("none", "snappy"):
        buffer = io.BytesIO()
        columns = {"id": ["a", "b"], "prompt": ["cat", None], "seed": [1, 2], "more": [[1.0], [2.0, 3.0]]}
        write_table(pa.table(columns), buffer, compression=compression)
        made.append(buffer.getvalue())
    return made


def tables(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.bulk.graph import Graph
    from contextgen_core.bulk.table import take_in
    from contextgen_core.errors import InputError

    base = folder / "base"
    (base / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        (base / name).write_bytes(b"x")
    graph = Graph.read(ROOT / "workflows" / "api" / TABLE_API)

    def attempt(case: bytes) -> object:
        kind = ".parquet" if case.startswith(b"PAR1") else ".jsonl" if case[:1] in b"{[" else ".csv"
        file = base / f"table{kind}"
        file.write_bytes(case)
        refused: InputError | None = None
        for row in take_in(file, folder / "run"):
            if row.problem:
                continue
            try:
                filled = graph.fill(row.values, row.id, base)
                assert all(path.is_relative_to(base) for path in filled.files.values()), "a file outside of the folder"
            except InputError as error:
                refused = error
        if refused is not None:
            raise refused
        return None

    return attempt


def graph_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "workflows" / "api").glob("tiny_*.json"))]


def graphs(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.bulk.graph import Graph

    file = folder / "workflow.json"
    layout = max(layout_seeds(), key=len).decode()

    def attempt(case: bytes) -> object:
        file.write_bytes(case)
        graph = Graph.read(file)
        assert graph.digest and graph.classes() is not None
        return graph.fill({"layout": layout, "prompt": "x", "seed": 1, "steps": "4", "nobody": 1}, "7", folder)

    return attempt
