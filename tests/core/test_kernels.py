"""The kernels that need a GPU, checked as far as a CPU goes: their masks, their packing, and how they are called."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plans import crowd, plans, sequence_of
from torch import Tensor

from contextgen_core.attention import run as attention
from contextgen_core.attention import varlen
from contextgen_core.attention.flex import BLOCK, block_kinds, token_marks
from contextgen_core.attention.lse import attend_lse
from contextgen_core.attention.run import choose_kernel, compile_programs, run
from contextgen_core.errors import InputError
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.contextgen.schedule import Rule, make_schedule
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens
from contextgen_core.methods.contextgen.visibility import dense_mask

CPU = torch.device("cpu")
SCHEDULE = make_schedule(0, 4, ica_blocks=(0, 2))
BOTH = st.sampled_from([Rule.ICA, Rule.ICA_PAPER, Rule.CLA])


def tensors(length: int, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 2, length, 16, generator=generator) for _ in range(3)]


@given(plans(most=8, strengths=(0.0, 1.0)), BOTH, st.booleans())
@example(crowd(30), Rule.ICA_PAPER, True)
def test_marks_are_the_dense_mask(plan: Plan, rule: Rule, pruned: bool) -> None:
    sequence = sequence_of(plan, 3, pruned)
    reads, carries = token_marks(sequence, rule)
    assert np.array_equal((reads[:, None] & carries[None, :]) != 0, dense_mask(sequence, rule))


@settings(max_examples=25)
@given(st.integers(0, 1000), BOTH)
def test_block_kinds_hold_for_every_pair_in_the_block(seed: int, rule: Rule) -> None:
    sequence = sequence_of(crowd(3, 24, 24, seed=seed), 40)
    mixed, full = block_kinds(*token_marks(sequence, rule))
    dense = dense_mask(sequence, rule)
    assert not (mixed & full).any() and full.any() and not mixed.all()
    for row in range(mixed.shape[0]):
        for column in range(mixed.shape[1]):
            cell = dense[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
            assert cell.any() == (mixed[row, column] or full[row, column])
            assert cell.all() or not full[row, column]


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("rule", [Rule.ICA, Rule.ICA_PAPER])
def test_flex_equals_dense_with_strengths(rule: Rule) -> None:
    plan = crowd(5)
    weighed = tuple(r._replace(strength=s) for r, s in zip(plan.references, (0.5, 1, 2, 1, 4), strict=True))
    sequence = sequence_of(Plan(plan.width, plan.height, weighed))
    schedule = make_schedule(0, 4, rule=rule, ica_blocks=(0, 2))
    q, k, v = tensors(sequence.length, batch=2)
    for block in range(2):
        dense, flex = (
            run(compile_programs(sequence, schedule, kernel, CPU, q.dtype)[block], q, k, v)
            for kernel in ("dense", "flex")
        )
        rows = sequence.base_span.stop if schedule[block].idle_references else sequence.length
        assert (flex - dense)[:, :rows].abs().max() < 1e-5
        assert flex[:, rows:].abs().sum() == 0


def packed_by_hand(q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor) -> tuple[Tensor, Tensor]:
    """What a variable-length call is defined to do: (tokens, H, D) -> (tokens, H, D) and (H, tokens)."""
    outs, lses = [], []
    for i in range(len(starts_q) - 1):
        rows, keys = slice(*starts_q[i : i + 2].tolist()), slice(*starts_k[i : i + 2].tolist())
        out, lse = attend_lse(*(x.transpose(0, 1)[None] for x in (q[rows], k[keys], v[keys])))
        outs.append(out[0].transpose(0, 1))
        lses.append(lse[0])
    return torch.cat(outs), torch.cat(lses, dim=1)


@pytest.fixture(params=["torch", "torch, tokens first", "flash-attn"])
def _packed_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand-ins with the signatures of torch's and of flash-attn's function."""
    import torch.nn.attention.varlen as theirs

    signature = inspect.signature(theirs.varlen_attn)

    def varlen_attn(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs).arguments
        assert call["return_aux"].lse and call["cu_seq_q"].dtype == torch.int32
        assert int(call["cu_seq_k"].diff().max()) == call["max_k"]
        assert int(call["cu_seq_q"].diff().max()) == call["max_q"]
        out, lse = packed_by_hand(call["query"], call["key"], call["value"], call["cu_seq_q"], call["cu_seq_k"])
        return out, lse.transpose(0, 1) if request.param.endswith("first") else lse

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        return_attn_probs: bool = False,
    ) -> Any:
        assert return_attn_probs
        return (*packed_by_hand(q, k, v, cu_seqlens_q, cu_seqlens_k), None)

    if request.param == "flash-attn":
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
        monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func))
    else:
        monkeypatch.setattr(theirs, "varlen_attn", varlen_attn)
    varlen.backend.cache_clear()
    yield
    varlen.backend.cache_clear()


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("rule", [Rule.ICA, Rule.ICA_PAPER])
@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.usefixtures("_packed_backend")
def test_varlen_equals_dense(rule: Rule, strength: float, count: int) -> None:
    plan = crowd(count)
    first = plan.references[0]._replace(strength=strength)
    sequence = sequence_of(Plan(plan.width, plan.height, (first, *plan.references[1:])))
    schedule = make_schedule(0, 5, rule=rule, ica_blocks=(1, 3))
    q, k, v = tensors(sequence.length, batch=2)
    for block in range(3):
        dense, ours = (
            run(compile_programs(sequence, schedule, kernel, CPU, q.dtype)[block], q, k, v)
            for kernel in ("dense", "varlen")
        )
        rows = sequence.base_span.stop if schedule[block].idle_references else sequence.length
        assert (ours - dense)[:, :rows].abs().max() < 1e-5


