"""Methods that work on one pass together are counted together."""

from __future__ import annotations

import numpy as np
import pytest

from contextgen_core.errors import InputError
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens
from contextgen_core.methods.contextgen.settings import Settings
from contextgen_core.methods.eligen.method import ELIGEN
from contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens
from contextgen_core.report import FLUX1, measure


def test_phrases_beside_references_are_counted_once_each_and_in_the_memory() -> None:
    box = TokenBox(0, 0, 16, 16)
    pictured = Bound(
        CONTEXTGEN, Plan(32, 32, (ReferenceTokens("a", 8, 8, bytes([1] * 64), box),)), Settings(kernel="grouped")
    )
    inside = np.zeros(32 * 32, bool)
    inside[:256] = True
    phrased = Bound(ELIGEN, EliGenPlan(32, 32, (phrase_tokens(20, inside),) * 2), ELIGEN.default_settings())
    alone, both = measure(pictured, 512), measure([pictured, phrased], 512)
    assert both.tokens == alone.tokens + 40 and [part.name for part in both.parts].count("noise") == 1
    blocks = FLUX1.double + FLUX1.single
    assert both.ours.linear - alone.ours.linear == 24 * FLUX1.width**2 * 40 * blocks
    most = 512 + 2 * 32 * 32 + 64  # text, noise and layout, reference: those that enter the first block
    assert both.ours.memory / alone.ours.memory == pytest.approx((most + 40) / most)
    assert alone.ours.attention < both.ours.attention < both.dense.attention


def test_what_cannot_be_joined_is_told() -> None:
    one = Bound(CONTEXTGEN, Plan(8, 8, ()), Settings(kernel="grouped"))
    with pytest.raises(InputError, match="both bring pictures of their own"):
        measure([one, one])
