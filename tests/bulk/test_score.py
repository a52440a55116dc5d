"""Scorers: more is better, what cannot be measured is left out, and a row that lacks what they need says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from contextgen_core.bulk.backend import Subject, Task
from contextgen_core.bulk.score import SCORERS, Identity, read_subject, scorer, total
from contextgen_core.bulk.table import Row
from contextgen_core.errors import InputError
from contextgen_core.training.small_world import world

SAMPLES = Path(__file__).resolve().parents[2] / "assets" / "samples"
CAT, CUP = SAMPLES / "contextgen_cat.png", SAMPLES / "contextgen_cup.png"


def task(subjects: tuple[Subject, ...] = (), **values: object) -> Task:
    return Task(Row(0, "r", values), None, 0, subjects)


def test_the_total_is_the_mean_of_what_is_known() -> None:
    assert total({"a": 1.0, "b": None, "c": 0.0}) == 0.5
    assert total({"a": None}) is None is total({})


def test_features_know_a_subject_again_in_its_box() -> None:
    judge = scorer("efficientnet")()
    picture = np.full((256, 512, 3), 128, np.uint8)
    from PIL import Image

    for left, file in ((0, CAT), (256, CUP)):
        picture[:, left : left + 256] = np.asarray(Image.fromarray(read_subject(file)).resize((256, 256)))
    right = (Subject((0, 0, 0.5, 1), CAT, ""), Subject((0.5, 0, 1, 1), CUP, ""))
    wrong = (Subject((0, 0, 0.5, 1), CUP, ""), Subject((0.5, 0, 1, 1), CAT, ""))
    good, bad = (judge([picture], task(boxes))[0]["identity_efficientnet"] or 0 for boxes in (right, wrong))
    assert good > 0.8 > 0.5 > bad
    assert judge([picture], task((Subject((0, 0, 1, 1), None, "cat"),))) == [{"identity_efficientnet": None}]


def test_a_subject_that_is_not_there_counts_and_a_reference_that_says_nothing_does_not() -> None:
    answers = {CAT: np.array([1.0, 0.0]), CUP: None}

    def embed(pictures: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        return [answers[CAT] if p.shape == (1, 1, 3) else None for p in pictures]

    judge = Identity("x", embed)
    judge._known = dict(answers)
    box = (0.0, 0.0, 1.0, 1.0)
    there, gone = np.zeros((1, 1, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    assert judge([there, gone], task((Subject(box, CAT, ""),))) == [{"x": 1.0}, {"x": 0.0}]
    assert judge([there], task((Subject(box, CUP, ""),))) == [{"x": None}]


def test_the_small_world_s_judge_knows_the_truth() -> None:
    scene = world.scene(0, "test", 3, "basic")
    truth = world.render(scene).target
    judge = scorer("small_world")()
    scores = judge([truth, np.full_like(truth, 128)], task(scene=[0, "basic", 3]))
    assert scores[0]["exact"] == 1.0 and scores[0]["placed"] in (1.0, None)
    assert scores[1]["exact"] != 1.0


@pytest.mark.parametrize("scene", [None, [0, "basic"], [0, "nowhere", 1], ["0", "basic", 1]])
def test_a_row_without_its_scene_says_so(scene: object) -> None:
    with pytest.raises(InputError, match="'scene'"):
        scorer("small_world")()([np.zeros((128, 128, 3), np.uint8)], task(scene=scene))


@pytest.mark.parametrize(
    ("text", "word"),
    [("nothing", "no scorer"), ("vision", "vision=FOLDER"), ("faces=x", "written"), ("vision=/no", "not there")],
)
def test_a_scorer_that_is_none_is_one_sentence(text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        scorer(text)


def test_every_scorer_is_named_in_the_documentation() -> None:
    page = (SAMPLES.parents[1] / "docs" / "bulk.md").read_text()
    assert all(f"| `{name}" in page for name in SCORERS)
