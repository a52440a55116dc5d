"""Clicks, sources and cleaning of cut-outs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sam_tiny import picture, tiny_state

from contextgen_core.cutout import sam
from contextgen_core.cutout.cutout import (
    Cleaning,
    Cutout,
    Prompts,
    Stroke,
    brushed,
    by_model,
    finish,
    fit_mask,
    plain,
    rgba,
)
from contextgen_core.cutout.sam import Point, Segmenter
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_state(tiny_state(sam))


def text(**fields) -> str:
    return json.dumps({"v": 1, "picture": {"w": 120, "h": 90}, **fields})


def test_clicks_are_read():
    prompts = Prompts.from_json(
        text(
            points=[{"x": 1.5, "y": 2, "keep": True}, {"x": 3, "y": 4, "keep": False, "__proto__": 1}],
            box={"x": 10, "y": 20, "w": 30, "h": 40},
        )
    )
    assert prompts == Prompts((Point(1.5, 2.0), Point(3.0, 4.0, False)), Box(10, 20, 40, 60), 120, 90)
    assert (
        not prompts.empty
        and Prompts.from_json("").empty
        and Prompts.from_json(" \n").empty
        and Prompts.from_json("{}").empty
    )
    assert Prompts.from_json({"points": [], "box": None}).empty


def test_clicks_follow_the_picture_to_another_size():
    prompts = Prompts.from_json(text(points=[{"x": 60, "y": 45}], box={"x": 12, "y": 9, "w": 12, "h": 9}))
    assert prompts.scaled_to(240, 270) == Prompts((Point(120, 135),), Box(24, 27, 48, 54), 240, 270)
    assert Prompts((Point(3, 4),)).scaled_to(7, 8).points == (Point(3, 4),), (
        "without a stated picture they are its pixels already"
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("[1]", "list"),
        ("{", "not JSON"),
        (text(points=[{"x": 1}]), "y = null"),
        (text(points=[{"x": "1", "y": 2}]), "point 1 has x"),
        ('{"points": [{"x": NaN, "y": 2}]}', "x = NaN"),
        (text(points=[{"x": 1, "y": 2, "keep": 1}]), "keep = 1"),
        (text(points=[{"x": 1, "y": 1e9}]), "finite"),
        (text(points=[{"x": 1, "y": 2}] * 65), "65 points"),
        (text(points=5), "points = 5"),
        (text(box=[1, 2, 3, 4]), "list of 4"),
        (text(box={"x": 1, "y": 2, "w": 0, "h": 4}), "above 0"),
        ('{"picture": {"w": 0, "h": 4}}', "sides from 1"),
        ('{"v": 2}', "version 2"),
        ("[" * 50, "nested"),
        ('{"points": "' + "x" * 70000 + '"}', "limit is 65536"),
    ],
)
def test_clicks_that_cannot_be_meant_are_named(value, says):
    with pytest.raises(InputError, match=says):
        Prompts.from_json(value)


def test_the_best_mask_or_the_chosen_one(segmenter):
    pixels = picture()
    prompts = Prompts((Point(60, 45),))
    found = segmenter.propose(pixels, points=prompts.points)
    raw = Cleaning(fill_holes=False)
    tried = 0
    for choice in (1, 2, 3):
        if not found.masks[choice - 1].any():
            continue
        one = by_model(segmenter, pixels, prompts, choice=choice, cleaning=raw)
        assert np.array_equal(one.mask > 0, found.masks[choice - 1]) and one.quality == pytest.approx(
            float(found.quality[choice - 1])
        )
        tried += 1
    assert tried >= 2
    best = by_model(segmenter, pixels, prompts, cleaning=raw)
    assert np.array_equal(best.mask > 0, found.masks[found.best()]) and best.quality == pytest.approx(
        float(found.quality.max())
    )
    with pytest.raises(InputError, match="proposes 3"):
        by_model(segmenter, pixels, prompts, choice=4)


def test_clicks_on_a_smaller_view_cut_the_same_subject(segmenter):
    pixels = picture()
    direct = by_model(segmenter, pixels, Prompts((Point(60, 45),), Box(30, 20, 90, 70)))
    scaled = by_model(segmenter, pixels, Prompts((Point(30, 22.5),), Box(15, 10, 45, 35), 60, 45))
    assert np.array_equal(direct.mask, scaled.mask) and direct.box == scaled.box


def test_prompts_outside_the_picture_are_named(segmenter):
    with pytest.raises(InputError, match="point 1"):
        by_model(segmenter, picture(), Prompts((Point(600, 45),)))
    with pytest.raises(InputError, match="outside the picture"):
        by_model(segmenter, picture(), Prompts(box=Box(500, 500, 600, 600)))


def test_cleaning_runs_in_its_stated_order():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:25, 5:25] = 255
    mask[10:12, 10:12] = 0
    mask[30:33, 50:53] = 255
    cleaned = Cleaning(fill_holes=True, largest_part=True, grow=-2)(mask)
    expected = np.zeros_like(mask)
    expected[7:23, 7:23] = 255
    assert np.array_equal(cleaned, expected)
    assert np.array_equal(Cleaning(fill_holes=False)(mask), mask)


def test_an_inverted_mask_is_named():
    pixels = np.zeros((40, 40, 3), np.uint8)
    mask = np.full((40, 40), 255, np.uint8)
    mask[10:30, 10:30] = 0
    assert "invert mask" in finish(pixels, mask, Cleaning(fill_holes=False)).warnings[0]
    assert finish(pixels, 255 - mask, Cleaning()).warnings == ()


def test_nothing_selected_is_an_error():
    pixels = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(InputError, match="selects nothing"):
        finish(pixels, np.zeros((40, 40), np.uint8), Cleaning())
    dot = np.zeros((40, 40), np.uint8)
    dot[5, 5] = 255
    with pytest.raises(InputError, match="grow = -3"):
        finish(pixels, dot, Cleaning(grow=-3))


def test_a_mask_of_another_picture_is_refused():
    mask = np.full((45, 60), 255, np.uint8)
    assert fit_mask(mask, 120, 90).shape == (90, 120)
    assert fit_mask(np.full((33, 50), 255, np.uint8), 100, 67).shape == (67, 100), "rounding"
    with pytest.raises(InputError, match="64 x 64"):
        fit_mask(np.zeros((64, 64), np.uint8), 1024, 768)


def test_plain_background_and_the_rgba_picture():
    pixels = np.full((40, 50, 3), 255, np.uint8)
    pixels[10:30, 10:40] = (10, 90, 200)
    cut = plain(pixels, 0.1)
    assert cut.box == Box(10, 10, 40, 30) and cut.quality == 1.0
    picture = rgba([cut])[0]
    assert picture.shape == (40, 50, 4) and picture[20, 20].tolist() == [10, 90, 200, 255] and picture[0, 0, 3] == 0


# --- strokes --------------------------------------------------------------------------------------


def test_strokes_are_painted_into_the_finished_mask_in_their_order() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 20:40] = 255
    made = Cutout(np.zeros((60, 80, 3), np.uint8), mask, Box(20, 20, 40, 40))
    strokes = Prompts.from_json(
        {"strokes": [{"r": 3, "at": [50, 30, 70, 30]}, {"keep": False, "r": 5, "at": [60, 30]}]}
    ).strokes
    painted = brushed(made, strokes)
    assert painted.mask[30, 50] == painted.mask[30, 70] == painted.mask[33, 52] == 255
    assert painted.mask[30, 60] == painted.mask[34, 60] == 0
    assert painted.mask[30, 30] == 255 and made.mask[30, 50] == 0
    assert painted.box == Box(20, 20, 74, 40)
    assert brushed(made, ()) is made
    with pytest.raises(InputError, match="rub out the whole subject"):
        brushed(made, Prompts.from_json({"strokes": [{"keep": False, "r": 99, "at": [30, 30]}]}).strokes)


def test_strokes_belong_to_the_picture_they_were_made_on_and_ask_no_model() -> None:
    prompts = Prompts.from_json({"picture": {"w": 80, "h": 60}, "strokes": [{"r": 4, "at": [10, 20, 30, 40]}]})
    assert prompts.empty
    assert prompts.scaled_to(160, 120).strokes == (Stroke(True, 8, ((20, 40), (60, 80))),)


@pytest.mark.parametrize(
    "strokes",
    [
        {},
        [3],
        [{"at": [1, 2]}],
        [{"r": 0, "at": [1, 2]}],
        [{"r": 9999, "at": [1, 2]}],
        [{"r": 3, "at": []}],
        [{"r": 3, "at": [1]}],
        [{"r": 3, "at": [1, 1e9]}],
        [{"r": 3, "at": [1, 2], "keep": 1}],
        [{"r": 3, "at": [1, 2]}] * 65,
        [{"r": 3, "at": [1, 2] * 4097}],
    ],
)
def test_strokes_that_cannot_be_are_refused(strokes: object) -> None:
    with pytest.raises(InputError):
        Prompts.from_json({"strokes": strokes})
