"""InstanceAssemble under training: layout encoder, projections and low-rank terms beside a frozen transformer.

The step is the product's own. For speed the pictures of a batch are put together as if they were one tall picture: the
index sets of :mod:`contextgen_core.methods.instance_assemble.cover` hold for any grid, and instances know nothing of
each other, so all of them share one call.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..attention import sdpa
from ..backbones import backbone
from ..backbones.block import Modulation
from ..backbones.flux import pack, unpack
from ..errors import InputError
from ..hosts.diffusers import FluxHost
from ..hosts.diffusers_sd3 import SD3Host
from ..layout.box import Box
from ..layout.tokens import TOKEN, TokenBox
from ..methods.boundary import CONTENT, Block, BlockCounts, BlockWork, Bound, Forward, ForwardCall, RunPosition
from ..methods.instance_assemble.cells import SIDE
from ..methods.instance_assemble.cover import Cover
from ..methods.instance_assemble.encoder import AssembleWeights, BlockExtras, PairSize
from ..methods.instance_assemble.files import FLUX, SD3, AssembleFile, read_files, switched_layers, write_file
from ..methods.instance_assemble.method import INSTANCE_ASSEMBLE, InstanceAssemble, layout_blocks
from ..methods.instance_assemble.plan import PhrasePlan, phrase_box
from ..methods.instance_assemble.step import PHRASES, AssembleSettings, LayoutStep
from ..tiny.text import Words
from .batch import Batch, Phrases
from .config import CONTENTS, Config, MethodConfig
from .latents import Reader
from .model import softmax_product
from .phrases import phrase_reader
from .small_world.contents import PicturedSet, encode_scenes_pictured


def _plan(boxes: Sequence[Box], side: int, words: Words) -> PhrasePlan:
    grid = side // TOKEN
    placed = (phrase_box(f"box {k}", box, side, side) for k, box in enumerate(boxes, 1))
    return PhrasePlan(grid, grid, tuple(placed), len(words.pooled))


def _join(phrases: Sequence[Sequence[Words]]) -> Mapping[str, Tensor]:
    return {PHRASES: torch.stack([torch.stack([words.pooled for words in row]) for row in phrases])}


READER = phrase_reader(Phrases(_plan, _join))


def reader_of(method: MethodConfig) -> Reader:
    """How scenes are read: with phrases alone, or with phrases and pictures in their boxes."""
    if method.content == "phrases":
        return READER
    collate = partial(_pictured, judged=method.judged)
    return READER._replace(collate=collate, open=PicturedSet.load, encode=encode_scenes_pictured)


def _pictured(
    data: Any,
    indices: np.ndarray,
    *args: Any,
    judged: str,
    rng: np.random.Generator | None = None,
    **kwargs: Any,
) -> Batch:
    """As `READER`, of a `PicturedSet`: each box with its phrase, its picture, or both, as rng draws; without rng as
    they are judged. A box without a picture keeps its phrase."""
    batch = READER.collate(data, indices, *args, **kwargs)
    plans, phrases, content = [], [], []
    for row, (index, plan) in enumerate(zip(indices, batch.plans, strict=True)):
        boxes, said, shown = [], [], []
        for k, box in enumerate(plan.boxes):
            filled = judged if rng is None else CONTENTS[int(rng.integers(len(CONTENTS)))]
            picture = None if filled == "phrases" else data.picture(int(index), k)
            phrase = picture is None or filled == "both"
            boxes.append(box._replace(phrase=phrase, picture=None if picture is None else picture[0]))
            said += [batch.vectors[PHRASES][row, k]] if phrase else []
            shown += [] if picture is None else [picture[1]]
        plans.append(replace(plan, boxes=tuple(boxes)))
        phrases.append(torch.stack(said) if said else batch.vectors[PHRASES][row, :0])
        content.append(torch.cat(shown) if shown else batch.target[row, :0])
    vectors = {PHRASES: pad_sequence(phrases, batch_first=True), CONTENT: pad_sequence(content, batch_first=True)}
    return replace(batch, plans=tuple(plans), vectors=vectors)


def _end_to_end(batch: Batch, plans: Sequence[PhrasePlan]) -> dict[str, Tensor]:
    """A batch's vectors as those of one tall picture: what the plan of each picture reads, one after the other."""
    counts = {
        PHRASES: [sum(box.phrase for box in plan.boxes) for plan in plans],
        CONTENT: [sum(box.picture.size for box in plan.boxes if box.picture) for plan in plans],
    }
    return {
        name: torch.cat([vector[:count] for vector, count in zip(vectors, counts[name], strict=True)])[None]
        for name, vectors in batch.vectors.items()
    }


