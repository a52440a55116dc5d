"""Who may see whom: the groups are the dense mask, and the dense mask is the authors'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import CONTEXTGEN_CASES
from hypothesis import example, given
from hypothesis import strategies as st
from plans import crowd, golden_plan, plans, sequence_of

from contextgen_core.attention.groups import Group, indices, pairs, seen
from contextgen_core.attention.program import MAX_CALLS, compile_block
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.contextgen.schedule import BlockPlan, Rule
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens, TokenSequence
from contextgen_core.methods.contextgen.visibility import (
    combinations,
    dense_mask,
    key_weights,
    query_groups,
)

ALL_RULES = st.sampled_from(list(Rule))
SQUARE = bytes([1] * 4)


def painted(sequence: TokenSequence, groups: tuple[Group, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What the groups say: who may see whom, and the log weight of each key in each row; every row once."""
    visible = np.zeros((sequence.length, sequence.length), bool)
    weights = np.zeros((sequence.length, sequence.length), np.float32)
    rows_done = np.zeros(sequence.length, int)
    for group in groups:
        rows = indices(group.queries)
        rows_done[rows] += 1
        keys = np.concatenate([indices(part.index) for part in group.keys])
        assert len(np.unique(keys)) == len(keys), "a key is read twice"
        visible[np.ix_(rows, keys)] = True
        weights[np.ix_(rows, keys)] = np.concatenate([np.full(p.index.size, p.log_weight) for p in group.keys])
    assert rows_done.max() <= 1, "a query belongs to two groups"
    return visible, weights


@given(plans(most=8, strengths=(0.0, 0.5, 1.0, 2.0)), ALL_RULES, st.integers(1, 7), st.booleans())
@example(crowd(), Rule.ICA, 5, True)
@example(crowd(), Rule.ICA_PAPER, 5, False)
@example(Plan(4, 4, (ReferenceTokens("whole", 2, 2, SQUARE, TokenBox(0, 0, 4, 4)),) * 3), Rule.ICA, 1, True)
def test_groups_partition_the_queries_and_equal_the_dense_mask(plan: Plan, rule: Rule, text: int, pruned: bool) -> None:
    sequence = sequence_of(plan, text, pruned)
    groups = query_groups(sequence, BlockPlan(rule, references=True))
    if groups is None:
        assert not sequence.reference_spans
        return
    visible, weights = painted(sequence, groups)
    dense = dense_mask(sequence, rule)
    assert np.array_equal(visible, dense) and np.array_equal(seen(groups, sequence.length), dense)
    assert pairs(groups, sequence.length) == dense.sum()
    assert dense.any(axis=1).all()  # no row without a key
    assert np.allclose(weights, np.where(dense, key_weights(sequence)[None, :], 0))


@given(plans(most=5), ALL_RULES, st.booleans(), st.booleans())
def test_idle_rows_are_left_out_and_nothing_else(
    plan: Plan, rule: Rule, idle_base: bool, idle_references: bool
) -> None:
    sequence = sequence_of(plan)
    block = BlockPlan(rule, True, idle_references, idle_base)
    groups = query_groups(sequence, block)
    left = np.ones(sequence.length, bool)
    for group in groups or ():
        left[indices(group.queries)] = False
    if groups is None:
        left[:] = False
    idle = np.zeros(sequence.length, bool)
    if idle_base:
        idle[: sequence.base_span.stop] = True
        idle[slice(*sequence.noise_span)] = False
    if idle_references:
        idle[sequence.base_span.stop :] = True
    assert np.array_equal(left, idle)


@pytest.mark.parametrize("rule", [Rule.ICA, Rule.ICA_PAPER])
def test_overlapping_boxes_do_not_fan_out_into_a_call_each(rule: Rule) -> None:
    sequence = sequence_of(crowd())
    assert len(combinations(sequence)) > 60  # the case is worth the name
    groups = query_groups(sequence, BlockPlan(rule))
    calls = compile_block(groups, sequence.length, "grouped", torch.device("cpu"), torch.float32).calls
    assert len(calls) - len(sequence.reference_spans) <= 1 + MAX_CALLS + 1
    assert sum(call.mask is not None for call in calls) == 1


def test_the_official_rule_row_by_row() -> None:
    """Two boxes that share a column: the table in the module's docstring, spelt out."""
    first = ReferenceTokens("a", 2, 1, bytes([1, 0]), TokenBox(0, 0, 2, 1))
    second = ReferenceTokens("b", 1, 1, b"\1", TokenBox(1, 0, 3, 1))
    sequence = TokenSequence(Plan(4, 1, (first, second)), 2, (0, 1), pruned=False)
    text, noise, layout, a0, a1, b = [0, 1], [2, 3, 4, 5], [6, 7, 8, 9], 10, 11, 12
    base = text + noise + layout
    mask = dense_mask(sequence, Rule.ICA)

    def sees(row: int) -> list[int]:
        return np.flatnonzero(mask[row]).tolist()

    for row in (*text, *layout, noise[3]):
        assert sees(row) == base
    assert sees(noise[0]) == [*base, a0]  # never a1: it lies outside the subject
    assert sees(noise[1]) == [*base, a0, b]
    assert sees(noise[2]) == [*base, b]
    assert sees(a0) == sees(a1) == [*text, a0]
    assert sees(b) == [*text, b]
    paper = dense_mask(sequence, Rule.ICA_PAPER)
    assert np.flatnonzero(paper[noise[0]]).tolist() == [*text, noise[0], noise[1], a0]
    assert np.flatnonzero(paper[noise[1]]).tolist() == [*text, noise[0], noise[1], noise[2], a0, b]


@given(st.permutations(range(4)), ALL_RULES)
def test_permuting_references_permutes_the_mask(order: list[int], rule: Rule) -> None:
    made = [
        ReferenceTokens(str(n), 2, n + 1, bytes([1, 0] * (n + 1)), TokenBox(n, 0, n + 3, 2 + n % 2)) for n in range(4)
    ]
    straight = sequence_of(Plan(7, 3, tuple(made)))
    turned = sequence_of(Plan(7, 3, tuple(made[n] for n in order)))
    where = np.concatenate([turned.base_span.indices(), *(straight.reference_spans[n].indices() for n in order)])
    assert np.array_equal(dense_mask(turned, rule), dense_mask(straight, rule)[np.ix_(where, where)])


@pytest.mark.parametrize("path", CONTEXTGEN_CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize(
    ("rule", "array"), [(Rule.ICA, "mask_ica"), (Rule.CLA, "mask_cla"), (Rule.ICA_PAPER, "mask_ica_paper")]
)
def test_masks_equal_the_authors(path: Path, rule: Rule, array: str) -> None:
    plan, case = golden_plan(path)
    sequence = TokenSequence(plan, int(case["txt_len"]), tuple(range(len(plan.references))), pruned=False)
    assert np.array_equal(dense_mask(sequence, rule), case[array])
