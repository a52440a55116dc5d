"""Which rule holds in which block, and when references and dead rows leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.errors import InputError
from contextgen_core.methods.contextgen.schedule import Rule, Schedule, make_schedule


def rules(schedule: Schedule) -> list[Rule]:
    return [block.rule for block in schedule.blocks]


def test_flux_attends_by_identity_in_the_middle_nineteen_blocks() -> None:
    schedule = make_schedule(19, 38)
    assert rules(schedule) == [Rule.CLA] * 19 + [Rule.ICA] * 19 + [Rule.CLA] * 19
    assert schedule.leave == 38
    assert [block.references for block in schedule.blocks] == [True] * 38 + [False] * 19
    assert [i for i, block in enumerate(schedule.blocks) if block.idle_references] == [37]
    assert [i for i, block in enumerate(schedule.blocks) if block.idle_base] == [56]


def test_a_chosen_range_moves_the_rule_and_the_leaving() -> None:
    schedule = make_schedule(19, 38, ica_blocks=(10, 25), rule=Rule.ICA_PAPER)
    assert rules(schedule) == [Rule.CLA] * 10 + [Rule.ICA_PAPER] * 15 + [Rule.CLA] * 32
    assert schedule.leave == 25 and schedule[24].idle_references and not schedule[25].references


@given(st.integers(1, 8), st.integers(1, 9), st.data())
def test_references_stay_exactly_until_nobody_reads_them(double: int, single: int, data: st.DataObject) -> None:
    count = double + single
    first = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(first, count))
    schedule = make_schedule(double, single, ica_blocks=(first, stop))
    reads = [block.rule is Rule.ICA for block in schedule.blocks]
    for number, block in enumerate(schedule.blocks):
        assert block.references == any(reads[number:])
        assert block.idle_references == (block.references and not any(reads[number + 1 :]))


@pytest.mark.parametrize("without", [{"rule": Rule.CLA}, {"references": False}, {"ica_blocks": (5, 5)}])
def test_without_a_reader_references_never_enter(without: dict[str, object]) -> None:
    schedule = make_schedule(3, 6, **without)  # type: ignore[arg-type]
    assert schedule.leave == 0 and not any(block.references for block in schedule.blocks)
    assert rules(schedule) == [Rule.CLA] * 9


def test_unpruned_computes_every_row_to_the_end() -> None:
    for block in make_schedule(3, 6, prune=False).blocks:
        assert block.references and not block.idle_references and not block.idle_base


def test_blocks_that_somebody_else_reads_compute_every_row() -> None:
    schedule = make_schedule(3, 6, full_rows=frozenset({5, 8}))
    assert not schedule[5].idle_references and not schedule[8].idle_base
    assert not schedule[6].references  # leaving itself is the block's own output and stays


@pytest.mark.parametrize("ica_blocks", [(-1, 3), (4, 3), (0, 10)])
def test_a_range_outside_the_model_is_refused(ica_blocks: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="9 blocks"):
        make_schedule(3, 6, ica_blocks=ica_blocks)
