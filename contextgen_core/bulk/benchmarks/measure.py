"""Figures of a benchmark: each a sum over pictures divided by another, with its definition and source.

Published protocols add up over instances, references or pictures and divide once at the end; so a picture's scorer
gives plain sums by name, and any subset of pictures (a level, a kind) has its figures from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..score import Scorer
    from .case import Case
    from .eyes import Eyes

Sums = Mapping[str, float | None]


class Measure(NamedTuple):
    """A column of the table: scale * (sum of `above`) / (sum of `below`), or the mean of the measures `mean_of`.

    needs: roles of the models without which it has no value. says: its definition.
    """

    title: str
    above: str
    below: str
    says: str
    needs: tuple[str, ...] = ()
    scale: float = 100.0
    mean_of: tuple[str, ...] = ()


class Published(NamedTuple):
    """A row that others have published. values: by group and the measure's title."""

    name: str
    source: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Benchmark:
    """What the runner needs of a benchmark.

    cases      the rows of a download: (data, size in pixels or None, seeds or none) -> cases in the data set's order
    scorer     (models, data) -> what judges a picture; its numbers are sums
    groups     of the table's columns or rows, and which of them a case belongs to
    thresholds of the detector: box, text, and IoU from which a weaker box is dropped (None: never)
    models     by role, those of the published protocol
    bgr        whether its code hands pictures to CLIP with red and blue exchanged
    notes      where the protocol leaves something open and what holds here; where the published code does what one
               would not expect
    """

    name: str
    title: str
    origin: str
    source: str
    cases: Callable[[Path, int | None, Sequence[int]], Iterator[Case]]
    scorer: Callable[[Eyes, Path], Scorer]
    groups: tuple[str, ...]
    group_of: Callable[[Mapping[str, Any]], Sequence[str]]
    measures: tuple[Measure, ...]
    thresholds: tuple[float, float, float | None]
    models: Mapping[str, str]
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    bgr: bool = False


def value_of(measure: Measure, measures: Sequence[Measure], pictures: Iterable[Sums]) -> float | None:
    """A measure over pictures; None where nothing was measured, or where one of those it averages was not."""
    pictures = list(pictures)
    if measure.mean_of:
        parts = [value_of(part, measures, pictures) for part in measures if part.title in measure.mean_of]
        return None if None in parts or not parts else sum(p for p in parts if p is not None) / len(parts)
    above = below = 0.0
    for sums in pictures:
        a, b = sums.get(measure.above), sums.get(measure.below)
        if a is not None and b is not None:
            above, below = above + a, below + b
    return measure.scale * above / below if below else None
