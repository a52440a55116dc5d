"""Layouts: what they accept and refuse, their JSON form, and the boxes of other packs."""

from __future__ import annotations

import json
import math
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.errors import InputError
from contextgen_core.input import bounded_json
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import (
    MAX_INSTANCES,
    MAX_JSON_BYTES,
    Instance,
    LabelledBox,
    Layout,
    boxes_from_any,
)
from contextgen_core.layout.request_file import read_requests

VECTORS = Path(__file__).parents[1] / "vectors"


def vectors(name: str) -> list[dict[str, str]]:
    return json.loads((VECTORS / name).read_text("utf-8"))


def by_name(entry: dict[str, str]) -> str:
    return entry["name"]


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 300
    return text


# --- Box ------------------------------------------------------------------------------------------


def test_a_box_knows_its_measures() -> None:
    box = Box(20, 35, 85, 101)
    assert (box.width, box.height, box.area, box.center) == (65, 66, 4290, (52.5, 68))


def test_clipping_keeps_the_part_inside_and_may_leave_nothing() -> None:
    assert Box(-10, 5, 200, 90).clipped(100, 50) == Box(0, 5, 100, 50)
    assert Box(150, 5, 200, 90).clipped(100, 50).area == 0


@pytest.mark.parametrize("corners", [(0, 0, math.nan, 1), (0, 0, math.inf, 1), (5, 0, 4, 1), (0, 5, 1, 4)])
def test_a_box_refuses_what_is_no_rectangle(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError):
        Box(*corners)


# --- Layout as JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", vectors("layout_valid.json"), ids=by_name)
def test_valid_text_is_read_and_written_in_canonical_form(entry: dict[str, str]) -> None:
    layout = Layout.from_json(entry["json"], 1024, 1024)
    assert layout.to_json() == entry["canonical"]
    assert Layout.from_json(entry["canonical"]) == layout
    assert Layout.from_json(entry["json"].encode("utf-8")) == layout


@pytest.mark.parametrize("entry", vectors("layout_invalid.json"), ids=by_name)
def test_invalid_text_gives_one_sentence_that_names_the_place(entry: dict[str, str]) -> None:
    with pytest.raises(InputError) as error:
        Layout.from_json(entry["json"], 1024, 1024)
    text = one_sentence(error)
    if entry["reason"].startswith("box 2"):
        assert text.startswith("box 2 ")
        assert all(word in text for word in entry["reason"].split()[2:])


def test_the_vectors_mean_what_they_say() -> None:
    layout = Layout.from_json(
        '{"v":1,"canvas":{"w":640,"h":480},"boxes":[{"id":"q","x":0.1,"y":2,"w":0.2,"h":4,"ref":"Anna",'
        '"label":"cat","locked":true}]}'
    )
    assert layout == Layout(640, 480, (Instance("q", Box(0.1, 2, 0.3, 6), "Anna", "cat", True),))


def test_empty_text_takes_the_callers_canvas() -> None:
    assert Layout.from_json("", 640, 480) == Layout(640, 480)
    assert Layout.from_json({}, 640, 480) == Layout(640, 480)
    assert Layout.from_json([{"x": 1, "y": 2, "w": 3, "h": 4}], 640, 480).width == 640


def test_a_parsed_object_is_checked_like_text() -> None:
    box: dict[str, Any] = {"id": "b1", "x": np.float32(20), "y": torch.tensor(35), "w": np.int64(65), "h": 66}
    document = {"v": 1, "canvas": {"w": 1024, "h": 1024}, "boxes": [box]}
    assert Layout.from_json(document).instances[0].box == Box(20, 35, 85, 101)
    for value in (np.bool_(True), torch.tensor([20]), 10**5000, object(), b"20"):
        with pytest.raises(InputError, match=r"^box 1 \('b1'\) has x = ") as error:
            Layout.from_json({**document, "boxes": [{**box, "x": value}]})
        one_sentence(error)


