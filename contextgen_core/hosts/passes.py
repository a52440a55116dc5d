"""One forward pass, ready to be carried out: the methods of a call put together and compiled. Shared by all hosts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..attention import Groups, Memo, Program, Span, choose_kernel, compile_blocks
from ..attention.groups import indices
from ..backbones import Positions, Stretch
from ..errors import InputError
from ..methods.boundary import Block, BlockCounts, BlockWork, Bound, Forward, ForwardCall, RunPosition, Segment
from .joining import join_forwards

After = Callable[[BlockWork], None]


@dataclass(frozen=True, eq=False)
class Pass:
    """What a host carries out in one call. Compared by identity: what is remembered of a pass is remembered by it.

    bounds    the methods that act in this call
    owners    the methods that decide about tokens
    forward   of the owners together, or one that leaves all as it is
    programs  attention of each block; lengths: joint tokens that enter each block; leave: those that go on, or None
    afters    for each block the steps on its result, each with the number of its method in ``bounds``
    segments  tokens that are computed differently, and the method that wants it
    ids       position ids of the image tokens that go in, (n, axes) on the device, None: the family's own
    kept      which image tokens go in, on the device, None: all
    fixed     joint tokens whose keys and values are worth remembering for later steps of the run; in a pass that was
              planned as ``recalled`` they do not go in, and each block's keys and values have them at their end
    """

    bounds: tuple[Bound, ...]
    owners: tuple[Bound, ...]
    forward: Forward
    programs: tuple[Program, ...]
    lengths: tuple[int, ...]
    leave: tuple[int | None, ...]
    afters: tuple[tuple[tuple[int, After], ...], ...]
    segments: tuple[Segment, ...]
    segments_of: Bound | None
    ids: Tensor | None
    kept: Tensor | None
    fixed: Span | None


def active(bounds: Sequence[Bound], position: RunPosition | None) -> tuple[tuple[Bound, ...], tuple[Hashable, ...]]:
    """The methods that act at a place in the run, and what of that place matters to each."""
    moments = [bound.method.moment(bound.plan, bound.settings, position) for bound in bounds]
    acting = [(bound, moment) for bound, moment in zip(bounds, moments, strict=True) if moment is not None]
    return tuple(bound for bound, _ in acting), tuple(moment for _, moment in acting)


@dataclass(frozen=True)
class PassRequest:
    """All that decides a pass; most as in :class:`~contextgen_core.methods.boundary.ForwardCall`.

    torch_backend  attention is torch's own
    grad           gradients are wanted
    recalled       keys and values of the fixed tokens are at hand, so these tokens stay out
    """

    bounds: tuple[Bound, ...]
    moments: tuple[Hashable, ...]
    text: int
    blocks: BlockCounts
    noise: tuple[int, int]
    watched: frozenset[int] = frozenset()
    references: tuple[tuple[int, int], ...] = ()
    positions: Positions | None = None
    torch_backend: bool = True
    grad: bool = False
    recalled: bool = False
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32


def plan_pass(request: PassRequest, memo: Memo[Pass] | None = None) -> Pass:
    """The pass of a request, from ``memo`` where it is remembered.

    Raises InputError where two methods cannot be joined, or the kernel cannot run here.
    """
    return _planned(request) if memo is None else memo.get(request, lambda: _planned(request))


@torch.inference_mode(False)  # so that what is planned while sampling also serves a training step
def _planned(request: PassRequest) -> Pass:
    calls = [
        ForwardCall(
            moment,
            request.text,
            request.blocks,
            request.noise,
            request.watched,
            request.references,
            request.positions,
            request.device,
            request.dtype,
        )
        for moment in request.moments
    ]
    forwards = [b.method.forward(b.plan, b.settings, call) for b, call in zip(request.bounds, calls, strict=True)]
    deciding = [number for number, bound in enumerate(request.bounds) if bound.method.arranges]
    owners = tuple(request.bounds[number] for number in deciding)
    rebuilds = _rebuilding(request.bounds, forwards)
    if any(len(forward.blocks) != request.blocks.all for forward in forwards):
        counts = [len(forward.blocks) for forward in forwards]
        raise RuntimeError(f"{counts} blocks are described, the model has {request.blocks.all}")
    if owners:
        parts = [forwards[number] for number in deciding]
        forward = join_forwards([o.method for o in owners], parts, request.text, request.noise)
    else:
        beside = sum(rows * columns for rows, columns in request.references)
        forward = Forward(tuple(Block() for _ in range(request.blocks.all)), conditions=beside)
    fixed, segments = forward.fixed, forward.segments
    if request.recalled and fixed is not None:
        forward = _without_fixed(forward, fixed, forward.phrases + request.text)
        segments = _before(segments, fixed)
    lengths = forward.lengths(request.text, request.noise)
    kernel = _kernel(owners, request)
    groups = [(block.groups, length) for block, length in zip(forward.blocks, lengths, strict=True)]
    return Pass(
        bounds=request.bounds,
        owners=owners,
        forward=forward,
        programs=compile_blocks(groups, kernel, request.device, request.dtype),
        lengths=lengths,
        leave=tuple(block.leave for block in forward.blocks),
        afters=tuple(_afters(forwards, at) for at in range(request.blocks.all)),
        segments=segments,
        segments_of=request.bounds[rebuilds] if rebuilds is not None and segments else None,
        ids=None if forward.ids is None else forward.ids.to(request.device),
        kept=None if forward.kept is None else torch.from_numpy(forward.kept).to(request.device),
        fixed=fixed,
    )


def _without_fixed(forward: Forward, fixed: Span, words: int) -> Forward:
    """The pass of the other tokens alone; the keys that their groups read keep their numbers.

    ``words``: phrase and text tokens
    """
    image = fixed.start - words
    kept = np.arange(image) if forward.kept is None else forward.kept[:image]
    known: dict[int, Block] = {}
    for block in forward.blocks:
        if block.leave is not None:
            raise RuntimeError("tokens leave where others are remembered")
        known.setdefault(id(block), replace(block, groups=_asked_before(block.groups, fixed)))
    blocks = tuple(known[id(block)] for block in forward.blocks)
    return replace(forward, blocks=blocks, kept=kept, ids=None if forward.ids is None else forward.ids[:image])


def _asked_before(groups: Groups, fixed: Span) -> Groups:
    """The groups of the tokens before the fixed ones; None where these all see everyone."""
    asking = [group for group in groups or () if int(indices(group.queries)[0]) < fixed.start]
    if len(asking) == 1:
        [(queries, keys)] = asking
        unweighted = all(part.log_weight == 0 for part in keys)
        if queries.size == fixed.start and unweighted and sum(part.index.size for part in keys) == fixed.stop:
            return None
    return tuple(asking) or None


def _before(segments: Sequence[Segment], fixed: Span) -> tuple[Segment, ...]:
    """The segments of the other tokens; none where all that is left of them is an adapter that acts nowhere."""
    left = tuple(segment for segment in segments if segment.span.start < fixed.start)
    same = all(segment.timestep is None and segment.guidance is None and not segment.adapter for segment in left)
    return () if same and sum(segment.span.size for segment in left) == fixed.start else left


def _afters(forwards: Sequence[Forward], at: int) -> tuple[tuple[int, After], ...]:
    steps = [(number, forward.blocks[at].after) for number, forward in enumerate(forwards)]
    return tuple((number, after) for number, after in steps if after is not None)


def _rebuilding(bounds: Sequence[Bound], forwards: Sequence[Forward]) -> int | None:
    """The number of the one method with segments, None for nobody. Raises InputError naming two."""
    numbers = [number for number, forward in enumerate(forwards) if forward.segments]
    if len(numbers) > 1:
        first, second = (bounds[number].method for number in numbers[:2])
        raise InputError(
            f"{first.label} and {second.label} both rebuild the model's blocks and cannot work on one picture; take one"
            " of them off the model, or give each its own sampler.",
            second.node,
            "model",
        )
    return numbers[0] if numbers else None


def _kernel(owners: Sequence[Bound], request: PassRequest) -> str:
    """The attention kernel that all owners agree on. Raises InputError where two ask for different ones."""
    asked = {owner.method.kernel(owner.settings): owner.method for owner in owners}
    asked.pop("auto", None)
    if len(asked) > 1:
        (one, first), (other, second), *_ = asked.items()
        raise InputError(
            f"it is {other}, but {first.node} has {one}; choose one for both, or auto in one of them.",
            second.node,
            "kernel",
        )
    sample = torch.empty(0, device=request.device, dtype=request.dtype)
    try:
        kernel = next(iter(asked), "auto")
        return choose_kernel(kernel, sample, grad=request.grad, torch_backend=request.torch_backend)
    except InputError as error:
        raise (InputError(error.message, owners[0].method.node, "kernel") if owners else error) from None


def stretches(
    segments: Sequence[Segment], length: int, vec_of: Callable[[float | None, float | None], Tensor]
) -> tuple[Stretch, ...]:
    """The segments as a block's stretches, over the ``length`` tokens that enter it.

    vec_of  timestep and guidance, None for those of the call -> conditioning vector (B, D)
    """
    cut = [segment._replace(span=Span(segment.span.start, min(segment.span.stop, length))) for segment in segments]
    return tuple(
        Stretch(
            span,
            None if timestep is None and guidance is None else vec_of(timestep, guidance),
            adapter,
        )
        for span, timestep, guidance, adapter in cut
        if span.size > 0
    )


def adapted_spans(segments: Sequence[Segment], start: int, stop: int) -> list[Span]:
    """The tokens from ``start`` to ``stop`` on which the adapter acts, in pieces counted from ``start``."""
    spans, at = [], start
    for span in sorted(segment.span for segment in segments if not segment.adapter):
        if span.start > at:
            spans.append(Span(at - start, min(span.start, stop) - start))
        at = max(at, span.stop)
    if at < stop:
        spans.append(Span(at - start, stop - start))
    return [span for span in spans if span.size > 0]


def run_afters(
    passed: Pass, number: int, states: Sequence[dict[str, Any]], image: Tensor, work: Callable[[int, Tensor], BlockWork]
) -> Tensor:
    """The methods' steps after block ``number``: its image tokens as they leave them.

    ``work`` gives what the step of a method sees, from its number and the image so far.
    """
    for which, after in passed.afters[number]:
        seen = work(which, image)
        seen.state = states[which]
        after(seen)
        image = seen.image
    return image


def run_rows(
    passes: Sequence[Pass],
    number: int,
    states: Sequence[Sequence[dict[str, Any]]],
    image: Tensor,
    work: Callable[[Pass, Span, int, Tensor], BlockWork],
) -> Tensor:
    """:func:`run_afters` of a batch, of which ``passes`` has one entry for each row, or one for all.

    ``work`` gets the pass and its rows of the batch besides.
    """
    if not any(passed.afters[number] for passed in passes):
        return image
    batch = len(image)
    spans = [Span(0, batch)] if len(passes) == 1 else [Span(row, row + 1) for row in range(batch)]
    parts = [
        run_afters(passed, number, own, image[slice(*rows)], partial(work, passed, rows))
        for passed, own, rows in zip(passes, states, spans, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
