"""Methods that both decide about tokens, joined: phrases beside references, against a mask written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import crowd, plans
from toy_method import ToyPlan, toy_method

from contextgen_core.attention import groups as groups_module
from contextgen_core.attention import sdpa
from contextgen_core.attention.groups import indices, log_weights
from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers import FluxHost
from contextgen_core.hosts.joining import join_forwards
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods import boundary
from contextgen_core.methods.boundary import Block, BlockCounts, Bound, Forward, ForwardCall, Method, Prepared, Segment
from contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_core.methods.contextgen.sequence import Plan, position_ids, reference_tokens
from contextgen_core.methods.contextgen.settings import Settings
from contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens

BLOCKS = BlockCounts(2, 4)
TEXT = 6
TOY = toy_method(boundary, groups_module)


def phrases_for(plan: Plan, seed: int, count: int = 2) -> EliGenPlan:
    """Phrases on the grid of a plan with references, here and there of other strength, one of them nowhere."""
    rng = np.random.default_rng(seed)
    strengths = rng.choice([0.5, 1.0, 2.0], count)
    made = [
        phrase_tokens(int(rng.integers(1, 4)), rng.random((plan.height, plan.width)) < 0.4, float(strength))
        for strength in strengths
    ]
    return EliGenPlan(plan.width, plan.height, tuple(made))


def written_out(phrases: EliGenPlan, plan: Plan, text: int, identity: bool) -> np.ndarray:
    """What is added to the logits of ``phrases | text | noise | layout | references``, by the two tables."""
    sizes = [p.tokens for p in phrases.phrases], [r.tokens for r in plan.references]
    ends = np.cumsum([0, *sizes[0], text, plan.noise_tokens, plan.noise_tokens, *sizes[1]])
    spans = [np.arange(a, b) for a, b in zip(ends, ends[1:], strict=False)]
    count = len(phrases.phrases)
    words, noise, layout = spans[count : count + 3]
    added = np.full((ends[-1], ends[-1]), -np.inf, np.float32)
    base = np.concatenate([words, noise, layout])
    added[np.ix_(base, base)] = 0
    for tokens, phrase in zip(spans, phrases.phrases, strict=False):
        held = noise[np.frombuffer(phrase.inside, np.uint8) > 0]
        added[np.ix_(tokens, tokens)] = added[np.ix_(tokens, held)] = 0
        added[np.ix_(held, tokens)] = np.log(phrase.strength)
    for tokens, reference in zip(spans[count + 3 :], plan.references, strict=True):
        subject = tokens[np.frombuffer(reference.valid, np.uint8) > 0]
        strength = np.log(reference.strength) if reference.readable else 0
        added[np.ix_(tokens, words)], added[np.ix_(tokens, subject)] = 0, strength
        if identity and reference.readable:
            x1, y1, x2, y2 = reference.box
            inside = noise.reshape(plan.height, plan.width)[y1:y2, x1:x2].ravel()
            added[np.ix_(inside, subject)] = strength
    return added


def joined(phrases: EliGenPlan, plan: Plan, how: Settings | None = None, swapped: bool = False) -> Forward:
    call = ForwardCall((), TEXT, BLOCKS, (plan.height, plan.width))
    both = [(ELIGEN, phrases, EliGenSettings()), (CONTEXTGEN, plan, how or Settings())]
    both = both[::-1] if swapped else both
    forwards = [m.forward(p, s, replace(call, moment=m.moment(p, s, None) or ())) for m, p, s in both]  # type: ignore[attr-defined]
    return join_forwards([m for m, _, _ in both], forwards, TEXT, (plan.height, plan.width))


# --- who sees whom --------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(plans(most=4, strengths=(0.0, 0.5, 1.0)), st.integers(0, 2**32 - 1), st.integers(0, 3), st.booleans())
def test_the_joined_groups_are_the_two_tables_written_out(plan: Plan, seed: int, count: int, swapped: bool) -> None:
    phrases = phrases_for(plan, seed, count)
    made = joined(phrases, plan, Settings(prune=False), swapped)
    lengths = made.lengths(TEXT, (plan.height, plan.width))
    for number in (0, 2, 4):  # behind the last block rows that nobody reads are left out
        mask = written_out(phrases, plan, TEXT, number in (2, 3))
        assert lengths[number] == len(mask)
        assert np.array_equal(log_weights(made.blocks[number].groups, len(mask)), mask)


@settings(max_examples=40)
@given(plans(most=4, strengths=(0.5, 1.0)), st.integers(0, 2**32 - 1), st.booleans())
def test_pruned_the_rows_that_are_left_read_the_same(plan: Plan, seed: int, swapped: bool) -> None:
    """The kept tokens' part of the whole mask; only rows that nobody reads afterwards are left out."""
    phrases = phrases_for(plan, seed)
    made = joined(phrases, plan, swapped=swapped)
    lengths = made.lengths(TEXT, (plan.height, plan.width))
    before = phrases.phrase_tokens + TEXT
    kept = np.arange(plan.image_tokens) if made.kept is None else made.kept
    for number, length in enumerate(lengths):
        whole = written_out(phrases, plan, TEXT, number in (2, 3))
        tokens = np.concatenate([np.arange(before), before + kept])[:length]
        got, wanted = log_weights(made.blocks[number].groups, length), whole[np.ix_(tokens, tokens)]
        computed = np.asarray(np.isfinite(got).any(axis=1))
        assert np.array_equal(got[computed], wanted[computed])
        base = np.arange(length) < before + 2 * plan.noise_tokens
        assert computed[base].all() or number == BLOCKS.all - 1
        assert computed[before : before + plan.noise_tokens].all()


