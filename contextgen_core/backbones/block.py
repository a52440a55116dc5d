"""The weights of one block as functions, the same for each host and family, and a block computed from them.

Modules are called and never opened: their weights may be stored in eight bits, quantised, on another device, or wait
for a user's adapter that the host adds when the module is called.

A low-rank addition is given with a call, under the canonical name of its layer (:mod:`.layers`), and acts in that call
alone: ``block.image.qkv(x, {"attn.to_q": [LowRank(down, up)]})``. Without one, a function is the module's own result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..attention.groups import Span

Call = Callable[[Tensor], Tensor]
JointAttention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, H, S, D) -> (B, S, H * D)


class LowRank(NamedTuple):
    """``scale * up(down(x))``: two linear modules, or their weights (rank, inputs) and (outputs, rank)."""

    down: Call | Tensor
    up: Call | Tensor
    scale: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        out = _linear(self.up, _linear(self.down, x))
        return out if self.scale == 1 else out * self.scale


Additions = Mapping[str, Sequence[LowRank]]  # canonical layer name -> what is added to it


def _linear(layer: Call | Tensor, x: Tensor) -> Tensor:
    return functional.linear(x, layer.to(x)) if isinstance(layer, Tensor) else layer(x)


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer of the model that stands for one canonical layer, or for several in a row.

    module   of the model
    parts    canonical names, each with its first output in widths of the input
    swapped  whether the module holds the halves of its outputs in the other order than the canonical layer
    """

    module: Call
    parts: tuple[tuple[str, int], ...]
    swapped: bool = False

    def __call__(self, x: Tensor, additions: Additions | None = None, tokens: Sequence[Span] | None = None) -> Tensor:
        """The layer on x (..., inputs) with its additions.

        tokens  where the additions act, for x (B, S, inputs); None: on all
        """
        out = self.module(x)
        for name, row in self.parts if additions else ():
            for addition in additions.get(name, ()) if additions else ():
                for span in (None,) if tokens is None else tokens:
                    rows = slice(None) if span is None else slice(*span)
                    given, target = (x, out) if span is None else (x[:, rows], out[:, rows])
                    added = addition(given).to(out.dtype)
                    if self.swapped:
                        added = torch.cat(added.chunk(2, dim=-1)[::-1], dim=-1)
                    target.narrow(-1, row * x.shape[-1], added.shape[-1]).add_(added)
        return out


Steps = tuple[Projection | Call, ...]


def _through(steps: Steps, x: Tensor, additions: Additions | None, tokens: Sequence[Span] | None) -> Tensor:
    for step in steps:
        x = step(x, additions, tokens) if isinstance(step, Projection) else step(x)
    return x


