"""Random plans for property tests, and the plans of ContextGen's golden cases."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from contextgen_core.layout.tokens import TokenBox, token_box
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens, TokenSequence, active_references

GRID = st.integers(1, 10)


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> TokenBox:
    """Any box on the grid: empty, single token, touching borders, the whole canvas."""
    x = sorted((draw(st.integers(0, width)), draw(st.integers(0, width))))
    y = sorted((draw(st.integers(0, height)), draw(st.integers(0, height))))
    return TokenBox(x[0], y[0], x[1], y[1])


@st.composite
def references(draw: st.DrawFn, width: int, height: int, strengths: tuple[float, ...]) -> ReferenceTokens:
    columns, rows = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    bits = draw(st.integers(0, 2 ** (columns * rows) - 1))
    valid = bytes((bits >> i) & 1 for i in range(columns * rows))
    box = draw(boxes(width, height))
    return ReferenceTokens("r", columns, rows, valid, box, draw(st.sampled_from(strengths)))


@st.composite
def plans(draw: st.DrawFn, most: int = 6, strengths: tuple[float, ...] = (1.0,)) -> Plan:
    """A plan of up to ``most`` references; boxes overlap, nest and repeat as chance has it."""
    width, height = draw(GRID), draw(GRID)
    made = draw(st.lists(references(width, height, strengths), max_size=most))
    return Plan(width, height, tuple(made))


def sequence_of(plan: Plan, text: int = 3, pruned: bool = True) -> TokenSequence:
    return TokenSequence(plan, text, active_references(plan), pruned)


def crowd(count: int = 32, width: int = 16, height: int = 12, seed: int = 0) -> Plan:
    """Many overlapping boxes: the fan-out case of the query groups."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        x1, y1 = int(rng.integers(0, width - 4)), int(rng.integers(0, height - 4))
        box = TokenBox(x1, y1, x1 + int(rng.integers(2, width - x1 + 1)), y1 + int(rng.integers(2, height - y1 + 1)))
        made.append(
            ReferenceTokens(
                str(number), 3, 3, bytes(rng.integers(0, 2, 9, np.uint8) | np.eye(9)[0].astype(np.uint8)), box
            )
        )
    return Plan(width, height, tuple(made))


def golden_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """One of ContextGen's golden cases: its plan and its arrays (tests/golden/README.md)."""
    case = dict(np.load(path))
    width, height = (int(n) // 16 for n in case["target_wh"])
    made = []
    for n, corners in enumerate(case["boxes_px"].tolist()):
        box: Any = SimpleNamespace(**dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)))
        columns, rows = (int(size) for size in case["tok_sizes_wh"][2 + n])
        valid = case[f"ref{n}_tokmask"].astype(np.uint8).tobytes()
        made.append(ReferenceTokens(str(n), columns, rows, valid, token_box(box, width, height)))
    return Plan(width, height, tuple(made)), case
