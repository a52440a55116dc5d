"""EliGen's rule: from masks to tokens, and from tokens to who sees whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contextgen_core.attention.groups import indices, log_weights, pairs, seen
from contextgen_core.backbones.record import Backbone
from contextgen_core.composite.compose import compose
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout
from contextgen_core.methods.boundary import BlockCounts, ForwardCall
from contextgen_core.methods.eligen.masks import box_cells, cells_to_tokens, mask_cells
from contextgen_core.methods.eligen.method import ELIGEN, EliGenOptions, EliGenSettings
from contextgen_core.methods.eligen.plan import EliGenPlan, PhraseTokens
from contextgen_core.methods.eligen.visibility import PhraseSequence, dense_mask, key_weights, query_groups, readable


@st.composite
def eligen_plans(draw: st.DrawFn, most: int = 5) -> EliGenPlan:
    width, height = draw(st.integers(1, 5)), draw(st.integers(1, 5))

    def phrase() -> PhraseTokens:
        bits = draw(st.integers(0, 2 ** (width * height) - 1))
        inside = bytes((bits >> i) & 1 for i in range(width * height))
        return PhraseTokens(draw(st.integers(1, 4)), inside, draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])))

    return EliGenPlan(width, height, tuple(phrase() for _ in range(draw(st.integers(0, most)))))


# --- who sees whom --------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(eligen_plans(), st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0]))
def test_the_groups_are_the_dense_mask_and_hold_each_row_once(plan: EliGenPlan, text: int, outside: float) -> None:
    sequence = PhraseSequence(plan, text, tuple(readable(plan)), outside=outside)
    groups, mask = query_groups(sequence), dense_mask(sequence)
    assert np.array_equal(seen(groups, sequence.length), mask)
    rows = np.concatenate([indices(group.queries) for group in groups])
    assert np.array_equal(np.sort(rows), np.arange(sequence.length))
    assert pairs(groups, sequence.length) == mask.sum()
    picture = slice(*sequence.noise_span)  # strength counts where the picture reads, and nowhere else
    added, weights = log_weights(groups, sequence.length), np.where(mask[picture], key_weights(sequence), -np.inf)
    assert np.array_equal(added[picture], weights)
    assert set(np.unique(added[: picture.start])) <= {0.0, -np.inf}


@settings(max_examples=60, deadline=None)
@given(eligen_plans())
def test_the_mask_is_symmetric_texts_never_meet_and_no_row_is_blind(plan: EliGenPlan) -> None:
    sequence = PhraseSequence(plan, 3, tuple(readable(plan)))
    mask = dense_mask(sequence)
    assert np.array_equal(mask, mask.T) and mask.diagonal().all()
    owner = np.repeat(np.arange(len(plan.phrases) + 1), [*(phrase.tokens for phrase in plan.phrases), sequence.text])
    texts = mask[: len(owner), : len(owner)]
    assert np.array_equal(texts, owner[:, None] == owner[None, :])


@given(eligen_plans())
def test_a_plan_survives_the_conditioning(plan: EliGenPlan) -> None:
    assert ELIGEN.plan_from(ELIGEN.plan_tuple(plan)) == plan


@pytest.mark.parametrize("value", [None, (), ("eligen-plan-0", 1, 1, ()), ("eligen-plan-1", 2, 2, ((3, b"\1"),))])
def test_a_foreign_plan_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="another version"):
        ELIGEN.plan_from(value)


# --- masks ----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_cells_take_the_pixel_that_pil_takes(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(mask).resize((2 * columns, 2 * rows), Image.Resampling.NEAREST))
    assert np.array_equal(mask_cells(mask, rows, columns), theirs.astype(np.float32).mean(axis=2) > 127.5)


def test_things_smaller_than_a_cell_vanish_or_fill_it() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[5:12, 5:12] = 255  # seven pixels between the middles 4 and 12
    assert not mask_cells(mask, 2, 2).any()
    mask[:, 20] = 255
    assert np.array_equal(np.flatnonzero(mask_cells(mask, 2, 2)[0]), [2])


def test_grey_counts_from_128_and_any_cell_takes_its_token_in() -> None:
    for level, inside in ((127, False), (128, True)):
        assert mask_cells(np.full((16, 16), level, np.uint8), 1, 1).all() == inside
    cells = np.zeros((4, 4), bool)
    cells[3, 0] = True
    assert np.array_equal(cells_to_tokens(cells), [[False, False], [True, False]])


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 44), st.integers(1, 44))
def test_a_box_is_its_painted_mask(x: int, w: int, y: int, h: int) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[y : y + h, x : x + w] = 255
    assert np.array_equal(box_cells(Box(x, y, x + w, y + h), 64, 48, 3, 4), mask_cells(mask, 3, 4))


# --- scenes ---------------------------------------------------------------------------------------------------------


def scene(*instances: Instance) -> object:
    return compose(Layout(64, 64, instances), ())


CUP = Instance("b1", Box(0, 0, 32, 32), label="a red cup")
HAT = Instance("b2", Box(16, 16, 64, 48), label=" a hat ")


def test_a_scene_becomes_phrases_and_their_tokens() -> None:
    prepared = ELIGEN.prepare(scene(CUP, HAT), EliGenOptions(tokens=7))  # type: ignore[arg-type]
    assert prepared.phrases == ("a red cup", "a hat") and not prepared.pictures and not prepared.negative
    assert (prepared.plan.width, prepared.plan.height, prepared.plan.phrase_tokens) == (4, 4, 14)
    assert np.array_equal(np.flatnonzero(prepared.plan.inside[0]), [0, 1, 4, 5])
    assert np.array_equal(np.flatnonzero(prepared.plan.inside[1]), [5, 6, 7, 9, 10, 11])


def test_a_mask_wins_over_the_box() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[48:, :16] = 255
    prepared = ELIGEN.prepare(scene(CUP, HAT), EliGenOptions({1: mask}))  # type: ignore[arg-type]
    assert np.array_equal(np.flatnonzero(prepared.plan.inside[1]), [12])


def test_a_phrase_without_a_token_is_left_out_with_a_warning() -> None:
    speck = Instance("b3", Box(5, 5, 12, 12), label="a speck")
    prepared = ELIGEN.prepare(scene(CUP, speck))  # type: ignore[arg-type]
    assert prepared.phrases == ("a red cup",) and len(prepared.plan.phrases) == 1
    assert len(prepared.warnings) == 1 and "box 2 ('b3')" in prepared.warnings[0]


def test_a_hidden_box_is_passed_over_whatever_it_holds() -> None:
    for gone in (replace(HAT, hidden=True), replace(HAT, hidden=True, label="")):
        prepared = ELIGEN.prepare(scene(gone, CUP))  # type: ignore[arg-type]
        assert prepared.phrases == ("a red cup",) and not prepared.warnings


@pytest.mark.parametrize(
    ("instances", "sentence"),
    [((), "no box of the layout has a label"), ((CUP, replace(HAT, label="  ")), r"box 2 \('b2'\) has an empty label")],
)
def test_scenes_that_bind_nothing_are_refused(instances: tuple[Instance, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ELIGEN.prepare(scene(*instances))  # type: ignore[arg-type]


# --- in a run -------------------------------------------------------------------------------------------------------


class At:
    def __init__(self, place: float) -> None:
        self.place = place

    def within(self, start: float, end: float) -> bool:
        return start <= self.place <= end

    def before_step(self, ratio: float) -> bool:
        return self.place < ratio


def test_windows_and_strength_decide_which_phrases_are_read() -> None:
    one, none = b"\1", b"\0"
    phrases = (PhraseTokens(2, one), PhraseTokens(2, one, end=0.5), PhraseTokens(2, one, 0.0), PhraseTokens(2, none))
    plan = EliGenPlan(1, 1, phrases)
    usual = EliGenSettings()
    assert ELIGEN.moment(plan, usual, None) == (0, 1)
    assert ELIGEN.timed(plan, usual) and not ELIGEN.timed(EliGenPlan(1, 1, phrases[:1]), usual)
    assert ELIGEN.moment(plan, usual, At(0.7)) == (0,)
    assert ELIGEN.moment(plan, EliGenSettings(start=0.8), At(0.7)) is None
    assert ELIGEN.moment(plan, EliGenSettings(strength=0.0), None) is None
    assert ELIGEN.moment(plan, EliGenSettings(start=0.5, end=0.5), None) is None


def test_a_phrase_outside_its_window_keeps_its_place_and_nobody_reads_it() -> None:
    plan = EliGenPlan(1, 1, (PhraseTokens(2, b"\1"), PhraseTokens(3, b"\1")))
    call = ForwardCall((0,), 4, BlockCounts(1, 1), (1, 1))
    forward = ELIGEN.forward(plan, EliGenSettings(), call)
    mask = seen(forward.blocks[0].groups, 5 + 4 + 1)
    assert forward.phrases == 5 and mask[2:5, 2:5].all() and not mask[2:5, 5:].any() and not mask[5:, 2:5].any()


def test_in_a_band_of_blocks_phrases_are_read_there_alone_and_idle_after_it() -> None:
    plan = EliGenPlan(2, 1, (PhraseTokens(2, b"\1\0"), PhraseTokens(1, b"\1\1", 2.0)))
    call = ForwardCall((0, 1), 3, BlockCounts(2, 4), (1, 2))
    forward = ELIGEN.forward(plan, EliGenSettings(blocks=(1, 4), outside=0.5), call)
    phrases, text, picture = slice(0, 3), slice(3, 6), slice(6, 8)
    masks = [log_weights(block.groups, 8) for block in forward.blocks]
    read = np.log(np.array([[1, 1, 2], [0.5, 0.5, 2]], np.float32))
    for number, mask in enumerate(masks):
        assert np.allclose(mask[picture, phrases], read if number in (1, 2, 3) else -np.inf)
        assert (mask[picture, 3:] == 0).all()
        assert np.isneginf(mask[phrases]).all() == (number >= 3), "nobody reads what becomes of phrases afterwards"
        assert np.isneginf(mask[text]).all() == (number == 5)
    assert not np.isneginf(masks[0][phrases]).all(axis=1).any(), "before the band they must be there"
    watched = ELIGEN.forward(plan, EliGenSettings(blocks=(1, 4)), replace(call, watched=frozenset(range(6))))
    assert all(not np.isneginf(log_weights(block.groups, 8)).all(axis=1).any() for block in watched.blocks)


@pytest.mark.parametrize("blocks", [(0, 7), (3, 3), (-1, 2)])
def test_a_band_outside_the_model_is_refused(blocks: tuple[int, int]) -> None:
    backbone = Backbone("FLUX.1", double=2, single=4, width=8)
    with pytest.raises(InputError, match="does not fit a model with 6 blocks") as caught:
        ELIGEN.check(EliGenPlan(1, 1), EliGenSettings(blocks=blocks), backbone)
    assert caught.value.input == "first_block"


def test_more_phrases_than_the_limit_are_refused() -> None:
    plan = EliGenPlan(1, 1, (PhraseTokens(1, b"\1"),) * 100)
    with pytest.raises(InputError, match="100 phrases, the limit is 32; remove 68"):
        ELIGEN.check(plan, EliGenSettings(), None)  # type: ignore[arg-type]
