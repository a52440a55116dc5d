"""Boxes of other packs and plans in conditionings, as Python objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def box_objects() -> Any:
    """What other packs hand over: rows, arrays, tensors, objects with fields, in lists and lists of lists."""
    from collections import namedtuple

    import numpy as np
    import torch
    from hypothesis import strategies as st

    segment = namedtuple("segment", ("bbox", "label", "confidence", "cropped_mask"))
    numbers = st.one_of(
        st.integers(-5, 700), st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3),
        st.integers(0, 500).map(np.int64), st.floats(0, 500).map(np.float32), st.integers(0, 99).map(torch.tensor),
    )  # fmt: skip
    rows = st.lists(st.one_of(st.integers(0, 400), numbers), min_size=3, max_size=5)
    arrays = st.tuples(st.sampled_from([(4,), (2, 4), (1, 2, 4), (0, 4), (2, 0), (3, 3), ()]), st.integers(0, 9)).map(
        lambda given: np.arange(int(np.prod(given[0], dtype=int)), dtype=np.float32).reshape(given[0]) * given[1]
    )
    words = st.one_of(st.text(max_size=12), st.none(), numbers)
    keyed = st.dictionaries(
        st.sampled_from(
            ["x", "y", "w", "h", "width", "height", "x1", "y1", "x2", "y2", "bbox", "label", "score", "metadata"]
        ),
        st.one_of(numbers, rows, words, st.dictionaries(st.sampled_from(["text", "label"]), words)),
        max_size=8,
    )
    whole = st.fixed_dictionaries({"x": numbers, "y": numbers, "width": numbers, "height": numbers})
    segments = st.builds(segment, st.one_of(rows, arrays), words, numbers, st.none())
    one = st.one_of(rows, arrays, arrays.map(torch.as_tensor), keyed, whole, segments, numbers)
    many = st.lists(one, max_size=4)
    named = st.dictionaries(
        st.sampled_from(
            ["boxes", "elements", "bboxes", "labels", "scores", "canvas", "annos", "width", "height", "<OD>"]
        ),
        st.one_of(many, numbers, keyed, st.lists(words, max_size=4)),
        max_size=6,
    )
    pairs = st.tuples(st.lists(numbers, min_size=1, max_size=3), many)
    values = st.one_of(one, many, st.lists(many, max_size=3), named, st.lists(named, max_size=2), pairs)
    return st.tuples(values, st.sampled_from([None, "xywh", "xyxy"]), st.integers(0, 2))


def foreign(_folder: Path) -> Callable[[Any], object]:
    from contextgen_core.layout.layout import boxes_from_any

    return lambda case: boxes_from_any(case[0], 640, 480, format=case[1], frame=case[2])


def real_plans() -> list[tuple[str, tuple[object, ...]]]:
    """A plan of every method as it travels in a conditioning."""
    from contextgen_core.layout.tokens import TokenBox
    from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens
    from contextgen_core.methods.eligen.plan import EliGenPlan, PhraseTokens
    from contextgen_core.methods.instance_assemble.content import Place
    from contextgen_core.methods.instance_assemble.plan import PhraseBox, PhrasePlan
    from contextgen_core.methods.lamic.plan import LamicPlan, LamicReference
    from contextgen_core.methods.registry import method
    from contextgen_core.methods.sigma_gen.method import Plan as SigmaPlan

    bits = bytes((1, 1, 0, 1, 1, 1))
    region = bytes((1, 1, 0, 0) * 3)
    references = (
        ReferenceTokens("Anna", 3, 2, bits, TokenBox(0, 0, 2, 2)),
        ReferenceTokens("b", 3, 2, bits, TokenBox(1, 1, 4, 3), 0.5, 0.1, 0.9),
    )
    lamic = (
        LamicReference("Anna", 3, 2, 4, region, region),
        LamicReference("b", 2, 2, 3, region, region, 0.5, 0.0, 0.8),
    )
    phrases = (
        PhraseBox("box 1", (0.0, 0.0, 0.5, 0.5), (1.0, 1.0), TokenBox(0, 0, 2, 2)),
        PhraseBox(
            "box 2",
            (0.25, 0.0, 1.0, 0.5),
            (0.5, 2.0),
            TokenBox(1, 0, 4, 2),
            bits,
            0.5,
            0.0,
            0.5,
            False,
            Place(3, 2, 0.0, 0.0, 0.5, 0.5),
        ),
    )
    plans = {
        "contextgen": Plan(4, 3, references),
        "lamic": LamicPlan(4, 3, 5, lamic),
        "eligen": EliGenPlan(4, 3, (PhraseTokens(5, region), PhraseTokens(2, region, 0.5, 0.2, 0.7))),
        "instance_assemble": PhrasePlan(3, 4, phrases, 24),
        "sigma_gen": SigmaPlan(4, 3, 4, 6, ((5, 6), (0, 7))),
    }
    return [(name, method(name).plan_tuple(plan)) for name, plan in plans.items()]


def plan_values() -> Any:
    """A real plan with one to three of its values, at any depth, replaced by something else."""
    from hypothesis import strategies as st

    huge = st.sampled_from([1 << 31, 1 << 62, -1, 0, 1e308, float("nan"), float("inf"), 1 << 20, 10**30])
    leaves = st.one_of(
        huge, st.integers(-3, 9), st.floats(), st.none(), st.booleans(), st.text(max_size=4), st.binary(max_size=16)
    )
    scraps = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=6)
    known = real_plans()

    @st.composite
    def values(draw: Any) -> tuple[str, Any]:
        name, value = draw(st.sampled_from(known))
        for _ in range(draw(st.integers(1, 3))):
            paths = list(_paths(value))
            value = replaced(value, draw(st.sampled_from(paths)), draw(scraps), draw(st.integers(0, 9)))
        return name, value

    return values()


def _paths(value: object, above: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    inner = value if isinstance(value, tuple) else ()
    return [above, *(path for n, part in enumerate(inner) for path in _paths(part, (*above, n)))]


def replaced(value: Any, path: Sequence[int], by: object, kind: int = 0) -> Any:
    """The value with the part at ``path`` replaced, or left out (kind 8), or doubled (kind 9)."""
    if not path:
        return by
    first, *rest = path
    if rest or kind < 8:
        return (*value[:first], replaced(value[first], rest, by, kind), *value[first + 1 :])
    return value[:first] + value[first + 1 :] if kind == 8 else (*value, value[first])


def plans(_folder: Path) -> Callable[[Any], object]:
    from contextgen_core.methods.boundary import BlockCounts, ForwardCall
    from contextgen_core.methods.registry import method

    def attempt(case: tuple[str, Any]) -> object:
        chosen = method(case[0])
        plan = chosen.plan_from(case[1])
        settings = chosen.default_settings()
        noise, pictures = chosen.sizes(plan)
        assert chosen.plan_from(chosen.plan_tuple(plan)) == plan, "a plan that does not survive its own form"
        about = chosen.timed(plan, settings), chosen.computed_tokens(plan, settings), chosen.parts(plan, settings)
        words = chosen.worded(plan), chosen.notes(plan, settings), chosen.fixed_tokens(plan, settings), hash(plan)
        if sum(rows * columns for rows, columns in (noise, *pictures)) > 1 << 16:
            return about, words  # as large a picture as anybody makes; its pass is not built here
        moment = chosen.moment(plan, settings, None)
        if moment is None:
            return about, words
        return chosen.forward(plan, settings, ForwardCall(moment, 20, BlockCounts(2, 3), noise))

    return attempt
