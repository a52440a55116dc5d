"""The soak tells growth from noise, and draws prompts that the small workflows allow."""

from __future__ import annotations

import random

import pytest

from campaign import soak
from campaign.comfy import small

AFTER = list(range(0, 2000, 20))


def test_noise_about_a_level_is_not_growth() -> None:
    chance = random.Random(1)
    for name, (share, amount) in soak.ALLOWED.items():
        values = [100 + (share * 100 + amount) * chance.uniform(-2, 2) for _ in AFTER]
        assert soak.grown(name, AFTER, values)[1] == "", name


@pytest.mark.parametrize("name", sorted(soak.ALLOWED))
def test_steady_growth_is_told_also_under_noise(name: str) -> None:
    chance, (share, amount) = random.Random(2), soak.ALLOWED[name]
    total = 4 * max(share * 100, amount)
    values = [100 + total * (x / AFTER[-1]) + total * chance.uniform(-0.1, 0.1) for x in AFTER]
    rise, sentence = soak.grown(name, AFTER, values)
    assert name in sentence and rise == pytest.approx(100 * total / AFTER[-1], rel=0.2)


def test_what_a_host_loads_at_its_start_is_not_growth() -> None:
    assert soak.grown("resident MB", AFTER, [300.0, 600.0, *[900.0] * (len(AFTER) - 2)])[1] == ""


def test_the_same_seed_draws_the_same_prompts_of_every_kind() -> None:
    def drawn(seed: int) -> list[tuple[object, str]]:
        chance = random.Random(seed)
        return [soak.vary(chance, chance.choice(small())) for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {kind for _, kind in drawn(1)} == {"plain", "interrupted", "wrong"}
