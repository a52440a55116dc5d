"""Costs are those of the facts and of the mask; pictures show what they say."""

from __future__ import annotations

import numpy as np
import pytest

from contextgen_core.backbones.record import Backbone
from contextgen_core.composite.compose import compose
from contextgen_core.composite.references import Reference
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_core.methods.contextgen.schedule import Rule
from contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens
from contextgen_core.methods.contextgen.settings import Settings, arrange, references_read
from contextgen_core.methods.contextgen.visibility import dense_mask
from contextgen_core.methods.contextgen.visibility_picture import draw_visibility
from contextgen_core.pictures import colour
from contextgen_core.report import FLUX1, Report, draw_layout
from contextgen_core.report import measure as measured

PETA = 1e15


def halved(name: str, width: int, height: int, box: TokenBox, **fields: float) -> ReferenceTokens:
    """A reference whose mask covers its upper half."""
    valid = np.zeros((height, width), np.uint8)
    valid[: height // 2] = 1
    return ReferenceTokens(name, width, height, valid.tobytes(), box, **fields)


def measure(
    plan: Plan,
    settings: Settings | None = None,
    text: int = 512,
    model: Backbone = FLUX1,
    warnings: tuple[str, ...] = (),
) -> Report:
    return measured(Bound(CONTEXTGEN, plan, settings or Settings()), text, model, warnings)


def tiled(count: int) -> Plan:
    """1024 x 1024 pixels, boxes that tile the canvas, references of 2304 tokens."""
    across, down = {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (4, 2)}[count]
    w, h = 64 // across, 64 // down
    boxes = [TokenBox(x, y, x + w, y + h) for y in range(0, 64, h) for x in range(0, 64, w)]
    return Plan(64, 64, tuple(halved(str(n), 48, 48, box) for n, box in enumerate(boxes)))


@pytest.mark.parametrize(
    ("count", "tokens", "dense", "ours"),
    [(1, 11008, 6.4, 4.9), (2, 13312, 8.3, 5.2), (4, 17920, 12.8, 5.8), (8, 27136, 24.3, 7.0)],
)
def test_published_cost_of_28_steps(count: int, tokens: int, dense: float, ours: float) -> None:
    """The table of the method's description (PFLOP, half covered references); ours may lie 1 % beside it."""
    report = measure(tiled(count))
    assert report.tokens == tokens
    assert 28 * report.dense.step / PETA == pytest.approx(dense, abs=0.05)
    assert 28 * report.ours.step / PETA == pytest.approx(ours, rel=0.012)
    assert report.ours.memory < report.dense.memory


@pytest.mark.parametrize("rule", list(Rule))
def test_pairs_are_those_that_the_rule_allows(rule: Rule) -> None:
    boxes = (TokenBox(0, 0, 8, 12), TokenBox(8, 0, 16, 12))
    plan = Plan(16, 12, tuple(halved(str(n), 6, 4, box) for n, box in enumerate(boxes)))
    settings, model = Settings(rule=rule), Backbone("small", double=2, single=4, width=256)
    sequence, schedule = arrange(plan, settings, references_read(plan, settings), 20, (2, 4))
    pairs = 0
    for number in range(len(schedule)):
        block = schedule[number]
        mask = dense_mask(sequence, block.rule)
        if not (block.references and sequence.reference_spans):
            mask = mask[: sequence.base_span.stop, : sequence.base_span.stop]
        elif block.idle_references:
            mask = mask[: sequence.base_span.stop]
        pairs += int(mask[slice(*sequence.noise_span)].sum() if block.idle_base else mask.sum())
    assert measure(plan, settings, 20, model).ours.attention == 4 * 256 * pairs


def test_parts_add_up_and_unread_references_cost_nothing() -> None:
    plan = Plan(
        16, 12, (halved("a", 6, 4, TokenBox(0, 0, 4, 4)), halved("b", 4, 4, TokenBox(2, 2, 4, 4), strength=0.0))
    )
    report = measure(plan, text=10, warnings=("mind the gap.",))
    assert [(p.name, p.tokens, p.kept) for p in report.parts[3:]] == [("1 a", 24, 12), ("2 b", 16, 0)]
    assert report.tokens == 10 + plan.image_tokens and report.kept == 10 + 2 * 192 + 12
    assert "warning: mind the gap." in report.as_text()
    assert report.as_json()["kept_tokens_per_part"] == {"text": 10, "noise": 192, "layout": 192, "1 a": 12, "2 b": 0}
    windowed = measure(Plan(16, 12, (halved("a", 6, 4, TokenBox(0, 0, 4, 4), end=0.5),)))
    assert any("part of the run" in warning for warning in windowed.warnings)


def scene(order: str = "drawn"):
    pixels = np.full((32, 32, 3), 200, np.uint8)
    mask = np.full((32, 32), 255, np.uint8)
    references = (Reference("a", pixels, mask), Reference("b", pixels, mask))
    boxes = (Instance("b1", Box(0, 0, 64, 64), "a"), Instance("b2", Box(64, 32, 128, 96), "b"))
    return compose(Layout(128, 96, boxes), references, order=order)


def test_layout_picture_outlines_every_box_in_its_colour() -> None:
    picture = draw_layout(scene())
    assert picture.shape == (96, 128, 3)
    for number, (x, y) in enumerate([(0, 60), (127, 90)]):
        assert tuple(picture[y, x]) == scene().layout.instances[number].shade
    assert tuple(picture[10, 100]) == (128, 128, 128) and tuple(picture[60, 101]) != (
        200,
        200,
        200,
    )  # its tokens tinted
    large = draw_layout(scene(), 3)
    assert large.shape == (288, 384, 3)
    assert tuple(large[270, 383]) == scene().layout.instances[1].shade


def test_visibility_picture_has_a_colour_only_where_a_reference_is_read() -> None:
    plan = Plan(16, 12, (halved("a", 8, 8, TokenBox(0, 0, 16, 6)),))
    text, side = 16, 464
    assert text + plan.image_tokens == side  # one pixel for each token
    picture = draw_visibility(plan, text, side)
    ours = (picture == colour(0)).all(-1)
    first = text + 2 * 192
    assert ours[text + 3, first + 2] and ours[first + 5, first + 2]  # noise in the box, the reference itself
    assert not ours[text + 150, first + 2] and not ours[text + 3, first + 40]  # noise outside, masked-out tokens
    assert not ours[:, : first - 1].any()
    with pytest.raises(ValueError, match="too many for a picture"):
        draw_visibility(tiled(1), 512)
