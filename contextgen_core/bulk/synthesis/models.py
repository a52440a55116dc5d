"""The models of a synthesis: what each role is asked, and how it is named on the command line.

A role is given as `small_world` (the drawn world, the default), or as one of its other kinds with what it needs:

    writer     stories=FILE (JSON lines: place, subjects, prompt), language=FOLDER (a causal language model)
    painter    comfy=API.json, diffusers=FOLDER
    segmenter  grounded=FOLDER,FILE (Grounding DINO; a SAM checkpoint)
    editor     comfy=API.json[,API.json], kontext=FOLDER[,ADAPTER] (the second for several subjects, kind flexible)
    depth      depth=FOLDER (a depth estimator)
    identity   efficientnet, faces, vision=FOLDER

Folders are local ones of diffusers or transformers; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import InputError
from ...input.checks import shorten
from ...layout.box import Box
from ...layout.layout import Layout
from ..graph import Graph
from ..stages import describe
from .draft import Cutting, Found, Story

Pixels = np.ndarray  # uint8 (H, W, 3)


class Writer(Protocol):
    def story(self, seed: int, number: int, count: int) -> Story:
        """A story with `count` subjects that differ, for sample `number` of its set."""
        ...


class Painter(Protocol):
    def paint(self, story: Story, layout: Layout, seed: int) -> Pixels:
        """The picture of a story, of the layout's size."""
        ...

    def alone(self, phrase: str, seed: int, side: int) -> Pixels:
        """One subject on a plain ground, square."""
        ...


class Segmenter(Protocol):
    def find(self, picture: Pixels, phrase: str, place: str, near: Box | None) -> Found | None:
        """The subject of a phrase. place: the words of the scenery, empty for a plain ground. near: where it was meant
        to be, where that is known."""
        ...


class Editor(Protocol):
    def repaint(self, cutting: Cutting, phrase: str, seed: int, side: int) -> Pixels:
        """The same subject from another side or in another light, on a plain ground, square."""
        ...

    def empty(self, picture: Pixels, story: Story, seed: int) -> Pixels:
        """The picture without its subjects."""
        ...

    def unite(self, cuttings: Sequence[Cutting], story: Story, layout: Layout, seed: int) -> Pixels:
        """The picture of a story with these subjects in it."""
        ...


class Depth(Protocol):
    def measure(self, picture: Pixels, found: Sequence[Found]) -> np.ndarray:
        """Distance along the camera's axis, float32 (H, W), above 0, in any unit; infinite where nothing is."""
        ...


class Identity(Protocol):
    def embed(self, pictures: Sequence[Pixels]) -> list[np.ndarray | None]:
        """A unit vector for each subject on grey; None where it has no features of the kind."""
        ...


ROLES = ("writer", "painter", "segmenter", "editor", "depth", "identity")
SMALL = "small_world"
_KINDS: dict[str, tuple[str, ...]] = {
    "writer": ("stories", "language"),
    "painter": ("comfy", "diffusers"),
    "segmenter": ("grounded",),
    "editor": ("comfy", "kontext"),
    "depth": ("depth",),
    "identity": ("efficientnet", "faces", "vision"),
}
_PATHS = {  # least and most of what stands behind the name, where it is not one
    ("segmenter", "grounded"): (2, 2), ("editor", "comfy"): (1, 2), ("editor", "kontext"): (1, 2),
    ("identity", "efficientnet"): (0, 0), ("identity", "faces"): (0, 0),
}  # fmt: skip


@dataclass(frozen=True)
class Hosting:
    """What the models of real hosts have in common. comfy: addresses of running ComfyUIs; path: else an installation
    that each worker starts."""

    comfy: tuple[str, ...] = ()
    path: Path | None = None
    python: str = ""
    arguments: tuple[str, ...] = ()
    timeout: float = 600.0
    threads: int = 1
    device: str = "cpu"
    steps: int = 28


@dataclass(frozen=True)
class Model:
    """One role's model, picklable. folders: what stands behind the kind's name."""

    role: str
    kind: str = SMALL
    folders: tuple[Path, ...] = ()
    hosting: Hosting = Hosting()

    @property
    def small(self) -> bool:
        return self.kind == SMALL

    @property
    def follows(self) -> bool:
        """Whether this painter puts subjects where a layout says."""
        if self.kind != "comfy":
            return self.small
        return bool(Graph.read(self.folders[0]).places("layout"))

    @property
    def digest(self) -> str:
        """Differs where what it makes may differ: of a file its content, of a folder its path."""
        content = [_digest(path) if path.is_file() else str(path) for path in self.folders]
        return describe([self.role, self.kind, content, self.hosting.device, self.hosting.steps, self.hosting.threads])

    def open(self) -> Any:
        """The role's model at work in this process."""
        return _opener(self)()


def _digest(path: Path) -> str:
    known = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            known.update(part)
    return known.hexdigest()


def named(role: str, text: str, hosting: Hosting) -> Model:
    """A model by its name on the command line. Raises InputError."""
    kind, _, rest = text.partition("=")
    choices = (SMALL, *_KINDS[role])
    if kind not in choices:
        raise InputError(f"there is no {role} {shorten(kind)}; use {', '.join(choices)}.")
    folders = tuple(Path(part) for part in rest.split(",")) if rest else ()
    least, most = _PATHS.get((role, kind), (1, 1)) if kind != SMALL else (0, 0)
    if not least <= len(folders) <= most:
        example = "=" * bool(most) + ",".join(["PATH"] * least) + "[,PATH]" * (most - least)
        raise InputError(f"the {role} {shorten(text, 60)} is written {kind}{example}.")
    for path in folders:
        if not path.exists():
            raise InputError(f"the {role}'s {shorten(str(path), 80)} is not there; put it there or correct the path.")
    if kind == "comfy" and not hosting.comfy and hosting.path is None:
        raise InputError(f"the {role} works in a ComfyUI; give --comfy URL or --comfy-path DIR.")
    return Model(role, kind, folders, hosting)


def _opener(model: Model) -> Callable[[], Any]:
    if model.small:
        from . import small_world

        return small_world.MODELS[model.role]
    from . import hosts

    return partial(hosts.MODELS[model.role, model.kind], *model.folders, model.hosting)