@pytest.mark.parametrize(
    "text",
    ["[" * 10_000_000, '{"boxes":' * 1_000_000, "9" * 10_000_000, '"' * 10_000_000, b"\xff" * 10_000_000, " " * 10**7],
    ids=["brackets", "objects", "digits", "quotes", "bytes", "spaces"],
)
def test_ten_megabytes_are_refused_by_their_length_alone(text: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("ten megabytes were read")

    monkeypatch.setattr(bounded_json, "nesting", read)
    monkeypatch.setattr(json, "loads", read)
    with pytest.raises(InputError, match="limit is 65536"):
        Layout.from_json(text)


@pytest.mark.parametrize(
    "text", ["[" * 60_000, '{"a":' * 12_000, "9" * 60_000, '"' * 60_000, "\\" * 60_000, b"\xff\xfe\x00", "\ud800"]
)
def test_hostile_text_within_the_limit_is_an_input_error(text: str | bytes) -> None:
    with pytest.raises(InputError) as error:
        Layout.from_json(text)
    one_sentence(error)


scraps = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["v", "canvas", "boxes", "id", "x", "y", "w", "h", "ref"]), inner)
    ),
    max_leaves=20,
)


@given(scraps | st.fixed_dictionaries({"v": st.sampled_from([0, 1, 1.0]), "canvas": scraps, "boxes": scraps}))
def test_nothing_but_an_input_error_comes_out_of_any_value(value: object) -> None:
    for candidate in (value, json.dumps(value)):
        try:
            layout = Layout.from_json(candidate)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert Layout.from_json(layout.to_json()) is not None


@pytest.mark.parametrize(
    "box",
    [Box(-999_999, 0, 999_999, 10), Box(0, 0, 0.004, 10), Box(1023.996, 0, 1030, 10), Box(-5, -5, 0.004, 10)],
    ids=["too wide", "too thin", "outside on the right", "outside on the left"],
)
def test_what_could_not_be_read_back_cannot_be_built(box: Box) -> None:
    with pytest.raises(InputError, match=r"^box 2 \('b2'\)"):
        Layout(1024, 1024, (Instance("b1", Box(0, 0, 9, 9)), Instance("b2", box)))


@pytest.mark.parametrize("reference", ["", 0, True, np.int64(1), 1.0])
def test_a_reference_is_a_name_a_number_or_none(reference: Any) -> None:
    with pytest.raises(InputError, match=r"^box 1 \('b1'\) has ref = "):
        Layout(1024, 1024, (Instance("b1", Box(0, 0, 9, 9), reference),))


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
exact = st.integers(-5000, 20_000_00).map(lambda v: v / 100)


@st.composite
def layouts(draw: st.DrawFn, coordinates: st.SearchStrategy[float] = exact) -> Layout:
    """Layouts whose boxes meet the canvas."""
    width, height = draw(st.tuples(st.integers(64, 16384), st.integers(64, 16384)))
    instances = []
    for number in range(draw(st.integers(0, 5))):
        x1 = min(draw(coordinates), width - 1.0)
        y1 = min(draw(coordinates), height - 1.0)
        x2, y2 = max(x1, 0) + 1 + abs(draw(coordinates)), max(y1, 0) + 1 + abs(draw(coordinates))
        reference = draw(st.none() | names.map(lambda n: n[:100]) | st.integers(1, 9999))
        label = draw(names.map(lambda n: n[:200]) | st.just(""))
        instances.append(
            Instance(f"{number}{draw(names)}"[:64], Box(x1, y1, x2, y2), reference, label, draw(st.booleans()))
        )
    return Layout(width, height, tuple(instances))


@given(layouts())
def test_round_trip(layout: Layout) -> None:
    again = Layout.from_json(layout.to_json())
    assert again.to_json() == layout.to_json()
    assert Layout.from_json(again.to_json()) == again
    for one, two in zip(layout.instances, again.instances, strict=True):
        assert (one.id, one.reference, one.label, one.locked) == (two.id, two.reference, two.label, two.locked)


@given(layouts(st.floats(-3000, 20000)))
def test_writing_moves_no_edge_by_more_than_a_hundredth(layout: Layout) -> None:
    again = Layout.from_json(layout.to_json())
    for one, two in zip(layout.instances, again.instances, strict=True):
        for edge in ("x1", "y1", "x2", "y2"):
            assert abs(getattr(one.box, edge) - getattr(two.box, edge)) <= 0.00501


def test_the_largest_layout_fits_into_its_own_limit() -> None:
    worst = "\U0001f408"
    layout = Layout(
        16384,
        16384,
        tuple(
            Instance(f"{n:02}" + worst * 62, Box(-899999.99, -0.01, 99999.99, 9.99), worst * 100, '"' * 200)
            for n in range(MAX_INSTANCES)
        ),
    )
    assert len(layout.to_json().encode()) < MAX_JSON_BYTES
    assert Layout.from_json(layout.to_json()) == layout


