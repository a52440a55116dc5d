"""Phrases beside references in the real host: against a mask written out, in both node orders, through the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.ops
import numpy as np
import pytest
import tiny_assemble
import tiny_flux
import torch
from contextgen_pack.contextgen_core.composite.compose import compose
from contextgen_pack.contextgen_core.composite.references import Reference
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.layout.layout import Instance, Layout
from contextgen_pack.contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_pack.contextgen_core.methods.contextgen.sequence import Plan, position_ids
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_pack.contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens
from contextgen_pack.contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_pack.contextgen_core.methods.instance_assemble.step import AssembleSettings
from contextgen_pack.contextgen_core.methods.lamic.method import LAMIC
from contextgen_pack.contextgen_core.methods.lamic.plan import LamicPlan, LamicReference
from contextgen_pack.nodes import attention_map, host
from tiny_flux import DOUBLE, SINGLE, noise, sample, text

TEXT = 40
BLOCKS = DOUBLE + SINGLE
IDENTITY = range(DOUBLE, DOUBLE + SINGLE // 2)
PLAN = tiny_flux.plan(seed=2, references=3)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


def held(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    inside = np.zeros((PLAN.height, PLAN.width), bool)
    inside[y1:y2, x1:x2] = True
    return inside


def phrase_plan() -> EliGenPlan:
    """A phrase for the first reference's box, and two that overlap it, each other and the boxes."""
    box = PLAN.references[0].box
    boxes = ((tuple(box), 7, 1.0), ((0, 0, 5, 3), 4, 2.0), ((3, 1, 8, 6), 5, 1.0))
    made = tuple(phrase_tokens(tokens, held(*corners), strength) for corners, tokens, strength in boxes)
    return EliGenPlan(PLAN.width, PLAN.height, made)


PHRASES = phrase_plan()
VECTORS = torch.randn((1, PHRASES.phrase_tokens, tiny_flux.TEXT), generator=torch.Generator().manual_seed(5))


def bound(conditioning: Any = None, references: bool = True, phrases: bool = True) -> list[Any]:
    made: list[Any] = conditioning or text(TEXT)
    if references:
        made = tiny_flux.attach(made, PLAN, tiny_flux.latents(PLAN))
    return host.attach(made, ELIGEN, PHRASES, [], {"phrases": VECTORS}) if phrases else made


def patched(model: Any, swapped: bool = False, **settings: Any) -> Any:
    both = [(CONTEXTGEN, Settings()), (ELIGEN, EliGenSettings(**settings))]
    for method, own in both[::-1] if swapped else both:
        model = host.install(model, method, own)
    return model


def written_out(phrases: EliGenPlan, plan: Plan, identity: bool) -> torch.Tensor:
    """What is added to the logits of ``phrases | text | noise | layout | references``, all tokens."""
    sizes = [*(p.tokens for p in phrases.phrases), TEXT, *[plan.noise_tokens] * 2, *(r.tokens for r in plan.references)]
    ends = np.cumsum([0, *sizes])
    spans = [np.arange(a, b) for a, b in zip(ends, ends[1:], strict=False)]
    count = len(phrases.phrases)
    words, picture, layout = spans[count : count + 3]
    added = np.full((ends[-1], ends[-1]), -np.inf, np.float32)
    base = np.concatenate([words, picture, layout])
    added[np.ix_(base, base)] = 0
    for tokens, phrase in zip(spans, phrases.phrases, strict=False):
        inside = picture[np.frombuffer(phrase.inside, np.uint8) > 0]
        added[np.ix_(tokens, tokens)] = added[np.ix_(tokens, inside)] = 0
        added[np.ix_(inside, tokens)] = np.log(phrase.strength)
    for tokens, reference in zip(spans[count + 3 :], plan.references, strict=True):
        subject = tokens[np.frombuffer(reference.valid, np.uint8) > 0]
        added[np.ix_(tokens, words)] = added[np.ix_(tokens, subject)] = 0
        if identity:
            x1, y1, x2, y2 = reference.box
            added[np.ix_(picture.reshape(plan.height, plan.width)[y1:y2, x1:x2].ravel(), subject)] = 0
    return torch.from_numpy(added)


