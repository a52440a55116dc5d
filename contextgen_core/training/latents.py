"""Scenes of the small world as latent tokens: rendered and encoded once, then read from memory by every training
stage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from .batch import Batch, Phrases
from .config import Config, subjects_at
from .small_world import world

REFERENCE_GRID = world.REFERENCE_SIZE // TOKEN
CHANNELS = 64
_FIELDS = (
    "target", "layout", "references", "valid", "boxes", "pixels", "count", "hidden", "words", "creatures", "told",
    "keys",
)  # fmt: skip
_LOSE = "lose"
_ALL_NAMED = 0.75  # of the captions that stand alone, without a composite
_ONE_BLANK = 0.67  # of the composites with blanks


def to_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 (..., H, W, 3) -> float (..., 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pictures)).movedim(-1, -3).float() / 255


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Encoded scenes of one canvas size: N scenes of M tokens (side G) with at most K members, those with a reference
    first.

    target, layout float16 (N, M, 64): tokens, channels; references float16 (N, K, 16, 64); valid bool (N, K, 16);
    boxes int8 (N, K, 4): token boxes; pixels int16 (N, K, 4): the boxes as they were drawn; count int8 (N,):
    references; hidden int8 (N,): number of the hidden member or -1; words int8 (N, 2): place and light; creatures int8
    (N, K, 4): shape, pattern, colours, -1 where there is none; told bool (N, K): known from the words alone; keys int32
    (N, 3): seed, tier and index of the scene in the world;
    lose float16 (N, M, 64) or None: the picture that DPO turns away from."""

    target: np.ndarray
    layout: np.ndarray
    references: np.ndarray
    valid: np.ndarray
    boxes: np.ndarray
    pixels: np.ndarray
    count: np.ndarray
    hidden: np.ndarray
    words: np.ndarray
    creatures: np.ndarray
    told: np.ndarray
    keys: np.ndarray
    lose: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def grid(self) -> int:
        """Tokens along one side of the picture."""
        return math.isqrt(self.target.shape[1])

    def plan(self, index: int, references: bool = True) -> Plan:
        """The geometry of a scene."""
        count = int(self.count[index]) if references else 0
        return Plan(self.grid, self.grid, tuple(self._reference(index, k) for k in range(count)))

    def _reference(self, index: int, k: int) -> ReferenceTokens:
        box = TokenBox(*(int(v) for v in self.boxes[index, k]))
        return ReferenceTokens(str(k + 1), REFERENCE_GRID, REFERENCE_GRID, self.valid[index, k].tobytes(), box)

    def members(self, index: int) -> int:
        return int((self.creatures[index, :, 0] >= 0).sum())

    def caption(self, index: int, named: np.ndarray | None = None) -> str:
        """The prompt of a scene: it names the members marked in `named` (bool (K,)) and those that only words tell
        of."""
        tell = self.told[index] if named is None else self.told[index] | named
        said = [
            world.Creature(*map(int, c)) for c, t in zip(self.creatures[index], tell, strict=True) if t and c[0] >= 0
        ]
        place, light = (int(v) for v in self.words[index])
        return world.caption(said, place, light)

    def batch(
        self,
        indices: np.ndarray,
        references: bool = True,
        box: float = 1.0,
        hidden: float = 1.0,
        *,
        composite: bool = True,
        named: np.ndarray | None = None,
        blank: np.ndarray | None = None,
    ) -> Batch:
        """A training batch; `box` and `hidden` weigh the loss on tokens inside boxes, and inside the hidden
        member's box. named: bool (B, K), see `caption`. Without references and composite the words alone speak.
        blank: bool (B, K), members whose boxes are left blank (zero latents) in the composite.

        With references, every scene must have the same number of them."""
        target, layout = (torch.from_numpy(a[indices].astype(np.float32)) for a in (self.target, self.layout))
        for row, index, k in zip(*_marked(blank, indices), strict=True):
            x1, y1, x2, y2 = self.boxes[index, k]
            layout.unflatten(1, (self.grid, self.grid))[row, y1:y2, x1:x2] = 0
        conditions = layout if composite else layout[:, :0]
        if references:
            count = int(self.count[indices[0]])
            own = torch.from_numpy(self.references[indices, :count].astype(np.float32)).flatten(1, 2)  # B (n 16) 64
            conditions = torch.cat([layout, own], dim=1)
        captions = (self.caption(int(i), None if named is None else named[k]) for k, i in enumerate(indices))
        words = [encode_words(text) for text in captions]
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
        out = np.ones((self.grid, self.grid), np.float32)
        for k in range(self.members(index)):
            x1, y1, x2, y2 = self.boxes[index, k]
            out[y1:y2, x1:x2] = box
        if self.hidden[index] >= 0:
            x1, y1, x2, y2 = self.boxes[index, self.hidden[index]]
            out[y1:y2, x1:x2] = hidden
        return out.reshape(-1)

    def draw(
        self,
        rng: np.random.Generator,
        config: Config,
        done: float = 0.0,
        reader: Reader | None = None,
        number: int = 0,
    ) -> Batch:
        """A random batch as `reader` (default `PICTURES`) reads it, when `done` (0..1) of the run is over. Its scenes
        have the same number of what is bound in them; that number is drawn by its share. The base sees nothing that is
        bound, the composite in `data.composite` of its batches, and captions alone in the others. In `data.blank` of
        the batches with a composite some creatures' boxes are left blank, and the caption names just these: where a
        place is known, words say the most, and the base learns them many times sooner than from captions alone.
        `number`, the batch's in the run, decides nothing here: scenes in memory are drawn by chance."""
        reader = (reader or PICTURES).at(config, done)
        flow, data, references = config.flow, config.data, config.stage != "base"
        counts = reader.counts(self)
        share = self._shares(data.hidden_share, counts if references else None)
        indices = rng.choice(len(self), size=config.batch, p=share)
        if references:
            same = np.flatnonzero(counts == counts[indices[0]])
            own = None if share is None else share[same] / share[same].sum()
            indices = rng.choice(same, size=config.batch, p=own)
        composite = references or rng.random() < data.composite
        named = self._named(rng, len(indices), data.named if composite else None)
        if composite and data.blank and not references and rng.random() < data.blank:
            blank = self._blank(rng, indices)
            return self.batch(indices, False, flow.blank, flow.blank, named=blank, blank=blank)
        hidden = flow.hidden if composite else flow.box
        return reader.collate(self, indices, references, flow.box, hidden, composite=composite, named=named)

    def _blank(self, rng: np.random.Generator, indices: np.ndarray) -> np.ndarray:
        """Members whose places are left blank, bool (B, K): in two thirds of the scenes one, else up to four."""
        real = (np.asarray(self.creatures)[indices, :, 0] >= 0) & ~np.asarray(self.told)[indices]
        order = np.where(real, rng.random(real.shape), 2.0).argsort(1).argsort(1)
        some = rng.integers(2, 5, (len(indices), 1))
        return real & (order < np.where(rng.random(some.shape) < _ONE_BLANK, 1, some))

    def _named(self, rng: np.random.Generator, count: int, share: float | None) -> np.ndarray:
        """Which members the captions name, bool (count, K): with a composite `share` of the captions name creatures,
        half of them all and half each by a coin; alone (None) all do, `_ALL_NAMED` of them every one."""
        kind, coins = rng.random((count, 1)), rng.random((count, self.told.shape[1])) < 0.5
        if share is None:
            return (kind < _ALL_NAMED) | coins
        return (kind < share / 2) | ((kind < share) & coins)

    def _shares(self, hidden_share: float, counts: np.ndarray | None) -> np.ndarray | None:
        """Probability of each scene when scenes that hide a creature make up `hidden_share`, and where counts are given
        none that counts nothing; None = all alike."""
        hides = np.asarray(self.hidden) >= 0
        usable = np.ones(len(self), bool) if counts is None else counts > 0
        if not hidden_share or not hides.any() or not (usable & ~hides).any():
            return None if usable.all() else usable / usable.sum()
        return np.where(hides, hidden_share / hides.sum(), (1 - hidden_share) * usable / (usable & ~hides).sum())

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


