"""Who sees whom in LAMIC: the table over segments, as a dense mask (the specification) and as groups (the fast form).

Segments: ``T`` a reference's phrase, ``X`` the scene's text, ``P`` padding, ``R`` the noise in a reference's region,
``U`` the noise in no region, ``V`` a reference's picture. The authors call the first stage region-modulated and the
second group-isolated attention; each holds in all blocks of its steps.

A token of the noise may be in several regions. It then sees what any of them lets it see: overlaps add rights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...attention.groups import Group, Index, KeyPart, Span, compact, indices
from .sequence import LamicSequence

# Rows ask, columns answer, both in the order of KINDS. The table is symmetric.
#   1 always   0 never   m the same reference only   s in the second stage only
#   r the same reference only in the first stage, always in the second
KINDS = "TXPRUV"
TABLE = {
    "T": "m11m0m",
    "X": "111ss1",
    "P": "111111",
    "R": "ms1rsm",
    "U": "0s1s10",
    "V": "m11m0m",
}  # fmt: skip


# --- the specification ----------------------------------------------------------------------------------------------


def segment_names(sequence: LamicSequence) -> tuple[str, ...]:
    """Names of the segments in order, like "T1"; ``U`` is left out where one region covers the whole canvas."""
    numbers = range(len(sequence.plan.references))
    outside = () if sequence.plan.regions(first=False).all(axis=1).any() else ("U",)
    regions, phrases = (tuple(f"{kind}{n + 1}" for n in numbers) for kind in "RT")
    return (*phrases, "X", "P", *regions, *outside, *(f"V{n + 1}" for n in sequence.active))


def members(sequence: LamicSequence, first: bool) -> np.ndarray:
    """Which segment holds which token, bool (segments, S), in the order of :func:`segment_names`."""
    plan, noise = sequence.plan, slice(*sequence.noise_span)
    outside = ~plan.regions(first=False).any(axis=0)  # tokens that a region gives up are in the others', never here
    out = []
    for name in segment_names(sequence):
        row = np.zeros(sequence.length, bool)
        kind, number = name[0], int(name[1:] or 0) - 1
        if kind == "R":
            row[noise] = plan.regions(first)[number]
        elif kind == "U":
            row[noise] = outside
        else:
            spans = {"T": sequence.phrase_spans, "V": sequence.picture_spans}.get(kind)
            whole = sequence.scene_span if kind == "X" else sequence.padding_span
            row[slice(*(whole if spans is None else spans[number]))] = True
        out.append(row)
    return np.stack(out)


def segment_table(names: Sequence[str], first: bool) -> np.ndarray:
    """Which segment may see which, bool (segments, segments), rows ask."""

    def sees(row: str, column: str) -> bool:
        rule = TABLE[row[0]][KINDS.index(column[0])]
        matched = row[1:] == column[1:]
        return {"1": True, "0": False, "m": matched, "s": not first, "r": matched or not first}[rule]

    return np.array([[sees(row, column) for column in names] for row in names])


def dense_mask(sequence: LamicSequence, first: bool) -> np.ndarray:
    """The rule as a bool (S, S) array, True = row may read column. For tests and small cases: it is S squared."""
    held = members(sequence, first).astype(np.float32)
    table = segment_table(segment_names(sequence), first).astype(np.float32)
    return held.T @ table @ held > 0


# --- the fast form --------------------------------------------------------------------------------------------------


def query_groups(sequence: LamicSequence, first: bool, noise_only: bool = False) -> tuple[Group, ...]:
    """The groups of a block. They partition the queries, or with ``noise_only`` those of the noise.

    The noise is cut into classes by the set of regions that cover it. All classes begin with the keys that all noise
    reads, so that these can be attended to once.
    """
    cover = sequence.plan.regions(first)
    groups = [
        Group(compact(rows), _noise_keys(sequence, cover, numbers, first))
        for numbers, rows in noise_classes(sequence, cover)
    ]
    if not noise_only:
        groups += _text_groups(sequence, first)
        groups += _reference_groups(sequence, cover)
    return tuple(group for group in groups if group.queries.size)


def noise_classes(sequence: LamicSequence, cover: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Every set of references whose regions cover some noise token, with those tokens (joint indices, ascending).

    cover  which region covers which noise token, bool (references, M)
    """
    patterns, inverse = np.unique(cover.T, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [
        (tuple(np.flatnonzero(pattern).tolist()), sequence.noise_span.start + np.flatnonzero(inverse == i))
        for i, pattern in enumerate(patterns)
    ]


def _noise_keys(
    sequence: LamicSequence, cover: np.ndarray, numbers: tuple[int, ...], first: bool
) -> tuple[KeyPart, ...]:
    phrases = [sequence.phrase_spans[number] for number in numbers]
    if not first:
        base = Span(sequence.scene_span.start, sequence.noise_span.stop)
        return _keys(sequence, base, phrases, numbers)
    same = cover[list(numbers)].any(axis=0) if numbers else ~cover.any(axis=0)
    noise = sequence.noise_span.start + np.flatnonzero(same)
    return _keys(sequence, sequence.padding_span, [*phrases, noise], numbers)


def _text_groups(sequence: LamicSequence, first: bool) -> list[Group]:
    """Scene text and padding read everything, but for the scene text in the first stage, which reads no noise."""
    whole = _keys(sequence, Span(0, sequence.noise_span.stop), [], sequence.active)
    scene, padding = sequence.scene_span, sequence.padding_span
    if not first:
        return [Group(Span(scene.start, padding.stop), whole)]
    return [Group(scene, _keys(sequence, sequence.text_span, [], sequence.active)), Group(padding, whole)]


def _reference_groups(sequence: LamicSequence, cover: np.ndarray) -> list[Group]:
    """A reference's phrase and its picture read the same: the text that all share, themselves and their region."""
    shared = Span(sequence.scene_span.start, sequence.text)
    groups = []
    for number, region in enumerate(cover):
        phrase, picture = sequence.phrase_spans[number], sequence.picture_spans.get(number, Span(0, 0))
        inside = sequence.noise_span.start + np.flatnonzero(region)
        queries = _joined([phrase, picture])
        groups.append(Group(queries, _keys(sequence, shared, [phrase, inside], (number,))))
    return groups


def _keys(sequence: LamicSequence, base: Span, more: Sequence[Index], pictures: Sequence[int]) -> tuple[KeyPart, ...]:
    """The base as a part by itself, then the other keys in as few parts as their weights allow.

    more      further keys, ascending
    pictures  the references whose pictures are read, if they are in the sequence
    """
    plain, weighed = list(more), []
    for number in pictures:
        span = sequence.picture_spans.get(number)
        if span is None:
            continue
        weight = sequence.plan.references[number].log_strength
        if weight:
            weighed.append(KeyPart(span, weight))
        else:
            plain.append(span)
    return tuple(part for part in (KeyPart(base), KeyPart(_joined(plain)), *weighed) if part.index.size)


def _joined(parts: Sequence[Index]) -> Index:
    """Several ranges and indices, ascending and apart, as one."""
    return compact(np.concatenate([np.zeros(0, np.int64), *(indices(part) for part in parts)]))
