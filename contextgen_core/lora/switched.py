"""An adapter that acts on some tokens alone: kept beside the weights, because it cannot be merged into them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..backbones import Additions, LowRank
from .adapter import Adapter, to_diffusers

EMBEDDING = "x_embedder"


class SwitchedAdapter(torch.nn.Module):
    """The pairs of an adapter by block, as :class:`contextgen_core.methods.boundary.SwitchedAdapter` wants them.

    Args:
        adapter: in any of the spellings that are read.
        double: blocks of the model with two streams, which are numbered before the others.
        strength: multiplies all of it.

    ``names`` are the modules of its pairs, in the order of ``down`` and ``up``; ``unused`` those that belong to no
    block and not to the image tokens' embedding: they act on no token of their own.
    """

    def __init__(self, adapter: Adapter, double: int, strength: float = 1.0) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.unused: tuple[str, ...] = ()
        self._scales: list[float] = []
        self._of_block: dict[int, dict[str, int]] = {}
        self._of_embedding: list[int] = []
        self.down = torch.nn.ParameterList()
        self.up = torch.nn.ParameterList()
        for pair in to_diffusers(adapter).pairs:
            room, _, rest = pair.module.partition(".")
            number, _, name = rest.partition(".")
            if room in ("transformer_blocks", "single_transformer_blocks"):
                block = int(number) + (double if room.startswith("single") else 0)
                self._of_block.setdefault(block, {})[name] = len(self._scales)
            elif pair.module == EMBEDDING:
                self._of_embedding.append(len(self._scales))
            else:
                self.unused += (pair.module,)
                continue
            self.names += (pair.module,)
            self.down.append(torch.nn.Parameter(pair.down, requires_grad=False))
            self.up.append(torch.nn.Parameter(pair.up, requires_grad=False))
            self._scales.append(pair.scale * strength)

    def additions(self, block: int) -> Additions:
        """The low-rank additions of a block, double blocks first, by canonical layer name."""
        return {name: (self._pair(index),) for name, index in self._of_block.get(block, {}).items()}

    def embedding(self) -> Sequence[LowRank]:
        """Those of the layer that embeds the image tokens."""
        return [self._pair(index) for index in self._of_embedding]

    def _pair(self, index: int) -> LowRank:
        return LowRank(self.down[index], self.up[index], self._scales[index])
