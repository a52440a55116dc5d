"""LAMIC: regions, text, tokens and who sees whom, against the authors' golden case and against its own laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from golden import LAMIC_CASE
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from contextgen_core.attention.groups import indices, log_weights
from contextgen_core.composite.compose import compose
from contextgen_core.composite.references import Reference
from contextgen_core.errors import InputError
from contextgen_core.layout.layout import Box, Instance, Layout
from contextgen_core.methods.boundary import BlockCounts, ForwardCall
from contextgen_core.methods.lamic.method import LAMIC, LamicOptions, LamicSettings, segment_texts
from contextgen_core.methods.lamic.pictures import fed_picture, fed_sizes
from contextgen_core.methods.lamic.plan import LamicPlan, LamicReference
from contextgen_core.methods.lamic.regions import (
    are_fractions,
    box_region,
    giving_way,
    giving_way_to_the_front,
    mask_region,
)
from contextgen_core.methods.lamic.sequence import LamicSequence, image_ids
from contextgen_core.methods.lamic.text import CORRECTED, OFFICIAL, segment_counts
from contextgen_core.methods.lamic.visibility import (
    dense_mask,
    members,
    query_groups,
    segment_names,
    segment_table,
)

CASE = dict(np.load(LAMIC_CASE))


def unpacked(name: str) -> np.ndarray:
    return np.unpackbits(CASE[name], axis=-1, count=int(CASE["S"])).astype(bool)


def golden_sequence() -> LamicSequence:
    """The golden case from its boxes, its text lengths and the sizes of its pictures."""
    width, height = (int(side) for side in CASE["target_wh"])
    counts = CASE["text_counts"].tolist()
    references = []
    for number, corners in enumerate(CASE["region_boxes"].tolist(), 1):
        region = box_region(corners, width, height, are_fractions(corners)).astype(np.uint8).tobytes()
        columns, rows = (int(side) // 16 for side in CASE[f"ref{number}_fed_wh"])
        references.append(LamicReference(f"r{number}", columns, rows, counts[number - 1], region, region))
    plan = LamicPlan(width // 16, height // 16, counts[-1], tuple(references))
    return LamicSequence(plan, int(CASE["text_len"]), tuple(range(len(references))))


# --- the golden case ------------------------------------------------------------------------------------------------


def test_segments_tokens_and_masks_are_the_authors() -> None:
    sequence = golden_sequence()
    assert sequence.length == int(CASE["S"])
    names = segment_names(sequence)
    assert list(names) == CASE["segment_names"].tolist()
    assert np.array_equal(members(sequence, first=False), unpacked("member"))
    assert np.array_equal(members(sequence, first=True), unpacked("member_stage1"))
    for stage, first in enumerate((True, False)):
        assert np.array_equal(segment_table(names, first), CASE["segment_table"][..., stage])
        assert np.array_equal(dense_mask(sequence, first), unpacked(f"mask_stage{stage + 1}"))
    assert np.array_equal(image_ids(sequence), CASE["ids"][sequence.text :])


def test_pictures_are_resized_as_the_authors_do() -> None:
    for number in (1, 2):
        given_picture = CASE[f"ref{number}_image"]
        reference = Reference("r", given_picture, np.full(given_picture.shape[:2], 255, np.uint8))
        assert np.array_equal(fed_picture(reference, grey=True), CASE[f"ref{number}_fed"])


# --- regions --------------------------------------------------------------------------------------------------------


def test_a_half_covered_token_is_out() -> None:
    region = box_region((8, 0, 40, 16), 64, 32)  # half of token 0, all of token 1, half of token 2
    assert region.tolist() == [[False, True, False, False], [False] * 4]
    assert box_region((8, 8, 32, 32), 64, 32).sum() == 1  # a quarter, two halves and one whole
    mask = np.zeros((32, 64), np.uint8)
    mask[:, :24] = 255
    assert mask_region(mask, 64, 32).tolist() == [[True, False, False, False]] * 2
    mask[:8, 24:32] = 255
    assert mask_region(mask, 64, 32)[0, 1]  # three quarters


def test_boxes_round_down_to_cells_and_are_clipped() -> None:
    assert np.array_equal(box_region((15.9, 0, 63.9, 32), 64, 32), box_region((8, 0, 56, 32), 64, 32))
    assert np.array_equal(box_region((-50, -9, 500, 500), 64, 32), np.ones((2, 4), bool))
    whole = box_region((0, 0, 1, 1), 64, 32, fractions=True)
    assert whole.all() and not box_region((0, 0, 1, 1), 64, 32).any()
    assert box_region((0.26, 0, 0.76, 1), 64, 32, fractions=True)[0].tolist() == [False, True, True, False]


def test_the_red_of_a_mask_picture_counts_and_any_size_will_do() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[..., 0][:, :150] = 255
    picture[..., 1] = 255
    assert mask_region(picture, 64, 32).tolist() == [[True, True, False, False]] * 2


regions = st.integers(1, 5).flatmap(
    lambda count: st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=count, max_size=count).map(
        lambda rows: np.array(rows, bool)
    )
)


@hypothesis_settings(deadline=None)
@given(regions)
def test_giving_way_to_the_front_leaves_no_overlap_and_loses_nothing(given_regions: np.ndarray) -> None:
    first = giving_way(given_regions, giving_way_to_the_front(len(given_regions)))
    assert np.array_equal(first.any(axis=0), given_regions.any(axis=0))
    assert (first.sum(axis=0) <= 1).all()
    assert np.array_equal(first[-1], given_regions[-1])


def test_references_that_give_way_to_each_other_are_refused_by_number() -> None:
    both = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 1]], bool)
    with pytest.raises(InputError, match="reference 1 and reference 3 give way to each other, so 1 token"):
        giving_way(both, {0: [2], 2: [0]})
    circle = np.ones((3, 4), bool)
    with pytest.raises(InputError, match="reference 1, reference 2 and reference 3 give way"):
        giving_way(circle, {0: [1], 1: [2], 2: [0]})
    # They share nothing, so nothing is lost.
    assert np.array_equal(giving_way(both, {0: [1], 1: [0]}), both)
    # What is lost is what the others held before anyone gave way.
    chain = giving_way(circle, {0: [1], 1: [2]})
    assert chain.sum(axis=1).tolist() == [0, 0, 4]


# --- text -----------------------------------------------------------------------------------------------------------


def words_and_end(text: str) -> int:
    return len(text.split()) + 1


def test_official_spans_count_an_end_token_for_each_text_and_corrected_ones_do_not() -> None:
    texts = ("one two ", "three four five ", "six ")
    assert segment_counts(texts, words_and_end, OFFICIAL) == (3, 4, 2)
    assert segment_counts(texts, words_and_end, CORRECTED) == (2, 3, 1)
    assert segment_counts(("one ", ""), words_and_end, OFFICIAL) == (2, 1)
    assert segment_counts(("one ", ""), words_and_end, CORRECTED) == (1, 0)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_sizes_round_down_and_an_area_is_reached_in_two_steps() -> None:
    assert fed_sizes(100, 63) == ((96, 48),)
    assert fed_sizes(100, 63, 16 * 256) == ((90, 45), (80, 32))  # of 96 x 48, not of 100 x 63


def test_a_mask_paints_grey_only_where_asked() -> None:
    pixels = np.full((32, 32, 3), 200, np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    reference = Reference("r", pixels, mask)
    assert (fed_picture(reference, grey=False) == 200).all()
    assert (fed_picture(reference, grey=True)[:, 16:] == 128).all()


def test_pictures_that_cannot_be_fed_are_refused() -> None:
    whole = np.full((4096, 4096), 255, np.uint8)
    huge = Reference("wall", np.zeros((4096, 4096, 3), np.uint8), whole)
    with pytest.raises(InputError, match="'wall' is 4096 x 4096 pixels and would take 65536 tokens"):
        fed_picture(huge, grey=False)
    thin = Reference("mast", np.zeros((1600, 16, 3), np.uint8), whole[:1600, :16], tokens=4)
    with pytest.raises(InputError, match="'mast' is too long and thin for 4 tokens"):
        fed_picture(thin, grey=False)


# --- who sees whom --------------------------------------------------------------------------------------------------


@st.composite
def sequences(draw: st.DrawFn) -> LamicSequence:
    """Any regions, any order of giving way, empty texts, no padding, references that are not read."""
    width, height = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    count = draw(st.integers(1, 4))
    held = np.array(
        [draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height)) for _ in range(count)], bool
    )
    order = draw(st.permutations(range(count)))
    ways = {order[i]: draw(st.lists(st.sampled_from(order[i + 1 :]), min_size=1)) for i in range(count - 1)}
    first = giving_way(held, {n: others for n, others in ways.items() if draw(st.booleans())})
    references = tuple(
        LamicReference(
            f"r{n}",
            draw(st.integers(1, 2)),
            draw(st.integers(1, 2)),
            draw(st.integers(0, 2)),
            held[n].astype(np.uint8).tobytes(),
            first[n].astype(np.uint8).tobytes(),
            draw(st.sampled_from((0.5, 1.0, 2.0))),
        )
        for n in range(count)
    )
    plan = LamicPlan(width, height, draw(st.integers(0, 2)), references)
    text = max(1, plan.text_tokens + draw(st.integers(0, 2)))
    active = tuple(n for n in range(count) if draw(st.booleans()))
    return LamicSequence(plan, text, active)


@hypothesis_settings(deadline=None)
@given(sequences(), st.booleans())
@example(golden_sequence(), True)
@example(golden_sequence(), False)
def test_groups_partition_the_queries_and_equal_the_dense_mask(sequence: LamicSequence, first: bool) -> None:
    dense = dense_mask(sequence, first)
    assert np.array_equal(dense, dense.T)
    assert dense.any(axis=1).all()  # no row without a key
    weights = np.zeros(sequence.length, np.float32)
    for number, span in sequence.picture_spans.items():
        weights[slice(*span)] = np.log(sequence.plan.references[number].strength)
    wanted = np.where(dense, weights[None, :], -np.inf).astype(np.float32)
    for noise_only in (False, True):
        groups = query_groups(sequence, first, noise_only)
        rows = np.concatenate([indices(group.queries) for group in groups])
        everyone = np.arange(*sequence.noise_span) if noise_only else np.arange(sequence.length)
        assert np.array_equal(np.sort(rows), everyone)
        for group in groups:
            keys = np.concatenate([indices(part.index) for part in group.keys])
            assert len(np.unique(keys)) == len(keys)
        assert np.array_equal(log_weights(groups, sequence.length)[rows], wanted[rows])


@hypothesis_settings(deadline=None)
@given(sequences(), st.booleans())
def test_all_noise_begins_with_the_same_keys(sequence: LamicSequence, first: bool) -> None:
    if first and not sequence.padding_span.size:
        return
    groups = query_groups(sequence, first, noise_only=True)
    assert len({group.keys[0] for group in groups}) == 1


def test_nothing_of_the_size_of_the_sequence_squared_is_built() -> None:
    """1024 x 1024, eight references of a quarter each: as groups, kilobytes instead of 270 MB."""
    rng = np.random.default_rng(0)
    region = (rng.random((8, 4096)) < 0.25).astype(np.uint8)
    references = tuple(LamicReference(str(n), 32, 32, 20, r.tobytes(), r.tobytes()) for n, r in enumerate(region))
    sequence = LamicSequence(LamicPlan(64, 64, 30, references), 512, tuple(range(8)))
    groups = query_groups(sequence, first=False)
    held = sum(
        index.nbytes
        for group in groups
        for index in (group.queries, *(part.index for part in group.keys))
        if isinstance(index, np.ndarray)
    )
    assert sequence.length == 512 + 4096 + 8 * 1024
    assert held < 16e6 < sequence.length**2


# --- behind the boundary --------------------------------------------------------------------------------------------


class Run:
    """A place in a run of so many equal steps."""

    def __init__(self, step: int, steps: int) -> None:
        self.step, self.steps = step, steps

    def within(self, start: float, end: float) -> bool:
        return start <= self.step / self.steps <= end

    def before_step(self, ratio: float) -> bool:
        return self.step < int(ratio * self.steps)


def picture(colour: int, side: int = 64) -> Reference:
    return Reference(
        f"thing {colour}", np.full((side, side, 3), colour, np.uint8), np.full((side, side), 255, np.uint8)
    )


def scene(*boxes: tuple[Box, Reference | None], label: str = "") -> object:
    references = [reference for _, reference in boxes if reference is not None]
    instances = tuple(
        Instance(f"b{n}", box, None if reference is None else reference.name, label)
        for n, (box, reference) in enumerate(boxes, 1)
    )
    return compose(Layout(128, 128, instances), list({id(r): r for r in references}.values()))


def test_a_scene_becomes_a_plan_its_pictures_and_its_phrases() -> None:
    first, second = picture(10), picture(20, 96)
    made = scene((Box(0, 0, 64, 128), first), (Box(30, 30, 60, 60), None), (Box(64, 0, 128, 128), second), label="old")
    assert segment_texts(made, "A hill.") == ("thing 10,old.", "thing 20,old.", "A hill.")
    prepared = LAMIC.prepare(made, LamicOptions((3, 4, 5), giving_way_to_the_front(2)))
    plan = prepared.plan
    assert LAMIC.plan_from(LAMIC.plan_tuple(plan)) == plan
    assert [p.shape for p in prepared.pictures] == [(64, 64, 3), (96, 96, 3)]
    assert LAMIC.sizes(plan) == ((8, 8), ((4, 4), (6, 6)))
    assert [r.text for r in plan.references] == [3, 4] and plan.scene_text == 5
    assert plan.regions(first=False).sum(axis=1).tolist() == [32, 32]
    assert [w for w in prepared.warnings if "hold no reference" in w]


def test_a_mask_wins_over_the_box() -> None:
    made = scene((Box(0, 0, 64, 128), picture(10)))
    top = np.zeros((128, 128), np.uint8)
    top[:64] = 255
    plan = LAMIC.prepare(made, LamicOptions((1, 1), masks={0: top})).plan
    assert np.flatnonzero(plan.regions(first=False)[0]).tolist() == list(range(32))


@pytest.mark.parametrize(
    ("boxes", "options", "sentence"),
    [
        ([(Box(0, 0, 64, 64), None)], LamicOptions((1,)), "no box of the layout is bound to a reference"),
        ([(Box(0, 0, 64, 64), picture(1))], LamicOptions((1,)), "1 text lengths for 1 references"),
        (
            [(Box(0, 0, 64, 64), picture(1)), (Box(32, 0, 96, 64), picture(2))],
            LamicOptions((1, 1, 1), {0: [1], 1: [0]}),
            "box 1 .*and box 2 .*give way to each other",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(boxes: list, options: LamicOptions, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        LAMIC.prepare(scene(*boxes), options)


def call_of(plan: LamicPlan, settings: LamicSettings, run: Run | None, **changes: object) -> ForwardCall:
    values = {"text": 20, "blocks": BlockCounts(2, 3), "noise": (plan.height, plan.width), **changes}
    return ForwardCall(LAMIC.moment(plan, settings, run), **values)


def two() -> LamicPlan:
    made = scene((Box(0, 0, 64, 128), picture(10)), (Box(64, 0, 128, 128), picture(20)))
    return LAMIC.prepare(made, LamicOptions((3, 4, 5))).plan


def test_the_first_stage_is_the_first_steps_and_no_more() -> None:
    plan, settings = two(), LamicSettings()
    stages = [LAMIC.moment(plan, settings, Run(step, 20))[0] for step in range(20)]
    assert stages == [True] + [False] * 19
    assert not any(LAMIC.moment(plan, settings, Run(step, 19))[0] for step in range(19))  # 0.05 of 19 is no step
    assert LAMIC.moment(plan, LamicSettings(first_ratio=1), None)[0]
    assert LAMIC.moment(plan, settings, None) == (False, (0, 1))
    assert LAMIC.timed(plan, settings) and not LAMIC.timed(plan, LamicSettings(first_ratio=0))


def test_a_forward_pass_leaves_out_only_what_nobody_reads() -> None:
    plan, settings = two(), LamicSettings(first_ratio=0.5)
    forward = LAMIC.forward(plan, settings, call_of(plan, settings, Run(0, 4)))
    assert len(forward.blocks) == 5 and forward.conditions == 32 and forward.kept is None
    assert forward.ids is not None and forward.ids.shape == (64 + 32, 3) and forward.ids.dtype == torch.float32
    rows = [sum(group.queries.size for group in block.groups or ()) for block in forward.blocks]
    assert rows == [20 + 64 + 32] * 4 + [64]
    watched = LAMIC.forward(plan, settings, call_of(plan, settings, Run(0, 4), watched=frozenset({4})))
    assert watched.blocks[4] == watched.blocks[0]


def test_strength_and_window_decide_whose_picture_is_read() -> None:
    plan, settings = two(), LamicSettings()
    silent = plan.references[0]._replace(strength=0.0)
    late = plan.references[1]._replace(start=0.5)
    plan = LamicPlan(plan.width, plan.height, plan.scene_text, (silent, late))
    assert [LAMIC.moment(plan, settings, Run(step, 4))[1] for step in range(4)] == [(), (), (1,), (1,)]
    forward = LAMIC.forward(plan, settings, call_of(plan, settings, Run(3, 4)))
    assert forward.kept is not None and forward.kept.tolist() == [*range(64), *range(80, 96)]
    assert forward.ids is not None and len(forward.ids) == 80


def test_without_masks_everyone_sees_everyone() -> None:
    plan, settings = two(), LamicSettings(masked=False)
    forward = LAMIC.forward(plan, settings, call_of(plan, settings, Run(0, 20)))
    assert [block.groups for block in forward.blocks[:-1]] == [None] * 4
    assert not LAMIC.timed(plan, settings)


def test_text_that_was_cut_after_counting_is_refused() -> None:
    plan, settings = two(), LamicSettings()
    with pytest.raises(InputError, match="its text is 11 tokens long, but the phrases and the scene take 12"):
        LAMIC.forward(plan, settings, call_of(plan, settings, None, text=11))


@pytest.mark.parametrize("change", [lambda t: t[1:], lambda t: ("x", *t[1:]), lambda t: (t[0], 9, *t[2:]), lambda t: 3])
def test_a_plan_of_another_version_is_refused(change: Callable[[tuple], object]) -> None:
    with pytest.raises(InputError, match="LAMICConditioning"):
        LAMIC.plan_from(change(two().as_tuple()))