class Modulation(NamedTuple):
    """What the conditioning vector does to tokens, each (B, 1, D), or (B, S, D) for a vector per token.

    ``gate`` is None in the text stream of Stable Diffusion 3's last block, which goes nowhere.
    """

    shift: Tensor
    scale: Tensor
    gate: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Weights:
    """What both kinds have: see :class:`Stream` for the functions."""

    heads: int
    conditioning: Steps
    order: tuple[str, ...]  # of the chunks: shift, scale, gate
    inputs: tuple[Projection, ...]  # one fused layer, or one each
    qk_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # q, k, v (B, S, H, D) -> q, k
    norm1: Call
    outputs: Steps
    affine: Callable[[Tensor, Tensor, Tensor], Tensor]  # x, shift, scale
    clamp: Call
    """(B, S, D) as the block hands it on: kept finite in float16 where the model's own block does so."""

    def _modulations(self, vec: Tensor, additions: Additions | None) -> tuple[Modulation, ...]:
        chunks = _through(self.conditioning, vec, additions, None).chunk(len(self.order), dim=-1)
        chunks = [chunk[:, None] if chunk.ndim == 2 else chunk for chunk in chunks]
        triples = range(0, len(chunks), 3)
        return tuple(Modulation(**dict(zip(self.order[i : i + 3], chunks[i : i + 3], strict=True))) for i in triples)

    def _projected(self, x: Tensor, additions: Additions | None, tokens: Sequence[Span] | None) -> list[Tensor]:
        """q, k, v (B, H, S, D), and what is left of a fused layer's outputs or a further layer's (B, S, ..)."""
        made = [layer(x, additions, tokens) for layer in self.inputs]
        if len(made) == 1:
            width, rest = x.shape[-1], made[0].shape[-1] - 3 * x.shape[-1]
            made = list(made[0].split([width, width, width] + [rest] * (rest > 0), dim=-1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in made[:3])
        q, k = self.qk_norm(q, k, v)
        return [*(part.transpose(1, 2) for part in (q, k, v)), *made[3:]]

    def modulate(self, x: Tensor, modulation: Modulation) -> Tensor:
        """x (B, S, D), normed, shifted and scaled: ``x * (1 + scale) + shift``."""
        return self.affine(x, modulation.shift, modulation.scale)


@dataclass(frozen=True, eq=False)
class Stream(_Weights):
    """The text or the image stream of a block with two streams.

    Functions take ``additions`` and ``tokens`` (where in x they act; None: everywhere) and leave their input as it is.
    """

    norm2: Call | None = None
    feed_forward: Steps = ()

    @property
    def ends(self) -> bool:
        """Whether the stream only lends its keys and values here and goes no further (text in SD3's last block)."""
        return len(self.outputs) == 0  # torch.compile cannot trace "not" of a tuple

    def modulation(self, vec: Tensor, additions: Additions | None = None) -> tuple[Modulation, ...]:
        """For the attention and for the MLP; for the attention alone where the stream ends. vec (B, D) or (B, S, D)"""
        return self._modulations(vec, additions)

    def qkv(
        self, x: Tensor, additions: Additions | None = None, tokens: Sequence[Span] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys after their norm, and values, (B, H, S, D), of modulated tokens (B, S, D). Without rope."""
        q, k, v = self._projected(x, additions, tokens)
        return q, k, v

    def out(self, attended: Tensor, additions: Additions | None = None, tokens: Sequence[Span] | None = None) -> Tensor:
        """The projection of the attention's result (B, S, H * D), before the gate: (B, S, D)."""
        return _through(self.outputs, attended, additions, tokens)

    def mlp(self, x: Tensor, additions: Additions | None = None, tokens: Sequence[Span] | None = None) -> Tensor:
        """The MLP of modulated tokens (B, S, D), before the gate."""
        return _through(self.feed_forward, x, additions, tokens)


@dataclass(frozen=True, eq=False)
class DoubleBlock:
    """A block whose text and image tokens have weights of their own and meet in the attention."""

    image: Stream
    text: Stream


@dataclass(frozen=True, eq=False)
class SingleBlock(_Weights):
    """A block over the joint tokens whose attention and MLP stand side by side. ``norm1`` is its only norm."""

    act: Call = functional.gelu

    def modulation(self, vec: Tensor, additions: Additions | None = None) -> Modulation:
        """vec (B, D) or (B, S, D)."""
        return self._modulations(vec, additions)[0]

    def qkv_mlp(
        self, x: Tensor, additions: Additions | None = None, tokens: Sequence[Span] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`Stream.qkv`, and the MLP's hidden values (B, S, 4 D) before :attr:`act`."""
        q, k, v, hidden = self._projected(x, additions, tokens)
        return q, k, v, hidden

    def out(
        self,
        attended: Tensor,
        hidden: Tensor,
        additions: Additions | None = None,
        tokens: Sequence[Span] | None = None,
    ) -> Tensor:
        """The joint projection of attention (B, S, D) and activated MLP (B, S, 4 D), before the gate: (B, S, D)."""
        return _through(self.outputs, torch.cat((attended, hidden), dim=-1), additions, tokens)


def rotate(x: Tensor, rope: Any) -> Tensor:
    """Queries or keys (B, H, S, D) with their rope, in x's dtype.

    rope  ComfyUI's rotations (1 or B, 1, S or more, D / 2, 2, 2), or with the tokens before that 1; or diffusers' cos
          and sin, each (S or more, D) or (1 or B, S or more, D); or None for a family without
    """
    if rope is None:
        return x
    pairs = x.unflatten(-1, (-1, 2))
    if isinstance(rope, Tensor):
        if rope.shape[2] == 1:
            rope = rope.transpose(1, 2)
        rope = rope[:, :, : x.shape[2]]
        pairs = pairs.to(rope.dtype)
        return (rope[..., 0] * pairs[..., :1] + rope[..., 1] * pairs[..., 1:]).flatten(-2).to(x.dtype)
    cos, sin = (table[..., None, : x.shape[2], :] for table in rope)  # (1, S, D) or (B, 1, S, D)
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


# --- a block from its functions -------------------------------------------------------------------------------------


class Stretch(NamedTuple):
    """Tokens of the joint sequence with their own conditioning vector, or without the adapter.

    vec        (B, D); None: the block's
    additions  whether the block's low-rank additions act on them
    """

    span: Span
    vec: Tensor | None = None
    additions: bool = True


class _Piece(NamedTuple):
    span: Span  # of one stream
    modulations: tuple[Modulation, ...]
    additions: bool


def rebuild_double(
    block: DoubleBlock,
    image: Tensor,
    text: Tensor,
    vec: Tensor,
    attend: JointAttention,
    rope: Any = None,
    stretches: Sequence[Stretch] = (),
    additions: Additions | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Image (B, S - T, D) and text (B, T, D) after the block; text is None where it ends here.

    attend     gets the joint tokens, text first, with rope. Who rotates them itself hands over rope None
    rope       of the joint tokens, see :func:`rotate`
    stretches  tokens computed differently; they do not overlap. The rest has ``vec`` and the additions
    additions  low-rank additions by canonical layer name

    The inputs stay as they are. Equal to the model's own block, up to rounding where a library fuses operations.
    """
    size = text.shape[1]
    sides = [(block.text, text, Span(0, size)), (block.image, image, Span(size, size + image.shape[1]))]
    pieces = [_cut(stream.modulation, span, vec, stretches, additions) for stream, _, span in sides]
    read = [
        stream.qkv(_modulated(stream, stream.norm1(x), piece, 0), additions, _acting(piece))
        for (stream, x, _), piece in zip(sides, pieces, strict=True)
    ]
    q, k, v = (torch.cat(column, dim=2) for column in zip(*read, strict=True))
    attended = attend(rotate(q, rope), rotate(k, rope), v)
    done: list[Tensor | None] = []
    for (stream, x, span), piece in zip(sides, pieces, strict=True):
        if stream.norm2 is None:
            done.append(None)
            continue
        acting = _acting(piece)
        x = x + _gated(stream.out(attended[:, slice(*span)], additions, acting), piece, 0)
        x = x + _gated(stream.mlp(_modulated(stream, stream.norm2(x), piece, 1), additions, acting), piece, 1)
        done.append(stream.clamp(x))
    if done[1] is None:
        raise RuntimeError("the image stream ends before the model does")
    return done[1], done[0]


def rebuild_single(
    block: SingleBlock,
    x: Tensor,
    vec: Tensor,
    attend: JointAttention,
    rope: Any = None,
    stretches: Sequence[Stretch] = (),
    additions: Additions | None = None,
) -> Tensor:
    """The joint tokens (B, S, D) after the block. Arguments as in :func:`rebuild_double`."""

    def modulation(vec: Tensor, additions: Additions | None) -> tuple[Modulation, ...]:
        return (block.modulation(vec, additions),)

    pieces = _cut(modulation, Span(0, x.shape[1]), vec, stretches, additions)
    acting = _acting(pieces)
    q, k, v, hidden = block.qkv_mlp(_modulated(block, block.norm1(x), pieces, 0), additions, acting)
    attended = attend(rotate(q, rope), rotate(k, rope), v)
    return block.clamp(x + _gated(block.out(attended, block.act(hidden), additions, acting), pieces, 0))


def _cut(
    modulation: Callable[[Tensor, Additions | None], tuple[Modulation, ...]],
    whole: Span,
    vec: Tensor,
    stretches: Sequence[Stretch],
    additions: Additions | None,
) -> list[_Piece]:
    """A stream in pieces of equal treatment, without gaps, counted from the stream's first token."""
    rows: list[Stretch] = []
    end = whole.start
    for stretch in sorted(stretches, key=lambda s: s.span):
        start, stop = max(stretch.span.start, whole.start), min(stretch.span.stop, whole.stop)
        if start >= stop:
            continue
        if start < end:
            raise ValueError(f"stretches overlap at token {start}")
        if start > end:
            rows.append(Stretch(Span(end, start)))
        rows.append(stretch._replace(span=Span(start, stop)))
        end = stop
    if end < whole.stop or not rows:
        rows.append(Stretch(Span(end, whole.stop)))
    known: dict[tuple[int, bool], tuple[Modulation, ...]] = {}
    pieces = []
    for span, its_vec, acts in rows:
        given = vec if its_vec is None else its_vec
        key = id(given), acts
        if key not in known:
            known[key] = modulation(given, additions if acts else None)
        pieces.append(_Piece(Span(span.start - whole.start, span.stop - whole.start), known[key], acts))
    return pieces


def _acting(pieces: Sequence[_Piece]) -> tuple[Span, ...] | None:
    """Where the additions act; None: everywhere."""
    acting = tuple(piece.span for piece in pieces if piece.additions)
    return None if len(acting) == len(pieces) else acting


def _modulated(weights: _Weights, x: Tensor, pieces: Sequence[_Piece], which: int) -> Tensor:
    parts = [weights.modulate(_rows(x, piece, pieces), piece.modulations[which]) for piece in pieces]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _gated(x: Tensor, pieces: Sequence[_Piece], which: int) -> Tensor:
    parts = []
    for piece in pieces:
        gate = piece.modulations[which].gate
        if gate is None:
            raise RuntimeError("a stream that ends has no gate")
        parts.append(_rows(x, piece, pieces) * gate)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _rows(x: Tensor, piece: _Piece, pieces: Sequence[_Piece]) -> Tensor:
    return x if len(pieces) == 1 else x[:, slice(*piece.span)]
