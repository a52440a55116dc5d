"""The differential part finds what differs and makes it small; its cases follow from the seed; kept ones stay equal."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from campaign import differential
from campaign.differential import cases

KEPT = sorted((Path(__file__).parent / "differential").glob("*.json"))


def test_a_seed_is_a_case_that_json_carries() -> None:
    for seed in range(30):
        case = cases.draw(seed)
        assert case == cases.draw(seed) == json.loads(json.dumps(case))
    assert cases.draw(1) != cases.draw(2)


def test_a_few_layouts_of_all_methods_are_equal_in_all_kernels() -> None:
    methods, seed = {name for names in cases.ALONE for name in names}, 0
    while methods:
        case = cases.draw(seed)
        if methods & set(case["methods"]) and len(case["boxes"]) < 9 and not cases.refuses(case):
            sentence, _, off = differential.attention_of(case)
            assert not sentence, (seed, sentence)
            assert off < differential.ATTENTION
            methods -= set(case["methods"])
        seed += 1


def test_a_kernel_that_is_wrong_is_found_and_the_case_made_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("campaign.frame.CASES", tmp_path)
    module: Any = importlib.import_module("contextgen_core.attention.run")
    seed, seen = 0, ""
    with monkeypatch.context() as broken:
        broken.setattr(module, "join_rows", lambda *_args, **_more: None)
        while not seen:
            seed += 1
            seen = differential.differs_in_attention(cases.draw(seed))
        row = differential.Row("attention", "")
        differential.report(row, cases.draw(seed), seen, differential.differs_in_attention)
        small = json.loads((tmp_path / "differential" / row.found[0].case).read_text())
        assert "merge is off" in differential.differs_in_attention(small)
    assert len(small["boxes"]) <= 2 and small["batch"] == 1 and len(small["methods"]) == 1
    assert not differential.differs_in_attention(small)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_once_differed_is_equal(path: Path) -> None:
    case = json.loads(path.read_text())
    assert not cases.refuses(case)
    assert not differential.differs_in_attention(case)
