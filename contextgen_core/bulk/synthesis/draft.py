"""A sample on its way through the stages, what drops it, and what decides its bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ...composite.references import GREY
from ...errors import InputError
from ...layout.box import Box
from ...layout.layout import Layout
from ..graph import seed_of
from ..records import DONE, Outcome

BASIC, COMPLEX, FLEXIBLE, SIGMA = "basic", "complex", "flexible", "sigma_gen"
CONTEXTGEN = (BASIC, COMPLEX, FLEXIBLE)
KINDS = (*CONTEXTGEN, SIGMA)
FOLDERS = {BASIC: "imig-basic", COMPLEX: "imig-complex", FLEXIBLE: "imig-flexible", SIGMA: "sigma-set"}
DROPPED = "dropped"
MOST_SUBJECTS = 10


@dataclass(frozen=True)
class Limits:
    """What a sample and its subjects must reach.

    subjects: at least so many in a picture. area: of a box, as a share of the picture. fill: share of a box that its
    mask selects. iou: of the box that is found with the planned one, where the painter follows layouts. identity:
    cosine between the features of a subject in the picture and in its other view. (The authors of ContextGen: 2, 0.01,
    0.6, -, 0.82; their masks are of photographs, which fill their boxes better than drawn shapes.)"""

    subjects: float = 2
    area: float = 0.01
    fill: float = 0.3
    iou: float = 0.5
    identity: float = 0.82

    @classmethod
    def parse(cls, texts: list[str]) -> Limits:
        """From `name=number` each. Raises InputError."""
        known = [f.name for f in fields(cls)]
        values: dict[str, float] = {}
        for text in texts:
            name, _, number = text.partition("=")
            try:
                values[name] = float(number)
            except ValueError:
                values = {"": 0.0}
            if name not in known or not 0 <= values.get(name, -1.0) < float("inf"):
                raise InputError(f"--least has {text!r}; write NAME=NUMBER with one of {', '.join(known)}.")
        return cls(**values)


@dataclass(frozen=True)
class Settings:
    """What decides a sample beside its kind and number and the models. size: side of the picture, view: of a subject's
    own picture, both in pixels."""

    seed: int = 0
    size: int = 128
    view: int = 64
    subjects: tuple[int, int] = (2, 4)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Story:
    """What is to be seen. prompt: of the whole picture; place: of it without its subjects."""

    prompt: str
    place: str
    phrases: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Cutting:
    """A subject cut out: pixels uint8 (h, w, 3), mask uint8 (h, w), 255 = subject."""

    pixels: np.ndarray
    mask: np.ndarray

    @property
    def on_grey(self) -> np.ndarray:
        return np.where(self.mask[..., None] >= 128, self.pixels, np.uint8(GREY))


@dataclass(frozen=True, eq=False)
class Found:
    """Where a subject was seen. mask: bool (H, W) of the picture."""

    box: Box
    mask: np.ndarray

    def cut(self, picture: np.ndarray) -> Cutting:
        """What the picture shows in the box, whole pixels, at least one."""
        height, width = self.mask.shape
        x1, y1 = min(max(int(self.box.x1), 0), width - 1), min(max(int(self.box.y1), 0), height - 1)
        x2, y2 = max(min(int(np.ceil(self.box.x2)), width), x1 + 1), max(min(int(np.ceil(self.box.y2)), height), y1 + 1)
        mask = np.where(self.mask[y1:y2, x1:x2], np.uint8(255), np.uint8(0))
        return Cutting(np.ascontiguousarray(picture[y1:y2, x1:x2]), mask)


@dataclass(frozen=True, eq=False)
class Part:
    """One subject. number: its place in the plan. view: a picture of it alone; own: the view's cut-out; found: in the
    picture; likeness: cosine of the two."""

    number: int
    phrase: str
    planned: Box
    view: np.ndarray | None = None
    own: Cutting | None = None
    found: Found | None = None
    likeness: float | None = None


@dataclass(frozen=True)
class Drop:
    """Why a subject (its number) or the whole sample (None) is left out. value: what was measured, if anything; least:
    what was asked for."""

    filter: str
    why: str
    subject: int | None = None
    value: float | None = None
    least: float | None = None


@dataclass(frozen=True, eq=False)
class Draft:
    """number: in its set, from 0."""

    outcome: Outcome
    kind: str
    number: int
    settings: Settings
    story: Story | None = None
    layout: Layout | None = None
    parts: tuple[Part, ...] = ()
    picture: np.ndarray | None = None
    empty: np.ndarray | None = None
    depth: np.ndarray | None = None
    files: dict[str, bytes] | None = None
    drops: tuple[Drop, ...] = ()

    @property
    def lives(self) -> bool:
        return self.outcome.status == DONE and self.outcome.stop is None

    def seed(self, *what: object) -> int:
        """A seed below 2^48 for one purpose of this sample."""
        return seed_of("/".join(map(str, (self.settings.seed, self.kind, self.number, *what))))

    def kept(self, parts: list[Part], drops: list[Drop]) -> Draft:
        """With the subjects that are left; of too few the whole sample is dropped."""
        limit = max(1.0, self.settings.limits.subjects)
        gone = [*self.drops, *drops]
        if len(parts) >= limit:
            return replace(self, parts=tuple(parts), drops=tuple(gone))
        gone.append(Drop("subjects", f"{len(parts)} subjects are left.", None, len(parts), limit))
        return self.dropped(gone)

    def dropped(self, drops: list[Drop]) -> Draft:
        last = drops[-1]
        outcome = replace(self.outcome, status=DROPPED, error=f"{last.filter}: {last.why}")
        return replace(self, outcome=outcome, drops=tuple(drops))

    def ended(self) -> Outcome:
        """The outcome with what the report needs, and nothing large."""
        extra: dict[str, Any] = {"subjects": len(self.parts)}
        if self.drops:
            extra["drops"] = [{k: v for k, v in vars(drop).items() if v is not None} for drop in self.drops]
        return replace(self.outcome, extra=extra)
