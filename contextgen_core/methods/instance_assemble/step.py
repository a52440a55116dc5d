"""The layout step: what happens after a block for all instances at once.

Each instance attends jointly over ``layout token | tokens of its box`` with the block's weights and the adapter's
low-rank terms; the result is averaged over the boxes that cover a token, projected and added to the picture; in double
blocks the image MLP then acts a second time on the whole picture, also outside the boxes. Layout tokens go on to the
next step (paper, section 3, and the authors' transformer classes). An instance with a picture (ours, :mod:`.encoder`)
has a layout token and the picture's tokens besides; those are treated as tokens of its box are, and go on, too.

For training, a step is differentiable in all of its weights. Per picture of the batch it reads two vectors,
:data:`PHRASES` and :data:`CONTENT`, in the order of the plan's boxes that have a phrase or a picture; ``prepare`` with
``PhraseOptions(content="both")`` gives the plan, the phrases and the pictures that the autoencoder encodes.

Everything after the attention is affine and the same for all instances, so the attention is averaged before it is
projected: queries, keys, values and projections are computed once for each covered token, however many boxes cover it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...attention import SameTensors
from ...backbones.block import Additions, DoubleBlock, Modulation, SingleBlock, Stream, rotate
from ..boundary import CONTENT, BlockWork
from .cover import Cover, make_cover
from .encoder import AssembleWeights, BlockExtras
from .plan import PhrasePlan

PHRASES = "instance_assemble_phrases"  # name of the pooled phrases (B, phrases, P) among a conditioning's vectors


@dataclass(frozen=True)
class AssembleSettings:
    """How the step acts on a model; the defaults are the authors'.

    scale   of what the boxes add (0..3); 0 switches everything off, the second MLP too
    ratio   the step acts before sampling step ``int(ratio * steps)``
    mlp     of what the second MLP adds to the whole picture (0..2); the weights were trained with 1
    front   a token belongs to the front-most box alone instead of to the mean of all that cover it
    rounded compute a box's sines and cosines in bfloat16, as the authors' pipeline does
    pictures whether the weights know pictures as content
    """

    scale: float = 1.0
    ratio: float = 0.3
    mlp: float = 1.0
    front: bool = False
    rounded: bool = False
    pictures: bool = True


class Encoded(NamedTuple):
    """Layout tokens (B, N, D), and the tokens of pictures (B, R, D) or None."""

    layout: Tensor
    pictures: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Encoded:
        return Encoded(change(self.layout), None if self.pictures is None else change(self.pictures))


class LayoutStep:
    """The steps of a forward pass with the boxes ``active``: their index sets, ready on a device.

    doubles  double blocks of the model; last: the last block with a step, after which nobody reads layout tokens

    Serves many forward passes; what belongs to one of them is in the work's ``state``.
    """

    def __init__(
        self,
        plan: PhrasePlan,
        settings: AssembleSettings,
        active: tuple[int, ...],
        doubles: int,
        last: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.settings, self.doubles, self.last = settings, doubles, last
        self.cover = make_cover(plan, active, front=settings.front, device=device, dtype=dtype)
        self._encoded: tuple[Any, int, SameTensors, Encoded] | None = None

    def after(self, work: BlockWork) -> None:
        """The step after one block, as :class:`contextgen_core.methods.boundary.Block` wants it."""
        if not work.ran:
            return
        index = work.number if work.double else work.number - self.doubles
        extras = work.modules.block(work.double, index)
        before = work.image[:, slice(*work.noise)]
        image = before
        rows = _rows(work.positive, before.device)
        cover = self.cover
        stream = work.block.image if work.double else work.block
        modulations = stream.modulation(work.vec, extras.additions())
        if cover is not None and rows is not None:
            # Written over in place, unless the old values are wanted for gradients.
            image = before.clone() if torch.is_grad_enabled() else before
            those = modulations if work.double else (modulations,)
            those = [Modulation(*(part[rows] for part in m)) for m in those]
            self._boxes(work, extras, cover, image, rows, those, those)
        if work.double and self.settings.mlp:
            image = self._second_mlp(stream, image, modulations[1], extras.additions())
        _put_back(work, image, before)

    # --- what the boxes add -----------------------------------------------------------------------------------------

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
        """Adds the instances' results to ``image`` in place, and moves layout tokens and pictures on.

        rows  of the batch that have boxes; to_image, to_pictures: their modulations, of covered tokens and of pictures'
        """
        # Kept by the block that left them: a block that is run again, as in checkpointing, starts from the same ones.
        left = [number for number in work.state.setdefault("layout", {}) if number < work.number]
        encoded: Encoded = (
            work.state["layout"][max(left)]
            if left
            else self._tokens(work, cover).map(lambda x: x.expand(len(work.image), -1, -1)[rows])
        )
        if "rope" not in work.state:
            work.state["rope"] = (
                [None, None] if work.rope is None else [work.rope_of(i) for i in (cover.ids, cover.read)]
            )
        old = image[rows].index_select(1, cover.tokens)
        own = self._double if work.double else self._single
        added, encoded = own(work, extras, cover, old, encoded, to_image, to_pictures, work.vec[rows])
        if self.settings.scale != 1:
            added = added * self.settings.scale
        if cover.factor is not None:
            added = added * cover.factor
        new = old + added
        if isinstance(rows, slice):
            image[rows].index_copy_(1, cover.tokens, new)
        else:
            image[rows] = image[rows].index_copy(1, cover.tokens, new)
        work.state["layout"][work.number] = encoded

    def _double(
        self,
        work: BlockWork,
        extras: BlockExtras,
        cover: Cover,
        image: Tensor,
        encoded: Encoded,
        to_image: Sequence[Modulation],
        to_pictures: Sequence[Modulation],
        vec: Tensor,
    ) -> tuple[Tensor, Encoded]:
        block: DoubleBlock = work.block
        additions = extras.additions()
        to_layout = block.text.modulation(vec, additions)
        ropes = work.state["rope"]
        layout, pictures = encoded
        normed = (
            _normed(block.text, (layout, to_layout[0])),
            _normed(block.image, (image, to_image[0]), (pictures, to_pictures[0])),
        )
        read = [
            _turned(stream.qkv(x, additions), rope)
            for stream, x, rope in zip((block.text, block.image), normed, ropes, strict=True)
        ]
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*read, strict=True))
        mean, attended, seen = self.attend(cover, q, k, v)
        added = _gate(to_image[0]) * extras.layout_forward(block.image.out(mean, additions))
        if work.number != self.last and not block.text.ends and block.text.norm2 is not None:
            layout = _on(block.text, layout, attended, to_layout, additions)
            if pictures is not None and seen is not None:
                pictures = _on(block.image, pictures, seen, to_pictures, additions)
        return added, Encoded(layout, pictures)

    def _single(
        self,
        work: BlockWork,
        extras: BlockExtras,
        cover: Cover,
        image: Tensor,
        encoded: Encoded,
        to_image: Sequence[Modulation],
        to_pictures: Sequence[Modulation],
        vec: Tensor,
    ) -> tuple[Tensor, Encoded]:
        block: SingleBlock = work.block
        additions = extras.additions()
        to_layout = block.modulation(vec, additions)
        layout, pictures = encoded
        normed = _normed(block, (layout, to_layout), (image, to_image[0]), (pictures, to_pictures[0]))
        q, k, v, hidden = block.qkv_mlp(normed, additions)
        count, ropes = layout.shape[1], work.state["rope"]
        q, k = (
            torch.cat([rotate(x[:, :, :count], ropes[0]), rotate(x[:, :, count:], ropes[1])], dim=2) for x in (q, k)
        )
        mean, attended, seen = self.attend(cover, q, k, v)
        hidden = block.act(hidden)
        layout_hidden, image_hidden, picture_hidden = hidden.tensor_split((count, count + image.shape[1]), dim=1)
        added = extras.layout_forward(_gate(to_image[0]) * block.out(mean, image_hidden, additions))
        if work.number != self.last:
            layout = layout + _gate(to_layout) * block.out(attended, layout_hidden, additions)
            if pictures is not None and seen is not None:
                pictures = pictures + _gate(to_pictures[0]) * block.out(seen, picture_hidden, additions)
        return added, Encoded(layout, pictures)

    def attend(self, cover: Cover, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return attend_instances(cover, q, k, v)

    def _second_mlp(self, stream: Stream, image: Tensor, modulation: Modulation, additions: Additions) -> Tensor:
        if stream.norm2 is None:
            raise RuntimeError("the image stream goes on to the end")
        added = _gate(modulation) * stream.mlp(stream.modulate(stream.norm2(image), modulation), additions)
        return stream.clamp(image + (added if self.settings.mlp == 1 else added * self.settings.mlp))

    # --- once a run -------------------------------------------------------------------------------------------------

    def _tokens(self, work: BlockWork, cover: Cover) -> Encoded:
        """The encoders' tokens, remembered as long as what they read is the same memory and their weights the same."""
        weights: AssembleWeights = work.modules
        given = [work.vectors.get(PHRASES), work.vectors.get(CONTENT)] if cover.pictures else [work.vectors[PHRASES]]
        remember = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        version, read = (_version(weights), SameTensors(*given)) if remember else (0, SameTensors())
        if remember and self._encoded is not None:
            whose, before, known, encoded = self._encoded
            if whose() is weights and before == version and known == read:
                return encoded
        encoded = self._encode(weights, cover, given[0], *given[1:])
        encoded = encoded.map(lambda x: x.to(work.image.dtype))
        if remember:
            self._encoded = weakref.ref(weights), version, read, encoded
        return encoded

    def _encode(
        self, weights: AssembleWeights, cover: Cover, phrases: Tensor | None, content: Tensor | None = None
    ) -> Encoded:
        layout, pictures = [], None
        if phrases is not None and len(cover.points):
            phrases = _chosen(phrases, cover.select, len(cover.points))
            layout.append(weights.layout_net(cover.points, phrases, self.settings.rounded))
        if cover.pictures is not None:
            if weights.picture_net is None or content is None:
                raise RuntimeError("pictures in boxes need weights that know them, and their latents")
            shown = cover.pictures
            content = _chosen(content, shown.select, len(shown.places))
            token, pictures = weights.picture_net(
                shown.points, content, shown.places, shown.pooling, self.settings.rounded
            )
            layout.append(token)
        return Encoded(layout[0] if len(layout) == 1 else torch.cat(layout, dim=1), pictures)


