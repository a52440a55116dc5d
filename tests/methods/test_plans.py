"""Plans in conditionings: what another node has changed is refused in one sentence, before anything is sized by it."""

from __future__ import annotations

from typing import Any

import pytest

from campaign.fuzz.objects import real_plans, replaced
from contextgen_core.errors import InputError
from contextgen_core.methods.registry import method

PLANS = dict(real_plans())
HOSTILE = (10**30, -1, 0.5, float("nan"), float("inf"), "4", None, True, (), ((),), b"\x02")
# Where each method's plan has a whole number, the bits of a region, a box, and a share of the run.
PLACES = {
    "contextgen": ((1,), (2,), (3, 0, 1), (3, 0, 3), (3, 0, 4), (3, 0, 4, 2), (3, 1, 6)),
    "lamic": ((1,), (3,), (4, 0, 1), (4, 0, 3), (4, 0, 4), (4, 1, 7)),
    "eligen": ((1,), (2,), (3, 0, 0), (3, 0, 1), (3, 1, 3)),
    "instance_assemble": ((1,), (2,), (4,), (3, 0, 1), (3, 0, 2), (3, 0, 3), (3, 1, 4), (3, 1, 9, 0)),
    "sigma_gen": ((1,), (2,), (3,), (4,), (5, 0, 1)),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_survives_the_conditioning(name: str) -> None:
    chosen = method(name)
    plan = chosen.plan_from(PLANS[name])
    assert chosen.plan_tuple(plan) == PLANS[name] and hash(plan) == hash(chosen.plan_from(PLANS[name]))


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, places in PLACES.items() for place in places])
def test_a_hostile_value_is_refused_wherever_it_stands(name: str, place: tuple[int, ...]) -> None:
    chosen = method(name)
    refused = 0
    for value in HOSTILE:
        changed: Any = replaced(PLANS[name], place, value)
        try:
            plan = chosen.plan_from(changed)
        except InputError as error:
            assert str(error).endswith(".") and "\n" not in str(error)
            refused += 1
        else:  # a share of the run may be 0.5, a place of a picture -1, a picture None: then all must be usable
            assert chosen.sizes(plan) and chosen.parts(plan, chosen.default_settings()) and hash(plan) is not None
    assert refused >= len(HOSTILE) - 2
    for change in (8, 9):  # a value left out, and one too many
        with pytest.raises(InputError):
            chosen.plan_from(replaced(PLANS[name], place, None, change))


@pytest.mark.parametrize("name", PLANS)
def test_what_is_no_plan_is_refused(name: str) -> None:
    for value in (None, 3, (), (PLANS[name],), {"a": 1}, "x", b"x"):
        with pytest.raises(InputError):
            method(name).plan_from(value)


def test_a_box_with_neither_phrase_nor_picture_is_refused() -> None:
    with pytest.raises(InputError):
        method("instance_assemble").plan_from(replaced(PLANS["instance_assemble"], (3, 1, 9), None))
