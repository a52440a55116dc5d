"""Which visibility rule holds in which block, and when the references leave the sequence.

FLUX.1 has 19 double and 38 single blocks. ContextGen attends by layout (CLA) in the first and last 19 and by
identity (ICA) in the middle 19, that is in the first half of the single blocks (paper, section 3.2). Nothing reads
a reference after the last ICA block, so there the references leave for good: exact, not approximate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ...errors import InputError


class Rule(str, Enum):
    """Who may see whom; :mod:`contextgen_core.visibility` spells each out."""

    CLA = "cla"
    ICA = "official"  # the authors' code, which the released weights were trained with
    ICA_PAPER = "paper"  # the formula as printed


@dataclass(frozen=True)
class BlockPlan:
    """What holds in one block: its rule, whether references are still there, whose queries nobody will read."""

    rule: Rule
    references: bool = True
    idle_references: bool = False  # last block that reads them: their own rows are dead after it
    idle_base: bool = False  # last block of all: only noise rows are read by the final layer


@dataclass(frozen=True)
class Schedule:
    """One :class:`BlockPlan` per block, double blocks first. ``leave`` blocks see references; the rest do not."""

    blocks: tuple[BlockPlan, ...]
    leave: int

    def __getitem__(self, index: int) -> BlockPlan:
        return self.blocks[index]

    def __len__(self) -> int:
        return len(self.blocks)


def default_ica_blocks(double: int, single: int) -> tuple[int, int]:
    """The authors' ICA range, half-open over all blocks counted double first: ``double .. double + single // 2``."""
    return double, double + single // 2


def make_schedule(
    double: int,
    single: int,
    *,
    rule: Rule = Rule.ICA,
    ica_blocks: tuple[int, int] | None = None,
    references: bool = True,
    prune: bool = True,
    full_rows: frozenset[int] = frozenset(),
) -> Schedule:
    """The schedule of a model with ``double`` + ``single`` blocks.

    ``ica_blocks`` is a half-open range over all blocks (double first); None means the authors'. ``references``
    False gives the schedule of a step in which nobody reads a reference. With ``prune`` False references stay to
    the end and every row is computed; ``full_rows`` names blocks in which every row is computed all the same.
    Raises InputError for a range outside the model.
    """
    first, stop = default_ica_blocks(double, single) if ica_blocks is None else ica_blocks
    count = double + single
    if not 0 <= first <= stop <= count:
        raise InputError(
            f"The ICA block range {first}..{stop} does not fit a model with {count} blocks;"
            f" choose 0 <= first <= last <= {count}, or leave the automatic range."
        )
    reads = rule is not Rule.CLA and first < stop and references
    leave = (stop if reads else 0) if prune else count
    blocks = tuple(
        BlockPlan(
            rule=rule if reads and first <= i < stop else Rule.CLA,
            references=i < leave,
            idle_references=prune and i == leave - 1 and i not in full_rows,
            idle_base=prune and i == count - 1 and i not in full_rows,
        )
        for i in range(count)
    )
    return Schedule(blocks, leave)
