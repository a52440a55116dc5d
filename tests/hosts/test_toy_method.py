"""A method from outside of the pack runs on diffusers, in one forward pass and in sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from toy_method import ToyPlan, toy_method

from contextgen_core import prepare, sample
from contextgen_core.attention import groups
from contextgen_core.composite.compose import compose
from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers import FluxHost, noise_ids
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout
from contextgen_core.methods import boundary, registry
from contextgen_core.methods.boundary import Bound
from contextgen_core.verbs import DiffusersModel

TEXT, SIDE = 6, 4
TOY = toy_method(boundary, groups)
PLAN = ToyPlan(SIDE, SIDE, (1, 0, 3, 2), blocks=6)


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registry.registered(TOY):
        yield


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=False,
    ).eval()


def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"noise": (1, SIDE * SIDE, 64), "text": (1, TEXT, 8), "pooled": (1, 8)}
    return {
        **{key: torch.randn(shape, generator=generator) for key, shape in shapes.items()},
        "timestep": torch.full((1,), 0.5),
    }


def velocity(transformer: Any, plan: ToyPlan | None) -> torch.Tensor:
    """By the host; without a plan by the stock transformer."""
    given = inputs()
    if plan is not None:
        with torch.no_grad(), FluxHost(transformer) as host:
            return host.velocity(Bound(TOY, plan, None), **given)
    return stock(transformer, given, {})


@torch.no_grad()
def stock(transformer: Any, given: dict[str, torch.Tensor], kwargs: dict[str, Any]) -> torch.Tensor:
    return transformer(
        hidden_states=given["noise"],
        encoder_hidden_states=given["text"],
        pooled_projections=given["pooled"],
        timestep=given["timestep"],
        img_ids=noise_ids(SIDE, SIDE),
        txt_ids=torch.zeros(TEXT, 3),
        joint_attention_kwargs=kwargs,
        return_dict=False,
    )[0]


def test_its_groups_are_what_the_model_computes(transformer: Any) -> None:
    mask = torch.ones(TEXT + SIDE * SIDE, TEXT + SIDE * SIDE, dtype=torch.bool)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[0:2, 1:3] = True
    rows = torch.from_numpy(TEXT + np.flatnonzero(inside))
    mask[rows, TEXT:] = False
    mask[rows[:, None], rows[None]] = True
    expected = stock(transformer, inputs(), {"attention_mask": mask})
    got = velocity(transformer, PLAN)
    assert (got - expected).abs().max() < 1e-5
    assert (got - velocity(transformer, None)).abs().max() > 1e-3


def test_its_step_after_a_block_acts(transformer: Any) -> None:
    plain = velocity(transformer, PLAN)
    held = velocity(transformer, PLAN._replace(hold=0.5))
    assert (held - plain).abs().max() > 1e-3


def test_tokens_with_their_own_timestep(transformer: Any) -> None:
    """The same timestep given to a segment changes nothing, another one does."""
    plain = velocity(transformer, PLAN)
    same = velocity(transformer, PLAN._replace(own_timestep=0.5))
    other = velocity(transformer, PLAN._replace(own_timestep=0.0))
    assert (same - plain).abs().max() < 1e-5
    assert (other - plain).abs().max() > 1e-3


def test_it_goes_through_the_two_verbs(transformer: Any) -> None:
    layout = Layout(16 * SIDE, 16 * SIDE, (Instance("b1", Box(16, 0, 48, 32), None, "a bird"),))
    prepared = prepare(compose(layout, ()), "toy")
    assert prepared.plan == ToyPlan(SIDE, SIDE, (1, 0, 3, 2)) and prepared.pictures == ()

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2).sigmoid()

    model = DiffusersModel(transformer, encode=lambda pictures: pictures, decode=decode, guided=False)
    given = inputs()
    pictures = [sample(model, prepared, given["text"], given["pooled"], steps=2, seed=s, batch=2) for s in (0, 0, 1)]
    assert pictures[0].shape == (2, 16 * SIDE, 16 * SIDE, 3) and pictures[0].dtype == np.uint8
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])


def test_afterwards_the_transformer_is_the_stock_one(transformer: Any) -> None:
    before = velocity(transformer, None)
    velocity(transformer, PLAN._replace(hold=0.5, own_timestep=0.2))
    assert torch.equal(velocity(transformer, None), before)
    assert all("forward" not in vars(block) for block in transformer.transformer_blocks)


def test_two_methods_that_bring_pictures_are_refused_by_name(transformer: Any) -> None:
    class Pictured(type(TOY)):  # type: ignore[misc]
        def forward(self, plan: Any, settings: None, call: Any) -> Any:
            return replace(super().forward(plan, settings, call), conditions=4)

    class Other(Pictured):
        name, label, node = "other", "Other", "OtherPatchModel"

    both = (Bound(Pictured(), PLAN, None), Bound(Other(), PLAN, None))
    with FluxHost(transformer) as host, pytest.raises(InputError, match="Toy and Other both bring pictures") as caught:
        host.velocity(both, **inputs())
    assert caught.value.node == "OtherPatchModel"
