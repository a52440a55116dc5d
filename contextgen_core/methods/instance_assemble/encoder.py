"""The extra weights of InstanceAssemble as modules: the encoders, and what is added to each block.

Linear layers are built by a class that the host gives, so that it can keep, move and cast them like its own.

The authors announced pictures as content and never released them; :class:`PictureEncoder` is this pack's design. A
picture is to a box what a phrase is: it gets a layout token of its own, of the same form as the phrase's, and goes
through the same weights of the text stream. One vector cannot carry how a subject looks, so the picture's own tokens
join the short sequence, too. They are tokens of the image: they go through the image stream's weights, stand on the
canvas where the picture lies in its box (one step beside it on the first axis, as a condition picture does in
FLUX.1-Kontext), and are carried from step to step as layout tokens are. An instance without a picture has the sequence
that it always had, and weights without this part give the same numbers as before. Nothing here starts at zero: every
stream norms what it gets first, and a norm at zero has no direction. A training that is to start neutral does so by
``layout_forward`` at zero, as with phrases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.block import Additions, LowRank
from .cells import COORDINATES

FREQUENCIES = 8
POSITION = FREQUENCIES * 2 * COORDINATES  # numbers that stand for a box
PLACE = FREQUENCIES * 2 * 2  # numbers that stand for a point
CHANNELS = 64  # of a token of a latent: 16 channels of 2 x 2

MakeLinear = Callable[..., nn.Module]  # (inputs, outputs, bias=..., device=..., dtype=...)


def embed_points(points: Tensor, rounded: bool = False) -> Tensor:
    """Sines and cosines of points (..., n): (..., 16 n), frequency outermost, then sine and cosine, then coordinate.

    rounded  compute in bfloat16 throughout, as the authors' pipeline does
    """
    kind = torch.bfloat16 if rounded else torch.float32
    frequencies = (100 ** (torch.arange(FREQUENCIES) / FREQUENCIES)).to(points.device, kind)
    angles = frequencies[:, None] * points.to(kind)[..., None, :]  # ... frequency coordinate
    return torch.stack((angles.sin(), angles.cos()), dim=-2).flatten(-3)


class _Perceptron(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, linear: MakeLinear, **kind: Any) -> None:
        super().__init__()
        self.linear_1 = linear(inputs, hidden, **kind)
        self.linear_2 = linear(hidden, outputs, **kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(nn.functional.silu(self.linear_1(x)))


class LayoutEncoder(nn.Module):
    """A phrase and a box as one token of the model's width (paper, section 3)."""

    def __init__(self, width: int, pooled: int, linear: MakeLinear = nn.Linear, **kind: Any) -> None:
        super().__init__()
        self.pooled = pooled
        self.text_embedder = _Perceptron(pooled, width, width, linear, **kind)
        self.linears = _Perceptron(width + POSITION, width // 2, width, linear, **kind)

    def forward(self, points: Tensor, phrases: Tensor, rounded: bool = False) -> Tensor:
        """points (N, 72) float32 and pooled phrases (B, N, P) -> layout tokens (B, N, width), in the phrases' dtype."""
        positions = embed_points(points, rounded).to(phrases.dtype).expand(*phrases.shape[:2], -1)
        return self.linears(torch.cat([self.text_embedder(phrases), positions], dim=-1))


class PictureEncoder(nn.Module):
    """A picture's tokens in the model's width, and one layout token of the whole (see the module's first lines)."""

    def __init__(self, width: int, linear: MakeLinear = nn.Linear, **kind: Any) -> None:
        super().__init__()
        self.embedder = _Perceptron(CHANNELS + PLACE, width, width, linear, **kind)
        self.linears = _Perceptron(width + POSITION, width // 2, width, linear, **kind)

    def forward(
        self, points: Tensor, content: Tensor, places: Tensor, pooling: Tensor, rounded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The layout tokens (B, N, width) of N pictures and their R tokens in all (B, R, width), in content's dtype.

        points   (N, 72) float32, of the pictures' boxes
        content  (B, R, 64) packed latents as the model reads them, picture after picture
        places   (R, 2) float32, x and y of each token's middle in shares of the canvas
        pooling  (N, R): the mean over each picture's tokens
        """
        batch, kind = len(content), content.dtype
        where = embed_points(places, rounded).to(kind).expand(batch, -1, -1)
        tokens = self.embedder(torch.cat([content, where], dim=-1))
        positions = embed_points(points, rounded).to(kind).expand(batch, -1, -1)
        return self.linears(torch.cat([pooling.to(kind) @ tokens, positions], dim=-1)), tokens


class _Pair(nn.Module):
    def __init__(self, inputs: int, rank: int, outputs: int, scale: float, linear: MakeLinear, **kind: Any) -> None:
        super().__init__()
        self.down = linear(inputs, rank, bias=False, **kind)
        self.up = linear(rank, outputs, bias=False, **kind)
        self.scale = scale

    def low_rank(self) -> LowRank:
        return LowRank(self.down, self.up, self.scale)


class BlockExtras(nn.Module):
    """What one block gets: the projection of its layout attention, and low-rank pairs by canonical layer name."""

    def __init__(self, width: int, linear: MakeLinear, **kind: Any) -> None:
        super().__init__()
        self.layout_forward = linear(width, width, **kind)
        self.pairs = nn.ModuleDict()

    def additions(self) -> Additions:
        return {
            name.replace("/", "."): [pair.low_rank()] for name, pair in self.pairs.items() if isinstance(pair, _Pair)
        }


class PairSize(NamedTuple):
    """The size of one low-rank pair on a canonical layer, and what it is multiplied by."""

    layer: str
    inputs: int
    rank: int
    outputs: int
    scale: float = 1.0


class AssembleWeights(nn.Module):
    """All extra weights of one adapter.

    width, pooled  of the model's tokens, of its pooled text vector
    blocks         the low-rank pairs of each block with a layout step, by diffusers' name of the block, like
                   "transformer_blocks.3"
    pictures       whether they know pictures as content
    """

    def __init__(
        self,
        width: int,
        pooled: int,
        blocks: Mapping[str, Sequence[PairSize]],
        linear: MakeLinear = nn.Linear,
        *,
        pictures: bool = False,
        **kind: Any,
    ) -> None:
        super().__init__()
        self.width, self.pooled = width, pooled
        self.layout_net = LayoutEncoder(width, pooled, linear, **kind)
        self.picture_net = PictureEncoder(width, linear, **kind) if pictures else None
        self.blocks = nn.ModuleDict()
        for name, sizes in blocks.items():
            extras = BlockExtras(width, linear, **kind)
            for layer, inputs, rank, outputs, scale in sizes:
                extras.pairs[_key(layer)] = _Pair(inputs, rank, outputs, scale, linear, **kind)
            self.blocks[_key(name)] = extras

    def block(self, double: bool, index: int) -> BlockExtras:
        """What the index-th double or single block gets."""
        kind = "transformer_blocks" if double else "single_transformer_blocks"
        extras: Any = self.blocks[_key(f"{kind}.{index}")]
        return extras


def parameter_name(name: str) -> str:
    """How :class:`AssembleWeights` calls a parameter of the authors' files."""
    if name.startswith(("layout_net.", "picture_net.")):
        return name
    kind, index, rest = name.split(".", 2)
    return f"blocks.{_key(f'{kind}.{index}')}.{rest}"


def _key(name: str) -> str:
    """A name that a ModuleDict takes."""
    return name.replace(".", "/")
