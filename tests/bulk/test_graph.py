"""Rows and workflows: a column sets the input that it names, and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextgen_core.bulk.graph import Graph, seed_of
from contextgen_core.bulk.hosts import ComfyBackend
from contextgen_core.bulk.table import Row
from contextgen_core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = {
    "v": 1,
    "canvas": {"w": 128, "h": 64},
    "boxes": [{"id": "b1", "x": 1, "y": 2, "w": 30, "h": 30, "ref": "cat"}],
}


@pytest.fixture
def graph() -> Graph:
    return Graph.read(ROOT / "workflows" / "api" / "tiny_two_subjects.json")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "pictures" / name).write_bytes(b"x")
    return tmp_path


def test_the_known_columns_reach_their_nodes_and_others_stay(graph: Graph, base: Path) -> None:
    values = {
        "prompt": "a shore", "seed": "5", "layout": LAYOUT, "references": {"heart": "pictures/a.png"},
        "KSampler.steps": "3", "kind": "x",
    }  # fmt: skip
    filled = graph.fill(values, "r", base)
    nodes = {graph.title(id): node["inputs"] for id, node in filled.prompt.items()}
    assert nodes["Prompt"]["prompt"] == "a shore"
    assert (nodes["KSampler"]["seed"], nodes["KSampler"]["steps"]) == (5, 3)
    assert json.loads(nodes["Layout Composer"]["layout"]) == LAYOUT
    assert nodes["Layout Composer"]["height"] == 64
    assert filled.files == {("12", "image"): base / "pictures" / "a.png"}
    assert filled.extra == {"kind": "x"}
    changed = {
        (id, k) for id, n in filled.prompt.items() for k, v in n["inputs"].items() if graph.nodes[id]["inputs"][k] != v
    }
    assert changed == {("31", "prompt"), ("40", "seed"), ("40", "steps"), ("30", "layout"), ("30", "height")}


@pytest.mark.parametrize(("given", "steps"), [("20.0", 20), (20.0, 20), ("2e1", 20), ("9007199254740993", 2**53 + 1)])
def test_a_whole_number_in_any_spelling(graph: Graph, base: Path, given: object, steps: int) -> None:
    assert graph.fill({"KSampler.steps": given}, "row", base).prompt["40"]["inputs"]["steps"] == steps


def test_another_seed_changes_the_seed_alone(graph: Graph, base: Path) -> None:
    filled = graph.fill({}, "row", base)
    other = filled.with_seed(99)
    assert other["40"]["inputs"]["seed"] == 99 and filled.prompt["40"]["inputs"]["seed"] == seed_of("row")
    other["40"]["inputs"]["seed"] = filled.seed
    assert other == filled.prompt


def test_a_seed_follows_from_the_row_alone() -> None:
    assert seed_of("a") == seed_of("a") != seed_of("b")
    assert seed_of("a", 2**64 - 1) == 2**64 - 1


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", True, [1], float("inf")])
def test_a_seed_that_is_none_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed is"):
        seed_of("a", seed)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"Nowhere.steps": 1}, "names no node"),
        ({"KSampler.nothing": 1}, "names no input"),
        ({"KSampler.model": 1}, "names no input"),
        ({"name": "x"}, "fits 2 nodes"),
        ({"KSampler.steps": "many"}, "a number"),
        ({"KSampler.steps": 1.5}, "whole number"),
        ({"layout": "{"}, "not JSON"),
        ({"references": {"dog": "pictures/a.png"}}, "references name"),
        ({"references": ["pictures/a.png"] * 3}, "at most 2"),
        ({"references": ["../a.png"]}, "outside the table's folder"),
        ({"references": ["/etc/passwd"]}, "outside the table's folder"),
        ({"references": ["pictures/c.png"]}, "is not there"),
        ({"references": [5]}, "path as text"),
    ],
)
def test_what_does_not_fit_is_one_sentence(graph: Graph, base: Path, values: dict, word: str) -> None:
    with pytest.raises(InputError, match=word) as error:
        graph.fill(values, "r", base)
    assert "\n" not in str(error.value)


def test_a_link_out_of_the_folder_is_outside(graph: Graph, base: Path) -> None:
    (base / "table").mkdir()
    (base / "table" / "link.png").symlink_to(base / "pictures" / "a.png")
    with pytest.raises(InputError, match="outside"):
        graph.fill({"references": ["link.png"]}, "r", base / "table")
    assert graph.fill({"references": ["link.png"]}, "r", base / "table", (base / "pictures",)).files


@pytest.mark.parametrize(
    ("content", "word"),
    [("{}", "not a workflow"), ("[]", "not a workflow"), ('{"nodes": [], "links": []}', "Export"), ("x", "not JSON"),
     ('{"1": {"class_type": "A"}}', "not a workflow")],
)  # fmt: skip
def test_what_is_no_workflow_is_refused(tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "w.json").write_text(content)
    with pytest.raises(InputError, match=word):
        Graph.read(tmp_path / "w.json")


def test_a_workflow_as_posted_is_read_too(tmp_path: Path, graph: Graph) -> None:
    (tmp_path / "w.json").write_text(json.dumps({"prompt": graph.nodes}))
    assert Graph.read(tmp_path / "w.json") == graph


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**65) | st.floats(allow_nan=False) | st.sampled_from(["", "1", "x"]),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["1", "w", "inputs"]), one, max_size=3),
    max_leaves=6,
)  # fmt: skip
COLUMNS: tuple[str, ...] = (
    "layout", "prompt", "seed", "references", "KSampler.steps", "KSampler.cfg", "Layout Composer.width", "disc.image",
    "name", "steps", "",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_shape_of_a_workflow_and_a_row_is_a_task_or_one_sentence(data: st.DataObject) -> None:
    """Somewhere in a good workflow stands something else, and a row holds anything."""
    value = json.loads((ROOT / "workflows" / "api" / "tiny_two_subjects.json").read_text())
    parent, key = value, data.draw(st.sampled_from(sorted(value)))
    for _ in range(data.draw(st.integers(0, 3))):
        place: Any = parent[key]
        if not isinstance(place, (dict, list)) or not place:
            break
        parent, key = place, data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    parent[key] = data.draw(SHAPES)
    row = data.draw(st.dictionaries(st.sampled_from(COLUMNS), SHAPES, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.json"
        path.write_text(json.dumps(value))
        try:
            ComfyBackend(Graph.read(path)).prepare(Row(0, "r", row), Path(folder))
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [("30", "width", "wide"), ("30", "width", []), ("30", "width", float("inf")),
     ("11", "image", []), ("11", "image", [[]]), ("30", "layout", 5),
     ("40", "seed", {}), ("10", "image", 7), ("31", "prompt", None)],
)  # fmt: skip
def test_an_input_of_another_shape_than_its_node_has(
    graph: Graph, base: Path, node: str, name: str, value: Any
) -> None:
    nodes = json.loads(json.dumps(graph.nodes))
    nodes[node]["inputs"][name] = value
    row = {"layout": LAYOUT, "references": {"heart": "pictures/a.png"}}
    try:
        task = ComfyBackend(Graph(nodes)).prepare(Row(0, "r", row), base)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all("inputs" in one for one in task.work.prompt.values())
