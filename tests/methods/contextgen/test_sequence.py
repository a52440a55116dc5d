"""Where every token stands: ids, kept tokens, and the plan as it travels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from golden import CONTEXTGEN_CASES
from hypothesis import given
from hypothesis import strategies as st
from plans import golden_plan, plans, sequence_of

from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.tokens import TokenBox, token_box
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens, active_references, position_ids

coordinates = st.floats(-100, 400, allow_nan=False)


@given(coordinates, coordinates, st.floats(0.01, 300), st.floats(0.01, 300))
def test_a_box_has_exactly_the_tokens_that_it_touches(x: float, y: float, w: float, h: float) -> None:
    box = token_box(Box(x, y, x + w, y + h), 16, 12)
    touched = {
        (column, row)
        for column in range(16)
        for row in range(12)
        if x < 16 * (column + 1) and x + w > 16 * column and y < 16 * (row + 1) and y + h > 16 * row
    }
    assert {(c, r) for c in range(box.x1, box.x2) for r in range(box.y1, box.y2)} == touched
    assert box.empty == (not touched)


def test_position_ids_walk_down_the_diagonal_past_references_that_are_not_read() -> None:
    unread = ReferenceTokens("unread", 3, 1, bytes(3), TokenBox(0, 0, 1, 1))
    read = ReferenceTokens("read", 1, 2, bytes([1, 1]), TokenBox(0, 0, 1, 1))
    ids = position_ids(Plan(5, 4, (unread, read)))
    assert ids.dtype == np.float32
    assert ids[1].tolist() == [0, 0, 1]  # noise: (0, row, column)
    assert ids[20 + 5].tolist() == [1, 1, 0]  # layout: one index up, same places
    assert ids[40].tolist() == [1, 4, 5]  # first reference begins at the layout's lower right corner
    assert ids[-1].tolist() == [1, 4 + 1 + 1, 5 + 3]  # the second also walks past the first


@given(plans(strengths=(0.0, 1.0, 2.0)), st.integers(0, 40))
def test_kept_tokens_are_the_base_and_the_valid_tokens_of_read_references(plan: Plan, text: int) -> None:
    sequence = sequence_of(plan, text)
    kept = np.arange(plan.image_tokens) if sequence.kept is None else sequence.kept
    assert sequence.length == text + len(kept)
    assert (np.diff(kept) > 0).all()
    expected = np.ones(2 * plan.noise_tokens, np.uint8).tolist()
    for number, reference in enumerate(plan.references):
        expected += reference.valid if number in sequence.active else bytes(reference.tokens)
    assert np.flatnonzero(expected).tolist() == kept.tolist()
    # the same tokens, named in the pruned and in the whole sequence
    whole = sequence_of(plan, text, pruned=False)
    assert whole.length == text + plan.image_tokens
    for number in sequence.active:
        assert (text + kept[sequence.reference_keys(number) - text] == whole.reference_keys(number)).all()


@given(plans(strengths=(0.0, 0.5, 1.0)))
def test_only_references_that_somebody_reads_are_active(plan: Plan) -> None:
    for number, reference in enumerate(plan.references):
        reads = reference.strength > 0 and any(reference.valid) and not reference.box.empty
        assert (number in active_references(plan)) == reads
    assert active_references(plan, lambda _: False) == ()


def test_a_reference_outside_its_window_is_not_active() -> None:
    early = ReferenceTokens("early", 1, 1, b"\1", TokenBox(0, 0, 1, 1), end=0.4)
    plan = Plan(2, 2, (early, early._replace(end=1.0)))
    assert active_references(plan, lambda r: r.start <= 0.5 <= r.end) == (1,)


@given(plans(strengths=(0.0, 0.5, 1.0, 4.0)))
def test_a_plan_survives_its_travel_as_plain_data(plan: Plan) -> None:
    value = plan.as_tuple()
    assert Plan.from_tuple(value) == plan
    assert hash(plan) == hash(Plan.from_tuple(value))

    def plain(item: object) -> bool:
        return all(map(plain, item)) if isinstance(item, tuple) else type(item) in (str, int, float, bytes)

    assert type(value) is tuple and plain(value)


@pytest.mark.parametrize("value", [None, (), ("other", 1, 1, ()), ("contextgen-plan-1", 4, 4, ((1, 2),)), 7])
def test_a_foreign_value_is_no_plan(value: object) -> None:
    with pytest.raises(InputError, match="ContextGenConditioning"):
        Plan.from_tuple(value)


@pytest.mark.parametrize("path", CONTEXTGEN_CASES, ids=lambda p: p.stem)
def test_ids_and_boxes_equal_the_authors(path: Path) -> None:
    plan, case = golden_plan(path)
    text = int(case["txt_len"])
    assert np.array_equal(position_ids(plan), case["ids"][text:])
    for reference, box in zip(plan.references, case["boxes_tok"][1:].tolist(), strict=True):
        assert tuple(reference.box) == tuple(box)
    assert plan.image_tokens == case["seg_ends"][-1]
    assert math.prod(case["tok_sizes_wh"][0]) == plan.noise_tokens