def test_no_row_is_in_two_groups_and_equal_keys_are_one_group() -> None:
    plan = crowd(6)
    made = joined(phrases_for(plan, 3, 4), plan)
    for block in made.blocks:
        rows = np.concatenate([indices(group.queries) for group in block.groups or ()])
        assert len(np.unique(rows)) == len(rows)
        keys = [tuple((str(index), weight) for index, weight in group.keys) for group in block.groups or ()]
        assert len(set(keys)) == len(keys)


# --- on diffusers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        num_layers=BLOCKS.double,
        num_single_layers=BLOCKS.single,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 6, 6),
    ).eval()


VALID = np.array([[True, False], [True, True]])
PLAN = Plan(
    6, 5, (reference_tokens("a", VALID, TokenBox(0, 0, 3, 4)), reference_tokens("b", VALID, TokenBox(2, 1, 6, 5), 0.5))
)


def held(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    inside = np.zeros((PLAN.height, PLAN.width), bool)
    inside[y1:y2, x1:x2] = True
    return inside


# A box with picture and phrase, one with a phrase alone, and one that overlaps all boxes.
PHRASES = EliGenPlan(
    PLAN.width,
    PLAN.height,
    (
        phrase_tokens(3, held(0, 0, 3, 4)),
        phrase_tokens(2, held(3, 0, 6, 1), 2.0),
        phrase_tokens(4, held(1, 1, 5, 4)),
    ),
)


class Unmasked(Method):
    """All the tokens of both methods, everyone seeing everyone: what a mask from outside is put upon."""

    name, label, node, source = "unmasked", "Unmasked", "", ""

    def prepare(self, scene: Any, options: Any = None) -> Prepared:
        raise NotImplementedError

    plan_tuple = plan_from = prepare  # type: ignore[assignment]

    def sizes(self, plan: Any) -> Any:
        return (PLAN.height, PLAN.width), ()

    def default_settings(self) -> None:
        return None

    def forward(self, plan: Any, settings: None, call: ForwardCall) -> Forward:
        ids = torch.from_numpy(position_ids(PLAN))
        conditions = PLAN.image_tokens - PLAN.noise_tokens
        return Forward((Block(),) * call.blocks.all, phrases=plan, conditions=conditions, ids=ids)


def inputs(batch: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    rest = PLAN.image_tokens - PLAN.noise_tokens
    shapes = {"noise": (PLAN.noise_tokens, 64), "conditions": (rest, 64), "text": (TEXT, 8), "pooled": (8,)}
    made = {key: torch.randn((batch, *shape), generator=generator) for key, shape in shapes.items()}
    phrases = torch.randn((1, PHRASES.phrase_tokens, 8), generator=generator)
    return {**made, "timestep": torch.full((batch,), 0.5), "vectors": {"phrases": phrases}}


@torch.no_grad()
def velocity(transformer: Any, bounds: Any, **changes: Any) -> torch.Tensor:
    with FluxHost(transformer) as host:
        return host.velocity(bounds, **{**inputs(), **changes})


def masked(transformer: Any, masks: Sequence[np.ndarray]) -> torch.Tensor:
    """The stock blocks over all tokens, each under its mask."""
    under = iter(torch.from_numpy(mask) for mask in masks)
    bound = Bound(Unmasked(), PHRASES.phrase_tokens, None)
    return velocity(transformer, bound, attend=lambda q, k, v, mask=None: sdpa(q, k, v, next(under)))


ALONE = Bound(CONTEXTGEN, PLAN, Settings())
WORDS = Bound(ELIGEN, PHRASES, EliGenSettings())


@pytest.mark.parametrize("kernel", ["auto", "grouped", "merge", "dense"])
@pytest.mark.parametrize("swapped", [False, True], ids=["references first", "phrases first"])
def test_phrases_beside_references_are_the_masked_model(transformer: Any, kernel: str, swapped: bool) -> None:
    expected = masked(transformer, [written_out(PHRASES, PLAN, TEXT, number in (2, 3)) for number in range(6)])
    both = (Bound(CONTEXTGEN, PLAN, Settings(kernel=kernel)), WORDS)
    got = velocity(transformer, both[::-1] if swapped else both)
    assert (got - expected).abs().max() < 1e-5
    for one in (ALONE, WORDS):  # either method alone is something else
        conditions = {"conditions": None} if one is WORDS else {}
        assert (velocity(transformer, one, **conditions) - got).abs().max() > 1e-3


def test_without_phrases_it_is_the_other_method_alone(transformer: Any) -> None:
    silent = Bound(ELIGEN, PHRASES, EliGenSettings(strength=0.0))
    expected = velocity(transformer, ALONE)
    assert torch.equal(velocity(transformer, (ALONE, silent)), expected)
    assert torch.equal(velocity(transformer, (silent, ALONE)), expected)


def test_the_kernels_of_both_must_agree(transformer: Any) -> None:
    both = (Bound(CONTEXTGEN, PLAN, Settings(kernel="merge")), Bound(ELIGEN, PHRASES, EliGenSettings(kernel="dense")))
    with pytest.raises(InputError, match="it is dense, but ContextGenPatchModel has merge; choose one") as caught:
        velocity(transformer, both)
    assert (caught.value.node, caught.value.input) == ("EliGenPatchModel", "kernel")


# --- what joins and what does not -----------------------------------------------------------------------------------


class Other(type(TOY)):  # type: ignore[misc]
    """A second toy whose forward pass is changed by the test."""

    name, label, node = "other", "Other", "OtherPatchModel"

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def forward(self, plan: Any, settings: None, call: Any) -> Any:
        return replace(super().forward(plan, settings, call), **self.changes)


SMALL = ToyPlan(PLAN.width, PLAN.height, (1, 0, 3, 2), blocks=6)
CALL = ForwardCall((), TEXT, BLOCKS, (PLAN.height, PLAN.width))


def toys(first: Any, second: Any, plans: tuple[ToyPlan, ToyPlan] = (SMALL, SMALL)) -> Forward:
    forwards = [toy.forward(plan, None, CALL) for toy, plan in zip((first, second), plans, strict=True)]
    return join_forwards((first, second), forwards, TEXT, CALL.noise)


def test_shared_tokens_read_what_both_let_them_read() -> None:
    other = SMALL._replace(box=(2, 1, 5, 4), blocks=3)
    made = toys(TOY, Other(), (SMALL, other))
    for number in range(BLOCKS.all):
        masks = [log_weights(TOY.forward(p, None, CALL).blocks[number].groups, 36) for p in (SMALL, other)]
        assert np.array_equal(log_weights(made.blocks[number].groups, 36), masks[0] + masks[1])


def test_phrases_of_others_are_computed_as_the_text_is() -> None:
    segments = (Segment(groups_module.Span(0, TEXT + 30), adapter=False), Segment(groups_module.Span(36, 40), 0.0))
    pictured = Other(conditions=4, segments=segments)
    words = ELIGEN.forward(PHRASES, EliGenSettings(), replace(CALL, moment=(0, 1, 2)))
    for order in (slice(None), slice(None, None, -1)):
        pair = [(ELIGEN, words), (pictured, replace(pictured.forward(SMALL, None, CALL), blocks=(Block(),) * 6))][order]
        made = join_forwards([m for m, _ in pair], [f for _, f in pair], TEXT, CALL.noise)
        assert [tuple(segment.span) for segment in made.segments] == [(0, 45), (45, 49)]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"conditions": 4}, {"kept": np.arange(3)}, "both bring pictures of their own"),
        ({"ids": torch.zeros(30, 3)}, {"ids": torch.ones(30, 3)}, "number the tokens of the picture differently"),
        ({"ids": torch.zeros(30, 3)}, {"conditions": 4}, "number the tokens of the picture differently"),
        ({"text_ids": torch.zeros(6, 3)}, {"text_ids": torch.ones(6, 3)}, "number the tokens of the text differently"),
        ({"text_ids": torch.zeros(6, 3)}, {"phrases": 2}, "number the tokens of the text differently"),
    ],
)
def test_methods_that_contradict_each_other_are_refused_by_name(first: Any, second: Any, why: str) -> None:
    one, two = Other(**first), Other(**second)
    one.label, two.label = "First", "Second"
    with pytest.raises(InputError, match=f"First and Second {why} and cannot work on one picture"):
        toys(one, two)


def test_rows_that_only_one_leaves_out_are_refused(transformer: Any) -> None:
    noise = groups_module.Span(TEXT, TEXT + 30)
    only = (groups_module.Group(noise, (groups_module.KeyPart(noise),)),)
    with pytest.raises(InputError, match="Toy and Other leave out different tokens"):
        toys(TOY, Other(blocks=(Block(only),) * 6))