@given(layouts(), st.floats(0.5, 4), st.floats(0.5, 4))
def test_scaling_keeps_every_fraction_of_the_canvas(layout: Layout, sx: float, sy: float) -> None:
    width, height = (min(max(64, round(s * v)), 16384) for s, v in ((sx, layout.width), (sy, layout.height)))
    scaled = layout.scaled_to(width, height)
    assert (scaled.width, scaled.height) == (width, height)
    for one, two in zip(layout.instances, scaled.instances, strict=True):
        assert two.box.x1 / width == pytest.approx(one.box.x1 / layout.width, abs=1e-9)
        assert two.box.y2 / height == pytest.approx(one.box.y2 / layout.height, abs=1e-9)
        assert (one.id, one.reference) == (two.id, two.reference)
    back = scaled.scaled_to(layout.width, layout.height)
    for one, two in zip(layout.instances, back.instances, strict=True):
        assert two.box.area == pytest.approx(one.box.area, rel=1e-9)
    assert layout.scaled_to(layout.width, layout.height) == layout


# --- boxes of other packs -------------------------------------------------------------------------

Seg = namedtuple("Seg", "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper")


def seg(bbox: object, label: str = "face", confidence: object = 0.5) -> Seg:
    return Seg(None, None, confidence, [0, 0, 512, 512], bbox, label, None)


A, B = Box(10, 20, 40, 60), Box(5, 6, 100, 80)
CORE_A = {"x": 10, "y": 20, "width": 30, "height": 40}
CORE_B = {"x": 5, "y": 6, "width": 95, "height": 74}
LAYOUT = Layout(200, 100, (Instance("p", Box(20, 20, 80, 60), "Anna", "cat"),))

SELF_DESCRIBING = {
    "nothing": (None, []),
    "empty text": ("  ", []),
    "empty list": ([], []),
    "a frame without boxes": ([[]], []),
    "one box": (CORE_A, [A]),
    "one list": ([CORE_A, CORE_B], [A, B]),
    "one list as a tuple": ((CORE_A, CORE_B), [A, B]),
    "a list per frame": ([[CORE_A, CORE_B]], [A, B]),
    "numpy numbers": ([[{k: np.float32(v) for k, v in CORE_A.items()}]], [A]),
    "corners by name": ([{"x1": 10, "y1": 20, "x2": 40, "y2": 60}], [A]),
    "short names": ([{"x": 10, "y": 20, "w": 30, "h": 40}], [A]),
    "one element": ({"type": "obj", "bbox": [200, 100, 600, 400], "desc": ""}, [A]),
    "elements": ([{"type": "obj", "bbox": [200, 100, 600, 400]}], [A]),
    "elements with swapped corners": ([{"bbox": [600, 400, 200, 100]}], [A]),
    "elements in an object": ({"elements": [{"bbox": [200, 100, 600, 400]}]}, [A]),
    "Florence-2": ({"bboxes": [[10, 20, 40, 60]], "labels": ["cat"]}, [A]),
    "a detector's arrays": ({"bboxes": np.array([[10, 20, 40, 60]]), "labels": [3], "scores": np.ones(1)}, [A]),
    "Florence-2 with its task": ({"<OD>": {"bboxes": [[10, 20, 40, 60]], "labels": ["cat"]}}, [A]),
    "Florence-2 per image": ([{"bboxes": [[10, 20, 40, 60]], "labels": ["cat"]}], [A]),
    "segments": (((100, 100), [seg((10, 20, 40, 60)), seg(np.array([5, 6, 100, 80]))]), [A, B]),
    "segments of a larger picture": (((200, 400), [seg([40, 40, 160, 120])]), [A]),
    "segments that lost their header": ([seg((10, 20, 40, 60))], [A]),
    "no segments": (((100, 100), []), []),
    "a layout": (LAYOUT.to_json(), [Box(10, 20, 40, 60)]),
    "a parsed layout": (json.loads(LAYOUT.to_json()), [Box(10, 20, 40, 60)]),
    "text of boxes": (json.dumps([CORE_A]), [A]),
    "text of a list per frame": (json.dumps([[CORE_A, CORE_B]]).encode(), [A, B]),
    "sticks out": ({"x": -5, "y": -5, "width": 500, "height": 500}, [Box(-5, -5, 495, 495)]),
}


