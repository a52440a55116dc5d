"""The authors' request files, as this side and the editor read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contextgen_core.layout.layout import Layout, boxes_from_any
from contextgen_core.layout.request_file import read_requests

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/requests.json").read_text("utf-8"))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_they_mean_what_the_editor_reads(case: dict[str, Any]) -> None:
    value = json.loads(case["text"])
    request, (width, height) = value[0] if isinstance(value, list) else value, case["canvas"]
    if "annos" in request:
        read = [(found.box, found.label, None) for found in boxes_from_any(request, width, height)]
    else:
        layout = Layout.from_request(read_requests(request)[0])
        assert (layout.width, layout.height) == (width, height)
        read = [(instance.box, instance.label, instance.reference) for instance in layout.instances]
    boxes = [{"rect": [box.x1, box.y1, box.x2, box.y2], "label": label, "ref": ref} for box, label, ref in read]
    assert boxes == case["boxes"]
