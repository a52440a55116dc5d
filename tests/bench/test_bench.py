"""The benchmarks' ideal is counted from the rule itself, not chosen."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from contextgen_core.methods.contextgen.schedule import make_schedule
from contextgen_core.methods.contextgen.sequence import TokenSequence, active_references
from contextgen_core.methods.contextgen.visibility import dense_mask

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def workload() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_workload", BENCH / "workload.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_workload"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("references", "cover"), [(1, 0.5), (3, 0.5), (4, 1.0), (0, 1.0)])
def test_the_least_work_is_the_rule_pair_by_pair(workload: ModuleType, references: int, cover: float) -> None:
    width, double, single, text = 7, 2, 5, 20
    plan = workload.make_plan(96, references, cover, side=4)
    dense, least = workload.arithmetic(plan, width, double, single, text)
    full = text + plan.image_tokens
    assert dense == (24 * width**2 * full * 7, 4 * width * full**2 * 7)
    if not references:
        assert least == dense
        return
    sequence = TokenSequence(plan, text, active_references(plan))
    schedule = make_schedule(double, single)
    pairs = linear = 0
    base = sequence.base_span.stop
    for block in schedule.blocks:
        length = sequence.length if block.references else base
        mask = dense_mask(sequence, block.rule)[:length, :length]
        rows = list(range(length))
        if block.idle_references:
            rows = rows[:base]
        if block.idle_base:
            rows = list(range(*sequence.noise_span))
        pairs += int(mask[rows].sum())
        linear += 24 * len(rows) + 4 * (length - len(rows))  # who is not asked gives keys and values only
    assert (least.linear, least.attention) == (width**2 * linear, 4 * width * pairs)
    assert workload.kept_tokens(plan, text) == sequence.length


def test_the_published_case_costs_what_was_derived(workload: ModuleType) -> None:
    """1024 x 1024, half covered: 12.8 PFLOP become 5.8 for four references, 24.3 become 7.0 for eight."""
    for references, before, after in ((4, 12.8, 5.8), (8, 24.3, 7.0)):
        dense, least = workload.arithmetic(workload.make_plan(1024, references), 3072)
        assert round(28 * dense.step / 1e15, 1) == before and round(28 * least.step / 1e15, 1) == after
