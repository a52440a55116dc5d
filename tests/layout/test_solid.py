"""Boxes with depth: what a camera sees of them, and how they stay what they are when the canvas changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.errors import InputError
from contextgen_core.layout.layout import Camera, Layout, Solid
from contextgen_core.layout.solid import horizon, outline, project, seen_from
from contextgen_core.methods.sigma_gen.cuboids import cuboid_of, depths

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors/solid_box.json").read_text("utf-8"))


def solid_of(entry: dict[str, Any]) -> Solid:
    long = {"w": "width", "h": "height", "d": "depth"}
    numbers: dict[str, float] = entry["solid"]
    return Solid(**{long.get(key, key): value for key, value in numbers.items()})


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_the_editors_projection(entry: dict[str, Any]) -> None:
    canvas, camera = entry["canvas"], Camera(**entry["camera"])
    box = project(solid_of(entry), camera, canvas["w"], canvas["h"])
    seen = None if box is None else [box.x1, box.y1, box.width, box.height]
    assert seen == (None if entry["box"] is None else pytest.approx(entry["box"], abs=0.011))
    assert horizon(camera, canvas["w"], canvas["h"]) == pytest.approx(entry["horizon"], abs=1e-5)


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_the_box_holds_what_rays_meet(entry: dict[str, Any]) -> None:
    """A silhouette by rays, which knows nothing of corners, fills the box to the pixel."""
    camera, (width, height) = Camera(**entry["camera"]), entry["canvas"].values()
    seen = np.isfinite(depths([cuboid_of(solid_of(entry), camera)], camera.focal * width, width, height)[0])
    box = project(solid_of(entry), camera, width, height)
    if box is None:
        assert not seen.any()
        return
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    met = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert met[0] >= box.x1 - 0.5 and met[1] >= box.y1 - 0.5 and met[2] <= box.x2 + 0.5 and met[3] <= box.y2 + 0.5
    # A corner may be too thin for a ray through a pixel's middle.
    assert max(abs(a - b) for a, b in zip(met, (box.x1, box.y1, box.x2, box.y2), strict=True)) < 4


numbers = st.floats(-180, 180)


@given(numbers, st.floats(-89, 89), numbers, st.floats(-89, 89))
def test_a_pitched_camera_sees_the_same_corners(yaw: float, pitch: float, roll: float, down: float) -> None:
    camera, solid = Camera(1.2, 1.5, down), Solid(0.3, 5, 1, 2, 0.5, 0.25, yaw, pitch, roll)
    centre, turned = seen_from(solid, camera)
    cuboid = cuboid_of(solid, camera)
    assert np.abs(cuboid.rotation - turned).max() < 1e-6
    assert np.abs(np.array(cuboid.center) - centre).max() < 1e-12


@given(numbers, st.floats(-90, 90), numbers)
def test_its_lowest_corner_is_what_y_says(yaw: float, pitch: float, roll: float) -> None:
    corners = cuboid_of(Solid(0, 5, 1, 2, 0.5, 0.25, yaw, pitch, roll), Camera(height=1.5)).corners()
    assert corners[:, 1].max() == pytest.approx(1.5 - 0.25)


def layout_with(camera: str = "{}", solid: str = '"x":0,"z":4,"w":1,"h":1,"d":1') -> str:
    return (
        '{"v":1,"canvas":{"w":1024,"h":1024},"boxes":[{"id":"b1","x":365.71,"y":512,"w":292.58,"h":292.57,'
        f'"solid":{{{solid},"at":[365.71,512,292.58,292.57]}}}}],"camera":{camera}}}'
    )


def test_on_another_canvas_it_stands_where_it_stood() -> None:
    layout = Layout.from_json(layout_with())
    for width, height in ((512, 512), (512, 1024)):
        (scaled,) = layout.scaled_to(width, height).instances
        assert scaled.solid == layout.instances[0].solid
        assert scaled.solid and scaled.box == project(scaled.solid, layout.camera, width, height)
    far = Layout.from_json(layout_with(solid='"x":40,"z":4,"w":1,"h":1,"d":1'))
    (scaled,) = far.scaled_to(512, 512).instances
    assert scaled.solid is None and scaled.box.width == pytest.approx(146.29)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (layout_with(solid='"x":0,"z":NaN,"w":1,"h":1,"d":1'), "solid.z"),
        (layout_with(solid='"x":0,"z":4,"w":1,"h":0,"d":1'), "solid of 1 x 0 x 1"),
        (layout_with(solid='"x":0,"z":4,"w":1e9,"h":1,"d":1'), "solid.w"),
        (layout_with('{"focal":0}'), "camera.focal = 0"),
        (layout_with('{"focal":NaN}'), "camera.focal"),
        (layout_with('{"height":-1}'), "camera.height = -1"),
        (layout_with('{"pitch":90}'), "camera.pitch = 90"),
    ],
)
def test_bad_numbers_get_one_sentence(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        Layout.from_json(text)
    assert words in str(error.value) and "\n" not in str(error.value) and str(error.value).endswith(".")


def test_nothing_is_left_of_what_lies_behind() -> None:
    assert len(outline(Solid(0, -3, 1, 1, 1), Camera(), 64, 64)) == 0
