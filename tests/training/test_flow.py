"""The objectives against the formulas and the authors' arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from contextgen_core.backbones.flux import shifted_sigmas
from contextgen_core.training import flow, memory


def test_the_straight_path_has_the_velocity_that_leads_from_picture_to_noise() -> None:
    clean, noise = torch.randn(2, 5, 64), torch.randn(2, 5, 64)
    times = torch.tensor([0.25, 0.75])
    step = 1e-3
    here, there = flow.mix(clean, noise, times), flow.mix(clean, noise, times + step)
    assert torch.allclose((there - here) / step, noise - clean, atol=2e-3)
    assert torch.equal(flow.mix(clean, noise, torch.zeros(2)), clean)
    assert torch.equal(flow.mix(clean, noise, torch.ones(2)), noise)


def test_errors_are_zero_for_the_true_velocity_and_equal_weights_change_nothing() -> None:
    clean, noise, velocity = (torch.randn(3, 4, 64) for _ in range(3))
    assert flow.errors(noise - clean, clean, noise).abs().max() == 0
    plain = flow.errors(velocity, clean, noise)
    by_hand = torch.stack([((velocity[i] - noise[i] + clean[i]) ** 2).mean() for i in range(3)])
    assert torch.allclose(plain, by_hand)
    assert torch.allclose(flow.errors(velocity, clean, noise, torch.full((3, 4), 7.0)), plain)
    only = torch.zeros(3, 4)
    only[:, 0] = 1
    assert torch.allclose(
        flow.errors(velocity, clean, noise, only), 4 * ((velocity - noise + clean) ** 2)[:, 0].mean(-1) / 4 * 1
    )


def test_dpo_loss_on_fixed_numbers() -> None:
    """-log sigmoid(-(beta/2) [(e_w - e_l) - (r_w - r_l)]), by hand."""
    win, lose = torch.tensor([0.10, 0.30]), torch.tensor([0.40, 0.20])
    anchor_win, anchor_lose = torch.tensor([0.20, 0.20]), torch.tensor([0.30, 0.30])
    logits = [-(10 / 2) * ((0.10 - 0.40) - (0.20 - 0.30)), -(10 / 2) * ((0.30 - 0.20) - (0.20 - 0.30))]
    expected = sum(-math.log(1 / (1 + math.exp(-x))) for x in logits) / 2
    assert flow.dpo_loss(win, lose, anchor_win, anchor_lose, 10.0).item() == pytest.approx(expected, rel=1e-5)
    same = flow.dpo_loss(win, lose, win, lose, 1250.0)
    assert same.item() == pytest.approx(math.log(2), rel=1e-6)


def test_times_lie_inside_and_follow_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    times = flow.sample_times(4000, generator)
    assert 0 < times.min() and times.max() < 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.02)
    assert flow.sample_times(4000, generator, mean=1.0).mean() > 0.65


@pytest.mark.parametrize(("side", "mu"), [(512, 0.630), (768, 0.847), (1024, 1.150)])
def test_sampling_grid_has_the_models_shift(side: int, mu: float) -> None:
    tokens = (side // 16) ** 2
    sigmas = shifted_sigmas(4, tokens)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and len(sigmas) == 5
    half = shifted_sigmas(2, tokens)[1].item()  # sigma 1/2 becomes e^mu / (e^mu + 1)
    assert half == pytest.approx(math.exp(mu) / (math.exp(mu) + 1), abs=1e-3)


def test_the_memory_estimate_grows_with_what_it_counts() -> None:
    small = memory.estimate(768, 512, 2, 256, 1)
    assert small.base == pytest.approx(23.8, abs=0.1)  # 11.9 G parameters in bf16
    assert memory.estimate(768, 512, 2, 512, 1).adapter == pytest.approx(2 * small.adapter)
    assert memory.estimate(768, 512, 2, 256, 4).kept == pytest.approx(4 * small.kept)
    assert memory.estimate(768, 512, 4, 256, 1).total > small.total
    assert memory.estimate(768, 512, 2, 256, 1, shards=4).base == pytest.approx(small.base / 4)
    assert memory.table().count("GB") >= 10
