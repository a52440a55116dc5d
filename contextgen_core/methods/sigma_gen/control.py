"""The two pictures that SIGMA-GEN reads: the stack of identities, and the control picture that routes them.

The control picture's red and green planes say by a grey level which subject stands where, in both painting orders; its
blue plane is depth, near bright. Subject n (from 0) has the grey level 10 * (n + 1) in both. Two subjects differ by 10
of 255, so nothing here is ever smoothed: a mixed grey would be a third subject's.

Masks are bool (N, H, W), one region each, in the order of the identity stack; regions may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...composite.references import Reference, subject_box
from ...errors import InputError
from ...layout.box import Box
from ...layout.layout import sine_cosine

STEP = 10
MOST = 255 // STEP  # subjects that grey levels can tell apart
TRAINED = 10  # subjects in a picture at most, in the authors' training
WHITE = 255
FILL = 0.8  # of a cell's side that the subject takes at most; the authors' pictures have 0.3 to 0.8
SEARCH = 2_000_000  # comparisons of regions before giving up: about a second


# --- regions --------------------------------------------------------------------------------------


def box_region(box: Box, width: int, height: int, rotation: float = 0.0) -> np.ndarray:
    """The pixels whose middle lies in a box, bool (height, width); ``rotation``: degrees clockwise about its middle."""
    if rotation:
        x, y = _turned(box, width, height, rotation)
        return (np.abs(x) <= box.width / 2) & (np.abs(y) <= box.height / 2)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    return ((y >= box.y1) & (y < box.y2))[:, None] & ((x >= box.x1) & (x < box.x2))[None]


def ellipse_region(box: Box, width: int, height: int, rotation: float = 0.0) -> np.ndarray:
    """The pixels of :func:`box_region` whose middle lies in the ellipse that fills the box, bool (height, width)."""
    if box.area == 0:
        return np.zeros((height, width), bool)
    x, y = _turned(box, width, height, rotation)
    inside = (x / (box.width / 2)) ** 2 + (y / (box.height / 2)) ** 2 <= 1
    return inside & box_region(box, width, height, rotation)


def _turned(box: Box, width: int, height: int, rotation: float) -> tuple[np.ndarray, np.ndarray]:
    """The middles of all pixels in a turned box's own axes, from its middle."""
    (cx, cy), (sine, cosine) = box.center, sine_cosine(rotation)
    x, y = (np.arange(width) + 0.5 - cx)[None], (np.arange(height) + 0.5 - cy)[:, None]
    return x * cosine + y * sine, y * cosine - x * sine


