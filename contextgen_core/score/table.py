"""Scores for people: a table, a picture of bars, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..lettering import lettering
from .figures import Scored, Summary

COLUMNS = (
    ("images", "images"),
    ("instances", "instances"),
    ("success", "SR"),
    ("instance_success", "I-SR"),
    ("miou", "mIoU"),
    ("identity", "identity"),
    ("spatial", "spatial"),
    ("colour", "colour"),
    ("texture", "texture"),
    ("shape", "shape"),
)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{100 * value:.2f}"


def table(rows: Sequence[tuple[str, Summary]]) -> str:
    """Summaries as aligned text: rates in percent, two digits. Columns that nothing was measured for are left out."""
    shown = [
        (field, title) for field, title in COLUMNS if any(getattr(summary, field) is not None for _, summary in rows)
    ]
    lines = [["", *(title for _, title in shown)]]
    lines += [[name, *(_cell(getattr(summary, field)) for field, _ in shown)] for name, summary in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def as_json(value: Summary | Scored) -> dict[str, object]:
    """A summary or an image's scores as plain JSON values."""
    return asdict(value)


def instance_table(scores: Sequence[Scored]) -> str:
    """One line an instance: image, number, label, IoU, located, success, identity."""
    lines = [("image", "#", "label", "IoU", "located", "success", "identity")]
    for image in scores:
        for number, one in enumerate(image.instances, 1):
            lines.append(
                (
                    image.name,
                    str(number),
                    one.label or "-",
                    "-" if one.iou is None else f"{one.iou:.3f}",
                    "-" if one.iou is None else "yes" if one.located else "no",
                    "-" if one.iou is None else "yes" if one.success else "no",
                    "-" if one.identity is None else f"{one.identity:.3f}",
                )
            )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


class _Bar(NamedTuple):
    text: str
    value: float
    colour: tuple[int, int, int]


BLUE, ORANGE, RED = (58, 110, 180), (214, 140, 40), (190, 70, 60)
ROW, LEFT, WIDTH, LETTERS = 22, 260, 640, 10
MAX_ROWS = 128


def _bars(image: Scored) -> list[_Bar]:
    bars = []
    for number, one in enumerate(image.instances, 1):
        name = f"box {number} {one.label[:22]}".rstrip()
        if one.iou is not None:
            colour = BLUE if one.success else RED
            bars.append(_Bar(f"{name}: IoU" + ("" if one.success else ", failed"), one.iou, colour))
        if one.identity is not None:
            bars.append(_Bar(f"{name}: identity", max(0.0, one.identity), ORANGE))
    return bars


def chart(scores: Sequence[Scored], threshold: float = 0.5) -> NDArray[np.uint8]:
    """Bars from 0 to 1 for every instance of every image, uint8 (H, 640, 3): IoU in blue (red where it failed, and it
    says so), identity in orange, a line at the threshold. At most 128 rows."""
    rows: list[tuple[str, _Bar | None]] = []
    for index, image in enumerate(scores):
        rows.append((f"image {image.name or index + 1}", None))
        rows.extend((bar.text, bar) for bar in _bars(image))
    cut = len(rows) - MAX_ROWS
    rows = rows[:MAX_ROWS] + ([(f"and {cut} more", None)] if cut > 0 else [])
    picture = Image.new("RGB", (WIDTH, max(1, len(rows)) * ROW + 8), (250, 250, 250))
    draw = ImageDraw.Draw(picture)
    span = WIDTH - LEFT - 60
    for number, (text, bar) in enumerate(rows):
        top = 4 + number * ROW
        shown, font = lettering(text, LETTERS)
        draw.text((8 if bar is None else 20, top + 5), shown, (30, 30, 30), font)
        if bar is None:
            continue
        length = round(span * min(1.0, bar.value))
        draw.rectangle((LEFT, top + 4, LEFT + span, top + ROW - 4), outline=(190, 190, 190))
        if length:
            draw.rectangle((LEFT, top + 4, LEFT + length, top + ROW - 4), fill=bar.colour)
        draw.text((LEFT + span + 8, top + 5), f"{bar.value:.3f}", (30, 30, 30), lettering("0", LETTERS)[1])
        if bar.colour != ORANGE:
            at = LEFT + round(span * threshold)
            draw.line((at, top + 2, at, top + ROW - 2), fill=(20, 20, 20))
    return np.asarray(picture, dtype=np.uint8).copy()
