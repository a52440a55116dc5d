"""What the benchmarks measure: layouts, their arithmetic, and clocks. Needs torch, numpy and this repository."""

from __future__ import annotations

import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path and "contextgen_core" not in sys.modules:
    sys.path.append(str(ROOT))  # behind everything else: the folder nodes must hide nobody's module

from contextgen_core.layout.tokens import TokenBox  # noqa: E402
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens, active_references  # noqa: E402

TEXT = 512
REFERENCE_SIDES = ((384, 256), (512, 384), (768, 512), (1024, 768))  # the authors' size rule, canvas to reference


def reference_side(size: int) -> int:
    """Side in tokens of a square reference for a square canvas of ``size`` pixels, by the authors' rule."""
    return next((side for canvas, side in REFERENCE_SIDES if size <= canvas), 1024) // 16


def make_plan(size: int, references: int, cover: float = 0.5, side: int | None = None) -> Plan:
    """A square canvas tiled by as many boxes as there are references (one: a centred box of 0.7 of the side).

    ``cover`` is the share of each reference's tokens that its subject touches: a disc-like blob in the middle, as
    masks are, not whole rows. Blobs differ a little in size, as subjects do, unless ``cover`` is 1.
    """
    grid = size // 16
    made = []
    columns = math.ceil(math.sqrt(references)) if references else 1
    rows = math.ceil(references / columns) if references else 1
    side = side or reference_side(size)
    y, x = np.mgrid[0:side, 0:side] - (side - 1) / 2
    distance = np.hypot(x * 1.15, y) + 1e-6 * np.arange(side * side).reshape(side, side)
    for number in range(references):
        row, column = divmod(number, columns)
        if references == 1:
            low, high = round(grid * 0.15), round(grid * 0.85)
            box = TokenBox(low, low, high, high)
        else:
            last = columns if row < rows - 1 else references - columns * (rows - 1)
            box = TokenBox(
                grid * column // last, grid * row // rows, grid * (column + 1) // last, grid * (row + 1) // rows
            )
        share = cover if cover == 1 else cover * (1 + 0.1 * ((number % 3) - 1))
        if references == 1 and cover != 1:
            share = cover
        kept = distance.ravel().argsort()[: round(share * side * side)]
        valid = np.zeros(side * side, np.uint8)
        valid[kept] = 1
        made.append(ReferenceTokens(str(number + 1), side, side, valid.tobytes(), box))
    return Plan(grid, grid, tuple(made))


class Work(NamedTuple):
    """Multiply-adds counted as two, of one step of one picture."""

    linear: float
    attention: float

    @property
    def step(self) -> float:
        return self.linear + self.attention


def arithmetic(plan: Plan, width: int, double: int = 19, single: int = 38, text: int = TEXT) -> tuple[Work, Work]:
    """The work of the dense form and the least work that gives the same picture.

    24 D^2 per token and block, 4 D per query-key pair. Counted for the least: only pairs that the rule allows, no
    reference token outside its mask, none after the last ICA block, there keys and values alone; in the last block
    queries, MLP and output for the noise tokens alone.
    """
    blocks, noise = double + single, plan.noise_tokens
    full, base = text + plan.image_tokens, text + 2 * noise
    dense = Work(24 * width**2 * full * blocks, 4 * width * full**2 * blocks)
    kept = {n: sum(plan.references[n].valid) for n in active_references(plan)}
    if not kept:
        return dense, dense
    leave = double + single // 2
    area = {n: (b.x2 - b.x1) * (b.y2 - b.y1) for n in kept for b in [plan.references[n].box]}
    own = sum(v * (text + v) for v in kept.values())
    inside = sum(area[n] * kept[n] for n in kept)
    every = sum(kept.values())
    pairs = blocks * base**2 + (leave - 1) * own + (leave - double) * inside - base * (base - noise)
    linear = 24 * (blocks * base + (leave - 1) * every) + 4 * every - 20 * (base - noise)
    return dense, Work(float(width**2 * linear), float(4 * width * pairs))


def kept_tokens(plan: Plan, text: int = TEXT) -> int:
    return text + 2 * plan.noise_tokens + sum(sum(plan.references[n].valid) for n in active_references(plan))


# --- clocks ---------------------------------------------------------------------------------------------------------


class Times(NamedTuple):
    """Medians in seconds. CPU time is the figure to trust on a machine that others use."""

    cpu: float
    wall: float


def interleaved(calls: list[Callable[[], object]], repeats: int, warm: bool = True) -> list[Times]:
    """Runs the calls in turn, ``repeats`` times after one that does not count, and gives each one's medians."""
    if warm:
        for call in calls:
            call()
    taken: list[list[tuple[float, float]]] = [[] for _ in calls]
    for turn in range(repeats):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for number in order:
            cpu, wall = time.process_time(), time.perf_counter()
            calls[number]()
            taken[number].append((time.process_time() - cpu, time.perf_counter() - wall))
    return [Times(*(statistics.median(column) for column in zip(*times, strict=True))) for times in taken]


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field}")


def resident_bytes() -> int:
    """Memory of this process; freed memory is given back first. Linux."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def peak_bytes(call: Callable[[], object]) -> int:
    """Most memory that this process held while ``call`` ran (Linux)."""
    resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return _status("VmHWM")


def machine() -> str:
    """This machine's processor in a few words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {len(names)} cores seen"
