"""Several methods that decide about the tokens of one pass, joined into one :class:`Forward`.

Each method speaks of ``its phrases | text | noise | its condition pictures``; joined, the tokens stand in the order
``phrases of all | text | noise | condition pictures``. Text and noise are shared, the rest are a method's further
tokens. Who sees whom then follows from the methods' own rules alone:

=====================  ====================================  ==========================
reads                  text and noise                        a method's further tokens
=====================  ====================================  ==========================
text and noise         what every method lets them read      as that method says
further tokens of one  as that method says                   as it says; others': never
=====================  ====================================  ==========================

Log weights of text and noise add up. So rows of the shared tokens fall into groups by their group in each method, and a
method that only adds tokens (EliGen's phrases) leaves what another one does with the rest exactly as it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..attention.groups import Group, Groups, KeyPart, Span, compact, indices
from ..errors import InputError
from ..methods.boundary import Block, Forward, Method, Segment

Keys = tuple[KeyPart, ...]


def join_forwards(methods: Sequence[Method], forwards: Sequence[Forward], text: int, noise: tuple[int, int]) -> Forward:
    """The forward pass of methods that all decide about tokens; of one alone it is its own.

    text, noise  tokens of the conditioning's text, and (rows, columns) of the noise

    Raises InputError, naming two methods, where both bring or drop pictures, number tokens differently, or one leaves
    out rows that another may still read.
    """
    if len(forwards) == 1:
        return forwards[0]
    pictured = _pictured_one(methods, forwards)
    phrases = sum(forward.phrases for forward in forwards)
    lengths = [forward.lengths(text, noise) for forward in forwards]
    places, before = [], 0  # where each method's tokens stand among the joint ones
    for forward, own in zip(forwards, lengths, strict=True):
        rest = np.arange(phrases, phrases + own[0] - forward.phrases)
        places.append(np.concatenate([np.arange(before, before + forward.phrases), rest]))
        before += forward.phrases
    shared = Span(phrases, phrases + text + noise[0] * noise[1])
    ids, text_ids = _image_ids(methods, forwards, noise[0] * noise[1]), _text_ids(methods, forwards)
    return Forward(
        blocks=tuple(_blocks(methods, forwards, places, lengths, shared)),
        phrases=phrases,
        conditions=pictured.conditions,
        ids=ids,
        kept=pictured.kept,
        text_ids=text_ids,
        segments=tuple(
            _moved(segment, forward, place, phrases)
            for forward, place in zip(forwards, places, strict=True)
            for segment in forward.segments
        ),
    )


def _pictured(forward: Forward) -> bool:
    """Whether a method brings condition pictures or lets tokens of the picture go."""
    return bool(forward.conditions) or forward.kept is not None or any(b.leave is not None for b in forward.blocks)


def _pictured_one(methods: Sequence[Method], forwards: Sequence[Forward]) -> Forward:
    """The one forward pass with pictures, else the first."""
    with_pictures = [number for number, forward in enumerate(forwards) if _pictured(forward)]
    if len(with_pictures) > 1:
        first, second, *_ = with_pictures
        raise _apart(methods[first], methods[second], "both bring pictures of their own")
    return forwards[with_pictures[0] if with_pictures else 0]


def _apart(first: Method, second: Method, why: str) -> InputError:
    return InputError(
        f"{first.label} and {second.label} {why} and cannot work on one picture; take one of them off the model, or"
        " give each its own sampler.",
        second.node,
        "model",
    )


# --- position ids and segments --------------------------------------------------------------------------------------


def _image_ids(methods: Sequence[Method], forwards: Sequence[Forward], noise: int) -> Tensor | None:
    """Those of the method with pictures; all that give any must agree on the noise."""
    given = [(method, forward) for method, forward in zip(methods, forwards, strict=True) if forward.ids is not None]
    given.sort(key=lambda one: not _pictured(one[1]))
    ids = given[0][1].ids if given else None
    for method, forward in zip(methods, forwards, strict=True):
        own = forward.ids
        differs = own is not None and ids is not None and not torch.equal(own[:noise], ids[:noise])
        if differs or (own is None and ids is not None and _pictured(forward)):
            raise _apart(given[0][0], method, "number the tokens of the picture differently")
    return ids


def _text_ids(methods: Sequence[Method], forwards: Sequence[Forward]) -> Tensor | None:
    """Of all phrases and the text; all methods that give any must agree on the text."""
    given = [(m, f, f.text_ids) for m, f in zip(methods, forwards, strict=True) if f.text_ids is not None]
    if not given:
        return None
    text = given[0][2][given[0][1].phrases :]
    for method, forward in zip(methods, forwards, strict=True):
        own = forward.text_ids
        if forward.phrases if own is None else not torch.equal(own[forward.phrases :], text):
            raise _apart(given[0][0], method, "number the tokens of the text differently")
    return torch.cat([*(ids[: forward.phrases] for _, forward, ids in given), text])


def _moved(segment: Segment, forward: Forward, place: np.ndarray, phrases: int) -> Segment:
    """A segment among the joint tokens. One that begins with the first token also holds the other methods' phrases,
    which are computed as the text is."""
    start, stop = segment.span
    with_text = stop > forward.phrases
    shift = phrases - forward.phrases
    joint = Span(
        0 if with_text and start == 0 else start + shift if start >= forward.phrases else start + int(place[0]),
        stop + shift if with_text else stop + int(place[0]),
    )
    return segment._replace(span=joint)


# --- who sees whom --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """One method's groups in one block, over the joint tokens.

    queries, keys  of each of its groups
    group          (shared,) which of them each shared row belongs to, -1 where it is left out
    """

    queries: tuple[np.ndarray, ...]
    keys: tuple[Keys, ...]
    group: np.ndarray


def _blocks(
    methods: Sequence[Method],
    forwards: Sequence[Forward],
    places: Sequence[np.ndarray],
    lengths: Sequence[tuple[int, ...]],
    shared: Span,
) -> Iterator[Block]:
    # The method with pictures leads: its key parts stay whole, and with them the range that most rows share.
    order = sorted(range(len(forwards)), key=lambda number: not _pictured(forwards[number]))
    known: dict[Hashable, tuple[Group, ...]] = {}
    last = len(forwards[0].blocks) - 1
    for number, blocks in enumerate(zip(*(forward.blocks for forward in forwards), strict=True)):
        key = (*((id(block.groups), own[number]) for block, own in zip(blocks, lengths, strict=True)), number == last)
        if key not in known:
            views = [_view(blocks[at].groups, places[at][: lengths[at][number]], shared) for at in order]
            if number < last:  # behind the last block only the noise is read, so there each may leave rows out
                _check_rows([methods[at] for at in order], views)
            known[key] = tuple(_joined(views, shared))
        leaves = [
            block.leave + shared.start - forward.phrases
            for block, forward in zip(blocks, forwards, strict=True)
            if block.leave is not None
        ]
        yield Block(known[key], min(leaves, default=None))


def _check_rows(methods: Sequence[Method], views: Sequence[_View]) -> None:
    """Raises InputError where a row that one method leaves out may still be read by another's rule."""
    for method, view in zip(methods[1:], views[1:], strict=True):
        if not np.array_equal(view.group < 0, views[0].group < 0):
            raise _apart(methods[0], method, "leave out different tokens")