@pytest.mark.parametrize(
    ("name", "format"),
    [(n, f) for n in SELF_DESCRIBING for f in (None, "xywh", "xyxy") if f is None or "element" not in n],
)
def test_boxes_that_say_what_they_are(name: str, format: Any) -> None:
    value, expected = SELF_DESCRIBING[name]
    found = [entry.box for entry in boxes_from_any(value, 100, 100, format=format)]
    assert [tuple(vars(b).values()) for b in found] == [pytest.approx(tuple(vars(b).values())) for b in expected]


BARE = {
    "one tuple": ((10, 20, 40, 60), [A]),
    "tuples": ([(10, 20, 40, 60), (5, 6, 100, 80)], [A, B]),
    "tuples per frame": ([[(10, 20, 40, 60), (5, 6, 100, 80)]], [A, B]),
    "an array": (np.array([[10, 20, 40, 60], [5, 6, 100, 80]]), [A, B]),
    "an array per frame": ([np.array([[10, 20, 40, 60]])], [A]),
    "a list of arrays": ([np.array([10, 20, 40, 60])], [A]),
    "a tensor": (torch.tensor([[10.0, 20, 40, 60]]), [A]),
    "a half tensor with gradient": (torch.tensor([[10.0, 20, 40, 60]], dtype=torch.bfloat16, requires_grad=True), [A]),
    "text": ("[[10, 20, 40, 60]]", [A]),
    "text per image": ("[[[10, 20, 40, 60]]]", [A]),
    "bbox keys": ([{"bbox": [10, 20, 40, 60]}], [A]),
    "rows without labels": ({"bboxes": [[10, 20, 40, 60]]}, [A]),
    "four boxes": ([(10, 20, 40, 60)] * 4, [A] * 4),
}


@pytest.mark.parametrize("name", BARE)
def test_bare_numbers_are_read_as_declared(name: str) -> None:
    value, expected = BARE[name]
    assert [b.box for b in boxes_from_any(value, 100, 100, format="xyxy")] == expected
    as_xywh = [Box(b.x1, b.y1, b.x1 + b.x2, b.y1 + b.y2) for b in expected]
    assert [b.box for b in boxes_from_any(value, 100, 100, format="xywh")] == as_xywh


@pytest.mark.parametrize("name", [n for n in BARE if n != "bbox keys"])
def test_bare_numbers_without_a_declared_format_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose the boxes format, xywh or xyxy") as error:
        boxes_from_any(BARE[name][0], 100, 100)
    one_sentence(error)


def test_a_declared_format_turns_bbox_into_pixels() -> None:
    rows = [{"bbox": [10, 20, 40, 60], "label": "cat"}]
    assert boxes_from_any(rows, 500, 500)[0].box == Box(10, 5, 30, 20)
    assert boxes_from_any(rows, 500, 500, format="xyxy") == [LabelledBox(A, "cat")]


def test_labels_and_scores_are_kept() -> None:
    detected = {**CORE_A, "label": "cat", "score": 0.75}
    edited = {**CORE_A, "metadata": {"type": "obj", "text": "", "desc": "a\x00cat " + "x" * 300, "palette": []}}
    assert boxes_from_any([[detected]], 100, 100) == [LabelledBox(A, "cat", 0.75)]
    assert boxes_from_any([edited], 100, 100)[0].label == ("a cat " + "x" * 300)[:200]
    assert boxes_from_any(((100, 100), [seg((10, 20, 40, 60), "dog", np.float32(0.5))]), 100, 100) == [
        LabelledBox(A, "dog", 0.5)
    ]
    florence = {"bboxes": [[10, 20, 40, 60], [5, 6, 100, 80]], "labels": ["cat", "dog"]}
    assert [b.label for b in boxes_from_any(florence, 100, 100)] == ["cat", "dog"]
    assert boxes_from_any(LAYOUT.to_json(), 100, 100)[0].label == "cat"
    assert boxes_from_any([{**CORE_A, "label": 5, "score": math.nan}], 100, 100) == [LabelledBox(A)]