def nearest(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A plane (h, w) at another size by its nearest pixels; no value comes out that did not go in."""
    rows = ((np.arange(height) + 0.5) * picture.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * picture.shape[1] / width).astype(int)
    return picture[rows[:, None], columns[None]]


# --- planes ---------------------------------------------------------------------------------------


def grey_level(number: int) -> int:
    """Of a subject, counted from 0."""
    return STEP * (number + 1)


def routing_planes(masks: np.ndarray) -> np.ndarray:
    """uint8 (2, H, W): regions painted ascending, so that the last is on top, and descending.

    Raises InputError for more subjects than grey levels.
    """
    if len(masks) > MOST:
        raise InputError(f"there are {len(masks)} subjects, grey levels in steps of {STEP} hold {MOST}; use fewer.")
    planes = np.zeros((2, *masks.shape[1:]), np.uint8)
    for number in range(len(masks)):
        planes[0][masks[number]] = grey_level(number)
    for number in reversed(range(len(masks))):
        planes[1][masks[number]] = grey_level(number)
    return planes


def control_picture(masks: np.ndarray, depth: np.ndarray | None = None, *, whole: bool = False) -> np.ndarray:
    """uint8 (H, W, 3): ascending, descending, depth.

    depth  uint8 (H, W), near bright, 0 = nothing
    whole  keep the depth outside the regions, too; the authors trained without
    """
    planes = routing_planes(masks)
    if depth is None:
        depth = np.zeros(planes.shape[1:], np.uint8)
    elif not whole:
        depth = np.where(masks.any(axis=0), depth, 0).astype(np.uint8)
    return np.stack([*planes, depth], axis=-1)


def areas(masks: np.ndarray) -> np.ndarray:
    """Pixels of each subject, int64 (N, 4): of its region, seen in the ascending plane, in the descending one, in
    either."""
    planes = routing_planes(masks)
    levels = np.array([grey_level(number) for number in range(len(masks))], np.uint8)[:, None, None]
    first, second = planes[0] == levels, planes[1] == levels
    return np.stack([layer.sum(axis=(1, 2)) for layer in (masks, first, second, first | second)], axis=1)


def areas_of_picture(control: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Pixels of each subject in the ascending and in the descending plane of a control picture uint8 (H, W, 3), up to
    the last subject that is seen."""
    first, second = (np.bincount(control[..., plane].ravel(), minlength=256)[STEP::STEP].tolist() for plane in (0, 1))
    last = max((number for number in range(MOST) if first[number] or second[number]), default=-1)
    return tuple(zip(first[: last + 1], second[: last + 1], strict=True))


def hidden(masks: np.ndarray) -> tuple[int, ...]:
    """Subjects that have a region and are seen in neither plane: three regions that cover each other can do that."""
    return tuple(number for number, area in enumerate(areas(masks)) if area[0] and not area[3])


def order_that_shows_all(masks: np.ndarray) -> tuple[int, ...] | None:
    """An order of the subjects in which nobody is hidden in both planes: numbers of the masks, lowest first.

    Of all such orders the one that is first by number, so an order that shows all already stays. None where there is
    none, or none was met in two million comparisons of regions.

    A subject is seen if a pixel of it is free of all that are painted later (ascending plane) or of all earlier
    (descending plane). Only which regions cover a pixel together matters, so a picture comes down to a few sets.
    """
    count = len(masks)
    if count > MOST:
        raise InputError(f"there are {count} subjects, grey levels in steps of {STEP} hold {MOST}; use fewer.")
    bits = np.zeros(masks.shape[1:], np.int32)
    for number, mask in enumerate(masks):
        bits[mask] |= 1 << number
    covers = [int(cover) for cover in np.unique(bits)]
    others = [[cover & ~(1 << n) for cover in covers if cover >> n & 1] for n in range(count)]
    everyone, dead, work = (1 << count) - 1, set[int](), 0

    def shown(number: int, before: int) -> bool:
        nonlocal work
        work += len(others[number])
        after = everyone & ~before & ~(1 << number)
        return not others[number] or any(not (other & after and other & before) for other in others[number])

    def ordered(before: int) -> tuple[int, ...] | None:
        if before == everyone:
            return ()
        if before in dead or work >= SEARCH:
            return None
        for number in range(count):
            if not before >> number & 1 and shown(number, before):
                rest = ordered(before | 1 << number)
                if rest is not None:
                    return (number, *rest)
        dead.add(before)
        return None

    return ordered(0)


def check_routing(picture: np.ndarray) -> None:
    """Raises InputError, with their number, for grey levels of no subject: traces of smoothing or of a lossy file.

    picture  uint8 (H, W, 3), a control picture from elsewhere
    """
    wrong = (picture[..., :2] % STEP).astype(bool)
    if wrong.any():
        levels = np.unique(picture[..., :2][wrong])
        raise InputError(
            f"{int(wrong.any(axis=-1).sum())} pixels of the routing planes have grey levels that no subject has"
            f" ({', '.join(str(level) for level in levels[:4])}{', ...' if len(levels) > 4 else ''}); give a picture"
            f" with levels in steps of {STEP}, never resized smoothly nor saved as JPEG."
        )


# --- identities -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """Size of one identity's cell in pixels, multiples of 16. The authors' size is not published."""

    width: int = 512
    height: int = 512


def identity_stack(references: Sequence[Reference], cell: Cell | None = None) -> np.ndarray:
    """One cell for each subject, from top to bottom: uint8 (N * cell height, cell width, 3).

    A subject is cut out on white, its aspect kept, in the middle of its cell, at most 0.8 of the cell's sides.
    """
    cell = cell or Cell()
    known: dict[int, np.ndarray] = {}
    for reference in references:
        if id(reference) not in known:
            known[id(reference)] = _in_cell(reference, cell)
    return np.concatenate([known[id(reference)] for reference in references])


def _in_cell(reference: Reference, cell: Cell) -> np.ndarray:
    share = reference.mask[..., None].astype(np.float32) / 255
    pixels = np.rint(reference.pixels * share + WHITE * (1 - share)).astype(np.uint8)
    x1, y1, x2, y2 = subject_box(reference.mask, 1) or (0, 0, *reference.size)
    scale = FILL * min(cell.width / (x2 - x1), cell.height / (y2 - y1))
    width, height = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    subject = Image.fromarray(pixels[y1:y2, x1:x2]).resize((width, height), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (cell.width, cell.height), (WHITE, WHITE, WHITE))
    picture.paste(subject, ((cell.width - width) // 2, (cell.height - height) // 2))
    return np.asarray(picture)