# ---- a batch as one tall picture -----------------------------------------------------------------


@dataclass(frozen=True)
class TallPlan:
    """The plans of a batch's pictures, all of one grid; one without boxes is that of a negative, which has the second
    MLP alone. corners, isolated: see `config.MethodConfig`."""

    plans: tuple[PhrasePlan, ...]
    corners: bool = False
    isolated: bool = True

    def joined(self) -> PhrasePlan:
        """All boxes on one grid, the pictures one below the other. Corners and centres stay those of each picture."""
        first = self.plans[0]
        boxes = []
        for number, plan in enumerate(self.plans):
            down = number * first.rows
            for box in plan.boxes:
                cells = box.cells
                boxes.append(box._replace(cells=TokenBox(cells.x1, cells.y1 + down, cells.x2, cells.y2 + down)))
        return PhrasePlan(first.rows * len(self.plans), first.columns, tuple(boxes), first.pooled)


class TallStep(LayoutStep):
    """The layout step for the pictures of a batch at once."""

    def __init__(self, plan: TallPlan, settings: AssembleSettings, call: ForwardCall, last: int) -> None:
        joined = plan.joined()
        active = tuple(range(len(joined.boxes)))
        super().__init__(joined, settings, active, call.blocks.double, last, call.device, call.dtype)
        if self.cover is None:
            return
        rows, tokens = plan.plans[0].rows, plan.plans[0].rows * joined.columns
        covered, turned = len(self.cover.tokens), self.cover.read.clone()
        turned[:covered, 1] %= rows  # the row of the token in its own picture
        turned[covered:, 1] = (turned[covered:, 1] + 0.5) / len(plan.plans) - 0.5  # that of a picture's, likewise
        self.cover = replace(self.cover, read=turned)
        whose = [number for number, one in enumerate(plan.plans) for _ in one.boxes]
        boxes = [(joined.boxes[number], whose[number]) for number in self.cover.numbers]
        of_layout = [own for box, own in boxes if box.phrase] + [own for box, own in boxes if box.picture]
        of_picture = [own for box, own in boxes for _ in range(box.picture.size if box.picture else 0)]
        self.of_layout = torch.tensor(of_layout, device=call.device)
        self.of_picture = torch.tensor(of_picture, dtype=torch.long, device=call.device)
        self.of_token = self.cover.tokens // tokens
        if plan.corners:
            grid = self.cover.points.unflatten(-1, (SIDE, SIDE, 2))
            near = torch.tensor([0 if k < SIDE // 2 else SIDE - 1 for k in range(SIDE)], device=call.device)
            self.cover = replace(self.cover, points=grid[:, near][:, :, near].flatten(1))
        self._bias = None if plan.isolated else self._together(joined)

    def _together(self, joined: PhrasePlan) -> Tensor:
        """Who reads whom when boxes are not isolated, additive (N + C, N + C) over layout tokens and covered tokens:
        the covered tokens of a picture read each other, a layout token and the tokens of its box each other."""
        assert self.cover is not None  # noqa: S101 - only called for boxes with tokens
        count, tokens = len(self.cover.numbers), self.cover.tokens
        reads = torch.eye(count + len(tokens), dtype=torch.bool, device=tokens.device)
        reads[count:, count:] = self.of_token[:, None] == self.of_token[None]
        for place, number in enumerate(self.cover.numbers):
            own = torch.from_numpy(joined.boxes[number].indices(joined.columns)).to(tokens.device)
            inside = count + torch.searchsorted(tokens, own)
            reads[place, inside] = reads[inside, place] = True
        return torch.zeros(reads.shape, device=tokens.device).masked_fill(~reads, -math.inf)

    def attend(self, cover: Cover, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self._bias is None:
            return super().attend(cover, q, k, v)
        out = _attend(q, k, v, self._bias)
        return out[:, len(cover.numbers) :], out[:, : len(cover.numbers)], None

    def _boxes(
        self,
        work: BlockWork,
        extras: BlockExtras,
        cover: Cover,
        image: Tensor,
        rows: slice | Tensor,
        to_image: Sequence[Modulation],
        to_pictures: Sequence[Modulation],
    ) -> None:
        """The pictures (B, M, D) seen as one (1, B M, D), with a conditioning vector for each token."""
        tall = image.reshape(1, -1, image.shape[-1])  # a copy where the picture lies behind text
        one = replace(work, vec=work.vec[self.of_layout][None])
        each = _each(to_image, self.of_token), _each(to_pictures, self.of_picture)
        super()._boxes(one, extras, cover, tall, slice(0, 1), *each)
        if tall.data_ptr() != image.data_ptr():
            image.copy_(tall.view_as(image))


def _each(modulations: Sequence[Modulation], whose: Tensor) -> list[Modulation]:
    """A modulation of each picture of a batch as one of each token, from the number of the token's picture."""
    return [Modulation(*(p if p is None else p[whose, 0][None] for p in m)) for m in modulations]  # pyright: ignore[reportArgumentType]


class _Tall(InstanceAssemble):
    """The method on a batch as one tall picture; for training alone."""

    def sizes(self, plan: TallPlan) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:  # type: ignore[override]
        return INSTANCE_ASSEMBLE.sizes(plan.plans[0])

    def moment(self, plan: TallPlan, settings: AssembleSettings, run: RunPosition | None) -> Hashable:  # type: ignore[override]
        # By the run alone: boxes have no strength and no window here, and negatives have no boxes.
        acts = settings.scale and settings.ratio and (run is None or run.before_step(settings.ratio))
        return () if acts else None

    def forward(self, plan: TallPlan, settings: AssembleSettings, call: ForwardCall) -> Forward:  # type: ignore[override]
        numbers = layout_blocks(call.blocks)
        with_step = Block(after=TallStep(plan, settings, call, numbers[-1]).after)
        return Forward(tuple(with_step if number in numbers else Block() for number in range(call.blocks.all)))


_TALL = _Tall()


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
    """The transformer's own attention as plain products: (B, H, S, D) three times -> (B, S, H D)."""
    heads = q.shape[1]
    out = softmax_product(q.flatten(0, 1), k.flatten(0, 1), mask, v.flatten(0, 1))
    return out.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


# ---- the network ---------------------------------------------------------------------------------


class AssembleNetwork(nn.Module):
    """A frozen transformer, FLUX.1 or Stable Diffusion 3, with InstanceAssemble's weights beside it. method.kernel:
    "batched" (pictures of one size in the same calls), or "grouped" (one picture after the other, as the product's host
    does; no ablations)."""

    def __init__(
        self,
        transformer: Any,
        weights: AssembleWeights,
        method: MethodConfig,
        guidance: float | None = None,
    ) -> None:
        super().__init__()
        if method.kernel != "batched" and (method.points != "grid" or not method.isolated):
            raise InputError(
                "method.points and method.isolated can be changed on the batched kernel alone; set method.kernel to"
                " batched."
            )
        if method.content != "phrases" and not method.isolated:
            raise InputError("method.isolated is false, which is for boxes without pictures; set content to phrases.")
        self.transformer, self.weights, self.method = transformer, weights, method
        self.guidance, self.reader = guidance, reader_of(method)
        self.settings = AssembleSettings(ratio=method.ratio)
        sd3 = backbone(transformer).name == SD3
        if sd3 and guidance is not None:
            raise InputError(f"flow.guidance is {guidance:g}, but {SD3} takes none; set it to null.")
        self._host = [SD3Host(transformer) if sd3 else FluxHost(transformer)]  # in a list: not a submodule

    def forward(self, batch: Batch, noisy: Tensor, times: Tensor, position: RunPosition | None = None) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)."""
        tall, host = self.method.kernel == "batched", self._host[0]
        # FLUX.1 has its guidance built in and no negative: there a picture without caption keeps its boxes.
        positive = (batch.positive if isinstance(host, SD3Host) else ()) or (True,) * len(batch.plans)
        shown = tuple(plan if has else replace(plan, boxes=()) for plan, has in zip(batch.plans, positive, strict=True))
        joined = TallPlan(shown, self.method.points == "corners", self.method.isolated)
        bounds = (
            Bound(_TALL, joined, self.settings)
            if tall
            else [(Bound(INSTANCE_ASSEMBLE, plan, self.settings),) for plan in batch.plans]
        )
        given: dict[str, Any] = {
            "text": batch.text,
            "pooled": batch.pooled,
            "vectors": _end_to_end(batch, shown) if tall else batch.vectors,
            "modules": {INSTANCE_ASSEMBLE.name: self.weights},
            "position": position,
            "positive": None if tall else positive,
        }
        if isinstance(host, SD3Host):
            latents = unpack(noisy, batch.plans[0].columns, batch.plans[0].rows)
            return pack(host.velocity(bounds, latents, timestep=1000 * times, **given))
        return host.velocity(
            bounds,
            noisy,
            timestep=times,
            guidance=None if self.guidance is None else torch.full_like(times, self.guidance),
            attend=_attend if tall else sdpa,
            **given,
        )


def make_weights(transformer: Any, rank: int, seed: int, zero: bool = True, pictures: bool = False) -> AssembleWeights:
    """Weights for a FLUX.1 or Stable Diffusion 3 transformer as training starts: an encoder at random, low-rank terms
    that add nothing, and projections at zero (zero=False: at random, for the ablation). pictures: with the encoder of
    pictures."""
    model = backbone(transformer)
    width, counts = model.width, BlockCounts(model.double, model.single)
    names = [
        f"transformer_blocks.{n}" if n < counts.double else f"single_transformer_blocks.{n - counts.double}"
        for n in layout_blocks(counts)
    ]
    pairs = {
        name: tuple(
            PairSize(layer, inputs * width, rank, outputs * width)
            for layer, outputs, inputs in switched_layers(
                model.name, name, ends=model.name == SD3 and name == names[-1]
            )
        )
        for name in names
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = AssembleWeights(width, model.pooled, pairs, pictures=pictures)
        for name, parameter in weights.named_parameters():
            if name.endswith(".down.weight"):
                nn.init.normal_(parameter, std=1 / rank)
            elif name.endswith(".up.weight") or (zero and ".layout_forward." in name):
                nn.init.zeros_(parameter)
    return weights


# ---- the file ------------------------------------------------------------------------------------


def state(network: AssembleNetwork) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.weights.state_dict().items()}


def load(network: AssembleNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Fills a network. Raises InputError for weights of another shape."""
    has = network.weights.state_dict()
    if {k: v.shape for k, v in has.items()} != {k: v.shape for k, v in tensors.items()}:
        raise InputError(
            "The adapter does not fit this model and rank; choose an adapter of this model, or set lora.rank to its."
        )
    with torch.no_grad():
        for name, value in has.items():
            value.copy_(tensors[name])


def write(path: Path, tensors: Mapping[str, Tensor], config: Config) -> None:
    """One file with everything, in half precision, as `methods.instance_assemble.files` reads it."""
    blocks: dict[str, list[PairSize]] = {}
    for name, down in tensors.items():
        if not name.endswith(".down.weight"):
            continue
        block, layer = name.removeprefix("blocks.").removesuffix(".down.weight").split(".pairs.")
        up = tensors[name.replace(".down.", ".up.")]
        size = PairSize(layer.replace("/", "."), down.shape[1], down.shape[0], up.shape[0])
        blocks.setdefault(block.replace("/", "."), []).append(size)
    width, pooled = tensors["layout_net.text_embedder.linear_1.weight"].shape
    halves = {name: value.half() for name, value in tensors.items()}
    pairs = {block: tuple(sizes) for block, sizes in blocks.items()}
    family = FLUX if any(block.startswith("single") for block in pairs) else SD3
    write_file(path, AssembleFile(path.name, family, width, pooled, pairs, halves))


def read(path: Path, config: Config) -> dict[str, Tensor]:
    """An adapter's tensors, the scales of its low-rank terms multiplied into them."""
    file = read_files(path)
    tensors = {name: value.float() for name, value in file.tensors.items()}
    for block, sizes in file.blocks.items():
        for pair in sizes:
            up = f"blocks.{block.replace('.', '/')}.pairs.{pair.layer.replace('.', '/')}.up.weight"
            tensors[up] = tensors[up] * pair.scale
    return tensors


def sizes(path: Path) -> Mapping[str, Any]:
    file = read_files(path)
    known = {"method": {"content": "mixed"}} if file.pictures else {}
    return {"lora": {"rank": cast("int", file.ranks[-1])}, **known}
