"""SIGMA-GEN's control pictures: planes, areas and orders, against the golden pictures and by their laws."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from golden import SIGMA
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from subjects import reference, square_mask

from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance
from contextgen_core.methods.sigma_gen import control, cuboids
from contextgen_core.methods.sigma_gen.control import Cell
from contextgen_core.methods.sigma_gen.cuboids import Cuboid


def case(file: str, name: str) -> dict[str, Any]:
    with np.load(SIGMA / file) as stored:
        return {key.split("/")[1]: stored[key] for key in stored.files if key.startswith(f"{name}/")}


def regions(arrays: dict[str, Any], key: str = "masks") -> np.ndarray:
    return np.unpackbits(arrays[key], axis=-1, count=int(arrays["wh"][0])).astype(bool)


MASKS = arrays(bool, st.tuples(st.integers(1, 4), st.integers(2, 4), st.just(3)))


@pytest.mark.parametrize("name", ["r00", "r01", "r02", "r03", "h_nested3"])
def test_planes_and_areas_equal_the_golden_ones(name: str) -> None:
    golden = case("routing_cases.npz", name)
    masks, (width, height) = regions(golden), (int(side) for side in golden["wh"])
    for mask, kind, box in zip(masks, golden["kinds"], golden["boxes"], strict=True):
        if kind == "box":
            assert np.array_equal(control.box_region(Box(*box.tolist()), width, height), mask)
    assert np.array_equal(control.control_picture(masks, golden.get("depth")), golden["i_c"])
    assert np.array_equal(control.areas(masks), golden["areas"])


def test_a_cuboid_equals_the_golden_one() -> None:
    golden = case("cuboid_cases.npz", "c1_one_box")
    width, height = (int(side) for side in golden["wh"])
    boxes = [Cuboid(tuple(row[:3]), tuple(row[3:6]), *row[6:]) for row in golden["boxes"].tolist()]
    assert np.allclose([box.corners() for box in boxes], golden["corners"], atol=1e-12)
    z = cuboids.depths(boxes, float(golden["focal"]), width, height)
    assert np.array_equal(np.isfinite(z), regions(golden))
    assert np.array_equal(z, golden["z"])
    nearest = z.min(axis=0)
    assert np.array_equal(cuboids.grey_of(nearest), golden["grey_g06"])
    assert np.array_equal(cuboids.grey_of(nearest, 1), golden["grey_g1"])
    assert np.array_equal(control.control_picture(np.isfinite(z), cuboids.grey_of(nearest)), golden["i_c"])


def test_a_box_is_rolled_first_then_pitched_then_turned() -> None:
    turned = Cuboid((0, 0, 5), (1, 1, 1), 90, 90).rotation
    assert np.allclose(turned @ [1, 0, 0], [0, 0, -1]) and np.allclose(turned @ [0, 0, 1], [0, -1, 0])
    assert np.allclose(Cuboid((0, 0, 5), (1, 1, 1), 90, 0, 90).rotation @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(Cuboid((0, 0, 5), (1, 1, 1), 0, 90, 90).rotation @ [1, 0, 0], [0, 0, 1])


def test_a_turned_silhouette_reaches_as_far_as_its_projected_corners() -> None:
    box = Cuboid((0.2, -0.1, 4), (1.5, 0.8, 1.1), 35, 20, -50)
    mask = np.isfinite(cuboids.depths([box], 200, 160, 120)[0])
    corners = box.corners()
    x, y = (200 * corners[:, axis] / corners[:, 2] + half for axis, half in ((0, 80), (1, 60)))
    for pixels, at in ((mask.any(0), x), (mask.any(1), y)):
        where = np.flatnonzero(pixels)
        assert abs(where[0] - at.min()) < 2 and abs(where[-1] + 1 - at.max()) < 2


def test_a_cuboid_behind_the_camera_is_not_seen_and_one_around_it_fills_the_picture() -> None:
    behind, around = Cuboid((0, 0, -3), (1, 1, 1)), Cuboid((0, 0, 0), (4, 4, 4), 20, 10, 5)
    z = cuboids.depths([behind, around], 20, 16, 8)
    assert not np.isfinite(z[0]).any()
    assert np.array_equal(z[1], np.full((8, 16), np.float32(cuboids.NEAR)))


@pytest.mark.parametrize(
    "numbers", [((0, 0, float("nan")), (1, 1, 1)), ((0, 0, 3), (1, 0, 1)), ((0, 0, 3), (1, 1, -1))]
)
def test_a_cuboid_that_cannot_be_is_refused(numbers: Any) -> None:
    with pytest.raises(InputError, match="3D box"):
        Cuboid(*numbers)


@pytest.mark.parametrize("focal", [0, -5, float("nan"), float("inf")])
def test_a_focal_length_that_cannot_be_is_refused(focal: float) -> None:
    with pytest.raises(InputError, match="focal"):
        cuboids.depths([Cuboid((0, 0, 3), (1, 1, 1))], focal, 8, 8)


@given(MASKS)
def test_the_first_and_the_last_subject_are_seen_whole(masks: np.ndarray) -> None:
    planes = control.routing_planes(masks)
    assert (planes[0][masks[-1]] == control.grey_level(len(masks) - 1)).all()
    assert (planes[1][masks[0]] == control.grey_level(0)).all()
    assert ((planes > 0) == masks.any(axis=0)).all()


@given(MASKS)
def test_planes_are_those_of_reversed_subjects_in_the_other_order(masks: np.ndarray) -> None:
    planes = control.routing_planes(masks).astype(int)
    reversed_planes = control.routing_planes(masks[::-1]).astype(int)[::-1]
    swapped = np.where(reversed_planes > 0, control.STEP * (len(masks) + 1) - reversed_planes, 0)
    assert np.array_equal(planes, swapped)


@given(MASKS)
@settings(max_examples=200)
def test_an_order_that_shows_all_is_the_first_of_all_orders_that_do(masks: np.ndarray) -> None:
    good = [order for order in permutations(range(len(masks))) if not control.hidden(masks[list(order)])]
    assert control.order_that_shows_all(masks) == (good[0] if good else None)


def test_the_hidden_subject_of_three_nested_boxes_is_named_and_another_order_shows_it() -> None:
    masks = regions(case("routing_cases.npz", "h_nested3"))
    assert control.hidden(masks) == (1,)
    order = control.order_that_shows_all(masks)
    assert order is not None and not control.hidden(masks[list(order)])


def test_many_subjects_get_an_order_without_delay() -> None:
    count = 25
    masks = np.stack([control.box_region(Box(n, n, 100 - n, 100 - n), 100, 100) for n in range(count)])
    order = control.order_that_shows_all(masks)
    assert order is None or not control.hidden(masks[list(order)])


def test_more_subjects_than_grey_levels_are_refused() -> None:
    with pytest.raises(InputError, match="26 subjects"):
        control.routing_planes(np.ones((26, 2, 2), bool))


def test_an_ellipse_touches_the_sides_of_its_box_and_spares_its_corners() -> None:
    region = control.ellipse_region(Box(4, 2, 20, 12), 32, 16)
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (2, 11, 4, 19)
    assert not region[2, 4] and abs(region.sum() - np.pi * 8 * 5) < 8
    assert not control.ellipse_region(Box(4, 2, 4, 12), 32, 16).any()


@example(0.0, 0.5, 1, 1, 0)  # the middles of two pixels lie on the ellipse, one of them not in the box
@given(st.floats(-40, 100), st.floats(-40, 100), st.integers(1, 90), st.integers(1, 90), st.integers(-180, 180))
def test_a_turned_shape_has_its_area_in_its_bounds(x: float, y: float, w: int, h: int, degrees: int) -> None:
    box = Box(x, y, x + w, y + h)
    bounds = Instance("b", box, rotation=degrees).region
    inside = control.box_region(Box(bounds.x1 - 1, bounds.y1 - 1, bounds.x2 + 1, bounds.y2 + 1), 96, 64)
    turned, ellipse = (draw(box, 96, 64, degrees) for draw in (control.box_region, control.ellipse_region))
    assert not (turned & ~inside).any() and not (ellipse & ~turned).any()


def test_a_box_on_its_side_is_the_box_that_has_its_sides_swapped() -> None:
    lying = control.box_region(Box(10, 20, 50, 30), 64, 64, 90)
    assert np.array_equal(lying, control.box_region(Box(25, 5, 35, 45), 64, 64))
    leaning = control.box_region(Box(16, 28, 48, 36), 64, 64, 45)
    assert leaning[22, 22] and leaning[42, 42] and not leaning[22, 42], "clockwise"
    assert abs(leaning.sum() - 32 * 8) < 16


@given(MASKS)
def test_the_areas_can_be_read_off_the_picture(masks: np.ndarray) -> None:
    seen = control.areas_of_picture(control.control_picture(masks))
    expected = control.areas(masks)[:, 1:3].tolist()
    assert [list(pixels) for pixels in seen] == expected[: len(seen)]
    assert not any(map(any, expected[len(seen) :])) and (not seen or any(seen[-1]))


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(1, 20), st.integers(1, 20))
def test_another_size_brings_no_new_value(plane: np.ndarray, width: int, height: int) -> None:
    scaled = control.nearest(plane, width, height)
    assert scaled.shape == (height, width) and set(np.unique(scaled)) <= set(np.unique(plane))
    assert np.array_equal(control.nearest(plane, plane.shape[1], plane.shape[0]), plane)


def test_false_grey_levels_are_refused_with_their_number() -> None:
    picture = control.control_picture(np.ones((1, 4, 4), bool))
    picture[..., 2] = 7  # depth is free
    control.check_routing(picture)
    picture[0, :3, 0] = 11
    with pytest.raises(InputError, match=r"3 pixels .* \(11\)"):
        control.check_routing(picture)


def test_depth_is_kept_inside_the_regions_alone_unless_wanted_whole() -> None:
    masks = np.zeros((1, 2, 3), bool)
    masks[0, 0] = True
    depth = np.full((2, 3), 90, np.uint8)
    assert control.control_picture(masks, depth)[..., 2].tolist() == [[90] * 3, [0] * 3]
    assert (control.control_picture(masks, depth, whole=True)[..., 2] == 90).all()


def test_an_identity_stands_in_the_middle_of_its_white_cell_with_its_aspect() -> None:
    wide = reference(80, 40, pixels=np.zeros((40, 80, 3), np.uint8), mask=square_mask(80, 40, 10, 10, 50, 20))
    tall = reference(40, 80, pixels=np.zeros((80, 40, 3), np.uint8), mask=square_mask(40, 80, 5, 5, 15, 45))
    stack = control.identity_stack([wide, tall], Cell(160, 80))
    assert stack.shape == (160, 160, 3) and stack.dtype == np.uint8
    dark: np.ndarray = np.all(stack < 128, axis=2)
    assert np.flatnonzero(dark[:80].any(0)).tolist() == list(range(16, 144))
    assert np.flatnonzero(dark[:80].any(1)).tolist() == list(range(24, 56))
    assert np.flatnonzero(dark[80:].any(0)).tolist() == list(range(72, 88))
    assert np.flatnonzero(dark[80:].any(1)).tolist() == list(range(8, 72))
    assert (stack[0, 0] == 255).all()