def test_a_frame_is_chosen_and_a_single_one_serves_all() -> None:
    frames = [[CORE_A], [CORE_B], []]
    assert [b.box for b in boxes_from_any(frames, 100, 100, frame=1)] == [B]
    assert boxes_from_any(frames, 100, 100, frame=2) == []
    assert [b.box for b in boxes_from_any([[CORE_A]], 100, 100, frame=7)] == [A]
    assert [b.box for b in boxes_from_any([CORE_A], 100, 100, frame=7)] == [A]
    with pytest.raises(InputError, match="3 frames and frame 3"):
        boxes_from_any(frames, 100, 100, frame=3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([CORE_A] * 51, "there are 51 boxes, the limit is 50"),
        (((100, 100), [seg((10, 20, 40, 60))] * 60), "there are 60 boxes"),
        ({"bboxes": [[1, 2, 3, 4]] * 500, "labels": []}, "there are 500 boxes"),
        ([CORE_A, {**CORE_A, "width": 0}], "box 2 reaches from"),
        ([CORE_A, {**CORE_A, "width": -3}], "box 2 reaches from"),
        ([CORE_A, {**CORE_A, "x": math.nan}], "box 2 has x = NaN"),
        ([CORE_A, {**CORE_A, "x": 1e308}], r"box 2 has x = 1e\+308"),
        ([CORE_A, {**CORE_A, "x": True}], "box 2 has x = true"),
        ([CORE_A, {**CORE_A, "x": "5"}], "box 2 has x = '5'"),
        ([CORE_A, {**CORE_A, "x": 100}], "box 2 reaches .* outside the canvas"),
        ([CORE_A, {"left": 5}], "box 2 has the keys 'left'"),
        ([CORE_A, 5], "box 2 is 5"),
        ([CORE_A, [CORE_A]], "box 2 is a list of 1"),
        ([{"bbox": [0, 0, 1, 1001]}], "box 1 has bbox = .* beyond the 0 to 1000 grid"),
        ([{"bbox": [0, 0, 1]}], "box 1 has bbox = a list of 3"),
        ([{"bbox": "0000"}], "box 1 has bbox = '0000'"),
        (((0, 100), [seg((10, 20, 40, 60))]), "header gives a picture of 100 x 0"),
        (object(), "the boxes are 'object'"),
        (5, "the boxes are 'int'"),
        (np.zeros((4000, 4000)), "array of shape"),
        ("[", "the boxes text is not JSON"),
        ("[[" * 20, "nested 40 levels"),
        ('[{"x":NaN,"y":1,"width":1,"height":1}]', "NaN"),
        ("[" * 10_000_000, "bytes of text"),
        ({"boxes": [CORE_A], "canvas": {"w": 0, "h": 5}}, "canvas is 0 x 5"),
    ],
)
def test_other_boxes_are_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        boxes_from_any(value, 100, 100)
    one_sentence(error)


@given(scraps, st.sampled_from([None, "xywh", "xyxy"]))
def test_any_value_gives_boxes_or_an_input_error(value: object, format: Any) -> None:
    try:
        boxes = boxes_from_any(value, 100, 100, format=format)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(b.box.area > 0 for b in boxes)


# --- the authors' request file --------------------------------------------------------------------

REQUEST = {
    "caption": "A cat and a dog",
    "width": 512,
    "layout_image": "layout.png",
    "instances": [
        {"image": "cat.png", "bbox": [10, 20, 110, 220.5], "mask": "cat_mask.png", "label": "cat"},
        {"image": "dog.png", "bbox": [200, 20, 600, 220], "phrase": "a dog"},
    ],
}


def test_the_authors_request_file(tmp_path: Path) -> None:
    file = tmp_path / "segment_info.json"
    file.write_text(json.dumps([REQUEST]))
    (request,) = read_requests(file)
    assert (request.caption, request.width, request.layout_image) == ("A cat and a dog", 512, "layout.png")
    assert [i.image for i in request.instances] == ["cat.png", "dog.png"]
    assert [i.mask for i in request.instances] == ["cat_mask.png", None]
    assert request.instances[0].box == Box(10, 20, 110, 220.5)
    assert read_requests(str(file)) == read_requests([REQUEST]) == read_requests(REQUEST) == [request]
    assert read_requests(json.dumps([REQUEST, REQUEST])) == [request] * 2
    layout = Layout.from_request(request)
    assert (layout.width, layout.height) == (512, 512)
    assert [(i.reference, i.label) for i in layout.instances] == [(1, "cat"), (2, "a dog")]
    assert layout.scaled_to(1024, 1024).instances[0].box == Box(20, 40, 220, 441)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no/such/file.json", "cannot be read"),
        ("\0", "cannot be read"),
        ([5], "request 1 is 5"),
        (5, "holds 5"),
        ([{**REQUEST, "width": 0}], "request 1 has width = 0"),
        ([{**REQUEST, "width": "512"}], "request 1 has width = '512'"),
        ([{**REQUEST, "instances": None}], "request 1 has instances = null"),
        ([{**REQUEST, "instances": [{"image": "a", "bbox": [5, 5, 4, 6]}]}], "request 1, box 1 reaches"),
        ([{**REQUEST, "instances": [{"image": "a", "bbox": [600, 5, 700, 6]}]}], "request 1, box 1 reaches"),
        ([{**REQUEST, "instances": [{"bbox": [5, 5, 7, 7]}]}], "request 1, box 1 has image = null"),
        ([{**REQUEST, "instances": REQUEST["instances"] * 30}], "request 1 has 60 instances"),  # type: ignore[operator]
    ],
)
def test_a_broken_request_file_is_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_requests(value)
    one_sentence(error)


