"""What counts as a collision beside another pack, and where its patches are placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from campaign import neighbour_stage as stage
from campaign import neighbours

GOOD = {"alone": "", "before": "", "after": "", "neutral": True, "same in both orders": True, "ours as without": True}
SEEN: dict[str, Any] = {
    "pack": "Other", "order": "ours first", "failed": "", "ours failed": "", "taken": [], "core taken": [],
    "picture": True, "patches": {"OtherPatch": {**GOOD, "flat": False}},
}  # fmt: skip
SENTENCE = "InputError: ContextGenPatchModel, model: it is a copied forward; take the other pack's node out."


def test_nothing_is_said_of_a_good_neighbour() -> None:
    assert neighbours.complaints(SEEN) == []


@pytest.mark.parametrize(
    "change",
    [
        {"taken": ["LayoutComposer"]},
        {"core taken": ["KSampler"]},
        {"used": ["contextgen.Notes"]},
        {"ours failed": "ImportError: no"},
        {"picture": False},
        {"picture": "RuntimeError: no"},
        {"died": "it ended"},
        {"patches": {"OtherPatch": {**GOOD, "flat": False, "before": "KeyError: 'img'"}}},
        {"patches": {"OtherPatch": {**GOOD, "flat": True}}},
        {"patches": {"OtherPatch": {**GOOD, "flat": False, "same in both orders": False}}},
        {"patches": {"OtherPatch": {"died": "it ended"}}},
    ],
)
def test_what_breaks_the_property_is_said(change: dict[str, Any]) -> None:
    assert len(neighbours.complaints({**SEEN, **change})) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"before": SENTENCE, "after": SENTENCE},
        {"alone": "TypeError: no", "before": "TypeError: no", "after": "TypeError: no"},
        {"neutral": False, "same in both orders": True, "ours as without": False},
        {"neutral": False, "same in both orders": False, "ours as without": False},
    ],
)
def test_a_sentence_or_an_effect_of_theirs_is_allowed(change: dict[str, Any]) -> None:
    seen = {**SEEN, "patches": {"OtherPatch": {**GOOD, "flat": False, **change}}}
    assert neighbours.complaints(seen) == []


def test_names_of_ours_are_seen_as_words_only(tmp_path: Path) -> None:
    names = neighbours.our_names()
    assert {"LayoutComposer", "CONTEXTGEN_LAYOUT", "contextgen.Notes", "contextgen_probe"} <= names
    (tmp_path / "a.js").write_text('name: "contextgen.Notes"; x = MyLayoutComposer2', encoding="utf-8")
    (tmp_path / "readme.md").write_text("LayoutComposer", encoding="utf-8")
    assert neighbours.used(tmp_path, names) == {"contextgen.Notes"}


def test_a_patch_is_placed_before_ours_after_it_or_alone() -> None:
    prompt, patch = stage.workflow(), ({"strength": 1.0}, "model", 0)
    ours = next(key for key, node in prompt.items() if node["class_type"] == "ContextGenPatchModel")
    source = prompt[ours]["inputs"]["model"]

    before = stage.placed(prompt, "OtherPatch", patch, "before")
    assert before[ours]["inputs"]["model"] == ["900", 0] and before["900"]["inputs"]["model"] == source
    after = stage.placed(prompt, "OtherPatch", patch, "after")
    assert after["900"]["inputs"] == {"strength": 1.0, "model": [ours, 0]}
    alone = stage.placed(prompt, "OtherPatch", patch, "alone")
    assert ours not in alone and alone["900"]["inputs"]["model"] == source
    for made in (after, alone):
        readers = [key for key, node in made.items() if ["900", 0] in node["inputs"].values()]
        assert readers == [key for key, node in prompt.items() if [ours, 0] in node["inputs"].values()] != []
