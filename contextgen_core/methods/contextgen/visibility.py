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

Queries that may see the same keys form one :class:`Group`; the engine decides which calls they become.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ...attention.groups import Group, Groups, Index, KeyPart, Span, indices
from .schedule import BlockPlan, Rule, Schedule
from .sequence import TokenSequence


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


def query_groups(sequence: TokenSequence, block: BlockPlan) -> Groups:
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
        base_rows = np.setdiff1d(indices(base_rows), covered, assume_unique=True)
    if base_rows.size:
        groups.append(Group(base_rows, (KeyPart(base),)))
    groups += [Group(rows, combination_keys(sequence, block.rule, numbers)) for numbers, rows in inside]
    if not block.idle_references:
        text = KeyPart(Span(0, sequence.text))
        for number, span in sequence.reference_spans.items():
            groups.append(Group(span, (text, reference_part(sequence, number))))
    return tuple(groups)


def block_groups(sequence: TokenSequence, schedule: Schedule) -> list[tuple[Groups, int]]:
    """For each block its groups and the number of joint tokens in it; equal blocks share the very same groups."""
    groups = {block: query_groups(sequence, block) for block in set(schedule.blocks)}
    base = sequence.base_span.stop
    return [(groups[block], sequence.length if block.references else base) for block in schedule.blocks]


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
