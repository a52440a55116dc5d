"""Who sees whom, written out as dense tables from the rules as they are printed, apart from the groups that run.

A table is float64 (S, S): what is added to the logit of a row that asks and a column that answers, -inf where it is not
seen. Rows that nobody reads any more may be left out of the groups, never others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from contextgen_core.methods.boundary import Bound, Forward, ForwardCall
from contextgen_core.methods.contextgen import visibility as contextgen
from contextgen_core.methods.contextgen.schedule import Rule
from contextgen_core.methods.eligen import visibility as eligen
from contextgen_core.methods.lamic import visibility as lamic
from contextgen_core.methods.lamic.sequence import LamicSequence

Table = np.ndarray


def table_of(bound: Bound, forward: Forward, call: ForwardCall, block: int) -> Table:
    """One method's table over the tokens that enter a block."""
    made: Table = _TABLES[bound.method.name](bound, forward, call, block)
    return made


def _weighed(seen: np.ndarray, weights: np.ndarray) -> Table:
    """``weights`` of the columns, (S,) or (S, S), where they are seen."""
    return np.where(seen, np.broadcast_to(weights, seen.shape).astype(np.float64), -np.inf)


def _contextgen(bound: Bound, forward: Forward, call: ForwardCall, block: int) -> Table:
    sequence, schedule = forward.private
    settings = bound.settings
    if block >= schedule.leave:
        return np.zeros((sequence.base_span.stop,) * 2)
    first, stop = settings.ica_blocks or (call.blocks.double, call.blocks.double + call.blocks.single // 2)
    rule = settings.rule if first <= block < stop and call.moment else Rule.CLA
    return _weighed(contextgen.dense_mask(sequence, rule), contextgen.key_weights(sequence))


def _lamic(bound: Bound, _forward: Forward, call: ForwardCall, _block: int) -> Table:
    first, active = call.moment  # type: ignore[misc]
    sequence = LamicSequence(bound.plan, call.text, active)
    if not bound.settings.masked:
        return np.zeros((sequence.length,) * 2)
    weights = np.zeros(sequence.length)
    for number, span in sequence.picture_spans.items():
        weights[slice(*span)] = np.log(bound.plan.references[number].strength)
    return _weighed(lamic.dense_mask(sequence, first), weights)


def _eligen(bound: Bound, forward: Forward, call: ForwardCall, block: int) -> Table:
    first, stop = bound.settings.blocks or (0, call.blocks.all)
    sequence = forward.private if first <= block < stop else replace(forward.private, read=())
    weights = np.zeros((sequence.length,) * 2)
    weights[slice(*sequence.picture_span)] = eligen.key_weights(sequence)
    return _weighed(eligen.dense_mask(sequence), weights)


def _sigma_gen(bound: Bound, _forward: Forward, call: ForwardCall, _block: int) -> Table:
    plan, settings = bound.plan, bound.settings
    stack = call.text + plan.noise_tokens
    control = stack + plan.stack_tokens
    seen = np.ones((control + plan.noise_tokens,) * 2, bool)
    if not settings.context:
        seen[stack:, :stack] = False
    if not settings.cross:
        seen[stack:control, control:] = seen[control:, stack:control] = False
    return _weighed(seen, np.zeros(1))


_TABLES: dict[str, Any] = {
    "contextgen": _contextgen,
    "lamic": _lamic,
    "eligen": _eligen,
    "sigma_gen": _sigma_gen,
}


def joined(tables: Sequence[Table], forwards: Sequence[Forward], text: int, noise: int) -> Table:
    """The table of several methods on one picture, over ``phrases of all | text | noise | condition pictures``.

    Text and noise read of each other what every method lets them read, the logarithms of weights add up; a method's
    further tokens follow that method alone.
    """
    phrases = sum(forward.phrases for forward in forwards)
    further = [len(table) - forward.phrases - text - noise for table, forward in zip(tables, forwards, strict=True)]
    shared = np.arange(phrases, phrases + text + noise)
    made = np.full((phrases + text + noise + sum(further),) * 2, -np.inf)
    made[np.ix_(shared, shared)] = 0
    before, behind = 0, phrases + text + noise
    for table, forward, pictures in zip(tables, forwards, further, strict=True):
        own = np.r_[before : before + forward.phrases, behind : behind + pictures]
        local = np.r_[: forward.phrases, len(table) - pictures : len(table)]
        middle = np.arange(forward.phrases, forward.phrases + text + noise)
        made[np.ix_(shared, shared)] += table[np.ix_(middle, middle)]
        made[np.ix_(own, own)] = table[np.ix_(local, local)]
        made[np.ix_(own, shared)] = table[np.ix_(local, middle)]
        made[np.ix_(shared, own)] = table[np.ix_(middle, local)]
        before, behind = before + forward.phrases, behind + pictures
    return made


def softmax_attention(table: Table, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """float64 (heads, S, D) three times -> (S, heads * D); rows that see nothing are zero."""
    logits = q @ k.transpose(0, 2, 1) / q.shape[-1] ** 0.5 + table
    top = logits.max(-1, keepdims=True)
    weights = np.exp(logits - np.where(np.isfinite(top), top, 0))
    total = weights.sum(-1, keepdims=True)
    out = weights @ v / np.where(total > 0, total, 1)
    return out.transpose(1, 0, 2).reshape(len(table), -1)
