"""Qwen-Image's position ids: pictures stand around 0, and a text begins where the largest picture ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .record import Grid


@dataclass(frozen=True)
class QwenPositions:
    """Ids (picture, row, column) of pictures and texts, in the form of one host; hosts differ in two points.

    odd_before   whether the middle token of an odd side counts among those before 0 (diffusers, and the authors), or
                 is 0 itself (ComfyUI)
    all_grids    whether the text begins behind the largest of all pictures (diffusers), or behind the noise alone
    """

    odd_before: bool
    all_grids: bool

    def text(self, lengths: Sequence[int], grids: Sequence[Grid]) -> Tensor:
        """Each text begins anew, with the same number on all axes: float32 (tokens, 3)."""
        start = max(side // 2 for grid in (grids if self.all_grids else grids[:1]) for side in grid)
        numbers = torch.cat([torch.arange(start, start + length) for length in lengths])
        return numbers[:, None].expand(-1, 3).float()

    def image(self, grids: Sequence[Grid]) -> Tensor:
        """The pictures one after another, numbered from 0: float32 (tokens, 3)."""
        ids = []
        for number, (rows, columns) in enumerate(grids):
            row, column = torch.meshgrid(self._around_zero(rows), self._around_zero(columns), indexing="ij")
            ids.append(torch.stack([torch.full_like(row, number), row, column], dim=-1).reshape(-1, 3))
        return torch.cat(ids).float()

    def _around_zero(self, side: int) -> Tensor:
        return torch.arange(side) - (side + self.odd_before) // 2


DIFFUSERS = QwenPositions(odd_before=True, all_grids=True)
COMFYUI = QwenPositions(odd_before=False, all_grids=False)
