"""The demonstration makes what it promises, from the real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextgen_core import demo


def test_every_case_leaves_its_pictures_and_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STEPS", 1)
    assert demo.main(["--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(capsys.readouterr().out)
    for case, entry in zip(demo.cases(), report["cases"], strict=True):
        assert entry["case"] == case.name and entry["host"] == "diffusers"
        assert entry["tokens"] == sum(entry["tokens_per_part"].values()) > entry["kept_tokens"]
        assert entry["ours"]["step_flop"] < entry["dense"]["step_flop"]
        assert entry["seconds"]["sample"] > 0 and entry["weights"]
        for name in ("composite", "result"):
            with Image.open(tmp_path / f"{case.name}_{name}.png") as picture:
                assert picture.size == (case.layout.width, case.layout.height)
        for name in ("token_grid", "visibility"):
            assert np.asarray(Image.open(tmp_path / f"{case.name}_{name}.png")).std() > 10


def test_the_photographs_overlap_and_stay_inside() -> None:
    case = demo.photographs()
    assert [reference.name for reference in case.references] == ["astronaut", "shuttle", "cat", "cup"]
    boxes = [instance.box for instance in case.layout.instances]
    assert any(a.iou(b) > 0 for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(0 <= b.x1 < b.x2 <= case.layout.width and 0 <= b.y1 < b.y2 <= case.layout.height for b in boxes)
    assert all(0.2 < (reference.mask >= 128).mean() < 0.95 for reference in case.references)


def test_the_creatures_are_four_and_none_was_trained_on() -> None:
    case = demo.creatures()
    assert len(case.references) == len(case.layout.instances) == 4
    assert case.truth is not None and case.truth.shape == (case.layout.height, case.layout.width, 3)
    assert len({reference.name for reference in case.references}) == 4
