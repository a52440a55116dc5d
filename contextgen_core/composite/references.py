"""References: a picture of one subject, its mask, and the form in which the model reads them.

Sizes are (width, height) in pixels; arrays are (height, width). One token is 16 x 16 pixels. Source of the
rules: ContextGen's released inference code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..input.checks import has_control_characters, plain_number, shorten

GREY = 128  # what a masked-out pixel is: 0 on the model's scale of -1..1
HALF = 128  # a mask value from here on is subject

MIN_SIDE = 16
MAX_SIDE = 16384
MAX_NAME = 100
MAX_TOKENS = 16384
MAX_STRENGTH = 4.0
CROP_MARGIN = 1 / 16  # of the subject's longer side, on each side


@dataclass(frozen=True, eq=False)
class Reference:
    """One subject as the user gave it. Raises InputError where a field is out of range or the mask is empty.

    pixels: uint8 (H, W, 3) RGB. mask: uint8 (H, W), 255 = subject. Sides 16..16384.
    tokens: the most tokens it may take, 1..16384; 0 = the official size rule.
    strength: 0..4, factor on its attention weights, 1 = unchanged.
    start, end: the part of sampling in which it is read, 0 <= start <= end <= 1.
    crop: cut the picture to the subject (and a small margin) before resizing; the official code never does.
    """

    name: str
    pixels: np.ndarray
    mask: np.ndarray
    tokens: int = 0
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    crop: bool = False

    def __post_init__(self) -> None:
        where = f"reference {shorten(self.name, 60)}"
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= MAX_NAME:
            raise InputError(f"{where} needs a name of 1 to {MAX_NAME} characters; rename it.")
        if has_control_characters(self.name):
            raise InputError(f"{where} has a control character in its name; remove it.")
        _check_picture(self.pixels, self.mask, where)
        limits = (
            ("tokens", 0, MAX_TOKENS),
            ("strength", 0, MAX_STRENGTH),
            ("start", 0, 1),
            ("end", 0, 1),
        )
        for field, low, high in limits:
            value = getattr(self, field)
            number = plain_number(value)
            if number is None or not low <= number <= high:
                raise InputError(f"{where} has {field} = {shorten(value)}; give a number from {low:g} to {high:g}.")
        if self.tokens != int(self.tokens):
            raise InputError(f"{where} has tokens = {self.tokens:g}; give a whole number.")
        if self.start > self.end:
            raise InputError(f"{where} starts at {self.start:g} and ends at {self.end:g}; start it before it ends.")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


# --- masks ----------------------------------------------------------------------------------------


def subject_box(mask: np.ndarray, threshold: int = HALF) -> tuple[int, int, int, int] | None:
    """The tight half-open rectangle (x1, y1, x2, y2) of mask >= threshold, or None where there is none."""
    inside = mask >= threshold
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    if not columns.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cropped(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and mask, cut to the subject and a margin where the reference asks for it.

    At least 16 pixels a side, as far as the picture has them.
    """
    pixels, mask = reference.pixels, reference.mask
    box = subject_box(mask) if reference.crop else None
    if box is None:
        return pixels, mask
    x1, y1, x2, y2 = box
    margin = math.ceil(max(x2 - x1, y2 - y1) * CROP_MARGIN)
    columns, rows = (
        _with_margin(low, high, limit, max(margin, (MIN_SIDE - (high - low) + 1) // 2))
        for low, high, limit in ((x1, x2, mask.shape[1]), (y1, y2, mask.shape[0]))
    )
    return np.ascontiguousarray(pixels[rows, columns]), np.ascontiguousarray(mask[rows, columns])


def _with_margin(low: int, high: int, limit: int, margin: int) -> slice:
    start, stop = max(0, low - margin), min(limit, high + margin)
    start = max(0, min(start, stop - MIN_SIDE))  # at a border the other side gives what is missing
    return slice(start, min(limit, max(stop, start + MIN_SIDE)))


# --- pictures -------------------------------------------------------------------------------------


def subject_from_image(image: Image.Image, mask: Image.Image | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (H, W, 3) and mask uint8 (H, W), 255 = subject, from a Pillow picture.

    Transparency counts as the mask, in whatever form the mode keeps it (RGBA, LA, a palette's or a colour
    key). A separate mask (any mode; white = subject) may come with it: a pixel then is subject where both
    say so, because the colour under transparency means nothing. Camera orientation is applied.
    Raises InputError for a picture with neither, an empty mask, sizes that differ, and absurd sizes.
    """
    _check_sides(*image.size, "the picture")
    image = _upright(image, "the picture")
    alpha = None
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    if mask is None and alpha is None:
        raise InputError(
            "the picture has neither a mask nor transparency, so its subject is unknown; connect a subject "
            "mask, or use a cut-out with a transparent background."
        )
    pixels = np.array(_eight_bit(image).convert("RGB"))
    selected = np.full(pixels.shape[:2], 255, np.uint8)
    if alpha is not None:
        selected = alpha
    if mask is not None:
        _check_sides(*mask.size, "the mask")
        given = np.array(_eight_bit(_upright(mask, "the mask")).convert("L"))
        if given.shape != selected.shape:
            raise InputError(
                f"the mask is {given.shape[1]} x {given.shape[0]} and the picture {pixels.shape[1]} x "
                f"{pixels.shape[0]} pixels; give a mask of the picture's size."
            )
        selected = np.minimum(selected, given)
    _check_picture(pixels, selected, "the picture")
    return pixels, selected


def _upright(image: Image.Image, what: str) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{what} cannot be read ({shorten(str(error), 60)}); save it again.") from None


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit greys scaled to 8 bits; Pillow's own conversion clips them to white."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))


def _check_sides(width: int, height: int, what: str) -> None:
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise InputError(
            f"{what} is {width} x {height} pixels; give one with sides from {MIN_SIDE} to {MAX_SIDE} pixels."
        )


def _check_picture(pixels: np.ndarray, mask: np.ndarray, what: str) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"{what} has pixels of shape {pixels.shape} {pixels.dtype}; give uint8 (height, width, 3).")
    if mask.dtype != np.uint8 or mask.shape != pixels.shape[:2]:
        raise InputError(
            f"{what} has a mask of shape {mask.shape} {mask.dtype} for pixels of shape {pixels.shape}; give "
            "uint8 (height, width) of the same size."
        )
    _check_sides(pixels.shape[1], pixels.shape[0], what)
    if not (mask >= HALF).any():
        raise InputError(
            f"{what} has an empty mask (no pixel above one half); mark the subject, or invert the mask if it "
            "is white around the subject."
        )
