"""The memory of compiled things is bounded by bytes, holds no dense mask, and can be emptied."""

from __future__ import annotations

import numpy as np
import torch

from contextgen_core.attention import Group, KeyPart, Memo, Program, Span, compile_blocks
from contextgen_core.attention.memo import MOST, held_bytes
from contextgen_core.methods.boundary import Block, BlockWork

CPU = torch.device("cpu")
KIB = 1024


def tensor(kib: int) -> torch.Tensor:
    return torch.zeros(kib * KIB, dtype=torch.uint8)


def test_a_value_is_built_once() -> None:
    memo: Memo[torch.Tensor] = Memo()
    first = memo.get("a", lambda: tensor(1))
    assert memo.get("a", lambda: tensor(2)) is first and len(memo) == 1


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    memo: Memo[torch.Tensor] = Memo(limit=3 * KIB)
    for name in "abc":
        memo.get(name, lambda: tensor(1))
    memo.get("a", lambda: tensor(9))  # used again
    memo.get("d", lambda: tensor(1))
    assert memo.held == 3 * KIB
    kept = [name for name in "abcd" if memo.get(name, lambda: tensor(0)).numel()]
    assert kept == ["a", "c", "d"]


def test_what_is_too_large_is_built_and_not_kept() -> None:
    memo: Memo[torch.Tensor] = Memo(limit=KIB)
    memo.get("small", lambda: tensor(1))
    assert memo.get("large", lambda: tensor(2)).numel() == 2 * KIB
    assert len(memo) == 1 and memo.held == KIB


def test_values_without_tensors_are_bounded_by_their_count() -> None:
    memo: Memo[object] = Memo()
    for number in range(MOST + 5):
        memo.get(number, lambda number=number: (number,))
    assert len(memo) == MOST and memo.held == 0
    assert memo.get(MOST + 4, lambda: None) == (MOST + 4,) and memo.get(0, lambda: None) is None


def test_clear_forgets_all() -> None:
    memo: Memo[torch.Tensor] = Memo()
    memo.get("a", lambda: tensor(1))
    memo.clear()
    assert len(memo) == 0 and memo.held == 0
    assert memo.get("a", lambda: tensor(2)).numel() == 2 * KIB


def programs(kernel: str) -> tuple[Program, ...]:
    scattered = np.array([0, 2, 5])
    groups = (Group(scattered, (KeyPart(np.array([1, 3, 4, 7])),)),)
    return compile_blocks([(groups, 8), (None, 8), (groups, 8)], kernel, CPU, torch.float32)


def test_tensors_of_equal_blocks_count_once() -> None:
    assert held_bytes({"programs": programs("grouped"), "ids": tensor(1)}) == (3 + 4) * 8 + KIB


def test_a_dense_mask_is_never_kept() -> None:
    memo: Memo[object] = Memo()
    memo.get("dense", lambda: ("something", programs("dense")))
    assert len(memo) == 0
    memo.get("grouped", lambda: ("something", programs("grouped")))
    assert len(memo) == 1


def test_what_a_step_after_a_block_holds_counts() -> None:
    class Step:
        def __init__(self) -> None:
            self.indices = {"tokens": tensor(2)}

        def after(self, work: BlockWork) -> None: ...

    step = Step()
    assert (held_bytes((Block(after=step.after), Block(after=step.after))) or 0) >= 2 * KIB
    memo: Memo[Block] = Memo(limit=3 * KIB)
    for number in range(9):
        memo.get(number, lambda: Block(after=Step().after))
    assert len(memo) == 1


def test_spans_hold_nothing() -> None:
    assert held_bytes((Span(0, 4), "text", 3)) == 0
