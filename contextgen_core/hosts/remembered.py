"""Keys and values that stay the same over a sampling run, computed in its first step and read in all later ones.

A method says which tokens these are (:attr:`contextgen_core.methods.boundary.Forward.fixed`); they are the last of the
sequence. A host asks before each pass whether it knows them, plans the pass without them where it does, and hands the
attention of every block through :meth:`Recalled.join` or :meth:`Recorder.join`.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from ..attention import Span

log = logging.getLogger("contextgen")


class KeysValues(NamedTuple):
    """Of one block, after rope: (chunks, H, fixed tokens, D) each, one chunk for rows of the batch that are alike."""

    keys: Tensor
    values: Tensor

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self)


class Remembered:
    """What one sampling run knows, by whatever tells its passes apart. Emptied by the host when the run is over."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[KeysValues, ...]] = {}
        self.held = 0  # bytes
        self._told = False  # that something does not fit

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, key: Hashable) -> Recalled | None:
        known = self._known.get(key)
        return None if known is None else Recalled(known)

    def recorder(self, key: Hashable, fixed: Span, blocks: int, chunks: int, limit: int) -> Recorder:
        """For a pass over ``blocks`` blocks that has the ``fixed`` tokens.

        chunks  of equal length that the batch consists of; rows of a chunk have the same fixed tokens
        limit   bytes that everything remembered may take; what does not fit is computed anew in each step
        """
        return Recorder(self, key, fixed, blocks, chunks, limit)

    def keep(self, key: Hashable, recorded: tuple[KeysValues, ...]) -> None:
        self._known[key] = recorded
        self.held += sum(block.size for block in recorded)

    def tell(self, size: int) -> None:
        """Says once a run that so many bytes are not remembered."""
        if not self._told:
            log.info(
                "keys and values of the condition tokens would take %d MiB, more than is allowed, and are computed"
                " in every step",
                size >> 20,
            )
        self._told = True

    def clear(self) -> None:
        self._known.clear()
        self.held = 0
        self._told = False


class Recalled:
    """The fixed tokens of a pass that was planned without them."""

    def __init__(self, known: tuple[KeysValues, ...]) -> None:
        self._known = known

    def join(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of a block with those of the fixed tokens at their end."""
        known = self._known[block]
        rows = len(k) // len(known.keys)
        keys, values = (x.expand(rows, -1, -1, -1) if len(x) == 1 else x.repeat_interleave(rows, 0) for x in known)
        return torch.cat([k, keys.to(k)], dim=2), torch.cat([v, values.to(v)], dim=2)


class Recorder:
    """Takes down the fixed tokens of a pass that computes them; nothing is kept of a pass that does not end."""

    def __init__(
        self, remembered: Remembered, key: Hashable, fixed: Span, blocks: int, chunks: int, limit: int
    ) -> None:
        self._remembered, self._key, self._fixed = remembered, key, fixed
        self._blocks, self._chunks, self._limit = blocks, chunks, limit
        self._recorded: dict[int, KeysValues] = {}
        self._fits: bool | None = None  # None: the first block has yet to tell the size

    def join(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values as they are."""
        if self._fits is None:
            size = 2 * k[:: len(k) // self._chunks, :, slice(*self._fixed)].numel() * k.element_size() * self._blocks
            self._fits = self._remembered.held + size <= self._limit
            if not self._fits:
                self._remembered.tell(size)
        if self._fits:
            each = slice(None, None, len(k) // self._chunks)
            kept = (x[each, :, slice(*self._fixed)].clone(memory_format=torch.contiguous_format) for x in (k, v))
            self._recorded[block] = KeysValues(*kept)
        return k, v

    def done(self) -> None:
        """The pass is over; what was taken down serves the next."""
        if len(self._recorded) == self._blocks:
            self._remembered.keep(self._key, tuple(self._recorded[block] for block in range(self._blocks)))
