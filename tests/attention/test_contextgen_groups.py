"""ContextGen's rule through the engine: each kernel computes the dense mask, on any layout, dtype and batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import crowd, plans, sequence_of
from torch import Tensor

from contextgen_core.attention import compile_blocks, run, sdpa
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.contextgen.schedule import Rule, Schedule, make_schedule
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens, TokenSequence
from contextgen_core.methods.contextgen.visibility import block_groups, dense_mask, key_weights

CPU = torch.device("cpu")
EXACT = ("grouped", "merge")
STRENGTHS = (0.5, 1.0, 2.0)
HEADS, WIDTH = 2, 16


def tensors(length: int, batch: int = 1, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, HEADS, length, WIDTH, generator=generator).to(dtype) for _ in range(3)]


def attended(
    sequence: TokenSequence, schedule: Schedule, block: int, kernel: str, q: Tensor, k: Tensor, v: Tensor
) -> Tensor:
    if kernel == "dense":
        return specified(sequence, schedule[block].rule, q, k, v)
    return run(compile_blocks(block_groups(sequence, schedule), kernel, q.device, q.dtype)[block], q, k, v)


def specified(sequence: TokenSequence, rule: Rule, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention under the dense mask of the method, which knows nothing of groups."""
    length = q.shape[2]
    added = np.where(dense_mask(sequence, rule), key_weights(sequence), -np.inf)[:length, :length]
    return sdpa(q, k, v, torch.from_numpy(added).to(q.dtype))


def schedule_for(rule: Rule, prune: bool = True) -> Schedule:
    """Two blocks that read references (the second of them for the last time), then two without."""
    return make_schedule(0, 4, rule=rule, ica_blocks=(0, 2), prune=prune)


@settings(max_examples=60)
@given(
    plans(most=8, strengths=STRENGTHS),
    st.sampled_from([Rule.ICA, Rule.ICA_PAPER]),
    st.integers(1, 9),
    st.integers(1, 2),
)
def test_every_kernel_equals_the_dense_mask(plan: Plan, rule: Rule, text: int, batch: int) -> None:
    sequence, schedule = sequence_of(plan, text), schedule_for(rule)
    for block in range(4):
        present = schedule[block].references
        length = sequence.length if present else sequence.base_span.stop
        q, k, v = tensors(length, batch)
        dense = attended(sequence, schedule, block, "dense", q, k, v)
        for kernel in EXACT:
            ours = attended(sequence, schedule, block, kernel, q, k, v)
            assert ours.shape == (batch, length, HEADS * WIDTH)
            stop = sequence.base_span.stop if schedule[block].idle_references else length
            rows = slice(*sequence.noise_span) if schedule[block].idle_base else slice(0, stop)
            assert (ours[:, rows] - dense[:, rows]).abs().max() < 1e-5, (kernel, block)


@pytest.mark.parametrize("rule", [Rule.ICA, Rule.ICA_PAPER])
@pytest.mark.parametrize("kernel", EXACT)
def test_thirty_two_overlapping_boxes(kernel: str, rule: Rule) -> None:
    plan = crowd(32)
    plan = Plan(
        plan.width,
        plan.height,
        tuple(r._replace(strength=(0.5, 1.0, 2.0)[i % 3]) for i, r in enumerate(plan.references)),
    )
    sequence, schedule = sequence_of(plan), schedule_for(rule)
    q, k, v = tensors(sequence.length)
    dense = attended(sequence, schedule, 0, "dense", q, k, v)
    assert (attended(sequence, schedule, 0, kernel, q, k, v) - dense).abs().max() < 1e-5


@settings(max_examples=40)
@given(
    plans(most=4, strengths=(0.0, 0.5, 1.0, 2.0)), st.sampled_from([Rule.ICA, Rule.ICA_PAPER]), st.sampled_from(EXACT)
)
def test_pruned_equals_unpruned(plan: Plan, rule: Rule, kernel: str) -> None:
    whole, pruned = sequence_of(plan, pruned=False), sequence_of(plan)
    q, k, v = tensors(whole.length)
    if pruned.kept is None:
        rows = torch.arange(whole.length)
    else:
        rows = torch.cat([torch.arange(whole.text), whole.text + torch.from_numpy(pruned.kept)])
    expected = attended(whole, schedule_for(rule, prune=False), 0, "dense", q, k, v)[:, rows]
    ours = attended(pruned, schedule_for(rule), 0, kernel, *(x[:, :, rows].contiguous() for x in (q, k, v)))
    base = pruned.length if not schedule_for(rule)[0].idle_references else pruned.base_span.stop
    assert (ours[:, :base] - expected[:, :base]).abs().max() < 1e-5


