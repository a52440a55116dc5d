"""Which methods read the words written at boxes: the editor says so, from a list of its own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from contextgen_core import prepare
from contextgen_core.composite.compose import compose
from contextgen_core.composite.references import Reference
from contextgen_core.layout.layout import Box, Instance, Layout
from contextgen_core.methods.registry import MODULES, method

EDITOR = (Path(__file__).parents[2] / "web/host/downstream.js").read_text("utf-8")


def listed(name: str) -> set[str]:
    found = re.search(rf"export const {name} = \[(.*?)\]", EDITOR, re.S)
    assert found
    return set(re.findall(r'"(\w+)"', found[1]))


@pytest.mark.parametrize("name", MODULES)
def test_the_editor_knows_whether_a_method_reads_words(name: str) -> None:
    person = Reference("Anna", np.full((32, 32, 3), 90, np.uint8), np.full((32, 32), 255, np.uint8))
    boxes = (Instance("b1", Box(0, 0, 64, 128), 1), Instance("b2", Box(64, 0, 128, 128), None, "a red lamp"))
    scene = compose(Layout(128, 128, boxes), [person])
    # A plan that waits for the text encoder is made of the words themselves.
    reads = method(name).needs_text or any("a red lamp" in phrase for phrase in prepare(scene, name).phrases)
    assert (method(name).source in listed("WORD_METHODS")) == reads