def masked(
    model: Any, masks: Sequence[torch.Tensor], ids: torch.Tensor | None, latents: list[torch.Tensor], **more: Any
) -> Any:
    """The host's own model over all tokens, phrases before the text, each block under its mask."""
    calls = []

    def override(func: Any, q: Any, k: Any, v: Any, heads: int, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("mask", None)
        kwargs["transformer_options"] = {}
        calls.append(1)
        return func(q, k, v, heads, mask=masks[(len(calls) - 1) % BLOCKS].to(q), **kwargs)

    clone = model.clone()
    if ids is not None:
        clone.set_model_patch(lambda args: {**args, "img_ids": ids[None]}, "post_input")
    clone.model_options["transformer_options"]["optimized_attention_override"] = override
    [[embedding, values]] = text(TEXT)
    return sample(clone, [[torch.cat([VECTORS, embedding], 1), {**values, "reference_latents": latents, **more}]])


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 2e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance


@pytest.mark.parametrize("swapped", [False, True], ids=["references first", "phrases first"])
def test_phrases_beside_references_are_the_masked_model(model: Any, swapped: bool) -> None:
    masks = [written_out(PHRASES, PLAN, number in IDENTITY) for number in range(BLOCKS)]
    expected = masked(model, masks, torch.from_numpy(position_ids(PLAN)), tiny_flux.latents(PLAN))
    assert near(sample(patched(model, swapped), bound()), expected)
    conditioning = host.attach(text(TEXT), ELIGEN, PHRASES, [], {"phrases": VECTORS})  # nodes the other way round
    assert near(sample(patched(model, swapped), bound(conditioning, phrases=False)), expected)
    for alone in (bound(phrases=False), bound(references=False)):
        assert not near(sample(patched(model, swapped), alone), expected, 1e-2)


@pytest.mark.parametrize("way", ["offset", "index"])
def test_phrases_beside_plain_reference_latents(model: Any, way: str) -> None:
    """On FLUX.1 Kontext without a layout of references: these see all but phrases, and all but phrases see them."""
    latents = [torch.randn((1, 16, 8, 6), generator=torch.Generator().manual_seed(n)) for n in range(2)]
    values = {"reference_latents": latents, "reference_latents_method": way}
    count = PHRASES.phrase_tokens
    mask = torch.zeros((count + TEXT + PLAN.noise_tokens + 2 * 12,) * 2)
    mask[:count], mask[:, :count] = -torch.inf, -torch.inf
    phrases = written_out(PHRASES, Plan(PLAN.width, PLAN.height), False)[: -PLAN.noise_tokens, : -PLAN.noise_tokens]
    mask[: len(phrases), : len(phrases)] = phrases
    expected = masked(model, [mask] * BLOCKS, None, latents, reference_latents_method=way)
    got = sample(host.install(model, ELIGEN, EliGenSettings()), bound(text(TEXT, **values), references=False))
    assert near(got, expected)
    assert not near(got, sample(model, text(TEXT, **values)), 1e-2)


def test_either_alone_is_bit_for_bit_what_it_is_without_the_other(model: Any) -> None:
    plain = sample(model, text(TEXT))
    references = sample(tiny_flux.install(model, Settings()), bound(phrases=False))
    phrases = sample(host.install(model, ELIGEN, EliGenSettings()), bound(references=False))
    for swapped in (False, True):
        both = patched(model, swapped)
        assert torch.equal(sample(both, bound(phrases=False)), references)
        assert torch.equal(sample(both, bound(references=False)), phrases)
        assert torch.equal(sample(both, text(TEXT)), plain)
        assert torch.equal(sample(patched(model, swapped, strength=0.0), bound()), references)
    assert torch.equal(sample(model, text(TEXT)), plain), "nothing leaks"


def test_guidance_batches_and_a_plain_negative(model: Any) -> None:
    """Each row of a batch is its own picture; a negative without layouts is the stock model's."""
    start = torch.cat([noise(seed=seed) for seed in range(2)])
    together = sample(patched(model), bound(), start=start)
    for row in range(2):
        assert near(together[row : row + 1], sample(patched(model), bound(), start=start[row : row + 1]))
    sigmas = (0.9, 0.0)

    def step(positive: list[Any], other: list[Any], cfg: float) -> torch.Tensor:
        return model.model.latent_format.process_in(sample(patched(model), positive, other, cfg=cfg, sigmas=sigmas))

    negative = text(33, seed=3)
    a, b = step(bound(), bound(), 1.0), model.model.latent_format.process_in(sample(model, negative, sigmas=sigmas))
    assert near(step(bound(), negative, 3.0), b + 3 * (a - b), 1e-4)


def test_a_third_method_s_steps_run_beside_both(model: Any) -> None:
    """InstanceAssemble adds to the noise of its boxes after its blocks, wherever phrases have moved the tokens to."""
    weights = tiny_assemble.weights(host.family_of(model).backbone)
    modules = weights.build(comfy.ops.manual_cast.Linear)

    def assembled(given: Any, scale: float) -> Any:
        return host.install(given, INSTANCE_ASSEMBLE, AssembleSettings(ratio=1.0, scale=scale), modules)

    words = tiny_assemble.attach(bound(), tiny_assemble.plan(), tiny_flux.POOLED)
    two = sample(patched(model), bound())
    assert torch.equal(sample(assembled(patched(model), 0.0), words), two)
    three = sample(assembled(patched(model), 1.0), words)
    assert near(sample(patched(assembled(model, 1.0), swapped=True), words), three)
    assert not near(three, two, 1e-2)
    # Its part is that of the same boxes without phrases: nothing but the noise rows moves.
    silent = patched(assembled(model, 1.0), strength=0.0)
    alone = assembled(tiny_flux.install(model, Settings()), 1.0)
    references = tiny_assemble.attach(bound(phrases=False), tiny_assemble.plan(), tiny_flux.POOLED)
    assert torch.equal(sample(silent, words), sample(alone, references))


def test_two_methods_with_pictures_are_one_sentence(model: Any) -> None:
    region = bytes(held(0, 0, 4, 4).astype(np.uint8).reshape(-1))
    plan = LamicPlan(PLAN.width, PLAN.height, 2, (LamicReference("r", 3, 3, 2, region, region),))
    both = host.install(tiny_flux.install(model, Settings()), LAMIC, LAMIC.default_settings())
    with pytest.raises(InputError, match="already carries 4 reference latents"):
        host.attach(bound(phrases=False), LAMIC, plan, [torch.zeros(1, 16, 6, 6)])
    [[embedding, values]] = bound(phrases=False)
    latents = values.pop("reference_latents")
    [[_, carrying]] = host.attach([[embedding, values]], LAMIC, plan, [torch.zeros(1, 16, 6, 6)])
    carrying["reference_latents"] = [*latents, *carrying["reference_latents"]]
    with pytest.raises(InputError, match="ContextGen and LAMIC both bring pictures of their own"):
        sample(both, [[embedding, carrying]])


def test_the_attention_map_shows_one_method_alone(model: Any) -> None:
    inputs = {"latent": {"samples": noise()}, "image": torch.zeros(1, 96, 128, 3)}
    with pytest.raises(InputError, match="holds layouts of ContextGen and EliGen, and a map shows one") as caught:
        attention_map.ContextGenAttentionMap.execute(patched(model), bound(), **inputs)
    assert (caught.value.node, caught.value.input) == ("ContextGenAttentionMap", "positive")
    assert attention_map.ContextGenAttentionMap.execute(patched(model), bound(phrases=False), **inputs).args


# --- through the nodes ----------------------------------------------------------------------------------------------


class Clip:
    """Text encoders that give each word a vector."""

    def clone(self) -> Clip:
        return self

    def set_tokenizer_option(self, name: str, value: Any) -> None:
        pass

    def tokenize(self, words: str, tokenizer_options: Any = None) -> dict[str, Any]:
        return {"l": [[]], "t5xxl": [[(word, 1.0) for word in [*words.split(), "</s>"]]]}

    def encode_from_tokens_scheduled(self, tokens: Any) -> list[Any]:
        words = [word for word, _ in tokens["t5xxl"][0]]
        rows = [torch.randn(tiny_flux.TEXT, generator=torch.Generator().manual_seed(sum(map(ord, w)))) for w in words]
        return [[torch.stack(rows)[None], {}]]


class Vae:
    """Latents of the right size."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.movedim(-1, 1)[:, :1, ::8, ::8].repeat(1, 16, 1, 1)


def test_boxes_with_picture_phrase_or_both_go_through_both_nodes(pack_nodes: dict[str, Any], model: Any) -> None:
    cat = Reference("cat", np.full((64, 64, 3), 90, np.uint8), np.full((64, 64), 255, np.uint8))
    boxes = (
        Instance("b1", Box(0, 16, 64, 80), "cat", "a red hat"),
        Instance("b2", Box(64, 0, 128, 48), None, "a cup"),
        Instance("b3", Box(72, 56, 120, 96), "cat", ""),
    )
    scene = compose(Layout(PLAN.width * 16, PLAN.height * 16, boxes), (cat,))
    references, phrases = pack_nodes["ContextGenConditioning"], pack_nodes["EliGenConditioning"]
    one = phrases.execute(references.execute(text(TEXT), Vae(), scene).args[0], Clip(), scene).args[0]
    other = references.execute(phrases.execute(text(TEXT), Clip(), scene).args[0], Vae(), scene).args[0]
    plans = [(host.plan_of(given[0][1], CONTEXTGEN), host.plan_of(given[0][1], ELIGEN)) for given in (one, other)]
    assert plans[0] == plans[1]
    assert (len(plans[0][0].references), len(plans[0][1].phrases)) == (2, 2)
    assert torch.equal(sample(patched(model), one), sample(patched(model), other))
    told = pack_nodes["ContextGenReport"].execute(scene, patched(model), one).args[1]
    together = told[told.index("ContextGen and EliGen together") :]
    assert "phrase 2" in together and "1 cat" in together and together.count("\nnoise") == 1
