"""Where each reference is read: the share of attention that noise tokens give to its keys.

The share of a set of keys is exp(log-sum-exp over the set - log-sum-exp over all visible keys), so a few rows of
numbers per set are enough and no tensor of sequence x sequence is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...attention.groups import Span
from ...attention.lse import attend_lse
from ...errors import InputError
from ..boundary import Forward
from .schedule import Rule
from .sequence import TokenSequence
from .visibility import combination_keys, combinations

RAMP = ((0.0, (20, 10, 60)), (0.35, (120, 30, 130)), (0.65, (230, 90, 50)), (1.0, (255, 230, 110)))
OPACITY = 0.75


def reference_mass(sequence: TokenSequence, rule: Rule, q: Tensor, k: Tensor) -> Tensor:
    """The share of attention that each noise token gives to each reference, averaged over batch and heads.

    q, k: (B, H, S, D) of one block, positions applied, S = the sequence's length. Returns float32
    (references of the plan, noise tokens), 0..1; 0 where a token does not read the reference.
    """
    plan = sequence.plan
    mass = torch.zeros((len(plan.references), plan.noise_tokens), dtype=torch.float32, device=q.device)
    if rule is Rule.CLA:
        return mass
    for numbers, rows in combinations(sequence):
        index = torch.from_numpy(rows).to(q.device)
        queries = q.index_select(2, index)
        keys = combination_keys(sequence, rule, numbers)
        logits = torch.stack([_lse(queries, k, part.index) + part.log_weight for part in keys])
        shares = (logits - logits.logsumexp(dim=0)).exp().mean(dim=(1, 2))  # (parts, rows)
        for number, share in zip(numbers, shares[-len(numbers) :], strict=True):
            mass[number, index - sequence.text] = share
    return mass


def _lse(queries: Tensor, k: Tensor, index: Span | NDArray) -> Tensor:
    if isinstance(index, Span):
        part = k.narrow(2, index.start, index.size)
    else:
        part = k.index_select(2, torch.from_numpy(index).to(k.device))
    return attend_lse(queries, part, part)[1]


class AttentionMaps(NamedTuple):
    """Mean shares over blocks and steps: `mass` float32 (references, rows, columns) on the token grid, 0..1. `calls`:
    how many blocks of how many steps went in."""

    names: tuple[str, ...]
    mass: NDArray[np.float32]
    calls: int


@dataclass
class Recorder:
    """Adds up the shares of one run; given to the host as a probe."""

    total: Tensor | None = None
    calls: int = 0
    sequence: TokenSequence | None = None

    def __call__(self, forward: Forward, block: int, q: Tensor, k: Tensor) -> None:
        """Looks at one block. Blocks without identity attention are not counted."""
        sequence, schedule = forward.private
        rule = schedule[block].rule
        if rule is Rule.CLA:
            return
        mass = reference_mass(sequence, rule, q.detach(), k.detach())
        if self.sequence is not None and self.sequence.plan != sequence.plan:
            raise InputError("two layouts were sampled at once; give the attention map the conditioning of one.")
        self.sequence = sequence
        self.total = mass if self.total is None else self.total + mass
        self.calls += 1

    def result(self) -> AttentionMaps:
        """The means. Raises InputError where no block read any reference."""
        if self.total is None or self.sequence is None:
            raise InputError(
                "no reference was read: the conditioning has no layout with references, the model was not patched, or "
                "its windows close before these steps."
            )
        plan = self.sequence.plan
        mean = (self.total / self.calls).cpu().numpy().reshape(-1, plan.height, plan.width)
        return AttentionMaps(tuple(one.name for one in plan.references), mean, self.calls)


def heat(picture: NDArray[np.uint8], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A heat map over a picture.

    picture: uint8 (H, W, 3). values: (h, w), 0..1, stretched smoothly over it; 0 leaves the picture, greyed, as it
    is.
    """
    height, width = picture.shape[:2]
    field = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    share = np.asarray(field, np.float32).clip(0, 1)[..., None]
    stops = np.array([stop for stop, _ in RAMP])
    colours = np.stack([np.interp(share[..., 0], stops, [c[i] for _, c in RAMP]) for i in range(3)], axis=-1)
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    ground = 0.35 * picture + 0.65 * grey[..., None]
    opacity = OPACITY * np.sqrt(share)  # so that a tenth of the greatest share is still seen
    return np.rint(ground * (1 - opacity) + colours * opacity).astype(np.uint8)


def scaled(maps: AttentionMaps, together: bool) -> NDArray[np.float32]:
    """The maps as 0..1 of the greatest share: of all references `together`, or of each alone."""
    if not maps.mass.size:
        return maps.mass
    top = maps.mass.max() if together else maps.mass.max(axis=(1, 2), keepdims=True)
    return maps.mass / np.maximum(top, np.finfo(np.float32).tiny)


def describe(maps: AttentionMaps, covered: Sequence[NDArray[np.bool_]]) -> str:
    """One line a reference: the mean and greatest share inside its box. covered: bool (rows, columns) per
    reference."""
    lines = [f"mean over {maps.calls} identity blocks"]
    for name, mass, box in zip(maps.names, maps.mass, covered, strict=True):
        inside = mass[box]
        if inside.size and inside.max() > 0:
            lines.append(
                f"{name}: {100 * inside.mean():.2f} % of its box's attention, {100 * inside.max():.2f} % at most"
            )
        else:
            lines.append(f"{name}: not read")
    return "\n".join(lines)