def attend_instances(cover: Cover, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """All instances' joint attention.

    q, k, v  (B, H, N + C + R, D) of ``layout tokens | covered tokens | tokens of pictures``, with rope

    Gives the mean over the boxes for each covered token, (B, C, H * D), each layout token's, (B, N, H * D), and that of
    the tokens of pictures, (B, R, H * D), None where there are none.
    """
    q, k, v = (x.index_select(2, cover.gather) for x in (q, k, v))
    out = _attend_buckets(cover, q, k, v)
    first, *others = cover.ranks  # each covered token has a first box
    mean = out.index_select(1, first.sources) * first.weights
    for rank in others:
        mean = mean.index_add(1, rank.tokens, out.index_select(1, rank.sources) * rank.weights)
    pictures = None if cover.pictures is None else out.index_select(1, cover.pictures.gathered)
    return mean, out.index_select(1, cover.layout), pictures


def _attend_buckets(cover: Cover, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, parts = q.shape[0], []
    sizes = [bucket.sequences * bucket.length for bucket in cover.buckets]
    for bucket, *chunk in zip(cover.buckets, *(x.split(sizes, dim=2) for x in (q, k, v)), strict=True):
        one = [x.unflatten(2, (bucket.sequences, bucket.length)).transpose(1, 2).flatten(0, 1) for x in chunk]
        mask = bucket.mask if bucket.mask is None or batch == 1 else bucket.mask.repeat(batch, 1, 1, 1)
        done = functional.scaled_dot_product_attention(*one, attn_mask=mask)  # (B n) H L D
        parts.append(done.transpose(1, 2).flatten(2).unflatten(0, (batch, -1)).flatten(1, 2))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _chosen(vector: Tensor, select: Tensor | None, count: int) -> Tensor:
    """What a moment reads of a vector (B, n, ..); behind a plan's ``count`` own, a batch may be padded."""
    return vector[:, :count] if select is None else vector.index_select(1, select)


def _normed(weights: Stream | SingleBlock, *parts: tuple[Tensor | None, Modulation]) -> Tensor:
    """Tokens with their modulations, normed and put one after the other."""
    done = [weights.modulate(weights.norm1(x), modulation) for x, modulation in parts if x is not None]
    return done[0] if len(done) == 1 else torch.cat(done, dim=1)


def _on(stream: Stream, x: Tensor, attended: Tensor, modulations: Sequence[Modulation], additions: Additions) -> Tensor:
    """Tokens that go on to the next step: their attention's result added, and the stream's MLP behind it."""
    if stream.norm2 is None:
        raise RuntimeError("a stream that goes on has an MLP")
    x = x + _gate(modulations[0]) * stream.out(attended, additions)
    normed = stream.modulate(stream.norm2(x), modulations[1])
    return stream.clamp(x + _gate(modulations[1]) * stream.mlp(normed, additions))


def _rows(positive: Any, device: torch.device) -> slice | Tensor | None:
    """The rows of the batch that have boxes, as a slice where they stand together; None: no row has."""
    chosen = [row for row, is_positive in enumerate(positive) if is_positive]
    if not chosen:
        return None
    if chosen[-1] - chosen[0] + 1 == len(chosen):
        return slice(chosen[0], chosen[-1] + 1)
    return torch.tensor(chosen, device=device)


def _turned(read: tuple[Tensor, Tensor, Tensor], rope: Any) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = read
    return rotate(q, rope), rotate(k, rope), v


def _gate(modulation: Modulation) -> Tensor:
    if modulation.gate is None:
        raise RuntimeError("a stream that goes on has a gate")
    return modulation.gate


def _version(weights: AssembleWeights) -> int:
    """Changes when the encoders' weights are written to, where torch counts that."""
    encoders = [net for net in (weights.layout_net, weights.picture_net) if net is not None]
    return sum(p._version for net in encoders for p in net.parameters() if not p.is_inference())


def _put_back(work: BlockWork, image: Tensor, before: Tensor) -> None:
    if image is before:
        return
    if not torch.is_grad_enabled():
        before.copy_(image)
        return
    start, stop = work.noise
    work.image = torch.cat([work.image[:, :start], image, work.image[:, stop:]], dim=1)
