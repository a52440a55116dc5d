"""Who may see whom: the rules of ContextGen as a dense mask (the specification) and as query groups (the fast form).

Official rule, rows read columns (T text, I noise, L layout, Vn valid tokens of reference n)::

                              T   I   L   V1  V2
    text                      x   x   x   .   .
    noise outside all boxes   x   x   x   .   .
    noise in box 1            x   x   x   a   .      a: in ICA blocks only
    noise in boxes 1 and 2    x   x   x   a   a
    layout                    x   x   x   .   .
    reference 1               x   .   .   x   .
    reference 2               x   .   .   .   x

In the paper's formula a noise token in boxes S reads ``T`` and, over n in S, the noise tokens of box n and ``Vn``;
neither the layout nor the rest of the picture. The authors' code, and so their weights, follow the table.

Queries that may see the same keys form one :class:`Group`, which is then one plain attention call without a mask.
Where boxes overlap a lot, the smallest combinations are pooled into one call over the union of their keys with a
small additive mask, so that thirty-two boxes do not become hundreds of copies of the keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ...attention.groups import Group, Index, KeyPart, Span
from .schedule import BlockPlan, Rule
from .sequence import TokenSequence

MAX_COMBINATIONS = 16  # attention calls for in-box tokens; further (smaller) combinations share one pooled call
POOL_ROWS = 64  # a combination with fewer query rows than this is not worth a copy of the keys


def combinations(sequence: TokenSequence) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Every set of active references whose boxes cover some noise token, with those tokens (joint indices).

    Ordered by the number of tokens, largest first; ties by the references' numbers.
    """
    plan = sequence.plan
    cover = np.zeros((plan.noise_tokens, len(sequence.active)), bool)
    for column, number in enumerate(sequence.active):
        cover[sequence.box_rows(number) - sequence.text, column] = True
    inside = np.flatnonzero(cover.any(axis=1))
    if not len(inside):
        return []
    patterns, inverse = np.unique(cover[inside], axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    found = [
        (
            tuple(sequence.active[c] for c in np.flatnonzero(pattern)),
            sequence.text + inside[inverse == i],
        )
        for i, pattern in enumerate(patterns)
    ]
    return sorted(found, key=lambda item: (-len(item[1]), item[0]))


def _log_strength(sequence: TokenSequence, number: int) -> float:
    if number not in sequence.active:
        return 0.0  # present only where nothing is pruned, and read by nobody but itself
    return math.log(sequence.plan.references[number].strength)


def reference_part(sequence: TokenSequence, number: int) -> KeyPart:
    """The readable tokens of a reference as keys."""
    span = sequence.reference_spans[number]
    index: Index = span if sequence.pruned else sequence.reference_keys(number)
    return KeyPart(index, _log_strength(sequence, number))


def _box_noise(sequence: TokenSequence, numbers: Iterable[int]) -> np.ndarray:
    """Noise tokens inside any of the boxes, ascending."""
    return np.unique(np.concatenate([sequence.box_rows(n) for n in numbers]))


def combination_keys(sequence: TokenSequence, rule: Rule, numbers: tuple[int, ...]) -> tuple[KeyPart, ...]:
    """What noise tokens in exactly these boxes read in an ICA block; the references come last, in the order given."""
    references = tuple(reference_part(sequence, n) for n in numbers)
    if rule is Rule.ICA_PAPER:
        own = (KeyPart(Span(0, sequence.text)), KeyPart(_box_noise(sequence, numbers)))
        return own + references
    return (KeyPart(sequence.base_span), *references)


def _pool(sequence: TokenSequence, rule: Rule, small: list[tuple[tuple[int, ...], np.ndarray]]) -> Group:
    """One call for several small combinations: union of their keys, and a mask of (pooled rows x those keys)."""
    queries = np.concatenate([rows for _, rows in small])
    union = tuple(sorted({n for numbers, _ in small for n in numbers}))
    keys = combination_keys(sequence, rule, union)
    columns = np.concatenate([_indices(part.index) for part in keys])
    hidden = np.ones((len(queries), len(columns)), bool)
    at = 0
    for numbers, rows in small:
        own = np.concatenate([_indices(p.index) for p in combination_keys(sequence, rule, numbers)])
        hidden[at : at + len(rows), np.isin(columns, own)] = False
        at += len(rows)
    order = np.argsort(queries)
    return Group(queries[order], keys, hidden[order])


def _indices(index: Index) -> np.ndarray:
    return index.indices() if isinstance(index, Span) else index


def query_groups(sequence: TokenSequence, block: BlockPlan) -> tuple[Group, ...] | None:
    """The groups of one block, or None where every query sees every key and one plain call does.

    Groups partition the queries, but for rows that the block plan calls idle: those are in no group.
    """
    referenced = block.references and bool(sequence.reference_spans)
    base = sequence.base_span
    if not referenced:
        if block.idle_base:
            return (Group(sequence.noise_span, (KeyPart(base),)),)
        return None
    groups: list[Group] = []
    inside = combinations(sequence) if block.rule is not Rule.CLA else []
    base_rows: Index = sequence.noise_span if block.idle_base else base
    if inside:
        covered = np.concatenate([rows for _, rows in inside])
        base_rows = np.setdiff1d(_indices(base_rows), covered, assume_unique=True)
    if base_rows.size:
        groups.append(Group(base_rows, (KeyPart(base),)))
    groups += _inside_groups(sequence, block.rule, inside)
    if not block.idle_references:
        text = KeyPart(Span(0, sequence.text))
        for number, span in sequence.reference_spans.items():
            groups.append(Group(span, (text, reference_part(sequence, number))))
    return tuple(groups)


def _inside_groups(
    sequence: TokenSequence, rule: Rule, inside: list[tuple[tuple[int, ...], np.ndarray]]
) -> list[Group]:
    large = [(n, rows) for n, rows in inside[:MAX_COMBINATIONS] if len(rows) >= POOL_ROWS]
    small = inside[len(large) :]
    if len(small) == 1:
        large, small = inside, []
    groups = [Group(rows, combination_keys(sequence, rule, numbers)) for numbers, rows in large]
    return [*groups, _pool(sequence, rule, small)] if small else groups


def dense_mask(sequence: TokenSequence, rule: Rule) -> np.ndarray:
    """The rule as a boolean (S, S) array, True = row may read column. For tests and small cases: it is S squared.

    Written from the table above and independently of the groups, which are tested against it. Strengths are not
    in it; :func:`key_weights` has them.
    """
    mask = np.zeros((sequence.length, sequence.length), bool)
    base, text = sequence.base_span, slice(0, sequence.text)
    noise = slice(*sequence.noise_span)
    mask[: base.stop, : base.stop] = True
    for number, span in sequence.reference_spans.items():
        mask[slice(*span), text] = True
        mask[np.ix_(span.indices(), sequence.reference_keys(number))] = True
    if rule is Rule.CLA:
        return mask
    if rule is Rule.ICA_PAPER:
        for number in sequence.active:
            rows = sequence.box_rows(number)
            mask[rows, noise] = False
            mask[rows, slice(*sequence.layout_span)] = False
        for number in sequence.active:
            rows = sequence.box_rows(number)
            mask[np.ix_(rows, rows)] = True
    for number in sequence.active:
        mask[np.ix_(sequence.box_rows(number), sequence.reference_keys(number))] = True
    return mask


def key_weights(sequence: TokenSequence) -> np.ndarray:
    """log strength per joint token, float32 (S,): what is added to the logits of that token as a key."""
    weights = np.zeros(sequence.length, np.float32)
    for number in sequence.active:
        weights[sequence.reference_keys(number)] = _log_strength(sequence, number)
    return weights
