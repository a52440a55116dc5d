"""From a mask picture to the tokens of its phrase (authors' code).

Two steps, each of which can move a border: the picture is brought to the latent's cells of 8 pixels by taking the
nearest pixel, never a mean, so a thing of 7 pixels may vanish and a line of one may fill a cell; and a token of 2 x 2
cells is in as soon as one of them is. Arrays are (rows, columns), y down and x to the right.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ...errors import InputError
from ...layout.box import Box

CELL = 8  # pixels along one side of a latent cell
CELLS = 2  # cells along one side of a token


def nearest(size: int, cells: int) -> np.ndarray:
    """For each of ``cells`` cells the pixel, of ``size``, that stands for it: int64 (cells,).

    It is the one at the cell's middle, floor((i + 0.5) * size / cells): at 8 pixels a cell the fifth of them. Pillow
    itself is asked, because it decides what happens where that falls between two pixels.
    """
    line = Image.fromarray(np.arange(size, dtype=np.int32)[None])
    return np.asarray(line.resize((cells, 1), Image.Resampling.NEAREST), np.int64)[0]


def mask_cells(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A mask picture on the latent's cells of a grid of ``rows`` x ``columns`` tokens: bool (2 rows, 2 columns).

    mask  uint8 (h, w) or (h, w, channels) of any size, which is stretched; in where the mean over channels is above
          127.5. An alpha channel counts like any other: give colours alone
    """
    if mask.ndim not in (2, 3) or not mask.size:
        raise InputError(f"a mask has the shape {tuple(mask.shape)}; give rows and columns of pixels.")
    picked = mask[np.ix_(nearest(mask.shape[0], CELLS * rows), nearest(mask.shape[1], CELLS * columns))]
    levels = picked if picked.ndim == 2 else picked.mean(axis=2, dtype=np.float64)
    return np.asarray(levels > 127.5)


def box_cells(box: Box, width: int, height: int, rows: int, columns: int) -> np.ndarray:
    """The cells of a box that is painted on a canvas of ``width`` x ``height`` pixels: bool (2 rows, 2 columns).

    A pixel is painted where its middle lies inside the box, so each cell asks for one pixel's middle.
    """
    x, y = nearest(width, CELLS * columns) + 0.5, nearest(height, CELLS * rows) + 0.5
    return ((box.y1 <= y) & (y < box.y2))[:, None] & ((box.x1 <= x) & (x < box.x2))[None, :]


def cells_to_tokens(cells: np.ndarray) -> np.ndarray:
    """bool (2 rows, 2 columns) -> bool (rows, columns): a token is in where any of its cells is."""
    rows, columns = (side // CELLS for side in cells.shape)
    return np.asarray(cells.reshape(rows, CELLS, columns, CELLS).any(axis=(1, 3)))
