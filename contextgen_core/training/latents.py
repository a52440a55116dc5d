"""Scenes of the small world as latent tokens: rendered and encoded once, then read from memory by every training
stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbones.flux import pack
from ..errors import InputError
from ..layout.box import Box
from ..layout.tokens import TOKEN, TokenBox, token_box
from ..methods.contextgen.references import token_mask
from ..methods.contextgen.sequence import Plan, ReferenceTokens
from ..tiny.autoencoder import Taesd
from ..tiny.text import encode_words
from .batch import Batch
from .config import Config
from .small_world import world

GRID = world.SIZE // TOKEN  # tokens along one side of the picture
REFERENCE_GRID = world.REFERENCE_SIZE // TOKEN
MOST = 4  # members of a scene
CHANNELS = 64
_FIELDS = ("target", "layout", "references", "valid", "boxes", "count", "hidden", "words")
_LOSE = "lose"


def to_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 (..., H, W, 3) -> float (..., 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pictures)).movedim(-1, -3).float() / 255


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Encoded scenes. N scenes, at most four references each.

    target, layout float16 (N, 64, 64): tokens, channels; references float16 (N, 4, 16, 64); valid bool (N, 4, 16);
    boxes int8 (N, 4, 4): token boxes; count int8 (N,): references; hidden int8 (N,): number of the hidden member or -1;
    words int8 (N, 2): place and light; lose float16 (N, 64, 64) or None: the picture that DPO turns away from."""

    target: np.ndarray
    layout: np.ndarray
    references: np.ndarray
    valid: np.ndarray
    boxes: np.ndarray
    count: np.ndarray
    hidden: np.ndarray
    words: np.ndarray
    lose: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.target)

    def plan(self, index: int, references: bool = True) -> Plan:
        """The geometry of a scene."""
        count = int(self.count[index]) if references else 0
        return Plan(GRID, GRID, tuple(self._reference(index, k) for k in range(count)))

    def _reference(self, index: int, k: int) -> ReferenceTokens:
        box = TokenBox(*(int(v) for v in self.boxes[index, k]))
        return ReferenceTokens(str(k + 1), REFERENCE_GRID, REFERENCE_GRID, self.valid[index, k].tobytes(), box)

    def batch(self, indices: np.ndarray, references: bool = True, box: float = 1.0, hidden: float = 1.0) -> Batch:
        """A training batch; `box` and `hidden` weigh the loss on tokens inside boxes, and inside the hidden
        member's box.

        With references, every scene must have the same number of them."""
        target, layout = (torch.from_numpy(a[indices].astype(np.float32)) for a in (self.target, self.layout))
        conditions = layout
        if references:
            count = int(self.count[indices[0]])
            own = torch.from_numpy(self.references[indices, :count].astype(np.float32)).flatten(1, 2)  # B (n 16) 64
            conditions = torch.cat([layout, own], dim=1)
        words = [_WORDS[int(p), int(q)] for p, q in self.words[indices]]
        weight = torch.from_numpy(np.stack([self._weight(int(i), box, hidden) for i in indices]))
        return Batch(
            plans=tuple(self.plan(int(i), references) for i in indices),
            target=target,
            conditions=conditions,
            text=torch.stack([w.tokens for w in words]),
            pooled=torch.stack([w.pooled for w in words]),
            weight=weight,
            lose=None if self.lose is None else torch.from_numpy(self.lose[indices].astype(np.float32)),
        )

    def _weight(self, index: int, box: float, hidden: float) -> np.ndarray:
        out = np.ones((GRID, GRID), np.float32)
        for k in range(int(self.count[index])):
            x1, y1, x2, y2 = self.boxes[index, k]
            out[y1:y2, x1:x2] = box
        if self.hidden[index] >= 0:
            x1, y1, x2, y2 = self.boxes[index, self.hidden[index]]
            out[y1:y2, x1:x2] = hidden
        return out.reshape(-1)

    def buckets(self) -> tuple[np.ndarray, ...]:
        """Indices of the scenes with two, three, ... references."""
        return tuple(np.flatnonzero(self.count == n) for n in np.unique(self.count))

    def draw(self, rng: np.random.Generator, config: Config) -> Batch:
        """A random batch. With references, its scenes have the same number of them; that number is drawn by its
        share."""
        flow, references = config.flow, config.stage != "base"
        share = self._shares(config.data.hidden_share)
        indices = rng.choice(len(self), size=config.batch, p=share)
        if references:
            same = np.flatnonzero(self.count == self.count[indices[0]])
            own = None if share is None else share[same] / share[same].sum()
            indices = rng.choice(same, size=config.batch, p=own)
        return self.batch(indices, references, flow.box, flow.hidden)

    def _shares(self, hidden_share: float) -> np.ndarray | None:
        """Probability of each scene when scenes that hide a creature make up `hidden_share`; None = all alike."""
        hides = np.asarray(self.hidden) >= 0
        if not hidden_share or hides.all() or not hides.any():
            return None
        return np.where(hides, hidden_share / hides.sum(), (1 - hidden_share) / (~hides).sum())

    def save(self, folder: Path) -> None:
        """One .npy per field, and the number of scenes."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FIELDS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        if self.lose is not None:
            np.save(folder / f"{_LOSE}.npy", self.lose)
        (folder / "set.json").write_text(json.dumps({"scenes": len(self)}))

    @classmethod
    def load(cls, folder: Path) -> LatentSet:
        """Reads a saved set; memory-mapped, so several processes share it."""
        if not (folder / "set.json").is_file():
            raise InputError(
                f"There are no encoded scenes in {str(folder)!r}; run the stage 'scenes' first or correct data.path."
            )
        fields = [*_FIELDS, *([_LOSE] if (folder / f"{_LOSE}.npy").is_file() else [])]
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in fields})

    @classmethod
    def join(cls, parts: Sequence[LatentSet]) -> LatentSet:
        fields = [*_FIELDS, *([_LOSE] if parts[0].lose is not None else [])]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in fields})


_WORDS = {
    (p, q): encode_words(f"{world.PLACES[p]} {world.LIGHTS[q]}")
    for p in range(len(world.PLACES))
    for q in range(len(world.LIGHTS))
}


@torch.no_grad()
def encode(vae: Taesd, pictures: np.ndarray, chunk: int = 16) -> Tensor:
    """uint8 (N, H, W, 3) -> packed latents float32 (N, H/16 * W/16, 64)."""
    net = vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.cat([pack(net.encode(to_tensor(pictures[k : k + chunk]))) for k in range(0, len(pictures), chunk)])


def encode_scenes(
    vae: Taesd, scenes: Sequence[world.Scene], pictures: Sequence[world.Picture], lose: bool = False
) -> LatentSet:
    """Encodes rendered scenes; with `lose` also the composite over the true background."""
    n = len(scenes)
    references = np.zeros((n, MOST, REFERENCE_GRID**2, CHANNELS), np.float16)
    valid = np.zeros((n, MOST, REFERENCE_GRID**2), bool)
    boxes = np.zeros((n, MOST, 4), np.int8)
    flat = encode(vae, np.concatenate([p.references for p in pictures]), 64).half().numpy()
    at = 0
    for i, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        count = len(scene.members)
        references[i, :count] = flat[at : at + count]
        at += count
        for k, member in enumerate(scene.members):
            valid[i, k] = token_mask(picture.masks[k]).reshape(-1)
            boxes[i, k] = token_box(Box(*member.box), GRID, GRID)
    return LatentSet(
        target=encode(vae, np.stack([p.target for p in pictures])).half().numpy(),
        layout=encode(vae, np.stack([p.composite for p in pictures])).half().numpy(),
        references=references,
        valid=valid,
        boxes=boxes,
        count=np.array([len(s.members) for s in scenes], np.int8),
        hidden=np.array([next((k for k, m in enumerate(s.members) if m.hidden), -1) for s in scenes], np.int8),
        words=np.array([(s.place, s.light) for s in scenes], np.int8),
        lose=encode(vae, np.stack([world.render_pasted(s) for s in scenes])).half().numpy() if lose else None,
    )


TIER_CYCLE = ("flexible", "basic", "flexible", "complex", "flexible")


def training_scenes(seed: int, count: int, split: str = "train", start: int = 0) -> Iterator[world.Scene]:
    """The training mixture from scene `start` on: three scenes of five hide a creature."""
    return (world.scene(seed, split, k, TIER_CYCLE[k % len(TIER_CYCLE)]) for k in range(start, start + count))
