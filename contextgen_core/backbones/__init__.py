"""What a model family is: its token order, position ids and blocks, and the weights of one block as functions."""

from __future__ import annotations

from .block import (
    Additions,
    DoubleBlock,
    LowRank,
    Modulation,
    SingleBlock,
    Stream,
    Stretch,
    rebuild_double,
    rebuild_single,
    rotate,
)
from .families import backbone, view
from .record import Backbone, Grid, Positions

__all__ = [
    "Additions",
    "Backbone",
    "DoubleBlock",
    "Grid",
    "LowRank",
    "Modulation",
    "Positions",
    "SingleBlock",
    "Stream",
    "Stretch",
    "backbone",
    "rebuild_double",
    "rebuild_single",
    "rotate",
    "view",
]
