"""Composites: where subjects land, who lies above whom, what is painted, and what is warned of."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextgen_core.composite.compose import FITS, compose, paste_rect
from contextgen_core.composite.ordering import Patch, overlap_order
from contextgen_core.composite.references import GREY, Reference
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout

VECTORS = Path(__file__).parents[1] / "vectors"
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def subject(
    name: str,
    colour: tuple[int, int, int],
    box: tuple[int, int, int, int] = (0, 0, 64, 64),
    size: tuple[int, int] = (64, 64),
) -> Reference:
    """A filled rectangle on white, the rectangle being the subject."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    mask = np.zeros((size[1], size[0]), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = colour
    mask[y1:y2, x1:x2] = 255
    return Reference(name, pixels, mask)


def layout(*boxes: tuple[Box, str | int | None], width: int = 256, height: int = 256) -> Layout:
    return Layout(width, height, tuple(Instance(f"b{n}", box, ref) for n, (box, ref) in enumerate(boxes, 1)))


def area_of(composite: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The tight rectangle of exactly that colour, and nothing of it elsewhere."""
    rows, columns = np.nonzero((composite == colour).all(axis=2))
    if not rows.size:
        return None
    box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    assert rows.size == (box[2] - box[0]) * (box[3] - box[1])
    return box


# --- vectors shared with the editor ---------------------------------------------------------------


def filled(rects: list[list[int]], width: int, height: int) -> list[np.ndarray]:
    masks = []
    for x, y, w, h in rects:
        mask = np.zeros((height, width), np.uint8)
        mask[y : y + h, x : x + w] = 255
        masks.append(mask)
    return masks


def automatic_order(masks: list[np.ndarray]) -> tuple[int, ...]:
    return overlap_order([Patch(0, 0, mask > 0) for mask in masks])


def vectors(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("case", vectors("paste_rect"), ids=lambda case: case["fit"])
def test_subjects_land_where_the_editor_shows_them(case: dict[str, Any]) -> None:
    width, height = case["image"]
    assert paste_rect(case["fit"], Box(*case["box"]), (width, height), tuple(case["subject"])) == tuple(case["rect"])


@pytest.mark.parametrize("case", vectors("automatic_order"))
def test_subjects_are_painted_in_the_order_that_the_editor_shows(case: dict[str, Any]) -> None:
    assert automatic_order(filled(case["rects"], *case["canvas"])) == tuple(case["order"])


# --- where a subject lands ------------------------------------------------------------------------


def test_the_three_fits_computed_by_hand() -> None:
    box, image, source = Box(100, 100, 300, 200), (400, 400), (0, 100, 100, 300)  # a 100 x 200 subject
    # instance: k = sqrt(20000 / 20000) = 1, centred on (200, 150)
    assert paste_rect("instance", box, image, source) == (150, 50, 100, 200)
    assert paste_rect("stretch", box, image, source) == (100, 100, 200, 100)
    # image: k = 100 / 400; the picture covers (150, 100) to (250, 200)
    assert paste_rect("image", box, image, source) == (150, 125, 25, 50)


def test_rounding_is_to_the_nearest_pixel_and_never_to_nothing() -> None:
    assert paste_rect("stretch", Box(10.4, 10.6, 20.2, 20.2), (64, 64), (0, 0, 9, 9)) == (10, 10, 10, 10)
    assert paste_rect("stretch", Box(10, 10, 10.01, 10.01), (64, 64), (0, 0, 64, 64))[2:] == (1, 1)
    assert paste_rect("instance", Box(0, 0, 21, 21), (64, 64), (0, 0, 64, 64)) == (0, 0, 21, 21)


boxes = st.tuples(st.floats(0, 900), st.floats(0, 900), st.floats(20, 124), st.floats(20, 124)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)
sources = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60), st.integers(1, 60)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3])
)


@given(boxes, sources)
def test_stretch_covers_the_box(box: Box, source: tuple[int, int, int, int]) -> None:
    x, y, w, h = paste_rect("stretch", box, (100, 100), source)
    for edge, expected in zip((x, y, x + w, y + h), (box.x1, box.y1, box.x2, box.y2), strict=True):
        assert abs(edge - expected) <= 1


@given(boxes, sources)
def test_instance_has_the_area_of_the_box_and_the_aspect_of_the_subject(
    box: Box, source: tuple[int, int, int, int]
) -> None:
    x, y, w, h = paste_rect("instance", box, (100, 100), source)
    cw, ch = source[2] - source[0], source[3] - source[1]
    scale = math.sqrt(box.area / (cw * ch))
    assert abs(w - cw * scale) <= max(0.5, 1 - cw * scale) + 1e-9
    assert abs(h - ch * scale) <= max(0.5, 1 - ch * scale) + 1e-9
    assert abs(x + w / 2 - box.center[0]) <= 0.5 and abs(y + h / 2 - box.center[1]) <= 0.5


@given(boxes, sources)
def test_image_keeps_the_subject_where_it_stands_in_its_picture(box: Box, source: tuple[int, int, int, int]) -> None:
    rect = paste_rect("image", box, (100, 120), source)
    whole = paste_rect("image", box, (100, 120), (0, 0, 100, 120))
    scale = min(box.width / 100, box.height / 120)
    assert abs(rect[0] - whole[0] - source[0] * scale) <= 1
    assert abs(rect[1] - whole[1] - source[1] * scale) <= 1
    assert whole[0] >= box.x1 - 1 and whole[0] + whole[2] <= box.x2 + 1
    assert whole[1] >= box.y1 - 1 and whole[1] + whole[3] <= box.y2 + 1


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rects", "order"),
    [
        ([[0, 0, 10, 10], [5, 5, 40, 40]], (1, 0)),  # a partial overlap: the larger goes below
        ([[5, 5, 4, 4], [0, 0, 20, 20]], (1, 0)),  # inside another: in front of it
        ([[0, 0, 20, 20], [5, 5, 4, 4]], (0, 1)),
        ([[0, 0, 10, 10], [5, 0, 10, 10]], (0, 1)),  # equal and overlapping: by index
        ([[0, 0, 10, 10], [0, 0, 10, 10]], (0, 1)),  # the same
        ([[0, 0, 9, 9], [20, 20, 20, 20]], (0, 1)),  # apart: by index
        ([[0, 0, 0, 0], [0, 0, 9, 9]], (1, 0)),  # an empty one comes last
        ([[10, 10, 4, 4], [8, 8, 10, 10], [0, 0, 30, 30]], (2, 1, 0)),  # nested
        ([], ()),
    ],
)
def test_automatic_order_by_hand(rects: list[list[int]], order: tuple[int, ...]) -> None:
    assert automatic_order(filled(rects, 64, 48)) == order


def slow_order(masks: list[np.ndarray]) -> tuple[int, ...]:
    """The same rules over whole masks, without cleverness."""
    inside = [mask > 0 for mask in masks]
    areas = [int(m.sum()) for m in inside]
    n = range(len(masks))
    shared = [[int((inside[i] & inside[j]).sum()) for j in n] for i in n]
    before, score = {i: set[int]() for i in n}, {}
    for i in n:
        partners = []
        for j in n:
            if i == j or not shared[i][j]:
                continue
            if shared[i][j] == areas[i] and (areas[j], -j) > (areas[i], -i):
                before[i].add(j)
            elif shared[i][j] != areas[j] and shared[i][j] != areas[i]:
                partners.append((shared[i][j] / (areas[i] + areas[j] - shared[i][j]), areas[i] / (areas[i] + areas[j])))
        weight = sum(iou for iou, _ in partners)
        portion = sum(iou * share for iou, share in partners)
        score[i] = min(max(1 - portion / weight - 0.1 * weight, 0), 1) if partners else 0.5
    order: list[int] = []
    left = {i for i in n if areas[i]}
    while left:
        free = [i for i in left if not before[i] & left]
        order.append(min(free, key=lambda i: (round(score[i], 9), i)))
        left.remove(order[-1])
    return (*order, *(i for i in n if not areas[i]))


rectangles = st.tuples(st.integers(0, 20), st.integers(0, 15), st.integers(0, 12), st.integers(0, 12)).map(list)


@settings(max_examples=150)
@given(st.lists(rectangles, max_size=7))
def test_automatic_order_follows_its_rules(rects: list[list[int]]) -> None:
    masks = filled(rects, 32, 28)
    order = automatic_order(masks)
    assert sorted(order) == list(range(len(rects)))
    assert order == slow_order(masks)
    assert order == automatic_order(masks)


# --- painting -------------------------------------------------------------------------------------


def test_subjects_stand_in_their_boxes_on_grey() -> None:
    anna, ben = subject("Anna", RED), subject("Ben", GREEN, (16, 8, 48, 56))
    scene = compose(layout((Box(16, 32, 80, 96), "Anna"), (Box(128, 128, 192, 256), 2)), [anna, ben])
    assert scene.composite.shape == (256, 256, 3) and scene.composite.dtype == np.uint8
    assert area_of(scene.composite, RED) == (16, 32, 80, 96)
    # 32 x 48 with the area of 64 x 128: k = sqrt(8192 / 1536) = 2.3094, 73.9 x 110.9, centred on (160, 192)
    assert area_of(scene.composite, GREEN) == (123, 137, 197, 248)
    outside = scene.composite.copy()
    outside[32:96, 16:80] = outside[137:248, 123:197] = GREY
    assert (outside == GREY).all()
    assert scene.references == (anna, ben)
    assert scene.painted == (0, 1)
    assert scene.visible == (1.0, 1.0)
    assert scene.warnings == ()
    assert scene.fit == "instance"


@pytest.mark.parametrize(
    ("fit", "place"),
    [("instance", (64, 88, 192, 152)), ("stretch", (96, 56, 160, 184)), ("image", (112, 116, 144, 132))],
)
def test_every_fit_paints_where_it_says(fit: str, place: tuple[int, int, int, int]) -> None:
    wide = subject("Anna", RED, (16, 24, 48, 40))  # 32 x 16 in the middle of 64 x 64
    if fit == "image":
        place = (112, 112, 144, 128)  # k = 64 / 64; the picture's top-left is (96, 88)
    scene = compose(layout((Box(96, 56, 160, 184), "Anna")), [wide], fit)
    assert area_of(scene.composite, RED) == place


def test_the_drawn_order_is_bottom_first() -> None:
    pair = [subject("Anna", RED), subject("Ben", GREEN)]
    back, front = Box(0, 0, 128, 128), Box(64, 0, 192, 128)
    scene = compose(layout((back, "Anna"), (front, "Ben")), pair)
    assert area_of(scene.composite, GREEN) == (64, 0, 192, 128)
    assert area_of(scene.composite, RED) == (0, 0, 64, 128)
    assert scene.visible == (0.5, 1.0)
    scene = compose(layout((front, "Ben"), (back, "Anna")), pair)
    assert area_of(scene.composite, RED) == (0, 0, 128, 128)


def test_the_automatic_order_puts_the_larger_below() -> None:
    pair = [subject("Anna", RED), subject("Ben", GREEN)]
    boxes = layout((Box(100, 100, 140, 140), "Anna"), (Box(0, 0, 128, 128), "Ben"))
    drawn, automatic = compose(boxes, pair), compose(boxes, pair, order="automatic")
    assert drawn.painted == (0, 1) and automatic.painted == (1, 0)
    assert area_of(automatic.composite, RED) == (100, 100, 140, 140)
    assert automatic.visible[0] == 1.0
    free = layout((Box(0, 0, 256, 256), None), (Box(100, 100, 140, 140), "Anna"), (Box(0, 0, 128, 128), "Ben"))
    assert compose(free, pair, order="automatic").painted == (2, 1)
    again = compose(boxes, pair, order="automatic")
    assert np.array_equal(again.composite, automatic.composite) and again.painted == automatic.painted


def test_an_unbound_box_paints_nothing() -> None:
    scene = compose(layout((Box(0, 0, 128, 128), None), (Box(64, 64, 128, 128), 1)), [subject("Anna", RED)])
    assert scene.references[0] is None
    assert scene.painted == (1,)
    assert scene.visible == (0.0, 1.0)
    assert scene.warnings == ()
    assert (scene.composite == GREY).all(axis=2).sum() == 256 * 256 - 64 * 64


def test_an_empty_layout_is_grey() -> None:
    scene = compose(Layout(128, 96), [])
    assert (scene.composite == GREY).all() and scene.composite.shape == (96, 128, 3)
    assert (scene.painted, scene.visible, scene.warnings) == ((), (), ())


def test_one_reference_may_stand_in_two_boxes() -> None:
    scene = compose(layout((Box(0, 0, 64, 64), 1), (Box(128, 128, 192, 192), "Anna")), [subject("Anna", RED)])
    assert (scene.composite == RED).all(axis=2).sum() == 2 * 64 * 64
    assert scene.warnings == ()


def test_the_background_of_a_reference_never_bleeds_over_the_edge() -> None:
    disc = np.hypot(*np.mgrid[-31.5:32, -31.5:32]) < 30
    pixels = np.where(disc[..., None], RED, (255, 255, 255)).astype(np.uint8)
    shape = Reference("Anna", pixels, disc.astype(np.uint8) * 255)
    for box in (Box(13, 11, 222, 197), Box(13, 11, 40, 33)):
        scene = compose(layout((box, "Anna")), [shape], "stretch")
        painted = scene.composite[(scene.composite != GREY).any(axis=2)]
        assert (abs(painted.astype(int) - RED) <= 2).all()


def test_a_box_beyond_the_canvas_is_filled_inside_it() -> None:
    scene = compose(layout((Box(192, 64, 320, 128), "Anna")), [subject("Anna", RED)], "stretch")
    assert area_of(scene.composite, RED) == (192, 64, 256, 128)
    assert scene.warnings == (
        "box 1 ('b1') has only 50% of its area inside the canvas; its subject is fitted to that part.",
    )


def test_an_own_composite_is_resized_and_grey_where_it_is_clear() -> None:
    own = np.zeros((32, 32, 4), np.uint8)
    own[..., :3], own[:, :16, 3], own[:, 16:24, 3] = RED, 255, 128
    boxes = layout((Box(0, 0, 64, 64), "Anna"), (Box(0, 0, 64, 64), None))
    scene = compose(boxes, [subject("Anna", GREEN)], own_composite=own)
    assert scene.composite.shape == (256, 256, 3)
    assert (scene.composite[:, :128] == RED).all()
    assert (abs(scene.composite[:, 128:192].astype(int) - (189, 64, 64)) <= 1).all()
    assert (scene.composite[:, 192:] == GREY).all()
    assert (scene.painted, scene.visible, scene.references[1]) == ((0,), (1.0, 0.0), None)
    plain = compose(boxes, [subject("Anna", GREEN)], own_composite=np.full((256, 256, 3), 7, np.uint8))
    assert (plain.composite == 7).all()
    with pytest.raises(InputError, match="the own composite has shape"):
        compose(boxes, [subject("Anna", GREEN)], own_composite=np.zeros((9, 9), np.uint8))


def test_visible_shares_count_what_is_covered_and_what_is_cut_off() -> None:
    trio = [subject("a", RED), subject("b", GREEN), subject("c", BLUE, (0, 24, 64, 40))]
    boxes = layout(
        (Box(0, 0, 100, 100), "a"), (Box(50, 50, 150, 150), "b"), (Box(206, 200, 256, 225), "c"), width=256, height=256
    )
    scene = compose(boxes, trio)
    assert scene.visible[:2] == (0.75, 1.0)
    # The third is 64 x 16 in a box of 50 x 25: 71 x 18, centred on x 231: 195.5 to 266.5, cut at 256.
    assert scene.visible[2] == pytest.approx((256 - 196) / 71)
    assert [w for w in scene.warnings if "cut off" in w] == [
        "box 3 ('b3') with reference 'c' has 15% of its subject cut off by the edge of the canvas."
    ]


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 100)] * 2, *[st.integers(20, 60)] * 2), min_size=1, max_size=5))
def test_visible_pixels_are_the_pixels_that_are_not_grey(spots: list[tuple[int, int, int, int]]) -> None:
    boxes = layout(*((Box(x, y, x + w, y + h), 1) for x, y, w, h in spots), width=160, height=160)
    scene = compose(boxes, [subject("Anna", RED)], "stretch")
    owned = sum(share * w * h for share, (_, _, w, h) in zip(scene.visible, spots, strict=True))
    assert owned == pytest.approx((scene.composite == RED).all(axis=2).sum())


# --- warnings and errors --------------------------------------------------------------------------


def test_warnings_are_whole_sentences_that_name_the_box() -> None:
    trio = [subject("Anna", RED), subject("Ben", GREEN), subject("Cleo", BLUE)]
    boxes = layout(
        (Box(10, 10, 50, 50), "Anna"),
        (Box(0, 0, 128, 128), "Ben"),
        (Box(200, 200, 240, 215), "Ben"),
        (Box(250, 0, 400, 99), None),
    )
    warnings = compose(boxes, trio).warnings
    assert warnings == (
        "box 3 ('b3') is 40 x 15 pixels inside the canvas, smaller than a token of 16 x 16; enlarge it.",
        "box 4 ('b4') is 6 x 99 pixels inside the canvas, smaller than a token of 16 x 16; enlarge it.",
        "reference 'Cleo' is bound to no box and has no effect.",
        "box 1 ('b1') with reference 'Anna' is fully hidden behind the subjects in front of it; "
        "move it, or bring it forward.",
    )


def test_a_mostly_hidden_subject_is_mentioned() -> None:
    pair = [subject("Anna", RED), subject("Ben", GREEN)]
    scene = compose(layout((Box(0, 0, 100, 100), "Anna"), (Box(2, 0, 102, 100), "Ben")), pair)
    assert scene.warnings == (
        "box 1 ('b1') with reference 'Anna' shows only 2.0% of its subject, the rest is covered by others "
        "in front of it.",
    )


def test_a_subject_wholly_beyond_the_canvas_is_mentioned() -> None:
    corners = np.zeros((64, 64), np.uint8)
    corners[:, :4] = corners[:, 60:] = 255  # nothing in the middle, where the canvas is
    ring = Reference("Anna", np.full((64, 64, 3), 9, np.uint8), corners)
    tall = Layout(64, 2048, (Instance("b1", Box(0, 0, 64, 2048), "Anna"),))
    (warning,) = compose(tall, [ring]).warnings
    assert warning == "box 1 ('b1') with reference 'Anna' has its subject wholly outside the canvas; move it inside."


@pytest.mark.parametrize(
    ("ref", "names", "message"),
    [
        ("Anna", [], r"box 1 \('b1'\) uses reference 'Anna', but no references are connected"),
        ("Anna", ["Ben", "Cleo"], "uses reference 'Anna', but the bundle holds only 'Ben', 'Cleo'; bind it"),
        (3, ["Ben", "Cleo"], "uses reference number 3, but there are only 2"),
        ("Ben", ["Ben", "Ben"], "but 2 references have that name; rename them"),
        ("1", ["Ben"], "uses reference '1', but the bundle holds only 'Ben'"),
    ],
)
def test_a_missing_reference_is_named(ref: str | int, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        compose(layout((Box(0, 0, 64, 64), ref)), [subject(name, RED) for name in names])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"), [({"fit": "cover"}, "the fit is 'cover'"), ({"order": "z"}, "the order is 'z'")]
)
def test_unknown_choices_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose(Layout(64, 64), [], **changes)


@pytest.mark.parametrize(("fit", "order"), [*itertools.product(FITS, ("drawn", "automatic"))])
def test_every_choice_runs_with_many_subjects_of_any_shape(fit: str, order: str) -> None:
    rng = np.random.default_rng(3)
    references = []
    for number in range(6):
        w, h = (int(v) for v in rng.integers(16, 200, 2))
        mask = (rng.random((h, w)) < 0.3).astype(np.uint8) * 255
        references.append(Reference(f"r{number}", rng.integers(0, 256, (h, w, 3), dtype=np.uint8), mask))
    spots = [(Box(x, y, x + w, y + h), n % 6 + 1) for n, (x, y, w, h) in enumerate(rng.uniform(1, 255, (32, 4)))]
    scene = compose(layout(*spots), references, fit, order)
    assert sorted(scene.painted) == list(range(32))
    assert all(0 <= share <= 1 for share in scene.visible)


# --- Layers ---------------------------------------------------------------------------------------

HALVES = np.zeros((64, 64, 3), np.uint8)
HALVES[:, :32], HALVES[:, 32:] = RED, GREEN  # red on the left, green on the right
HALVES[:16] = BLUE  # and blue on top


def layered(**layer: Any) -> np.ndarray:
    made = Layout(256, 256, (Instance("b1", Box(64, 64, 192, 192), 1, **layer),))
    return compose(made, [Reference("halves", HALVES, np.full((64, 64), 255, np.uint8))]).composite


def test_mirroring_exchanges_sides_and_a_quarter_turn_takes_the_top_to_the_right() -> None:
    plain = layered()
    assert np.array_equal(layered(flip="h"), plain[:, ::-1])
    assert np.array_equal(layered(flip="v"), plain[::-1])
    assert np.array_equal(layered(rotation=90), np.rot90(plain, -1))
    assert np.array_equal(layered(rotation=180), layered(flip="hv"))
    assert np.array_equal(layered(flip="h", rotation=-90), np.rot90(plain[:, ::-1]))


def test_in_fit_image_the_whole_picture_is_mirrored_not_the_subject_in_its_place() -> None:
    off_centre = subject("s", RED, (0, 16, 16, 48))
    boxes = [Layout(256, 256, (Instance("b1", Box(0, 0, 256, 256), 1, flip=flip),)) for flip in ("", "h")]
    plain, mirrored = (compose(made, [off_centre], fit="image").composite for made in boxes)
    assert area_of(plain, RED) == (0, 64, 64, 192)
    assert area_of(mirrored, RED) == (192, 64, 256, 192)


@given(st.floats(-180, 180, exclude_min=True), st.integers(40, 200), st.integers(40, 200))
@settings(max_examples=25, deadline=None)
def test_a_turned_subject_stays_in_the_room_of_its_box(rotation: float, width: int, height: int) -> None:
    box = Box(128 - width / 2, 128 - height / 2, 128 + width / 2, 128 + height / 2)
    instance = Instance("b1", box, 1, rotation=rotation, fit="stretch")
    composite = compose(Layout(256, 256, (instance,)), [subject("s", RED)]).composite
    rows, columns = np.nonzero((composite != GREY).any(axis=2))
    region = instance.region.clipped(256, 256)
    assert columns.min() >= region.x1 - 1.5 and columns.max() + 1 <= region.x2 + 1.5
    assert rows.min() >= region.y1 - 1.5 and rows.max() + 1 <= region.y2 + 1.5
    assert rows.size == pytest.approx(min(width * height, rows.size), rel=0.05)


def test_opacity_is_of_the_composite_alone() -> None:
    half = layered(opacity=0.5)
    assert half[100, 80].tolist() == [189, 64, 64]
    assert layered(opacity=0.0)[100, 80].tolist() == [GREY] * 3


def test_a_fit_of_its_own_goes_before_that_of_the_layout() -> None:
    thin = subject("s", RED, (24, 0, 40, 64))
    made = Layout(256, 256, (Instance("b1", Box(64, 64, 192, 192), 1, fit="stretch"),))
    assert area_of(compose(made, [thin], fit="instance").composite, RED) == (64, 64, 192, 192)


def test_a_hidden_box_is_neither_painted_nor_bound_and_its_reference_is_not_missed() -> None:
    made = Layout(
        256, 256, (Instance("b1", Box(64, 64, 192, 192), "gone", hidden=True), Instance("b2", Box(0, 0, 64, 64), 1))
    )
    scene = compose(made, [subject("a", RED), subject("b", GREEN)])
    assert scene.references[0] is None and scene.painted == (1,)
    hidden = Layout(256, 256, (Instance("b1", Box(64, 64, 192, 192), "a", "a lamp", hidden=True),))
    scene = compose(hidden, [subject("a", RED)])
    assert scene.warnings == () and scene.layout.instances[0].label == ""


def test_the_strength_of_a_box_multiplies_that_of_its_reference_there_alone() -> None:
    one = subject("a", RED)
    boxes = (Instance("b1", Box(0, 0, 64, 64), 1, strength=0.5), Instance("b2", Box(128, 128, 192, 192), 1))
    scene = compose(Layout(256, 256, boxes), [one])
    strengths = [reference.strength for reference in scene.references if reference]
    assert strengths == [0.5, 1.0] and scene.references[1] is one