def test_instance_assembles_request_file_opens_as_boxes_with_phrases() -> None:
    record = {
        "prompt": "a room",
        "width": 500,
        "height": 250,
        "annos": [
            {"bbox": [50, 25, 250, 125], "category_name": "cat", "caption": "sleepy, grey"},
            {"bbox": [0, 0, 500, 250], "category_name": "floor"},
        ],
    }
    saved_by_the_demo = {**{k: v for k, v in record.items() if k != "prompt"}, "caption": "a room"}
    for value in (record, saved_by_the_demo, json.dumps(record)):
        cat, floor = boxes_from_any(value, 1000, 1000)
        assert (cat.box, cat.label) == (Box(100, 100, 500, 500), "cat, sleepy, grey")
        assert (floor.box, floor.label) == (Box(0, 0, 1000, 1000), "floor")
    for wrong, words in (
        ({**record, "width": None}, "width = null"),
        ({**record, "annos": [{"bbox": [9, 0, 3, 4]}]}, "box 1 reaches from"),
        ({**record, "annos": [{"category_name": "x"}]}, "box 1 has bbox = null"),
        ({**record, "annos": ["x"]}, "box 1 is 'x'"),
        ({**record, "annos": [{}] * 100}, "there are 100 boxes, the limit is"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            boxes_from_any(wrong, 1000, 1000)


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", vectors("box_colour.json"), ids=lambda entry: entry["id"])
def test_the_colour_of_a_box_is_the_editors(entry: dict[str, str]) -> None:
    assert "#{:02x}{:02x}{:02x}".format(*Instance(entry["id"], Box(0, 0, 9, 9)).shade) == entry["colour"]
    assert Instance(entry["id"], Box(0, 0, 9, 9), colour="#0a0b0c").shade == (10, 11, 12)


def test_the_room_of_a_turned_box_holds_its_corners_and_no_more() -> None:
    box = Box(100, 100, 300, 200)
    assert Instance("b1", box).region == box
    assert Instance("b1", box, rotation=90).region == Box(150, 50, 250, 250)
    assert Instance("b1", box, rotation=180).region == box
    region = Instance("b1", box, rotation=30).region
    assert region.width == pytest.approx(200 * math.cos(math.pi / 6) + 50)
    assert region.center == pytest.approx(box.center)


def test_a_layout_without_layers_is_written_as_it_always_was() -> None:
    box = '{"id":"b1","x":1,"y":2,"w":3,"h":4,"ref":null,"label":"","locked":false}'
    text = f'{{"v":1,"canvas":{{"w":64,"h":64}},"boxes":[{box}]}}'
    assert Layout.from_json(text).to_json() == text


def test_a_turned_box_stays_readable_on_a_canvas_of_another_size() -> None:
    layout = Layout(64, 1000, (Instance("b1", Box(-1900, 0, 1900, 100), rotation=10),))
    small = layout.scaled_to(64, 64)
    assert Layout.from_json(small.to_json()) == small


def test_an_array_in_place_of_a_box_is_shown_in_one_line() -> None:
    for value in (np.arange(40.0).reshape(1, 2, 20), torch.ones(3, 3, 3)):
        with pytest.raises(InputError) as error:
            boxes_from_any([{"x": 1, "y": 1, "width": 5, "height": 5}, value, value], 640, 480)
        one_sentence(error)
