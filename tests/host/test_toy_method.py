"""A method from outside of the pack runs in the real host, in one forward pass and in sampling."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.attention import groups
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.methods import boundary, registry
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.nodes import host

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from toy_method import ToyPlan, toy_method  # noqa: E402

TOY = toy_method(boundary, groups)
PLAN = ToyPlan(8, 6, (1, 0, 4, 3), blocks=tiny_flux.DOUBLE + tiny_flux.SINGLE)
TEXT = 40


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registry.registered(TOY):
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


def sampled(model: Any, plan: ToyPlan) -> torch.Tensor:
    return tiny_flux.sample(host.install(model, TOY, None), host.attach(tiny_flux.text(TEXT), TOY, plan, []))


def masked(model: Any) -> torch.Tensor:
    """The same by a dense mask on the stock model."""
    size = TEXT + PLAN.width * PLAN.height
    inside = np.zeros((PLAN.height, PLAN.width), bool)
    inside[0:3, 1:4] = True
    rows = torch.from_numpy(TEXT + np.flatnonzero(inside))
    mask = torch.zeros(size, size)
    mask[rows, TEXT:] = -torch.inf
    mask[rows[:, None], rows[None]] = 0

    def override(func: Any, q: Any, k: Any, v: Any, heads: int, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("mask", None)
        kwargs["transformer_options"] = {}
        return func(q, k, v, heads, mask=mask.to(q), **kwargs)

    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = override
    return tiny_flux.sample(clone, tiny_flux.text(TEXT))


def test_it_samples_as_its_dense_mask_says(model: Any) -> None:
    got = sampled(model, PLAN)
    assert (got - masked(model)).abs().max() < 2e-5
    assert (got - tiny_flux.sample(model, tiny_flux.text(TEXT))).abs().max() > 1e-3


def test_its_step_after_a_block_and_its_segments_act(model: Any) -> None:
    plain = sampled(model, PLAN)
    assert (sampled(model, PLAN._replace(hold=0.5)) - plain).abs().max() > 1e-3
    assert (sampled(model, PLAN._replace(own_timestep=0.0)) - plain).abs().max() > 1e-3


def test_a_segment_with_the_step_s_own_timestep_changes_nothing(model: Any) -> None:
    def once(plan: ToyPlan) -> torch.Tensor:
        positive = host.attach(tiny_flux.text(TEXT), TOY, plan, [])
        return tiny_flux.sample(host.install(model, TOY, None), positive, sigmas=(0.7, 0.0))

    assert (once(PLAN._replace(own_timestep=0.7)) - once(PLAN)).abs().max() < 2e-5


def test_without_its_layout_the_model_is_the_stock_one(model: Any) -> None:
    patched = host.install(model, TOY, None)
    assert torch.equal(tiny_flux.sample(patched, tiny_flux.text(TEXT)), tiny_flux.sample(model, tiny_flux.text(TEXT)))


def test_a_layout_for_a_method_that_is_not_on_the_model_is_refused(model: Any) -> None:
    other = tiny_flux.install(model, Settings())
    positive = host.attach(tiny_flux.text(TEXT), TOY, PLAN, [])
    with pytest.raises(InputError, match="ToyConditioning, conditioning: .* follows ContextGen alone"):
        tiny_flux.sample(other, positive)
