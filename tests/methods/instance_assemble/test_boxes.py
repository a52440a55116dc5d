"""InstanceAssemble: tokens, points and positions of boxes, plans, and what a layout's labels become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from contextgen_core.composite.compose import Scene, compose
from contextgen_core.composite.placement import Cutout
from contextgen_core.composite.references import Reference
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.instance_assemble.cells import box_cells, cell_ends, corners_of, grid_points
from contextgen_core.methods.instance_assemble.content import Place, read_picture
from contextgen_core.methods.instance_assemble.cover import box_tokens, buckets_of, make_cover
from contextgen_core.methods.instance_assemble.encoder import LayoutEncoder
from contextgen_core.methods.instance_assemble.plan import (
    BoundPhrases,
    BoxOptions,
    PhraseOptions,
    PhrasePlan,
    at_corners,
    bind,
    phrase_box,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "instance_assemble"
CASES = ("ia_two_boxes", "ia_overlap_nonsquare", "ia_sd3_two_boxes")

coordinates = st.floats(-200, 700, width=32).map(lambda v: round(v, 2))


def points_of(box: Box, width: int, height: int) -> np.ndarray:
    return grid_points(corners_of(box.x1, box.y1, box.x2, box.y2, width, height))


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def scene(*instances: Instance, width: int = 256, height: int = 256) -> Scene:
    return compose(Layout(width, height, instances), ())


def plan_of(*boxes: Box, width: int = 256, height: int = 256, **options: float) -> PhrasePlan:
    made = tuple(phrase_box(f"box {n}", box, width, height, BoxOptions(**options)) for n, box in enumerate(boxes, 1))
    return PhrasePlan(height // 16, width // 16, made)


@pytest.mark.parametrize("name", CASES)
def test_golden_points_cells_positions_and_tokens(name: str) -> None:
    case = golden(name)
    rows, columns = case["grid_hw"].tolist()
    weights = load_file(GOLDEN / ("sd3_layout.safetensors" if "sd3" in name else "layout.safetensors"))
    encoder = LayoutEncoder(32, 24)
    encoder.load_state_dict({k.removeprefix("layout_net."): v for k, v in weights.items() if "layout_net" in k})
    cells = []
    for slot in np.flatnonzero(case["valid"][0]):
        box = Box(*case["boxes_px"][0, slot])
        points = points_of(box, *case["canvas_wh"].tolist())
        assert np.array_equal(points, case["points72"][0, slot])
        cells.append(phrase_box("", box, *case["canvas_wh"].tolist()).indices(columns))
        assert len(cells[-1]) == case["cell_count"][0, slot]
        if "layout_ids" in case:
            assert (0, *cell_ends(points, rows, columns).centre) == tuple(case["layout_ids"][0, slot])
    assert np.array_equal(np.concatenate(cells), case["cells_flat"])
    # With all slots, empty ones too: a matrix product of another size may round otherwise.
    points, pooled = (torch.from_numpy(case[key]) for key in ("points72", "phrase_pooled"))
    valid = torch.from_numpy(case["valid"]).bool()
    with torch.no_grad():
        for key, rounded in (("layout_tokens", False), ("layout_tokens_bf16pos", True)):
            tokens = encoder(points[0], pooled, rounded)
            assert torch.equal(tokens[valid], torch.from_numpy(case[key])[valid])


@given(coordinates, coordinates, st.floats(0.01, 900), st.floats(0.01, 900), st.integers(4, 40), st.integers(4, 40))
def test_cells_lie_on_the_canvas_and_equal_the_authors_where_theirs_are_right(
    x: float, y: float, w: float, h: float, rows: int, columns: int
) -> None:
    width, height = columns * 16, rows * 16
    box = Box(x, y, x + w, y + h)
    points = points_of(box, width, height)
    cells = box_cells(points, rows, columns)
    assert 0 <= cells.x1 <= cells.x2 <= columns and 0 <= cells.y1 <= cells.y2 <= rows
    if x > -16 * 0.99 and y > -16 * 0.99:
        assert cells == box_cells(points, rows, columns, sliced=True)
    inside = box.clipped(width, height)
    # Never more than a token beyond the box, and never more than one lost to rounding.
    if not cells.empty:
        assert cells.x1 * 16 > inside.x1 - 17 and cells.x2 * 16 < inside.x2 + 17
        assert abs((cells.x2 - cells.x1) * 16 - inside.width) < 33
    elif inside.width > 17 and inside.height > 17:
        raise AssertionError(f"{box} covers no token of {width}x{height}")


def test_a_far_edge_on_a_token_border_loses_a_column_as_in_the_training_of_the_weights() -> None:
    lost = 0
    for right in range(32, 769, 16):
        for left in range(0, right - 16, 16):
            cells = box_cells(points_of(Box(left, 0, right, 768), 768, 768), 48, 48)
            assert cells.x2 in (right // 16, right // 16 - 1)
            lost += cells.x2 != right // 16
    assert 0.02 < lost / (47 * 48 / 2) < 0.06


@pytest.mark.parametrize(
    ("box", "ours", "theirs"),
    [
        (Box(-40, 16, 64, 64), TokenBox(0, 1, 4, 4), TokenBox(0, 0, 0, 0)),
        (Box(-96, 16, -32, 64), TokenBox(0, 0, 0, 0), TokenBox(10, 1, 14, 4)),
        (Box(200, 200, 400, 400), TokenBox(12, 12, 16, 16), TokenBox(12, 12, 16, 16)),
        (Box(100, 100, 104, 200), TokenBox(6, 6, 7, 12), TokenBox(6, 6, 7, 12)),
        (Box(0, 0, 0, 0), TokenBox(0, 0, 0, 0), TokenBox(0, 0, 0, 0)),
    ],
)
def test_boxes_beyond_the_canvas(box: Box, ours: TokenBox, theirs: TokenBox) -> None:
    points = points_of(box, 256, 256)
    assert box_cells(points, 16, 16) == ours
    assert box_cells(points, 16, 16, sliced=True) == theirs


def test_a_reversed_box_has_no_token() -> None:
    corners = corners_of(100, 20, 40, 90, 256, 256)
    assert not at_corners("", corners, 16, 16).size and not at_corners("", corners, 16, 16, sliced=True).size


# --- from a scene ---------------------------------------------------------------------------------------------------


def test_labels_become_phrases_and_boxes_without_words_are_left_to_others() -> None:
    bound = bind(
        scene(Instance("a", Box(0, 0, 64, 64), label="cat, grey"), Instance("b", Box(64, 64, 128, 128), label=" dog "))
    )
    assert bound.phrases == ("cat, grey", "dog")
    assert [box.cells for box in bound.plan.boxes] == [TokenBox(0, 0, 4, 4), TokenBox(4, 4, 8, 8)]


@pytest.mark.parametrize(
    ("instances", "options", "words"),
    [
        ((Instance("a", Box(0, 0, 64, 64)),), {}, "box 1 ('a') has no words"),
        ((), {}, "no words"),
        ((Instance("a", Box(0, 0, 64, 64), label="x"),), {"boxes": {2: BoxOptions()}}, "options speak of box 2"),
        ((Instance("a", Box(0, 0, 64, 64), label="x"),), {"boxes": {1: BoxOptions(strength=9)}}, "strength = 9"),
        ((Instance("a", Box(0, 0, 64, 64), label="x"),), {"boxes": {1: BoxOptions(strength=float("nan"))}}, "NaN"),
        ((Instance("a", Box(0, 0, 64, 64), label="x"),), {"boxes": {1: BoxOptions(start=0.5, end=0.2)}}, "starts at"),
        ((Instance("a", Box(0, 0, 64, 64), label="x"),), {"masks": {1: np.zeros((64, 64), np.uint8)}}, "empty mask"),
    ],
)
def test_what_cannot_be_bound_is_said_in_one_sentence(instances: tuple, options: dict, words: str) -> None:
    with pytest.raises(InputError) as caught:
        bind(scene(*instances), PhraseOptions(**options))
    assert words in str(caught.value) and str(caught.value).endswith(".")


def test_a_box_that_begins_beyond_the_canvas_is_clipped_and_said_so() -> None:
    bound = bind(scene(Instance("a", Box(-40, 0, 64, 64), label="cat")))
    assert bound.plan.boxes[0].cells == TokenBox(0, 0, 4, 4)
    assert len(bound.warnings) == 1 and "beyond the left" in bound.warnings[0]


def test_a_mask_takes_the_place_of_the_box() -> None:
    mask = np.zeros((128, 128), np.uint8)  # half the canvas' size
    mask[8:24, 8:16] = mask[16:24, 8:40] = 255
    bound = bind(scene(Instance("a", Box(0, 0, 256, 256), label="cat")), PhraseOptions(masks={1: mask}))
    (box,) = bound.plan.boxes
    assert box.cells == TokenBox(1, 1, 5, 3) and box.size == 5
    assert box.indices(16).tolist() == [17, 33, 34, 35, 36]


def reference(name: str = "r", width: int = 40, height: int = 80, **options: Any) -> Reference:
    rng = np.random.default_rng(1)
    mask = np.zeros((height, width), np.uint8)
    mask[8:-8, 4:-4] = 255
    return Reference(name, rng.integers(0, 256, (height, width, 3), np.uint8), mask, **options)


def bound_to(content: str, *instances: Instance, **options: Any) -> BoundPhrases:
    return bind(compose(Layout(256, 256, instances), [reference(**options)]), PhraseOptions(content=content))


def test_what_fills_a_box_is_chosen() -> None:
    drawn, said = Instance("a", Box(0, 0, 64, 128), reference=1), Instance("b", Box(64, 0, 128, 64), label="dog")
    both = Instance("c", Box(128, 0, 192, 128), reference=1, label="cat")
    gone = Instance("d", Box(0, 128, 64, 192), reference=1, hidden=True)
    for content, phrases, pictures in (
        ("phrases", (False, True, True), (False, False, False)),
        ("pictures", (False, True, False), (True, False, True)),
        ("both", (False, True, True), (True, False, True)),
    ):
        bound = bound_to(content, drawn, said, both, gone)
        wanted = {n: (p, q) for n, p, q in zip("abc", phrases, pictures, strict=True) if p or q}
        assert {box.name[-3]: (box.phrase, box.picture is not None) for box in bound.plan.boxes} == wanted
        assert len(bound.phrases) == sum(phrases) and len(bound.pictures) == sum(pictures)
        assert PhrasePlan.from_tuple(bound.plan.as_tuple()) == bound.plan
    with pytest.raises(InputError, match="no words and no pictures"):
        bound_to("both", gone)


def test_a_picture_lies_where_the_composite_shows_it() -> None:
    instance = Instance("a", Box(32, 64, 96, 192), reference=1)
    scene = compose(Layout(256, 256, (instance,)), [reference()])
    bound = bind(scene, PhraseOptions(content="both"))
    (box,), (picture,) = bound.plan.boxes, bound.pictures
    shown = scene.composite[64:192, 32:96]
    assert picture.shape == (128, 64, 3) and np.array_equal(picture, shown)
    place = Place(8, 4, 0.125, 0.25, 0.375, 0.75)
    assert box.picture == place
    assert place.middles()[:5].tolist() == [[(2.5 + n) / 16, 4.5 / 16] for n in range(4)] + [[2.5 / 16, 5.5 / 16]]
    assert picture.flags.writeable


def test_a_picture_keeps_its_budget_and_its_strength() -> None:
    (box,) = bound_to("both", Instance("a", Box(0, 0, 250, 250), reference=1, strength=0.5), tokens=20).plan.boxes
    assert box.picture is not None and 12 <= box.picture.size <= 20 and box.picture.strength == 0.5
    bound = bound_to("both", Instance("a", Box(0, 0, 64, 64), reference=1, strength=0.0, label="cat"))
    assert bound.plan.boxes[0].picture is None and not bound.pictures
    huge = read_picture(Cutout(0, 0, np.zeros((900, 900, 3), np.uint8), np.ones((900, 900), bool)), 1024, 1024)
    assert huge is not None and huge[0].shape == (512, 512, 3)


def test_a_turned_box_has_the_tokens_that_its_outline_touches() -> None:
    turned = Instance("a", Box(64, 112, 192, 144), label="cat", rotation=45.0)
    (box,) = bind(scene(turned)).plan.boxes
    half = (128 + 32) / 2 * np.sqrt(0.5)
    assert np.allclose(np.array(box.corners) * 256, (128 - half, 128 - half, 128 + half, 128 + half), atol=1e-3)
    # Against the outline itself, drawn finely: the pixels turned back lie in the upright box.
    ys, xs = np.mgrid[0:256:0.5, 0:256:0.5] + 0.25
    u, v = (xs - 128 + ys - 128) * np.sqrt(0.5), (ys - 128 - (xs - 128)) * np.sqrt(0.5)
    inside = (np.abs(u) < 64) & (np.abs(v) < 16)
    touched = inside.reshape(16, 32, 16, 32).any((1, 3))
    touched[box.cells.y2 :] = touched[:, box.cells.x2 :] = False  # the weights' rule leaves a box's last part token out
    assert box.indices(16).tolist() == np.flatnonzero(touched).tolist()
    assert box.size < 0.6 * (box.cells.x2 - box.cells.x1) ** 2
    quarter = Instance("a", Box(64, 112, 192, 144), label="cat", rotation=90.0)
    (upright,) = bind(scene(Instance("a", Box(112, 64, 144, 192), label="cat"))).plan.boxes
    (box,) = bind(scene(quarter)).plan.boxes
    assert box.indices(16).tolist() == upright.indices(16).tolist() and box.corners == upright.corners


def test_a_plan_travels_as_plain_values() -> None:
    mask = np.full((16, 16), 255, np.uint8)
    instances = scene(Instance("a", Box(0, 0, 70, 64), label="x"), Instance("b", Box(9, 9, 99, 99), label="y"))
    plan = bind(instances, PhraseOptions({2: BoxOptions(0.5, 0.1, 0.9)}, {1: mask})).plan
    value = plan.as_tuple()
    assert PhrasePlan.from_tuple(value) == plan and hash(value)
    with pytest.raises(InputError, match="another version"):
        PhrasePlan.from_tuple(("contextgen-plan-1", 1, 2, ()))


# --- index sets -----------------------------------------------------------------------------------------------------

boxes = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(1, 16), st.integers(1, 16)), min_size=1, max_size=12
)


@given(boxes, st.booleans())
def test_each_token_gets_the_mean_of_its_boxes(corners: list, front: bool) -> None:
    plan = plan_of(*(Box(16 * x, 16 * y, 16 * (x + w), 16 * (y + h)) for x, y, w, h in corners))
    active = tuple(range(len(corners)))
    cover = make_cover(plan, active, front=front, device=torch.device("cpu"), dtype=torch.float32)
    assert cover is not None
    tokens = box_tokens(plan, active, front)
    assert cover.numbers == tuple(tokens)
    owners: list[dict[int, float]] = [{} for _ in range(256)]
    # A sequence knows its instance by its layout token, and its tokens by what is gathered.
    starts = cover.layout.tolist()
    lengths = {start: 1 + len(tokens[number]) for number, start in zip(cover.numbers, starts, strict=True)}
    gathered = cover.gather.tolist()
    for rank in cover.ranks:
        assert len(set(rank.tokens.tolist())) == len(rank.tokens)  # each token once: no two writes to one place
        for token, source, weight in zip(rank.tokens, rank.sources.tolist(), rank.weights[:, 0], strict=True):
            start = max(s for s in starts if s <= source)
            assert 0 < source - start < lengths[start]
            assert gathered[source] == len(cover.numbers) + int(token)
            owners[int(cover.tokens[token])][cover.numbers[starts.index(start)]] = float(weight)
    for cell, weights in enumerate(owners):
        covering = [number for number, cells in tokens.items() if cell in cells]
        assert sorted(weights) == covering
        if covering:
            assert np.allclose(list(weights.values()), 1 / len(covering))
    if front:
        assert all(len(weights) <= 1 for weights in owners)
        assert all(
            not w or max(w) == max(n for n in active if c in plan.boxes[n].indices(16)) for c, w in enumerate(owners)
        )


@given(st.lists(st.integers(1, 4096), min_size=1, max_size=100))
def test_buckets_hold_each_length_once_and_never_more_than_double(lengths: list[int]) -> None:
    lengths = sorted(lengths)
    ranges = buckets_of(lengths)
    assert [i for members in ranges for i in members] == list(range(len(lengths)))
    assert all(lengths[members[-1]] <= 2 * lengths[members[0]] for members in ranges)
    assert len(ranges) <= 13


def test_nothing_to_do_without_tokens() -> None:
    plan = PhrasePlan(16, 16, (phrase_box("", Box(-96, 16, -32, 64), 256, 256),))
    assert make_cover(plan, (0,), front=False, device=torch.device("cpu"), dtype=torch.float32) is None
