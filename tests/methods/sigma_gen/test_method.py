"""SIGMA-GEN's plan, ids, groups and segments, and what it says of scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from golden import SIGMA_ADAPTER
from subjects import reference, square_mask

from contextgen_core import prepare
from contextgen_core.attention.groups import Span, seen
from contextgen_core.composite.compose import Scene, compose
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.layout import Instance, Layout, Solid
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.lora.switched import SwitchedAdapter
from contextgen_core.methods.boundary import BlockCounts, Bound, ForwardCall, Segment
from contextgen_core.methods.sigma_gen.control import Cell
from contextgen_core.methods.sigma_gen.method import SIGMA_GEN, Plan, Settings, plan_of, position_ids
from contextgen_core.methods.sigma_gen.regions import ControlOptions
from contextgen_core.report import measure

PLAN = Plan(3, 2, 2, 5)
CALL = ForwardCall((), 4, BlockCounts(2, 3), (2, 3))
CELL = Cell(32, 32)


def scene(*boxes: tuple[float, float, float, float], side: int = 64) -> Scene:
    people = [reference(name=f"r{n}") for n in range(len(boxes))]
    instances = tuple(Instance(f"b{n}", Box(*box), n + 1) for n, box in enumerate(boxes))
    return compose(Layout(side, side, instances), people)


def prepared(of: Scene, **options: Any) -> Any:
    return prepare(of, "sigma_gen", ControlOptions(cell=CELL, **options))


def test_a_plan_survives_its_way_through_a_conditioning() -> None:
    assert SIGMA_GEN.plan_from(SIGMA_GEN.plan_tuple(PLAN)) == PLAN
    for wrong in (
        None,
        (),
        ("sigma-gen-plan-1", 1, 2, 3, 4),
        ("sigma-gen-plan-2", 1),
        ("sigma-gen-plan-2", 1, 2, 3, 4, (1,)),
    ):
        with pytest.raises(InputError, match="SigmaGenConditioning"):
            SIGMA_GEN.plan_from(wrong)


def test_the_stack_runs_down_in_a_slot_of_its_own_and_the_control_lies_on_the_noise() -> None:
    ids = position_ids(PLAN)
    assert ids.dtype == torch.float32 and ids.shape == (6 + 10 + 6, 3)
    assert torch.equal(ids[:6], ids[16:]) and ids[5].tolist() == [0, 1, 2]
    assert ids[6:16].tolist() == [[1, row, column] for row in range(5) for column in range(2)]
    assert position_ids(Plan(1, 1, 1, 300))[-2].tolist() == [1, 299, 0]


def test_the_defaults_leave_the_blocks_to_the_model() -> None:
    forward = SIGMA_GEN.forward(PLAN, Settings(), CALL)
    assert forward.segments == () and forward.conditions == 16 and forward.kept is None
    assert len(forward.blocks) == 5 and all(block.groups is None and block.leave is None for block in forward.blocks)


@pytest.mark.parametrize(
    ("settings", "segments"),
    [
        (Settings(timestep="zero"), [Segment(Span(10, 26), 0.0, 1.0)]),
        (Settings(timestep="zero", guidance="user"), [Segment(Span(10, 26), 0.0)]),
        (Settings(guidance="one"), [Segment(Span(10, 26), None, 1.0)]),
        (Settings(scope="conditions"), [Segment(Span(0, 10), adapter=False), Segment(Span(10, 26))]),
    ],
)
def test_switches_concern_the_condition_tokens(settings: Settings, segments: list[Segment]) -> None:
    assert list(SIGMA_GEN.forward(PLAN, settings, CALL).segments) == segments


def test_without_cross_attention_only_the_two_pictures_are_blind_to_each_other() -> None:
    groups = SIGMA_GEN.forward(PLAN, Settings(cross=False), CALL).blocks[0].groups
    wanted = np.ones((26, 26), bool)
    wanted[10:20, 20:] = wanted[20:, 10:20] = False
    assert np.array_equal(seen(groups, 26), wanted)


@pytest.mark.parametrize("name", ["timestep", "guidance", "scope"])
def test_an_unknown_switch_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 'x'"):
        replace(Settings(), **{name: "x"})


def test_a_scene_becomes_the_stack_and_the_control_picture() -> None:
    made = prepared(scene((0, 0, 32, 32), (16, 16, 48, 64)))
    stack, control = made.pictures
    assert stack.shape == (64, 32, 3) and control.shape == (64, 64, 3) and made.warnings == ()
    assert made.plan == Plan(4, 4, 2, 4) == plan_of(stack, control)
    assert SIGMA_GEN.sizes(made.plan) == ((4, 4), ((4, 2), (4, 4)))
    assert control[20, 20].tolist() == [20, 10, 0] and control[2, 2].tolist() == [10, 10, 0]


def test_boxes_without_a_reference_are_left_to_the_prompt() -> None:
    two = scene((0, 0, 32, 32), (16, 16, 48, 64))
    layout = Layout(64, 64, (Instance("b9", Box(0, 32, 16, 64)), *two.layout.instances))
    made = prepared(compose(layout, [r for r in two.references if r is not None]))
    assert made.pictures[1][40, 4].tolist() == [0, 0, 0] and made.pictures[1][2, 2].tolist() == [10, 10, 0]
    with pytest.raises(InputError, match="bound to a reference"):
        prepared(compose(Layout(64, 64, layout.instances[:1]), []))


def test_masks_and_shapes_mix_and_an_empty_mask_leaves_the_shape() -> None:
    two = scene((0, 0, 32, 32), (32, 32, 64, 64))
    masks = np.stack([square_mask(64, 64, 50, 2, 60, 8) > 0, np.zeros((64, 64), bool)])
    control = prepared(two, masks=masks, shape="ellipse").pictures[1]
    assert control[4, 55].tolist() == [10, 10, 0] and not control[16, 16].any()
    assert control[48, 48].tolist() == [20, 20, 0] and not control[33, 33].any()
    with pytest.raises(InputError, match="1 masks for 2 boxes"):
        prepared(two, masks=masks[:1])


def test_a_hidden_subject_is_named_and_another_order_shows_it() -> None:
    nested = scene((0, 0, 64, 64), (16, 16, 32, 32), (8, 8, 48, 48))
    made = prepared(nested)
    assert [w for w in made.warnings if "box 2" in w and "covered in both" in w], made.warnings
    better = prepared(nested, order="all visible")
    assert better.warnings == ()
    assert set(np.unique(better.pictures[1][..., :2])) == {10, 20, 30}


def test_nobody_inside_the_picture_is_refused_and_one_outside_is_named() -> None:
    assert "no pixel inside" in prepared(scene((-40, 0, 0.3, 32), (0, 0, 32, 32))).warnings[0]
    with pytest.raises(InputError, match="inside the picture"):
        prepared(scene((-40, 0, 0.3, 32)))


def test_eleven_subjects_are_allowed_with_a_word() -> None:
    many = scene(*((n * 5, 0, n * 5 + 5, 32) for n in range(11)))
    assert ["at most 10" in warning for warning in prepared(many).warnings] == [True]


def test_boxes_ellipses_masks_and_3d_boxes_stand_in_one_picture() -> None:
    four = scene((0, 0, 32, 32), (32, 0, 64, 32), (0, 32, 32, 64), (32, 32, 64, 64))
    solid, turned = Solid(0.0, 3.0, 0.6, 0.6, 0.6), replace(four.layout.instances[0], rotation=45)
    instances = (turned, *four.layout.instances[1:3], replace(four.layout.instances[3], solid=solid))
    mixed = compose(Layout(64, 64, instances), [r for r in four.references if r is not None])
    masks = np.zeros((4, 64, 64), bool)
    masks[2, 40:44, 4:8] = True
    control = prepared(mixed, masks=masks, shape=("box", "ellipse", "box", "box")).pictures[1]
    grey = control[..., 0]
    assert grey[16, 16] == 10 and not grey[1, 1] and grey[1, 16] == 10, "turned about its middle"
    assert grey[16, 48] == 20 and not grey[1, 33], "an ellipse"
    assert (grey[:, :32][32:] == 30).sum() == 16, "a mask"
    assert (grey == 40).any() and not (grey[32:, 32:] == 40).all() and control[grey == 40][:, 2].max() == 255
    with pytest.raises(InputError, match="3 shapes for 4 boxes"):
        prepared(mixed, shape=("box",) * 3)
    with pytest.raises(InputError, match="shape is 'circle'"):
        prepared(mixed, shape="circle")


def test_each_subject_may_bring_its_depth_and_the_nearest_counts() -> None:
    two = scene((0, 0, 40, 64), (24, 0, 64, 64))
    depth = np.zeros((2, 64, 64), np.uint8)
    depth[0], depth[1, :32] = np.arange(50, 114)[None], 80
    depth[1, 32:] = 90
    blue = prepared(two, depth=depth).pictures[1][..., 2]
    assert blue[0, 10] == 60 and blue[0, 30] == 80 and blue[0, 35] == 85 and blue[60, 35] == 90 and blue[60, 60] == 90
    white = prepared(two, depth=depth, scale="nearest white").pictures[1][..., 2]
    assert white[60, 60] == round(90 * 255 / 113) and white.max() == round(90 * 255 / 113)
    depth[1] = 0
    none = prepared(two, depth=depth).pictures[1][..., 2]
    assert none[0, 30] == 80 and not none[:, 40:].any(), "a black one is none"
    depth[1] = 7
    assert [w for w in prepared(two, depth=depth).warnings if "box 2" in w and "7 everywhere" in w]
    with pytest.raises(InputError, match="3 depth pictures for 2 boxes"):
        prepared(two, depth=np.zeros((3, 64, 64), np.uint8))


def test_a_subject_without_a_depth_picture_keeps_that_of_its_3d_box() -> None:
    two = scene((0, 0, 30, 64), (32, 0, 64, 64))
    solid = Solid(0.6, 3.0, 1.0, 1.0, 1.0)
    layout = Layout(64, 64, (two.layout.instances[0], replace(two.layout.instances[1], solid=solid)))
    both = compose(layout, [r for r in two.references if r is not None])
    depth = np.zeros((2, 64, 64), np.uint8)
    depth[0] = np.arange(64)[:, None]
    rendered, blue = prepared(both).pictures[1][..., 2], prepared(both, depth=depth).pictures[1][..., 2]
    assert rendered.max() == 255 and np.array_equal(blue[:, 32:], rendered[:, 32:]) and blue[63, 10] == 63


@pytest.mark.parametrize("name", ["depth", "masks"])
def test_a_picture_of_another_form_is_refused(name: str) -> None:
    one = scene((0, 0, 32, 64))
    with pytest.raises(InputError, match=r"is 96 x 64 pixels, the layout 64 x 64; give one with sides"):
        prepared(one, **{name: np.ones((1, 64, 96), bool if name == "masks" else np.uint8)})
    nearly = np.ones((1, 63, 64), bool)
    assert prepared(one, masks=nearly).plan == prepared(one).plan


def test_boxes_that_are_all_hidden_or_missing_are_refused_in_one_sentence() -> None:
    one = scene((0, 0, 32, 64))
    hidden = Layout(64, 64, (replace(one.layout.instances[0], hidden=True),))
    for layout in (hidden, Layout(64, 64, ())):
        with pytest.raises(InputError, match="shown and bound to a reference"):
            prepared(compose(layout, [r for r in one.references if r is not None]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"camera": {"focal": 0}}, "camera.focal = 0"),
        ({"camera": {"focal": "NaN"}}, "camera.focal"),
        ({"x": "NaN"}, "solid.x"),
        ({"d": 0}, "give sizes above 0"),
    ],
)
def test_3d_boxes_that_cannot_be_are_refused_where_the_layout_is_read(wrong: dict[str, Any], said: str) -> None:
    solid = {"x": 0, "z": 3, "w": 1, "h": 1, "d": 1, "at": [0, 0, 32, 32]} | {
        k: v for k, v in wrong.items() if k != "camera"
    }
    boxes = [{"id": "b1", "x": 0, "y": 0, "w": 32, "h": 32, "ref": "r", "solid": solid}]
    with pytest.raises(InputError, match=said):
        Layout.from_json(json.dumps({"v": 1, "canvas": {"w": 64, "h": 64}, "boxes": boxes, **wrong}))


def test_a_report_names_the_hidden_and_the_cost_of_remembered_steps() -> None:
    nested = prepared(scene((0, 0, 64, 64), (16, 16, 32, 32), (8, 8, 48, 48)))
    again = SIGMA_GEN.plan_from(SIGMA_GEN.plan_tuple(nested.plan))
    assert again.seen == nested.plan.seen and again.seen[1] == (0, 0)
    told = measure(Bound(SIGMA_GEN, again, Settings()), 20)
    assert [part.name for part in told.parts] == ["text", "noise", "identities", "control"]
    assert told.later is None and "subject 2 of the stack" in told.as_text()
    fixed = Settings(timestep="zero", context=False, cross=False)
    told = measure(Bound(SIGMA_GEN, again, fixed), 20)
    base, pictures = 20 + 16, 12 + 16
    assert told.remembered == 2 * 57 * pictures * 3072 * 2 and told.later is not None
    assert told.later.linear == 24 * 3072**2 * base * 57
    assert told.later.attention == 4 * 3072 * base * (base + pictures) * 57
    assert told.ours.attention == 4 * 3072 * (base * (base + pictures) + 12**2 + 16**2) * 57
    assert "after the first step" in told.as_text() and told.as_json()["later"]
    small = measure(Bound(SIGMA_GEN, again, replace(fixed, memory=0.001)), 20)
    assert small.later is None and not small.remembered


@pytest.mark.parametrize("cross", [True, False])
def test_without_text_and_noise_the_pictures_see_only_themselves(cross: bool) -> None:
    forward = SIGMA_GEN.forward(PLAN, Settings(timestep="zero", context=False, cross=cross), CALL)
    wanted = np.zeros((26, 26), bool)
    wanted[:10] = wanted[10:20, 10:20] = wanted[20:, 20:] = True
    if cross:
        wanted[10:, 10:] = True
    assert np.array_equal(seen(forward.blocks[0].groups, 26), wanted) and forward.fixed == Span(10, 26)
    assert SIGMA_GEN.forward(PLAN, Settings(context=False, cross=cross), CALL).fixed is None


def test_depth_of_another_size_is_scaled_and_a_flat_one_named() -> None:
    one = scene((0, 0, 32, 64))
    depth = np.repeat(np.arange(32, dtype=np.uint8)[:, None] + 100, 32, axis=1)
    control = prepared(one, depth=depth).pictures[1]
    assert control[62, 4, 2] == control[63, 4, 2] == 131 and not control[:, 40:, 2].any()
    assert prepared(one, depth=depth, whole=True).pictures[1][63, 63, 2] == 131
    assert "the depth is 7 everywhere" in prepared(one, depth=np.full((8, 8), 7, np.uint8)).warnings[0]


def test_pictures_from_elsewhere_are_checked() -> None:
    stack, control = np.zeros((32, 32, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    assert plan_of(stack, control) == Plan(4, 4, 2, 2)
    with pytest.raises(InputError, match="identity stack is 32 x 30"):
        plan_of(stack[:30], control)
    with pytest.raises(InputError, match="1 pixels"):
        plan_of(stack, np.where(np.arange(64 * 64 * 3).reshape(64, 64, 3) == 1, 12, control).astype(np.uint8))


def test_an_adapter_beside_the_weights_holds_all_pairs_by_block() -> None:
    adapter = load_adapter(SIGMA_ADAPTER)
    switched = SwitchedAdapter(adapter, 3, 0.5)
    blocks = [switched.additions(number) for number in range(12)]
    assert sum(map(len, blocks)) + len(switched.embedding()) == len(adapter.pairs) == 55 and not switched.unused
    assert {"attn.to_q", "norm1.linear", "ff.net.2"} <= set(blocks[0]) and "proj_mlp" in blocks[3]
    assert blocks[0]["attn.to_q"][0].scale == 0.5
