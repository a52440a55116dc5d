"""Who sees whom in EliGen: one rule for all blocks, heads and steps (paper, section 3.2; authors' code).

==============  ==========  =============  ==========================
reads           phrase i    scene's text   picture
==============  ==========  =============  ==========================
phrase i        itself      no             the tokens of its mask
scene's text    no          itself         all of it
picture token   those       yes            all of it
                that hold
                it
==============  ==========  =============  ==========================

Texts never read each other and meet in the picture alone. A token that several phrases hold reads all of them. Joint
tokens stand in the order ``phrases | text | noise | references``. A reference of the noise's size is the same place
once more: each phrase is bound there, too (authors' code). One of another size sees no phrase.

Ours, and off as the authors run it: with ``outside`` above 0 a picture token reads the other phrases as well, so much
more weakly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...attention.groups import Group, KeyPart, Span
from .plan import EliGenPlan


@dataclass(frozen=True)
class PhraseSequence:
    """The joint sequence of one call: phrases, then ``text`` tokens of the scene's text, then the picture.

    read        numbers of the phrases that the picture reads; the others stand there and see themselves alone
    strength    of all phrases, on top of each one's own
    references  (rows, columns) of the condition pictures behind the noise
    outside     share of its strength (0..1) with which a phrase is read by picture tokens that it does not hold
    """

    plan: EliGenPlan
    text: int
    read: tuple[int, ...]
    strength: float = 1.0
    references: tuple[tuple[int, int], ...] = ()
    outside: float = 0.0

    @cached_property
    def phrase_spans(self) -> tuple[Span, ...]:
        ends = np.cumsum([0, *(phrase.tokens for phrase in self.plan.phrases)]).tolist()
        return tuple(Span(start, stop) for start, stop in zip(ends, ends[1:], strict=False))

    @property
    def text_span(self) -> Span:
        return Span(self.plan.phrase_tokens, self.plan.phrase_tokens + self.text)

    @property
    def noise_span(self) -> Span:
        return Span(self.text_span.stop, self.text_span.stop + self.plan.noise_tokens)

    @property
    def reference_tokens(self) -> int:
        return sum(rows * columns for rows, columns in self.references)

    @property
    def picture_span(self) -> Span:
        """The noise and the references."""
        return Span(self.text_span.stop, self.noise_span.stop + self.reference_tokens)

    @property
    def length(self) -> int:
        return self.picture_span.stop

    @cached_property
    def inside(self) -> np.ndarray:
        """bool (phrases, picture tokens): which phrase holds which."""
        noise, grid = self.plan.inside, (self.plan.height, self.plan.width)
        nothing = [np.zeros((len(noise), rows * columns), bool) for rows, columns in self.references]
        again = (noise if size == grid else none for size, none in zip(self.references, nothing, strict=True))
        return np.concatenate([noise, *again], axis=1)

    def rows(self, number: int) -> np.ndarray:
        """Joint indices of the picture tokens that a phrase holds, ascending."""
        return self.picture_span.start + np.flatnonzero(self.inside[number])

    def log_strength(self, number: int, inside: bool = True) -> float:
        """What is added to the logits of a phrase's tokens where the picture reads them."""
        share = 1.0 if inside else self.outside
        return math.log(share * self.strength * self.plan.phrases[number].strength)


def query_groups(sequence: PhraseSequence, idle_phrases: bool = False, idle_text: bool = False) -> tuple[Group, ...]:
    """The rule as groups: one for each phrase, and one for each set of phrases that hold the same picture tokens.

    idle_phrases, idle_text  nobody reads the result of these rows, so they are in no group
    """
    scene = Span(sequence.text_span.start, sequence.length)  # what every row but a phrase's reads
    groups = []
    for number, span in enumerate(() if idle_phrases else sequence.phrase_spans):
        bound = sequence.rows(number) if number in sequence.read else np.arange(0)
        groups.append(Group(span, (KeyPart(span), KeyPart(bound))))
    held = sequence.inside[np.array(sequence.read, int)]
    # Tokens of the same phrases have the same number; 0 are those of none.
    sets, which = np.unique(held.T @ (1 << np.arange(len(held))), return_inverse=True)
    alone = [] if idle_text else [sequence.text_span.indices()]
    for at, members in enumerate(sets.tolist()):
        rows = sequence.picture_span.start + np.flatnonzero(which.reshape(-1) == at)
        weights = {n: members >> bit & 1 for bit, n in enumerate(sequence.read)}
        parts = [
            KeyPart(sequence.phrase_spans[number], sequence.log_strength(number, bool(inside)))
            for number, inside in weights.items()
            if inside or sequence.outside
        ]
        if parts:
            groups.append(Group(rows, (KeyPart(scene), *parts)))
        else:
            alone.append(rows)
    # The scene's text reads what the tokens of no phrase read: they are one group.
    if alone:
        groups.insert(0, Group(np.concatenate(alone), (KeyPart(scene),)))
    return tuple(groups)


def dense_mask(sequence: PhraseSequence) -> np.ndarray:
    """The rule as bool (S, S), True = the row may read the column. The specification, for tests and small cases."""
    mask = np.zeros((sequence.length, sequence.length), bool)
    text, picture = slice(*sequence.text_span), slice(*sequence.picture_span)
    for number, span in enumerate(sequence.phrase_spans):
        phrase = slice(*span)
        mask[phrase, phrase] = True
        if number in sequence.read:
            mask[phrase, sequence.rows(number)] = True
            mask[picture if sequence.outside else sequence.rows(number), phrase] = True
    mask[text, text] = mask[text, picture] = mask[picture, text] = mask[picture, picture] = True
    return mask


def key_weights(sequence: PhraseSequence) -> np.ndarray:
    """What is added to the logits of each key where a picture token reads it, float32 (picture tokens, S)."""
    weights = np.zeros((sequence.picture_span.size, sequence.length), np.float32)
    for number in sequence.read:
        phrase = slice(*sequence.phrase_spans[number])
        if sequence.outside:
            weights[:, phrase] = sequence.log_strength(number, inside=False)
        weights[sequence.inside[number], phrase] = sequence.log_strength(number)
    return weights


def readable(plan: EliGenPlan, strength: float = 1.0) -> Sequence[int]:
    """Numbers of the phrases that any picture token ever reads."""
    return [
        number
        for number, phrase in enumerate(plan.phrases)
        if strength * phrase.strength > 0 and phrase.end > phrase.start and any(phrase.inside)
    ]
