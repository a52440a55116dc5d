"""Any groups at all: each kernel is the naive masked softmax, in as few calls as the groups allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from contextgen_core.attention import (
    KERNELS,
    Group,
    KeyPart,
    Program,
    Span,
    choose_kernel,
    compile_block,
    compile_blocks,
    run,
    sdpa,
)
from contextgen_core.attention.groups import Index, indices, log_weights, pairs, seen
from contextgen_core.attention.program import MAX_CALLS
from contextgen_core.errors import InputError

CPU = torch.device("cpu")
EXACT = ("grouped", "merge", "dense")
HEADS, WIDTH = 2, 16
WEIGHTS = (0.0, 0.0, -0.7, 1.1)


def tensors(length: int, batch: int = 1, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, HEADS, length, WIDTH, generator=generator) for _ in range(3)]


def naive(groups: tuple[Group, ...], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Row by row by the definition, in float64; zeros where a row is in no group or reads nothing."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    for group in groups:
        keys = [int(key) for part in group.keys for key in indices(part.index)]
        added = torch.tensor([p.log_weight for p in group.keys for _ in range(p.index.size)], dtype=torch.float64)
        if not keys:
            continue
        for row in indices(group.queries):
            logits = (q[:, :, None, row].double() * k[:, :, keys].double()).sum(-1) * WIDTH**-0.5 + added
            out[:, :, row] = (logits.softmax(-1)[..., None] * v[:, :, keys].double()).sum(2)
    return out.transpose(1, 2).flatten(2)


def group_of(*keys: tuple[int, int] | list[int], queries: tuple[int, int] | list[int], weight: float = 0.0) -> Group:
    def index(tokens: tuple[int, int] | list[int]) -> Index:
        return Span(*tokens) if isinstance(tokens, tuple) else np.array(tokens, np.int64)

    return Group(index(queries), tuple(KeyPart(index(key), weight if n else 0.0) for n, key in enumerate(keys)))


@st.composite
def subsets(draw: st.DrawFn, tokens: list[int], least: int = 0) -> Index:
    """Some of the tokens, as a range where they are one and chance wants it."""
    chosen = sorted(draw(st.sets(st.sampled_from(tokens), min_size=least))) if tokens else []
    if chosen and chosen[-1] - chosen[0] + 1 == len(chosen) and draw(st.booleans()):
        return Span(chosen[0], chosen[-1] + 1)
    return np.array(chosen, np.int64)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[tuple[Group, ...], int]:
    """Groups over up to 40 tokens: rows in none, rows that read nothing, keys that many groups read, shared first
    parts (with one weight or several), further parts that overlap from group to group."""
    length = draw(st.integers(1, 40))
    owner = draw(st.lists(st.integers(-1, draw(st.integers(0, 7))), min_size=length, max_size=length))
    shared = draw(subsets(list(range(length))))
    weight = draw(st.sampled_from(WEIGHTS))
    rest = [token for token in range(length) if token not in set(indices(shared).tolist())]
    pool = [KeyPart(draw(subsets(rest)), draw(st.sampled_from(WEIGHTS))) for _ in range(draw(st.integers(0, 4)))]
    groups = []
    for number in sorted(set(owner) - {-1}):
        keys, used = [], set()
        if draw(st.integers(0, 3)):
            keys.append(KeyPart(shared, weight))
            used = set(indices(shared).tolist())
        for part in pool:
            mine = set(indices(part.index).tolist())
            if draw(st.booleans()) and not mine & used:
                keys.append(part)
                used |= mine
        free = [token for token in range(length) if token not in used]
        if draw(st.booleans()):
            keys.append(KeyPart(draw(subsets(free)), draw(st.sampled_from(WEIGHTS))))
        groups.append(Group(np.flatnonzero(np.array(owner) == number), tuple(keys)))
    return tuple(groups), length


@settings(max_examples=120, deadline=None)
@given(blocks(), st.integers(1, 2))
@example(((), 3), 1)  # nobody asks
@example(((group_of((0, 4), queries=(0, 1)),), 4), 2)  # a single row
@example(((group_of((0, 2), queries=(0, 3)), group_of((0, 2), [3, 5], queries=[4, 6], weight=1.0)), 7), 1)
@example(((group_of((0, 2), queries=(0, 2)), *(group_of((0, 2), (2 + 2 * n, 4 + 2 * n), queries=(2 + 2 * n, 4 + 2 * n))
          for n in range(3))), 8), 2)  # fmt: skip
def test_all_kernels_are_the_naive_masked_softmax(block: tuple[tuple[Group, ...], int], batch: int) -> None:
    groups, length = block
    q, k, v = tensors(length, batch)
    want = naive(groups, q, k, v)
    for kernel in EXACT:
        out = run(compile_block(groups, length, kernel, CPU, q.dtype), q, k, v)
        assert out.shape == (batch, length, HEADS * WIDTH)
        assert (out - want).abs().max() < 1e-5, kernel


@settings(max_examples=60, deadline=None)
@given(blocks())
def test_the_mask_and_the_count_are_those_of_the_groups(block: tuple[tuple[Group, ...], int]) -> None:
    groups, length = block
    visible = np.zeros((length, length), bool)
    for group in groups:
        for row in indices(group.queries):
            for part in group.keys:
                visible[row, indices(part.index)] = True
    assert np.array_equal(seen(groups, length), visible)
    assert pairs(groups, length) == visible.sum()


def test_without_groups_everyone_sees_everyone() -> None:
    assert seen(None, 3).all() and pairs(None, 3) == 9 and not log_weights(None, 3).any()
    q, k, v = tensors(5)
    assert torch.equal(run(compile_block(None, 5, "merge", CPU, q.dtype), q, k, v), sdpa(q, k, v))


def family(count: int, rows: int) -> tuple[tuple[Group, ...], int]:
    """A shared part of 40 keys, its plain readers, and ``count`` groups that read a further part of 3 keys each."""
    start = 40 + count * 3
    further = [
        group_of((0, 40), (40 + 3 * n, 43 + 3 * n), queries=(start + n * rows, start + (n + 1) * rows))
        for n in range(count)
    ]
    return (group_of((0, 40), queries=(0, 40)), *further), start + count * rows


def calls(program: Program, length: int) -> list[tuple[int, int, bool]]:
    """Rows, keys and whether there is a mask, of each call that reaches the caller's backend."""
    reached: list[tuple[int, int, bool]] = []

    def backend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
        reached.append((q.shape[2], k.shape[2], mask is not None))
        return sdpa(q, k, v, mask)

    run(program, *tensors(length), backend)
    return reached


