"""Pictures put together for people: several in a row, a square or under captions, boxes asked and found drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .lettering import lettering

Rectangle = tuple[int, int, int, int]  # xyxy, half-open

GAP = 6  # pixels
LETTERS = 15
# Okabe and Ito's colours, told apart by most colour-blind eyes.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
WHITE, BLACK = (255, 255, 255), (20, 20, 20)


def colour(number: int) -> tuple[int, int, int]:
    """The colour of the box of that number, from 0."""
    return PALETTE[number % len(PALETTE)]


def enlarged(picture: np.ndarray, times: int) -> np.ndarray:
    """Every pixel repeated: uint8 (times H, times W, 3)."""
    return picture.repeat(times, 0).repeat(times, 1)


def square_of(pictures: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Up to four pictures of equal size, two in a row, white where there is none: uint8 (2 H, 2 W, 3)."""
    height, width = pictures[0].shape[:2]
    out = np.full((2 * height, 2 * width, 3), 255, np.uint8)
    for k, picture in enumerate(pictures[:4]):
        y, x = k // 2 * height, k % 2 * width
        out[y : y + height, x : x + width] = picture
    return out


def row_of(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of equal height side by side, white between: uint8 (H, .., 3)."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def draw_boxes(
    picture: np.ndarray, asked: Sequence[Rectangle], found: Sequence[Rectangle | None], times: int = 4
) -> np.ndarray:
    """The picture, enlarged, with the boxes asked for in dashes and the boxes found in full lines, one colour for
    each creature, and a line that says so below: uint8 (times H + line, times W, 3)."""
    height, width = picture.shape[0] * times, picture.shape[1] * times
    canvas = Image.new("RGB", (width, height + 24), WHITE)
    canvas.paste(Image.fromarray(enlarged(picture, times)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, box in enumerate(asked):
        _dashes(draw, _scaled(box, times), colour(number))
    for number, box in enumerate(found):
        if box is not None:
            draw.rectangle(_scaled(box, times), outline=colour(number), width=2)
    missing = sum(box is None for box in found)
    text = "dashed: box asked for    line: box found" + (f"    not found: {missing}" if missing else "")
    text, font = lettering(text, LETTERS)
    draw.text((4, height + 3), text, fill=BLACK, font=font)
    return np.array(canvas)


def _scaled(box: Rectangle, times: int) -> Rectangle:
    """Corners as the drawing functions want them: the last pixel belongs to the box."""
    return box[0] * times, box[1] * times, box[2] * times - 1, box[3] * times - 1


def _dashes(draw: ImageDraw.ImageDraw, box: Rectangle, fill: tuple[int, int, int], dash: int = 8) -> None:
    x1, y1, x2, y2 = box
    for x in range(x1, x2, 2 * dash):
        for y in (y1, y2):
            draw.line((x, y, min(x + dash, x2), y), fill=fill, width=3)
    for y in range(y1, y2, 2 * dash):
        for x in (x1, x2):
            draw.line((x, y, x, min(y + dash, y2)), fill=fill, width=3)


def captioned(columns: Sequence[tuple[str, np.ndarray]], times: int = 2) -> np.ndarray:
    """Pictures of one size (H, W, 3), enlarged, side by side, each under its caption: uint8."""
    line = 24
    pictures = [enlarged(picture, times) for _, picture in columns]
    height, width = pictures[0].shape[:2]
    canvas = Image.new("RGB", (len(columns) * (width + GAP) - GAP, height + line), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, ((caption, _), picture) in enumerate(zip(columns, pictures, strict=True)):
        left = number * (width + GAP)
        canvas.paste(Image.fromarray(picture), (left, line))
        text, font = lettering(caption, LETTERS)
        draw.text((left + width / 2, line / 2), text, fill=BLACK, font=font, anchor="mm")
    return np.array(canvas)