def _view(groups: Groups, place: np.ndarray, shared: Span) -> _View:
    if groups is None:
        everyone = Span(0, len(place))
        groups = (Group(everyone, (KeyPart(everyone),)),)
    queries = tuple(place[indices(group.queries)] for group in groups)
    keys = tuple(tuple(KeyPart(place[indices(i)], weight) for i, weight in group.keys) for group in groups)
    group_of = np.full(shared.size, -1)
    for number, rows in enumerate(queries):
        group_of[rows[_within(rows, shared)] - shared.start] = number
    return _View(queries, keys, group_of)


def _within(index: np.ndarray, span: Span) -> np.ndarray:
    return (span.start <= index) & (index < span.stop)


def _joined(views: Sequence[_View], shared: Span) -> Iterator[Group]:
    """The groups of all methods together; rows with the same keys are one group."""
    members: dict[Hashable, tuple[Keys, list[np.ndarray]]] = {}

    def add(rows: np.ndarray, keys: Keys) -> None:
        if len(rows):
            name = tuple((index.tobytes(), weight) for index, weight in _arrays(keys))
            members.setdefault(name, (keys, []))[1].append(rows)

    combinations, which = np.unique(np.stack([view.group for view in views]), axis=1, return_inverse=True)
    for number, combination in enumerate(combinations.T.tolist()):
        if min(combination) >= 0:
            keys = [view.keys[group] for view, group in zip(views, combination, strict=True)]
            add(shared.start + np.flatnonzero(which.reshape(-1) == number), tuple(_together(keys, shared)))
    for view in views:
        for rows, keys in zip(view.queries, view.keys, strict=True):
            add(rows[~_within(rows, shared)], keys)
    for keys, rows in members.values():
        yield Group(
            compact(np.sort(np.concatenate(rows))), tuple(KeyPart(compact(index), weight) for index, weight in keys)
        )


def _arrays(keys: Keys) -> list[tuple[np.ndarray, float]]:
    return [(indices(index).astype(np.int64), weight) for index, weight in keys]


def _together(keys: Sequence[Keys], shared: Span) -> Iterator[KeyPart]:
    """What a shared row reads, from what each method lets it read: the first one's parts, cut to what the others let it
    read too, then the others' further tokens."""
    weights = np.zeros(shared.size)
    for others in keys[1:]:
        own = np.full(shared.size, -np.inf)
        for index, weight in _arrays(others):
            own[index[_within(index, shared)] - shared.start] = weight
        weights += own
    for index, weight in _arrays(keys[0]):
        added = np.zeros(len(index))
        inside = _within(index, shared)
        added[inside] = weights[index[inside] - shared.start]
        for more in np.unique(added[~np.isneginf(added)]).tolist():
            yield KeyPart(index[added == more], weight + more)
    for others in keys[1:]:
        for index, weight in _arrays(others):
            further = index[~_within(index, shared)]
            if len(further):
                yield KeyPart(further, weight)
