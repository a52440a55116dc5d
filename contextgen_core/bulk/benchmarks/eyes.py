"""The models that a benchmark's protocol looks through, by role, opened from the user's folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ...errors import InputError
from ...input.checks import shorten
from ...layout.box import Box
from ...score.grounding import Detector, Judge, Picture

SMALL = "small-world"


class Segmenter(Protocol):
    def __call__(self, picture: Picture, box: Box) -> np.ndarray:
        """The thing in a box (pixels), bool (H, W)."""
        ...


class Answerer(Protocol):
    def __call__(self, picture: Picture, question: str) -> str:
        """What a model says to a question about the whole picture: yes, no, or anything else."""
        ...


class Faces(Protocol):
    def __call__(self, picture: Picture, /) -> Sequence[np.ndarray]:
        """A feature vector for each face, the most certain one first."""
        ...


class Features(Protocol):
    def __call__(self, picture: Picture, mask: np.ndarray) -> np.ndarray:
        """The mean feature (C,) of what the mask, bool (H, W), covers."""
        ...


class Likeness(Protocol):
    def __call__(self, picture: Picture, texts: Sequence[str]) -> Sequence[float]:
        """How well each text fits the picture, in the model's own units."""
        ...


class Beauty(Protocol):
    def __call__(self, picture: Picture) -> float:
        """An aesthetic score."""
        ...


class Role(NamedTuple):
    """does: what the model is for. give: what the option takes."""

    does: str
    give: str


ROLES = {
    "detector": Role("finds the boxes of things by their words", "folder of a Grounding DINO of transformers"),
    "segmenter": Role("cuts out what a box holds", "folder of a SAM or SAM 2 of transformers"),
    "judge": Role("answers yes or no about a picture", "folder of a picture-and-text model of transformers"),
    "faces": Role("knows faces again", "'dlib' (extra faces), or the root folder of InsightFace's models"),
    "features": Role("knows things again", "folder of a DINOv2 of transformers"),
    "clip": Role("compares picture and text", "folder of CLIP ViT-L/14 of transformers"),
    "pick": Role("says which picture of a text people prefer", "folder of PickScore of transformers"),
    "aesthetic": Role(
        "says how beautiful a picture is", "LAION's linear head on CLIP ViT-L/14, a .pth or .safetensors"
    ),
}


@dataclass(frozen=True)
class Eyes:
    """The models that are there; None for a role that nobody fills."""

    detector: Detector | None = None
    segmenter: Segmenter | None = None
    judge: Judge | None = None
    answers: Answerer | None = None
    faces: Faces | None = None
    features: Features | None = None
    clip: Likeness | None = None
    pick: Likeness | None = None
    aesthetic: Beauty | None = None


def read_eyes(words: Sequence[str]) -> dict[str, str]:
    """``ROLE=FOLDER ...``, or ``small-world``, as the command line gives them. Raises InputError, one sentence."""
    if list(words) == [SMALL]:
        return {role: SMALL for role in ROLES if role not in ("pick", "aesthetic")}
    given: dict[str, str] = {}
    for word in words:
        role, equals, place = word.partition("=")
        if role not in ROLES or not equals or not place:
            raise InputError(
                f"--with {shorten(word, 60)} is no model; write ROLE=FOLDER with a role of {', '.join(ROLES)},"
                f" or {SMALL} alone."
            )
        if role in given:
            raise InputError(f"--with names the {role} twice; give one.")
        if place != SMALL and not (role == "faces" and place == "dlib") and not Path(place).exists():
            raise InputError(f"the {role} {shorten(place, 80)} is not there; give the {ROLES[role].give}.")
        given[role] = place
    if "aesthetic" in given and "clip" not in given:
        raise InputError("the aesthetic head reads CLIP's features; give --with clip=FOLDER as well.")
    return given


def open_eyes(given: dict[str, str], thresholds: tuple[float, float, float | None], bgr: bool = False) -> Eyes:
    """Loads the models, as a benchmark wants them (:class:`.measure.Benchmark`).

    Raises InputError for one that cannot be loaded.
    """
    opened: dict[str, object] = {}
    for role, place in given.items():
        if place == SMALL:
            opened |= _small(role)
            continue
        if role != "faces" and find_spec("transformers") is None:
            raise InputError(
                f"the {role} needs transformers; install the extra: pip install 'contextgen-layout[train]'."
            )
        from ...hosts import eyes as host

        if role == "detector":
            opened[role] = host.GroundingDino(place, *thresholds)
        elif role == "segmenter":
            opened[role] = host.BoxSegmenter(place)
        elif role == "judge":
            opened["judge"] = model = host.VisionJudge(place)
            opened["answers"] = model.answer
        elif role == "faces":
            opened[role] = _faces(place)
        elif role == "features":
            opened[role] = host.PatchFeatures(place)
        elif role in ("clip", "pick"):
            opened[role] = host.TextLikeness(place, bgr)
        else:
            opened[role] = host.Aesthetic(given["clip"], place)
    return Eyes(**opened)  # type: ignore[arg-type]


def _faces(place: str) -> Faces:
    if place == "dlib":
        from ..score import dlib_faces

        return dlib_faces()
    from ...hosts.eyes import InsightFaces

    return InsightFaces(place)


def _small(role: str) -> dict[str, object]:
    """The small world's stand-in for a role."""
    from ...training.small_world import eyes

    return {
        "detector": {"detector": eyes.detect},
        "segmenter": {"segmenter": eyes.segment},
        "judge": {"judge": eyes.judge, "answers": eyes.answer},
        "faces": {"faces": eyes.creatures},
        "features": {"features": eyes.features},
        "clip": {"clip": eyes.likeness},
    }.get(role, {})