@pytest.mark.usefixtures("_packed_backend")
def test_varlen_packs_all_references_into_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = sequence_of(Plan(12, 4, tuple(
        ReferenceTokens(str(n), 2, n + 1, bytes([1] * 2 * (n + 1)), TokenBox(3 * n, 0, 3 * n + 3, 4)) for n in range(4)
    )))  # fmt: skip
    calls: list[int] = []
    whole = attention.attend_packed

    def counting(q: Tensor, *rest: Any) -> Any:
        calls.append(q.shape[2])
        return whole(q, *rest)

    monkeypatch.setattr(attention, "attend_packed", counting)
    program = compile_programs(sequence, SCHEDULE, "varlen", CPU, torch.float32)[0]
    run(program, *tensors(sequence.length))
    assert sorted(calls) == [20, 48]  # the references' own tokens, and the noise in their boxes


def test_equal_references_run_as_one_batch() -> None:
    made = tuple(ReferenceTokens(str(n), 3, 2, bytes([1] * 6), TokenBox(2 * n, 0, 2 * n + 2, 4)) for n in range(4))
    sequence = sequence_of(Plan(8, 4, made))
    shapes: list[tuple[int, ...]] = []

    def recording(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        shapes.append(tuple(q.shape[:3]))
        return attention.sdpa(q, k, v, mask)

    q, k, v = tensors(sequence.length, batch=2)
    for kernel, calls in (("merge", 1), ("grouped", 3)):
        program = compile_programs(sequence, SCHEDULE, kernel, CPU, q.dtype)[0]
        shapes.clear()
        ours = run(program, q, k, v, recording)
        assert (8, 2, 6) in shapes and len(shapes) == calls
        dense = run(compile_programs(sequence, SCHEDULE, "dense", CPU, q.dtype)[0], q, k, v)
        assert (ours - dense).abs().max() < 1e-5
    assert [level.count for level in compile_programs(sequence, SCHEDULE, "merge", CPU, q.dtype)[0].levels] == [4]


@pytest.mark.parametrize("kernel", ["flex", "varlen"])
def test_a_kernel_that_cannot_run_here_is_refused_by_name(kernel: str) -> None:
    with pytest.raises(InputError, match=f"{kernel} needs .* choose auto"):
        choose_kernel(kernel, torch.zeros(1))


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="unknown"):
        choose_kernel("fast", torch.zeros(1))


def test_auto_leaves_the_work_to_a_backend_that_the_user_chose() -> None:
    assert choose_kernel("auto", torch.zeros(1), torch_backend=False) == "grouped"


def test_auto_says_its_choice_once(caplog: pytest.LogCaptureFixture) -> None:
    attention._log_choice.cache_clear()
    with caplog.at_level("INFO", logger="contextgen"):
        for _ in range(3):
            choose_kernel("auto", torch.zeros(1))
    assert [record.getMessage() for record in caplog.records] == ["attention kernel merge: it copies no keys"]
