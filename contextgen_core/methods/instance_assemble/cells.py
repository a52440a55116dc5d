"""A box as the released weights know it: 36 points, the tokens inside, and the position of its layout token.

Source: section 3 of the paper and the layout record of the authors' code. Tokens are counted in float32 from the first
and last of the 36 points, not from the box, so a far edge on a token border can lose a row or column. The weights were
trained with that, so it is repeated here operation by operation; exact arithmetic gives other tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...layout.tokens import TokenBox

SIDE = 6  # points along one side of the grid over a box
COORDINATES = 2 * SIDE * SIDE

Corners = tuple[float, float, float, float]  # left, top, right, bottom in shares of the canvas, float32 values


class CellEnds(NamedTuple):
    """Where a box starts and ends on the token grid, in whole tokens: not yet widened, not yet clipped."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def centre(self) -> tuple[float, float]:
        """(row, column) of the box's layout token, in halves."""
        return (self.y1 + self.y2) / 2, (self.x1 + self.x2) / 2


def corners_of(x1: float, y1: float, x2: float, y2: float, width: int, height: int) -> Corners:
    """Pixel corners in shares of a canvas of width x height pixels, rounded to float32."""
    # The authors carry a box as position and size, and add them again.
    right, bottom = x1 + (x2 - x1), y1 + (y2 - y1)
    left, top, right, bottom = (
        float(np.float32(value)) for value in (x1 / width, y1 / height, right / width, bottom / height)
    )
    return left, top, right, bottom


def grid_points(corners: Corners) -> np.ndarray:
    """The 6 x 6 points of a box, both edges included: float32 (72,), x and y by turns, the column outermost."""
    x1, y1, x2, y2 = (np.float32(value) for value in corners)
    steps = np.arange(SIDE, dtype=np.float32)
    points = np.empty((SIDE, SIDE, 2), np.float32)
    points[..., 0] = (x1 + steps * ((x2 - x1) / np.float32(SIDE - 1)))[:, None]
    points[..., 1] = (y1 + steps * ((y2 - y1) / np.float32(SIDE - 1)))[None, :]
    return points.reshape(-1)


def cell_ends(points: np.ndarray, rows: int, columns: int) -> CellEnds:
    """The token that the first and the last point of a box lie in; may lie beyond the grid."""
    sides = np.array([columns, rows, columns, rows], np.float32)
    x1, y1, x2, y2 = (int(value) for value in points[[0, 1, -2, -1]] * sides)  # int() truncates toward zero
    return CellEnds(x1, y1, x2, y2)


def box_cells(points: np.ndarray, rows: int, columns: int, *, sliced: bool = False) -> TokenBox:
    """The tokens of a box. A box inside a single row or column of tokens keeps that one.

    What lies beyond the grid is clipped. The authors' code takes the ends for a Python slice instead, in which a
    negative end counts from the far side, so a box that starts a token or more beyond the left or upper border vanishes
    and one wholly beyond it appears on the other side; ``sliced`` does the same, for comparisons.
    """
    if not points[[0, 1, -2, -1]].any():
        return TokenBox(0, 0, 0, 0)
    x1, y1, x2, y2 = cell_ends(points, rows, columns)
    x, y = slice(x1, x2 + (x1 == x2)), slice(y1, y2 + (y1 == y2))
    if sliced:
        (left, right, _), (top, bottom, _) = x.indices(columns), y.indices(rows)
    else:
        left, right = np.clip((x.start, x.stop), 0, columns).tolist()
        top, bottom = np.clip((y.start, y.stop), 0, rows).tolist()
    if right <= left or bottom <= top:
        return TokenBox(0, 0, 0, 0)
    return TokenBox(left, top, right, bottom)