def test_hundreds_of_small_groups_become_one_call_under_a_small_mask() -> None:
    groups, length = family(200, 2)
    program = compile_block(groups, length, "grouped", CPU, torch.float32)
    assert calls(program, length) == [(40, 40, False), (400, 40 + 600, True)]


def test_large_groups_stay_calls_without_a_mask() -> None:
    groups, length = family(MAX_CALLS + 3, 64)
    reached = calls(compile_block(groups, length, "grouped", CPU, torch.float32), length)
    assert [mask for *_, mask in reached] == [False] * (1 + MAX_CALLS) + [True]
    assert reached[-1][:2] == (3 * 64, 40 + 3 * 3)


def test_merge_reads_the_shared_part_once_and_copies_none_of_it() -> None:
    groups, length = family(5, 7)
    program = compile_block(groups, length, "merge", CPU, torch.float32)
    (call,) = program.calls
    assert call.parts[0].rows == Span(0, 40) and [level.count for level in call.levels] == [5]
    uneven = (*groups[:-1], groups[-1]._replace(queries=Span(groups[-1].queries[0], length - 2)))
    program = compile_block(uneven, length, "merge", CPU, torch.float32)
    assert [[size for size, _ in level.pieces] for level in program.calls[0].levels] == [[7, 7, 7, 7, 5]]


def test_rows_of_several_parts_need_as_many_levels() -> None:
    both = group_of((0, 9), (9, 11), (11, 14), queries=(3, 4))
    groups = (group_of((0, 9), queries=(0, 3)), both, group_of((0, 9), (11, 14), queries=(4, 6)))
    (call,) = compile_block(groups, 14, "merge", CPU, torch.float32).calls
    assert call.queries == Span(0, 6)
    assert [level.rows.tolist() for level in call.levels] == [[3], [3, 4, 5]]


def test_references_of_equal_size_run_as_one_batch() -> None:
    groups = (
        group_of((0, 6), queries=(0, 6)),
        *(group_of((0, 2), (6 + 3 * n, 9 + 3 * n), queries=(6 + 3 * n, 9 + 3 * n)) for n in range(4)),
    )
    for kernel in ("merge", "grouped"):
        program = compile_block(groups, 18, kernel, CPU, torch.float32)
        assert [call.count for call in program.calls] == [1, 4]
        assert calls(program, 18) == [(6, 6, False), (3, 5, False)]


def test_a_weight_of_the_shared_part_counts_against_the_further_ones() -> None:
    shared, further = KeyPart(Span(0, 4), 2.0), KeyPart(Span(4, 6), 0.5)
    groups = (Group(Span(0, 2), (shared,)), Group(Span(2, 4), (shared, further)))
    q, k, v = tensors(6)
    program = compile_block(groups, 6, "merge", CPU, q.dtype)
    assert program.calls[0].levels
    assert (run(program, q, k, v) - naive(groups, q, k, v)).abs().max() < 1e-5


def test_equal_blocks_are_compiled_once() -> None:
    groups, length = family(3, 4)
    again = tuple(group._replace(queries=np.arange(*group.queries)) for group in groups)  # equal, another form
    other = groups[:-1]
    made = compile_blocks([(groups, length), (again, length), (other, length), (None, length), (groups, length)],
                          "merge", CPU, torch.float32)  # fmt: skip
    assert made[0] is made[1] is made[4]
    assert len({id(program) for program in made}) == 3
    assert not made[3].calls and made[2].partial


def test_a_program_never_runs_on_another_length() -> None:
    groups, length = family(2, 2)
    with pytest.raises(RuntimeError, match="tokens"):
        run(compile_block(groups, length, "grouped", CPU, torch.float32), *tensors(length + 1))


# --- choice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["fast", "flex", "varlen"])
def test_an_unknown_kernel_is_refused(kernel: str) -> None:
    with pytest.raises(InputError, match=f"unknown; choose one of {', '.join(KERNELS)}"):
        choose_kernel(kernel, torch.zeros(1))


def test_auto_leaves_the_work_to_a_backend_that_the_user_chose() -> None:
    assert choose_kernel("auto", torch.zeros(1), torch_backend=False) == "grouped"


def test_auto_never_picks_a_kernel_without_gradients_for_training() -> None:
    sample = torch.zeros(1)
    assert choose_kernel("auto", sample, grad=True) == "grouped"
    assert choose_kernel("auto", sample) == "merge"
    assert choose_kernel("merge", sample, grad=True) == "merge"


def test_auto_says_its_choice_once(caplog: pytest.LogCaptureFixture) -> None:
    import importlib

    module: Any = importlib.import_module("contextgen_core.attention.run")
    module._log_choice.cache_clear()
    with caplog.at_level("INFO", logger="contextgen"):
        for _ in range(3):
            choose_kernel("auto", torch.zeros(1))
    assert [record.getMessage() for record in caplog.records] == ["attention kernel merge: it copies no keys"]