@given(st.permutations(range(3)), st.sampled_from(EXACT))
def test_permuting_references_permutes_the_output(order: list[int], kernel: str) -> None:
    made = [ReferenceTokens(str(n), 2, n + 1, bytes([1, 1] * (n + 1)), TokenBox(n, 0, n + 3, 3)) for n in range(3)]
    straight, turned = sequence_of(Plan(6, 3, tuple(made))), sequence_of(Plan(6, 3, tuple(made[n] for n in order)))
    parts = [straight.base_span.indices(), *(straight.reference_spans[n].indices() for n in order)]
    rows = torch.cat([torch.from_numpy(part) for part in parts])
    q, k, v = tensors(straight.length)
    first = attended(straight, schedule_for(Rule.ICA), 0, kernel, q, k, v)
    second = attended(turned, schedule_for(Rule.ICA), 0, kernel, q[:, :, rows], k[:, :, rows], v[:, :, rows])
    assert (second - first[:, rows]).abs().max() < 1e-6


@pytest.mark.parametrize("kernel", EXACT)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_farther_from_float32_than_dense_is(kernel: str, dtype: torch.dtype) -> None:
    """In every block; a tenth of slack, because the two round in different places."""
    sequence, schedule = sequence_of(crowd(6), 16), schedule_for(Rule.ICA)
    q, k, v = tensors(sequence.length, dtype=dtype)
    exact = attended(sequence, schedule, 0, "dense", q.float(), k.float(), v.float())
    dense = (attended(sequence, schedule, 0, "dense", q, k, v).float() - exact).abs()
    ours = attended(sequence, schedule, 0, kernel, q, k, v)
    assert ours.dtype == dtype
    error = (ours.float() - exact).abs()
    assert error.mean() < 1.1 * dense.mean() and error.max() < 2 * dense.max()


@pytest.mark.parametrize("kernel", EXACT)
def test_a_strong_logit_neither_overflows_nor_vanishes(kernel: str) -> None:
    sequence, schedule = sequence_of(crowd(4)), schedule_for(Rule.ICA)
    q, k, v = tensors(sequence.length)
    q, k = q * 60, k * 60
    dense = attended(sequence, schedule, 0, "dense", q, k, v)
    ours = attended(sequence, schedule, 0, kernel, q, k, v)
    assert ours.isfinite().all() and (ours - dense).abs().max() < 1e-3


@pytest.mark.parametrize("kernel", EXACT)
def test_gradients_equal_the_dense_ones(kernel: str) -> None:
    """Training differentiates through the same programs."""
    sequence, schedule = sequence_of(crowd(3)), schedule_for(Rule.ICA)
    grads = []
    for name in ("dense", kernel):
        q, k, v = (x.requires_grad_() for x in tensors(sequence.length))
        attended(sequence, schedule, 0, name, q, k, v).square().sum().backward()
        grads.append([x.grad for x in (q, k, v)])
    for dense, ours in zip(*grads, strict=True):
        assert dense is not None and ours is not None and (dense - ours).abs().max() < 1e-4


def test_idle_rows_are_zero_not_rubbish() -> None:
    sequence, schedule = sequence_of(crowd(3)), schedule_for(Rule.ICA)
    q, k, v = tensors(sequence.length)
    for kernel in EXACT:
        assert attended(sequence, schedule, 1, kernel, q, k, v)[:, sequence.base_span.stop :].abs().max() == 0
        last = attended(sequence, schedule, 3, kernel, *tensors(sequence.base_span.stop))
        assert last[:, : sequence.text].abs().max() == 0 and last[:, sequence.layout_span.start :].abs().max() == 0


def test_no_backend_call_is_larger_than_its_group() -> None:
    """The grouped kernel asks the caller's backend for every pair that the rule allows and hardly any other."""
    sequence, schedule = sequence_of(crowd(4, 16, 16), 20), schedule_for(Rule.ICA)
    program = compile_blocks(block_groups(sequence, schedule), "grouped", CPU, torch.float32)[0]
    pairs = 0

    def counting(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        nonlocal pairs
        pairs += q.shape[2] * k.shape[2]
        assert mask is None or mask.shape == (q.shape[2], k.shape[2])
        return sdpa(q, k, v, mask)

    run(program, *tensors(sequence.length), counting)
    allowed = int(dense_mask(sequence, Rule.ICA).sum())
    assert allowed <= pairs < 1.02 * allowed
