"""Pairing of detections with references, and masks as boxes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.foreign_boxes import LabelledBox
from contextgen_core.layout.matching import assign, iou_matrix, same_label
from contextgen_core.layout.pairing import boxes_to_masks, by_appearance, by_label, by_order
from contextgen_core.masks import tight_box


def found(*labels: str, scores: tuple[float | None, ...] = ()) -> list[LabelledBox]:
    scores = scores or (None,) * len(labels)
    return [LabelledBox(Box(0, 0, 10, 10), label, score) for label, score in zip(labels, scores, strict=True)]


def test_by_order():
    assert by_order(3, found("a", "b")) == ((0, 1, None), ())
    assert by_order(1, found("a", "b")) == ((0,), (1,))


def test_by_label_prefers_the_exact_name_then_the_noun():
    assert by_label(["red cup", "cup"], found("cup", "cup")) == ((1, 0), ())
    assert by_label(["Dog", "cat"], found("a bird", "CAT.", "dog")) == ((2, 1), (0,))
    assert by_label(["dog"], found("dog", "dog", scores=(0.3, 0.9))) == ((1,), (0,))
    assert by_label(["dog", "dog"], found("dog", "dog", scores=(0.3, 0.9))).chosen == (1, 0)
    assert by_label(["", "dog"], found("", "dog")) == ((None, 1), (0,))


@pytest.mark.parametrize(
    ("wanted", "label", "same"),
    [
        ("red cup", "cup", True),
        ("cup", "red cup", False),
        ("Cup ", "cup.", True),
        ("cupboard", "board", False),
        ("", "x", True),
    ],
)
def test_labels_are_compared_by_words(wanted, label, same):
    assert same_label(wanted, label) is same


def test_by_appearance_maximises_the_sum_not_the_first_choice():
    similarity = np.array([[0.9, 0.8], [0.85, 0.1]])
    assert by_appearance(similarity) == ((1, 0), ())
    assert by_appearance(np.array([[-0.5, -0.9]])) == ((0,), (1,)), "unlike is still the most alike"
    assert by_appearance(np.array([[0.2, 0.1]]), least=0.5) == ((None,), (0, 1))
    assert by_appearance(np.zeros((2, 0))) == ((None, None), ())
    with pytest.raises(InputError, match="finite"):
        by_appearance(np.array([[np.nan]]))


@given(
    st.integers(1, 4).flatmap(
        lambda rows: st.integers(1, 4).flatmap(
            lambda columns: st.lists(
                st.lists(st.floats(0, 1), min_size=columns, max_size=columns), min_size=rows, max_size=rows
            )
        )
    )
)
def test_assignment_is_as_good_as_trying_everything(gains):
    matrix = np.array(gains)
    rows, columns = matrix.shape
    chosen = assign(matrix)
    used = [c for c in chosen if c is not None]
    assert len(set(used)) == len(used) == min(rows, columns)
    total = sum(matrix[r, c] for r, c in enumerate(chosen) if c is not None)
    wide = np.zeros((rows, rows + columns))
    wide[:, :columns] = matrix
    best = max(sum(wide[r, c] for r, c in enumerate(p)) for p in permutations(range(rows + columns), rows))
    assert total == pytest.approx(best)


def test_iou_of_hand_made_pairs():
    boxes = [Box(0, 0, 10, 10), Box(20, 20, 30, 30), Box(5, 5, 5, 5)]
    others = [Box(0, 0, 10, 10), Box(5, 0, 15, 10), Box(10, 0, 20, 10)]
    assert np.allclose(iou_matrix(boxes, others), [[1, 1 / 3, 0], [0, 0, 0], [0, 0, 0]])
    assert iou_matrix(boxes, []).shape == (3, 0)


@given(
    st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 31), st.integers(1, 21)).filter(
        lambda b: b[0] < b[2] and b[1] < b[3]
    )
)
def test_a_whole_pixel_box_survives_the_way_through_its_mask(corners):
    box = Box(*corners)
    masks = boxes_to_masks([box], 31, 21)
    assert tight_box(masks[0]) == box
    assert (masks > 0).sum() == box.area


def test_masks_of_odd_boxes():
    masks = boxes_to_masks([Box(3.4, 3.4, 3.45, 3.45), Box(-5, -5, 2, 2), Box(100, 0, 120, 5)], 10, 8)
    assert masks.shape == (3, 8, 10)
    assert tuple(map(tight_box, masks)) == (Box(3, 3, 4, 4), Box(0, 0, 2, 2), None)