def _marked(marks: np.ndarray | None, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of the batch, number of the scene and of the member of each mark in bool (B, K)."""
    rows, members = np.nonzero(np.zeros((0, 0)) if marks is None else marks)
    return rows, np.asarray(indices)[rows], members


@torch.no_grad()
def encode(vae: Taesd, pictures: np.ndarray, chunk: int = 16) -> Tensor:
    """uint8 (N, H, W, 3) -> packed latents float32 (N, H/16 * W/16, 64)."""
    net = vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.cat([pack(net.encode(to_tensor(pictures[k : k + chunk]))) for k in range(0, len(pictures), chunk)])


def encode_scenes(
    vae: Taesd,
    scenes: Sequence[world.Scene],
    pictures: Sequence[world.Picture],
    lose: bool = False,
    keys: Sequence[tuple[int, int, int]] | None = None,
) -> LatentSet:
    """Encodes rendered scenes of one canvas size; with `lose` also the composite over the true background."""
    if len({scene.size for scene in scenes}) != 1:
        raise InputError("The scenes of one set differ in size; make the dense tier a set of its own.")
    n, most = len(scenes), max(len(scene.members) for scene in scenes)
    references = np.zeros((n, most, REFERENCE_GRID**2, CHANNELS), np.float16)
    valid = np.zeros((n, most, REFERENCE_GRID**2), bool)
    boxes = np.zeros((n, most, 4), np.int8)
    pixels = np.zeros((n, most, 4), np.int16)
    creatures = np.full((n, most, 4), -1, np.int8)
    told = np.zeros((n, most), bool)
    shown = np.concatenate([p.references for p in pictures])
    flat = encode(vae, shown, 64).half().numpy() if len(shown) else references[:0, 0]
    grid = scenes[0].size // TOKEN
    at = 0
    for i, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        count = len(picture.references)
        references[i, :count] = flat[at : at + count]
        at += count
        for k, member in enumerate(sorted(scene.members, key=lambda m: m.told)):  # stable: those with references first
            boxes[i, k], pixels[i, k] = token_box(Box(*member.box), grid, grid), member.box
            creatures[i, k], told[i, k] = member.creature, member.told
        for k, mask in enumerate(picture.masks):
            valid[i, k] = token_mask(mask).reshape(-1)
    return LatentSet(
        target=encode(vae, np.stack([p.target for p in pictures])).half().numpy(),
        layout=encode(vae, np.stack([p.composite for p in pictures])).half().numpy(),
        references=references,
        valid=valid,
        boxes=boxes,
        pixels=pixels,
        count=np.array([len(p.references) for p in pictures], np.int8),
        hidden=np.array([next((k for k, m in enumerate(s.members) if m.hidden), -1) for s in scenes], np.int8),
        words=np.array([(s.place, s.light) for s in scenes], np.int8),
        creatures=creatures,
        told=told,
        keys=np.array(keys if keys is not None else [(0, 0, 0)] * n, np.int32),
        lose=encode(vae, np.stack([world.render_pasted(s) for s in scenes])).half().numpy() if lose else None,
    )


def training_scenes(
    seed: int, tiers: Mapping[str, int], start: int, stop: int, split: str = "train"
) -> Iterator[tuple[tuple[int, int, int], world.Scene]]:
    """Scenes start..stop of a mixture, each with its key (seed, tier, index). tiers: how many scenes of each tier a
    round of the mixture has."""
    cycle = [tier for tier, count in tiers.items() for _ in range(count)]
    for k in range(start, stop):
        tier = cycle[k % len(cycle)]
        yield (seed, world.TIERS.index(tier), k), world.scene(seed, split, k, tier)


class Reader(NamedTuple):
    """How a method reads scenes.

    collate(data, indices, references, box, hidden, *, composite, named) makes a batch of them, as
    `LatentSet.batch` does; counts gives for each scene (N,) the number that all scenes of a batch share, 0 for scenes
    of which the method can make nothing. open reads a set from its folder, and encode(vae, scenes, pictures, keys=)
    makes one of scenes that are to be judged. phrases: how the method binds them, where that is what it reads."""

    collate: Callable[..., Batch]
    counts: Callable[[LatentSet], np.ndarray]
    open: Callable[[Path], LatentSet] = LatentSet.load
    encode: Callable[..., LatentSet] = encode_scenes
    phrases: Phrases | None = None

    def buckets(self, data: LatentSet) -> tuple[np.ndarray, ...]:
        """Indices of the scenes that may share a batch, smallest counts first."""
        counts = self.counts(data)
        return tuple(np.flatnonzero(counts == n) for n in np.unique(counts))

    def at(self, config: Config, done: float) -> Reader:
        """The same, blind to the numbers that the curriculum leaves out when `done` of the run is over."""
        if not config.data.curriculum or config.stage == "base":
            return self
        least, most = subjects_at(config.data.curriculum, done)

        def counts(data: LatentSet) -> np.ndarray:
            numbers = self.counts(data)
            return np.where((numbers >= least) & (numbers <= most), numbers, 0)

        return self._replace(counts=counts)


PICTURES = Reader(LatentSet.batch, lambda data: np.asarray(data.count))  # composite and references


@dataclass(frozen=True, eq=False)
class LatentMix:
    """Sets of several canvas sizes; each batch comes from one of them, drawn by its share. Under a curriculum the share
    of the run that is done bounds the numbers that the reader counts."""

    sets: tuple[LatentSet, ...]
    shares: tuple[float, ...] = (1.0,)
    reader: Reader = PICTURES  # of the method under training

    def draw(self, rng: np.random.Generator, config: Config, done: float = 0.0, number: int = 0) -> Batch:
        counts = self.reader.at(config, done).counts
        shares = np.array([s * bool((counts(d) > 0).any()) for s, d in zip(self.shares, self.sets, strict=True)])
        if not shares.any():
            raise InputError("No scene has the numbers of subjects that data.curriculum asks for; correct it.")
        chosen = int(rng.choice(len(self.sets), p=shares / shares.sum()))
        return self.sets[chosen].draw(rng, config, done, self.reader)
