"""The soak tells growth from noise, and draws prompts that the small workflows allow."""

from __future__ import annotations

import random

import pytest

from campaign import soak
from campaign.comfy import small

AFTER = list(range(0, 2000, 20))
LEVEL = 100.0


def looked(name: str, values: list[float]) -> soak.Looked:
    return soak.Looked(AFTER[: len(values)], {name: values})


def flat(name: str) -> soak.Looked:
    return looked(name, [LEVEL] * len(AFTER))


def rising(name: str, times: float) -> soak.Looked:
    """Grows so many times as much as is allowed in the half that is judged, under noise."""
    chance, (share, amount) = random.Random(2), soak.ALLOWED[name]
    total = times * max(share * LEVEL, amount)
    return looked(name, [LEVEL + 2 * total * x / AFTER[-1] + total * chance.uniform(-0.1, 0.1) for x in AFTER])


def test_noise_about_a_level_is_not_growth() -> None:
    chance = random.Random(1)
    for name, (share, amount) in soak.ALLOWED.items():
        values = [LEVEL + (share * LEVEL + amount) * chance.uniform(-2, 2) for _ in AFTER]
        assert soak.grown(name, looked(name, values), flat(name)) == ("", ""), name


@pytest.mark.parametrize("name", sorted(soak.ALLOWED))
def test_steady_growth_is_told_also_under_noise(name: str) -> None:
    ours, most = rising(name, 4), max(soak.ALLOWED[name][0] * LEVEL, soak.ALLOWED[name][1])
    sentence, note = soak.grown(name, ours, flat(name))
    assert name in sentence and not note
    rise, total, _ = soak.growth(ours, name)
    assert rise == pytest.approx(8 * most / AFTER[-1], rel=0.2) and total == pytest.approx(4 * most, rel=0.2)


@pytest.mark.parametrize("name", sorted(soak.ALLOWED))
def test_what_grows_in_the_host_alone_as_well_is_not_ours(name: str) -> None:
    sentence, note = soak.grown(name, rising(name, 4), rising(name, 4))
    assert not sentence and "in the host alone" in note
    assert soak.grown(name, rising(name, 4), rising(name, 1))[0], "more than the host alone grows"


def test_what_fills_in_the_first_half_is_not_growth() -> None:
    filled = [300.0 + min(x, AFTER[-1] / 2) for x in AFTER]
    assert soak.grown("resident MB", looked("resident MB", filled), flat("resident MB")) == ("", "")


def test_a_short_run_is_judged_by_all_looks_but_the_first() -> None:
    assert soak.growth(looked("objects", [0.0, 10.0, 20.0, 30.0, 40.0]), "objects")[:2] == (0.5, 30.0)


def test_the_same_seed_draws_the_same_prompts_of_every_kind() -> None:
    def drawn(seed: int) -> list[tuple[object, str]]:
        chance = random.Random(seed)
        return [soak.vary(chance, chance.choice(small())) for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {kind for _, kind in drawn(1)} == {"plain", "interrupted", "wrong"}


def test_the_host_alone_gets_prompts_of_every_kind_with_our_sizes() -> None:
    chance = random.Random(3)
    drawn = [soak.without_us(chance) for _ in range(200)]
    assert {kind for _, kind in drawn} == {"plain", "interrupted", "wrong"}
    for made, kind in drawn:
        size, sampled = made["32"]["inputs"], made["40"]["inputs"]
        assert {size["width"], size["height"]} <= {*soak.SIDES} and size["batch_size"] in (1, 2, 3)
        assert sampled["steps"] == 60 if kind == "interrupted" else sampled["steps"] in (1, 2, 3)
        links = [value for node in made.values() for value in node["inputs"].values() if isinstance(value, list)]
        assert {link[0] for link in links} <= {*made}
    counts = [sum(node["class_type"] == "ReferenceLatent" for node in made.values()) for made, _ in drawn]
    assert {*counts} == {0, 1, 2, 3, 4, 5}
