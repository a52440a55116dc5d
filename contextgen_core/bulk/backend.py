"""What a backend of bulk runs is: it opens once in each worker, and makes pictures of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..layout.box import Box
from ..score.grounding import crop_of
from .table import Row


class HostError(RuntimeError):
    """The host's trouble, not the row's: worth another attempt. One sentence."""


class Made(NamedTuple):
    """picture: an encoded one (PNG). seconds: what it took."""

    picture: bytes
    seed: int
    seconds: float


class Subject(NamedTuple):
    """A box of the layout as scorers see it. share: left, top, right, bottom as parts of the canvas, 0..1. reference:
    file of the picture bound to it, or None. words: its label or phrase."""

    share: tuple[float, float, float, float]
    reference: Path | None
    words: str

    def box(self, picture: np.ndarray) -> Box:
        height, width = picture.shape[:2]
        x1, y1, x2, y2 = self.share
        return Box(x1 * width, y1 * height, x2 * width, y2 * height)

    def crop(self, picture: np.ndarray) -> np.ndarray:
        """What the picture (uint8 (H, W, 3)) shows in the box, at least one pixel."""
        return crop_of(picture, self.box(picture))


@dataclass(frozen=True)
class Task:
    """A row that is ready to be made. work: the backend's own form of it, picklable. subjects: the boxes of its layout,
    for scorers. extra: the columns that the backend does not read."""

    row: Row
    work: Any
    seed: int
    subjects: tuple[Subject, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Worker(Protocol):
    """A backend at work in one process."""

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        """A picture for each seed. Raises InputError where the row is at fault, HostError where the host is."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Picklable; it says how rows are read and how a worker is opened.

    digest: whatever decides the pictures beside the row. workers: how many are of use, None = as many as asked for."""

    @property
    def digest(self) -> str: ...

    @property
    def workers(self) -> int | None: ...

    def check(self) -> list[str]:
        """Looked at once, before anything starts; returns sentences of warning. Raises InputError."""
        ...

    def prepare(self, row: Row, base: Path) -> Task:
        """Raises InputError, one sentence, for a row that cannot be made."""
        ...

    def open(self) -> Worker: ...
