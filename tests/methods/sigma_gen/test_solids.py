"""3D boxes in the control pictures, held to the editor's preview by the same vectors."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contextgen_core import prepare
from contextgen_core.composite.compose import compose
from contextgen_core.composite.references import Reference
from contextgen_core.layout.layout import Layout
from contextgen_core.methods.sigma_gen.control import Cell
from contextgen_core.methods.sigma_gen.regions import ControlOptions

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/control_planes.json").read_text("utf-8"))


def control(layout: Layout, **options: Any) -> np.ndarray:
    pixels, mask = np.full((20, 20, 3), 90, np.uint8), np.full((20, 20), 255, np.uint8)
    people = [Reference(f"r{number}", pixels, mask) for number in range(len(layout.instances))]
    return prepare(compose(layout, people), "sigma_gen", ControlOptions(cell=Cell(32, 32), **options)).pictures[1]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_the_editors_planes(case: dict[str, Any]) -> None:
    picture = control(Layout.from_json(case["layout"]))
    for plane in range(3):
        shown = zlib.decompress(base64.b64decode(case["planes"][plane]))
        want = np.frombuffer(shown, np.uint8).reshape(picture.shape[:2])
        # A pixel on the very edge, or a grey on the very half, may fall to either side on another machine.
        assert np.count_nonzero(picture[..., plane] != want) <= 2


def test_a_3d_box_brings_its_silhouette_and_its_depth_unless_a_depth_is_given() -> None:
    layout = Layout.from_json(VECTORS[0]["layout"])
    picture = control(layout)
    flat = control(replace(layout, instances=tuple(replace(each, solid=None) for each in layout.instances)))
    assert picture[..., 2].max() == 255 and not flat[..., 2].any()
    assert (picture[..., 0] == 10).sum() < (flat[..., 0] == 10).sum()
    given = control(layout, depth=np.full((64, 96), 77, np.uint8))[..., 2]
    assert set(np.unique(given)) == {0, 77}
