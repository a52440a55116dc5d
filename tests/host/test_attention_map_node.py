"""The attention map in the host: equal to the dense definition inside a real run, and no trace of it otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.methods.contextgen.attention_map import Recorder
from contextgen_pack.contextgen_core.methods.contextgen.schedule import Rule
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.contextgen_core.methods.contextgen.visibility import dense_mask, key_weights
from contextgen_pack.nodes import attention_map
from tiny_flux import SINGLE, conditioned, noise, sample

Node = attention_map.ContextGenAttentionMap


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


class Dense:
    """The definition, beside the recorder: softmax over all visible keys, summed over each reference's."""

    def __init__(self) -> None:
        self.recorder, self.sums, self.blocks = Recorder(), 0.0, []

    def __call__(self, forward: Any, block: int, q: torch.Tensor, k: torch.Tensor) -> None:
        sequence, schedule = forward.private
        rule = schedule[block].rule
        self.blocks.append(rule)
        self.recorder(forward, block, q, k)
        if rule is Rule.CLA:
            return
        logits = q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5 + torch.from_numpy(
            key_weights(sequence)
        )
        shares = logits.masked_fill(~torch.from_numpy(dense_mask(sequence, rule)), -torch.inf).softmax(-1).mean((0, 1))
        mass = torch.zeros(len(sequence.plan.references), sequence.plan.noise_tokens, dtype=torch.float64)
        for number in sequence.active:
            keys = torch.from_numpy(sequence.reference_keys(number))
            mass[number] = shares[slice(*sequence.noise_span)][:, keys].sum(-1)
        self.sums = self.sums + mass


@pytest.mark.parametrize("rule", [Rule.ICA, Rule.ICA_PAPER])
@pytest.mark.parametrize("prune", [True, False])
def test_the_map_is_the_dense_definition(model: Any, rule: Rule, prune: bool) -> None:
    plan = tiny_flux.plan(references=4, strength=2.0)
    patched = tiny_flux.install(model, Settings(rule=rule, prune=prune))
    dense = Dense()
    for percent in (0.1, 0.5):
        attention_map.look(patched, conditioned(plan), noise(), 7, percent, dense)
    maps = dense.recorder.result()
    assert maps.calls == 2 * (SINGLE // 2) == sum(rule is not Rule.CLA for rule in dense.blocks)
    expected = (dense.sums / maps.calls).reshape(maps.mass.shape)
    assert (torch.from_numpy(maps.mass) - expected).abs().max() < 1e-5 and maps.mass.max() > 0.01


def test_watching_changes_nothing_and_leaves_nothing(model: Any) -> None:
    patched = tiny_flux.install(model, Settings())
    positive = conditioned(tiny_flux.plan())
    before = sample(patched, positive)
    silent: list[Any] = []
    seen = attention_map.look(patched, positive, noise(), 7, 0.3, Recorder())
    unseen = attention_map.look(patched, positive, noise(), 7, 0.3, lambda *given: silent.append(given))
    assert torch.equal(seen, unseen) and len(silent) > 0
    assert torch.equal(sample(patched, positive), before)
    assert "contextgen_probe" not in patched.model_options["transformer_options"]


def test_a_look_stands_where_the_run_stood(model: Any) -> None:
    """The step from pure noise with the sampler's seed is the run's own first step."""
    import comfy.sample

    patched, positive, start = (
        tiny_flux.install(model, Settings()),
        conditioned(tiny_flux.plan()),
        torch.zeros_like(noise()),
    )
    guess = attention_map.look(patched, positive, start, 3, 0.0, Recorder())
    run = sample(patched, positive, start=comfy.sample.prepare_noise(start, 3), sigmas=(1.0, 0.0))
    assert torch.allclose(guess, run, atol=1e-6)


def test_pictures_masks_and_words(model: Any) -> None:
    plan = tiny_flux.plan(references=3)
    patched = tiny_flux.install(model, Settings())
    image = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0))
    result = Node.execute(patched, conditioned(plan), {"samples": noise(batch=2)}, image, seed=1, looks=3)
    maps, heat, report = result.args
    assert maps.shape == (3, 96, 128, 3) and heat.shape == (3, 96, 128) and heat.max() <= 1
    assert "mean over 9 identity blocks" in report and all(f"r{n}: " in report for n in range(3))
    assert heat.amax() == pytest.approx(1, abs=0.2)
    each = Node.execute(
        patched, conditioned(plan), {"samples": noise()}, image, seed=1, looks=3, scale="each reference"
    )
    assert (each.args[1].amax((1, 2)) > 0.5).all()
    assert len(result.ui["images"]) == 3


def test_an_unread_reference_stays_cold(model: Any) -> None:
    plan = tiny_flux.plan(references=3, strength=0.0)
    patched = tiny_flux.install(model, Settings())
    result = Node.execute(patched, conditioned(plan), {"samples": noise()}, torch.zeros(1, 96, 128, 3))
    assert result.args[1][2].max() == 0 and "r2: not read" in result.args[2]


def test_schema_names_everything() -> None:
    schema = Node.GET_SCHEMA()
    assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs]) and schema.description


def test_mistakes_are_named(model: Any) -> None:
    patched, positive = tiny_flux.install(model, Settings()), conditioned(tiny_flux.plan())
    latent, image = {"samples": noise()}, torch.zeros(1, 96, 128, 3)
    for call, says in (
        (lambda: Node.execute(model, positive, latent, image), "does not follow layouts"),
        (lambda: Node.execute(patched, tiny_flux.text(), latent, image), "holds 0 layouts"),
        (lambda: Node.execute(patched, positive, latent, image, start_percent=0.8), "start before the end"),
        (
            lambda: Node.execute(tiny_flux.install(model, Settings(rule=Rule.CLA)), positive, latent, image),
            "no reference was read",
        ),
        (lambda: Node.execute(patched, positive, {"samples": noise(width=4)}, image), "the layout is 128x96"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
