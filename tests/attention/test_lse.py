"""Attention with its log-sum-exp: pieces join to the whole, and an operator that is not what it was is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from contextgen_core.attention import lse
from contextgen_core.attention.lse import attend_lse, merge_lse

CPU = torch.device("cpu")
FUSED = "_scaled_dot_product_flash_attention_for_cpu"


def tensors(rows: int, keys: int, dtype: torch.dtype = torch.float32, width: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, n, width, generator=generator).to(dtype) for n in (rows, keys, keys)]


@pytest.fixture
def _untried() -> Iterator[None]:
    before = dict(lse._tried)
    lse._tried.clear()
    yield
    lse._tried.clear()
    lse._tried.update(before)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 6))
def test_pieces_of_attention_join_to_the_whole(sizes: list[int], rows: int) -> None:
    q, k, v = tensors(rows, sum(sizes))
    cuts = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    pieces = [attend_lse(q, k[:, :, a:b], v[:, :, a:b]) for a, b in pairwise(cuts)]
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert (merge_lse(pieces) - whole).abs().max() < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [16, 40, 128])
def test_both_results_are_those_of_the_definition(dtype: torch.dtype, width: int) -> None:
    q, k, v = tensors(5, 700, dtype, width)
    logits = q.double() @ k.double().transpose(-1, -2) * width**-0.5
    out, total = attend_lse(q, k, v)
    tolerance = 4 * torch.finfo(dtype).eps ** 0.75
    assert out.dtype == dtype and total.dtype == torch.float32
    assert (out.double() - logits.softmax(-1) @ v.double()).abs().max() < tolerance
    assert (total.double() - logits.logsumexp(-1)).abs().max() < tolerance


@pytest.mark.usefixtures("_untried")
def test_the_fused_operator_passes_its_trial_here_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[Any] = []
    whole = lse._trial
    monkeypatch.setattr(lse, "_trial", lambda *arguments: trials.append(arguments) or whole(*arguments))
    for _ in range(2):
        lse.prepare(CPU, torch.float32)
        attend_lse(*tensors(3, 4))
    assert len(trials) == 1 and None not in lse._tried.values()


def changed(**changes: Any) -> Callable[..., Any]:
    """The fused operator with another result or other names for them."""
    real = getattr(torch.ops.aten, FUSED).default

    def operator(*arguments: Tensor, **named: Any) -> Any:
        return changes.get("results", lambda *results: results)(*real(*arguments, **named))

    returns = [SimpleNamespace(name=name) for name in changes.get("names", ("output", "logsumexp"))]
    operator._schema = SimpleNamespace(returns=returns)  # type: ignore[attr-defined]
    return operator


@pytest.mark.usefixtures("_untried")
@pytest.mark.parametrize(
    "operator",
    [
        changed(results=lambda out, total: (out, total / 2)),  # another logarithm
        changed(results=lambda out, total: (out * 1.01, total)),
        changed(results=lambda out, total: (out.transpose(1, 2), total)),
        changed(results=lambda out, total: (out, total[..., :-1])),
        changed(results=lambda out, total: (out, total, total)),
        changed(names=("output", "statistics")),
        None,
    ],
)
def test_an_operator_that_is_not_what_it_was_is_left_alone(
    operator: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = SimpleNamespace() if operator is None else SimpleNamespace(**{FUSED: SimpleNamespace(default=operator)})
    monkeypatch.setattr(lse.torch, "ops", SimpleNamespace(aten=names))
    q, k, v = tensors(5, 9)
    out, total = attend_lse(q, k, v)
    assert list(lse._tried.values()) == [None]
    want, want_total = lse._chunked(q, k, v)
    assert torch.equal(out, want) and torch.equal(total, want_total)


@pytest.mark.usefixtures("_untried")
def test_memory_that_runs_out_while_an_operator_is_tried_says_nothing_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host frees memory and runs on; the operator is then tried again."""

    def no_memory(*_arguments: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as full:
        full.setattr(lse, "_sample", no_memory)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            attend_lse(*tensors(3, 4))
    attend_lse(*tensors(3, 4))
    assert None not in lse._tried.values()


@pytest.mark.usefixtures("_untried")
def test_results_are_taken_by_name_not_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = changed(results=lambda out, total: (total, out), names=("logsumexp", "output"))
    monkeypatch.setattr(
        lse.torch, "ops", SimpleNamespace(aten=SimpleNamespace(**{FUSED: SimpleNamespace(default=turned)}))
    )
    q, k, v = tensors(5, 9)
    out, _ = attend_lse(q, k, v)
    assert None not in lse._tried.values()
    assert (out - torch.nn.functional.scaled_dot_product_attention(q, k, v)).abs().max() < 1e-5
