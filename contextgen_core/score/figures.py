"""Does the picture follow its layout? The figures of COCO-MIG and LayoutSAM, and identity as feature similarity.

COCO-MIG (LeyRio/MIG_Bench): an instance is located if the best IoU between its box and a detection of its noun
reaches the threshold; it succeeds if it is also of the right colour. Its IoU counts as it is, but as 0 if it is
located in the wrong colour. An image succeeds if all its instances do. mIoU and instance success average over
instances, success over images.

LayoutSAM: a model that sees the crop of a box answers whether the thing is there (spatial) and, only if it is,
whether colour, texture and shape fit; each count is divided by the number of boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..layout.box import Box
from ..layout.foreign_boxes import LabelledBox
from ..layout.matching import assign, iou_matrix, same_label

DIMENSIONS = ("spatial", "colour", "texture", "shape")
CRITERIA = ("mIoU and identity", "mIoU", "instance success", "identity")


@dataclass(frozen=True)
class Answers:
    """What a model that looked at an instance's crop said; colour, texture and shape count only where spatial is
    true."""

    spatial: bool
    colour: bool = False
    texture: bool = False
    shape: bool = False

    def counted(self, dimension: str) -> bool:
        return self.spatial and bool(getattr(self, dimension))


@dataclass(frozen=True)
class Expected:
    """An instance as it was asked for. colour_right: the outcome of a colour test, None = not tested. identity: the
    cosine -1..1 between its features and its reference's, None = not measured."""

    box: Box
    label: str = ""
    colour_right: bool | None = None
    answers: Answers | None = None
    identity: float | None = None


@dataclass(frozen=True)
class Judged:
    """An instance as it came out. iou: the best overlap 0..1, or None where nobody looked for it; match: the index of
    that detection. counted_iou: what enters mIoU."""

    label: str
    iou: float | None
    match: int | None
    located: bool
    success: bool
    counted_iou: float
    answers: Answers | None
    identity: float | None


@dataclass(frozen=True)
class Scored:
    """One image and its instances."""

    name: str
    instances: tuple[Judged, ...]

    @property
    def success(self) -> bool:
        return all(instance.success for instance in self.instances)


@dataclass(frozen=True)
class Summary:
    """Averages, each 0..1 (identity -1..1), None where nothing of the kind was measured. spatial, colour, texture,
    shape: LayoutSAM."""

    images: int
    instances: int
    success: float | None
    instance_success: float | None
    miou: float | None
    identity: float | None
    spatial: float | None
    colour: float | None
    texture: float | None
    shape: float | None


def judge(
    expected: Sequence[Expected],
    found: Sequence[LabelledBox] | None,
    *,
    name: str = "",
    threshold: float = 0.5,
    one_to_one: bool = False,
) -> Scored:
    """Compare what was asked for with what a detector found.

    found: the detections in the pixels of the expected boxes; None = no detector was run, only answers and identity
    count. one_to_one: each detection serves one instance, chosen for the greatest sum of IoU (needs scipy); otherwise
    every instance takes the best detection of its label, as COCO-MIG does, even one that another instance takes too.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"the IoU threshold is {threshold:g}; give a number above 0 and up to 1.")
    if found is None:
        return Scored(name, tuple(_judged(one, None, None, threshold) for one in expected))
    overlaps = iou_matrix([one.box for one in expected], [one.box for one in found])
    for row, one in enumerate(expected):
        for column, other in enumerate(found):
            if not same_label(one.label, other.label):
                overlaps[row, column] = -1
    chosen = assign(overlaps) if one_to_one else _best(overlaps)
    judged = []
    for row, (one, column) in enumerate(zip(expected, chosen, strict=True)):
        iou = 0.0 if column is None else float(overlaps[row, column])
        judged.append(_judged(one, iou, column, threshold))
    return Scored(name, tuple(judged))


def _best(overlaps: NDArray[np.float64]) -> tuple[int | None, ...]:
    if not overlaps.shape[1]:
        return (None,) * overlaps.shape[0]
    columns = overlaps.argmax(axis=1)
    return tuple(int(c) if overlaps[row, c] >= 0 else None for row, c in enumerate(columns))


def _judged(one: Expected, iou: float | None, match: int | None, threshold: float) -> Judged:
    located = iou is not None and iou >= threshold
    right = one.colour_right is not False
    counted = 0.0 if iou is None or (located and not right) else iou
    return Judged(one.label, iou, match, located, located and right, counted, one.answers, one.identity)


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None


def summarise(scores: Iterable[Scored]) -> Summary:
    """The averages over any number of images."""
    images = list(scores)
    instances = [one for image in images for one in image.instances]
    looked = [image for image in images if image.instances and all(one.iou is not None for one in image.instances)]
    measured = [one for one in instances if one.iou is not None]
    answered = [one.answers for one in instances if one.answers is not None]
    return Summary(
        len(images),
        len(instances),
        _mean(float(image.success) for image in looked),
        _mean(float(one.success) for one in measured),
        _mean(one.counted_iou for one in measured),
        _mean(one.identity for one in instances if one.identity is not None),
        *(_mean(float(one.counted(dimension)) for one in answered) for dimension in DIMENSIONS),
    )


def by_level(scores: Iterable[Scored]) -> tuple[tuple[int, Summary], ...]:
    """The averages for each number of instances in an image, as COCO-MIG reports them (L2 to L6)."""
    images = list(scores)
    levels = sorted({len(image.instances) for image in images})
    return tuple((level, summarise(i for i in images if len(i.instances) == level)) for level in levels)


def merit(scored: Scored, criterion: str) -> float:
    """One number to rank images by, higher is better. "mIoU and identity" is their mean, identity cut off below 0;
    where only one of the two was measured, that one. Raises InputError where the criterion was not measured."""
    summary = summarise([scored])
    if criterion not in CRITERIA:
        raise InputError(f'the criterion is "{criterion}"; choose one of {", ".join(CRITERIA)}.')
    identity = None if summary.identity is None else max(0.0, summary.identity)
    parts = {
        "mIoU": (summary.miou,),
        "instance success": (summary.instance_success,),
        "identity": (identity,),
        "mIoU and identity": (summary.miou, identity),
    }[criterion]
    value = _mean(part for part in parts if part is not None)
    if value is None:
        raise InputError(f'"{criterion}" was not measured; connect found boxes or a clip_vision to the score.')
    return value


def rank(scores: Sequence[Scored], criterion: str) -> tuple[int, ...]:
    """Indices of the images, best first; the earlier one among equals."""
    merits = [merit(one, criterion) for one in scores]
    return tuple(sorted(range(len(merits)), key=lambda index: -merits[index]))


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The cosine -1..1 of two feature vectors; 0 where one of them is zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / length, -1, 1)) if length > 0 else 0.0


def masked_average(features: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """The mean feature (C,) of a grid of patch features (h, w, C), weighted by how much of each patch the subject
    covers: weights (h, w), 0..1. Where the mask is empty all patches count."""
    shares = weights.astype(np.float64)
    if shares.sum() <= 0:
        shares = np.ones_like(shares)
    return (features.astype(np.float64) * shares[..., None]).sum(axis=(0, 1)) / shares.sum()
