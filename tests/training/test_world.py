"""The small world: the same scenes everywhere, held-out identities, hidden means hidden."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from contextgen_core.composite.compose import compose
from contextgen_core.errors import InputError
from contextgen_core.methods.sigma_gen.cuboids import depths
from contextgen_core.tiny.text import encode_words
from contextgen_core.training.small_world import evaluate, solids, world


def digest(picture: world.Picture) -> str:
    parts = (picture.composite, picture.references, picture.masks)
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()


@pytest.mark.parametrize("tier", world.TIERS)
def test_the_same_arguments_give_the_same_scene(tier: str) -> None:
    first, again = world.scene(3, "train", 5, tier), world.scene(3, "train", 5, tier)
    assert first == again
    assert digest(world.render(first)) == digest(world.render(again))
    assert world.scene(3, "train", 6, tier) != first
    assert world.scene(4, "train", 5, tier) != first


def test_identities_of_the_splits_are_disjoint_and_cover_every_attribute() -> None:
    train, test = set(world.identities("train")), set(world.identities("test"))
    assert not train & test
    assert len(train) + len(test) == 5 * 4 * 7 * 6
    assert 0.08 < len(test) / (len(train) + len(test)) < 0.17
    for field, size in (("shape", 5), ("pattern", 4), ("first", 7), ("second", 7)):
        assert {getattr(c, field) for c in train} == set(range(size))
        assert {getattr(c, field) for c in test} == set(range(size))


@pytest.mark.parametrize("split", world.SPLITS)
def test_scenes_draw_only_identities_of_their_split(split: str) -> None:
    allowed = set(world.identities(split))
    for tier in world.TIERS:
        for index in range(12):
            assert {m.creature for m in world.scene(0, split, index, tier).members} <= allowed


def test_a_hidden_creature_leaves_no_trace_in_the_composite_but_stands_in_front_in_the_target() -> None:
    for index in range(12):
        scene = world.scene(1, "test", index, "flexible")
        assert [m.hidden for m in scene.members].count(True) == 1
        small = scene.members[0]
        other = scene.members[0]._replace(creature=world.identities("train")[index])
        swapped = scene._replace(members=(other._replace(tilt=-small.tilt), *scene.members[1:]))
        if world.shown(swapped.members)[0] == 0:  # another shape may stick out
            assert np.array_equal(world.render(scene).composite, world.render(swapped).composite)
        assert world.shown(scene.members)[0] == 0
        without = world.render_target(scene, skip=(0,))
        x1, y1, x2, y2 = small.box
        difference = np.abs(world.render_target(scene) - without).max(-1)
        assert (difference[y1:y2, x1:x2] > 0.02).mean() > 0.05
        difference[y1:y2, x1:x2] = 0
        assert difference.max() == 0


def test_tiers_are_what_they_say() -> None:
    few = range(2, 5)
    world_counts = dict.fromkeys(world.TIERS, few) | {"dense": range(6, 10), "words": range(1, 4)}
    for index in range(10):
        apart = [m.box for m in world.scene(0, "train", index, "basic").members]
        assert all(
            not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
            for i, a in enumerate(apart)
            for b in apart[:i]
        )
        crossing = [m.box for m in world.scene(0, "train", index, "complex").members]
        assert any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            for i, a in enumerate(crossing)
            for b in crossing[:i]
        )
        for tier in world.TIERS:
            scene = world.scene(0, "train", index, tier)
            assert len(scene.members) in world_counts[tier]
            assert all(
                0 <= m.box[0] < m.box[2] <= scene.size and 0 <= m.box[1] < m.box[3] <= scene.size for m in scene.members
            )


def test_neither_the_composite_nor_the_reference_is_the_answer() -> None:
    """Copying loses: pose and light of the target are not those of the composite."""
    differences = []
    for index in range(8):
        scene = world.scene(2, "test", index, "basic")
        picture = world.render(scene)
        for member in scene.members:
            x1, y1, x2, y2 = member.box
            subject = world.cover(member) >= 0.5
            gap = picture.target[y1:y2, x1:x2].astype(float) - picture.composite[y1:y2, x1:x2]
            differences.append(np.abs(gap)[subject].mean())
    assert np.mean(differences) > 20


def test_the_truth_is_judged_true_and_another_creature_is_not() -> None:
    scene = world.scene(0, "test", 0, "flexible")
    truth = evaluate.judge(scene, world.render(scene).target)
    assert all(j.exact for j in truth)
    members = list(scene.members)
    wrong = members[0].creature
    members[0] = members[0]._replace(creature=wrong._replace(first=wrong.second, second=wrong.first))
    swapped = evaluate.judge(scene, world.render(scene._replace(members=tuple(members))).target)
    assert not swapped[0].exact
    without = (world.render_target(scene, skip=(0,)) * 255).astype(np.uint8)
    assert not evaluate.judge(scene, without)[0].exact


def test_boxes_are_found_where_they_are_and_not_in_an_empty_scene() -> None:
    scene = next(s for i in range(20) if len((s := world.scene(0, "test", i, "basic")).members) == 2)
    image = world.render_target(scene)
    found = [evaluate.box_iou(scene, k, image) for k in range(2)]
    assert all(np.isnan(v) or v > 0.8 for v in found)
    assert any(not np.isnan(v) for v in found)
    empty = world.background(scene.place, scene.light)
    assert all(np.isnan(v) or v == 0 for v in (evaluate.box_iou(scene, k, empty) for k in range(2)))


def test_creatures_that_touch_are_found_where_they_stand() -> None:
    """Among others: in the wanted picture, not when one is left out, and elsewhere when it was moved."""
    told = moved_too = 0
    for index in range(6):
        scene = world.scene(2, "test", index, "flexible" if index % 2 else "complex")
        truth = world.render_target(scene)
        for k, member in enumerate(scene.members):
            assert evaluate.find_box(scene, k, world.render_target(scene, skip=(k,))) is None
            iou = evaluate.found_iou(scene, k, truth)
            if np.isnan(iou):
                continue
            told += 1
            assert iou >= 0.85 and evaluate.found_iou(scene, k, world.render_target(scene, skip=(k,))) == 0
            x, y, width, height = *member.box[:2], member.box[2] - member.box[0], member.box[3] - member.box[1]
            left, top = (v - 4 if v >= 4 else v + 4 for v in (x, y))
            moved = (left, top, left + width, top + height)
            members = list(scene.members)
            members[k] = member._replace(box=moved)
            picture = world.render_target(scene._replace(members=tuple(members)))
            found = evaluate.find_box(scene, k, picture)
            assert found is not None
            moved_too += evaluate._iou(found, moved) > evaluate._iou(found, member.box)
    assert told >= 12 and moved_too >= told - 1


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="tier 'odd' is unknown"):
        world.scene(0, "train", 0, "odd")
    with pytest.raises(InputError, match="split 'odd' is unknown"):
        world.identities("odd")


def test_bootstrap_of_a_clear_gap_excludes_zero() -> None:
    values = np.array([1.0] * 60 + [0.0] * 40)
    mean, low, high = evaluate.bootstrap(values)
    assert mean == pytest.approx(0.6)
    assert 0.45 < low < 0.6 < high < 0.75


def test_a_paste_is_a_copy_and_the_truth_is_not() -> None:
    scene = world.scene(0, "test", 1, "basic")
    assert max(evaluate.likeness_to_copy(scene, world.render(scene).target)) < 0.05
    assert min(evaluate.likeness_to_copy(scene, world.render_pasted(scene))) > 0.95


# ---- words, crowds, depth and solids --------------------------------------------------------------------------------

_CREATURES = [c for split in world.SPLITS for c in world.identities(split)]
_TOKENS = [encode_words(c.name).tokens[0] for c in _CREATURES]
seeds = st.integers(0, 10_000)
tiers = st.sampled_from(world.TIERS)


@settings(max_examples=40)
@given(seeds, tiers)
def test_captions_name_what_is_drawn_and_only_what_is_asked(index: int, tier: str) -> None:
    """The text encoder reads a caption back as the creatures that it names."""
    scene = world.scene(5, "train", index, tier)
    for named in ([False] * len(scene.members), [True] * len(scene.members), [m.told for m in scene.members]):
        words = encode_words(scene.naming(tuple(named)))
        said = [m.creature for m, n in zip(scene.members, named, strict=True) if n]
        assert int(words.tokens.any(1).sum()) == 2 + len(said)
        for creature, token in zip(said, words.tokens[2:], strict=False):
            near = [float((token - own).norm()) for own in _TOKENS]
            assert _CREATURES[int(np.argmin(near))] == creature
    assert scene.caption == scene.naming(tuple(m.told for m in scene.members))


@settings(max_examples=40)
@given(seeds, tiers)
def test_masks_boxes_depth_and_cuboids_agree(index: int, tier: str) -> None:
    scene = world.scene(6, "train", index, tier)
    masks, depth, cuboids = world.masks(scene), world.depth(scene), world.cuboids(scene)
    assert masks.sum(0).max() <= 1
    assert np.array_equal(np.isfinite(depth), masks.any(0)) and depth.min() > 0
    order = world.front_order(scene)
    far = [world.distance(m, scene.size) for m in scene.members]
    assert all(far[a] >= far[b] for a, b in itertools.pairwise(order))
    target = world.render_target(scene)
    for k, (member, cuboid) in enumerate(zip(scene.members, cuboids, strict=True)):
        x1, y1, x2, y2 = member.box
        assert 0 <= x1 < x2 <= scene.size and 0 <= y1 < y2 <= scene.size
        outside = masks[k].copy()
        outside[y1:y2, x1:x2] = False
        assert not outside.any()
        if k == order[-1]:  # nothing in front: its mask is all of it, and it fills its box to a pixel
            assert masks[k].sum() == (world.cover(member) >= 0.5).sum()
        # the depth of its pixels is its own: not behind it, and not in front of its cuboid's reach
        own = depth[masks[k]]
        assert own.size == 0 or (own.max() <= far[k] + 1e-5 and own.min() >= 0.85 * far[k])
        # its cuboid hides no more than it must and no less: every pixel of the creature lies in the silhouette
        silhouette = np.isfinite(depths([cuboid], scene.size, scene.size, scene.size)[0])
        assert not (masks[k] & ~ndimage.binary_dilation(silhouette, iterations=2)).any()
        assert cuboid.center[2] == pytest.approx(far[k])
        # a pixel of the mask shows this creature: without it the picture differs there
        without = world.render_target(scene, skip=(k,))
        assert not np.abs(target - without)[~masks[k]].max(initial=0) > 0.5 + 1e-6  # soft edges at most


@settings(max_examples=30)
@given(seeds)
def test_solid_creatures_stand_on_the_ground_and_the_nearest_is_in_front(index: int) -> None:
    scene = world.scene(7, "train", index, "solid")
    for member in scene.members:
        assert member.solid is not None
        corners = member.solid.corners()
        assert corners[:, 1].max() == pytest.approx(solids.GROUND) and corners[:, 2].min() > 0
        assert solids.middle_box(member.solid, scene.size) == member.box
        half = solids.half_size(member.solid, member.box[2] - member.box[0], member.box[3] - member.box[1])
        lean = abs(np.deg2rad(member.solid.roll))
        width = 2 * (half[0] * np.cos(lean) + half[1] * np.sin(lean))
        assert width == pytest.approx(member.box[2] - member.box[0]) and min(half) > 4


@settings(max_examples=25)
@given(seeds, st.sampled_from(["basic", "complex", "flexible", "dense", "words", "solid"]))
def test_the_composite_is_what_the_product_composes_and_the_paste_is_it_over_the_ground(index: int, tier: str) -> None:
    scene = world.scene(8, "train", index, tier)
    layout, references = world.request(scene)
    composed = compose(layout, references)
    assert np.array_equal(world.render(scene).composite, composed.composite)
    assert len(references) == len(world.shown_members(scene)) == sum(not m.told for m in scene.members)
    pasted = world.render_pasted(scene)
    ground = (world.background(scene.place, scene.light, scene.size) * 255 + 0.5).astype(np.uint8)
    apart = (pasted != composed.composite).any(-1)
    assert np.array_equal(pasted[apart], ground[apart])
    assert (composed.composite[apart] == world.GREY).all()
    assert np.array_equal(world.shown(scene.members, scene.size), composed.visible)
    if tier == "flexible":
        assert composed.visible[0] == 0


def test_dense_scenes_are_crowded_on_a_larger_canvas() -> None:
    tiny = touching = 0
    for index in range(12):
        scene = world.scene(0, "test", index, "dense")
        boxes = [m.box for m in scene.members]
        assert scene.size == world.DENSE_SIZE and 6 <= len(boxes) <= world.MOST
        worst = max(world.overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert worst <= 0.33
        touching += any(world.overlap(a, b, gap=2) > 0 for i, a in enumerate(boxes) for b in boxes[:i])
        tiny += sum(b[2] - b[0] <= 36 for b in boxes)
        assert len(evaluate.judge(scene, world.render(scene).target)) == len(boxes)  # each is in sight
    assert touching == 12 and tiny >= 12


def test_told_creatures_leave_no_trace_but_in_the_words_and_the_wanted_picture() -> None:
    for index in range(12):
        scene = world.scene(0, "test", index, "words")
        told = [m for m in scene.members if m.told]
        assert told and all(m.creature.name in scene.caption for m in told)
        assert not any(m.creature.name in scene.caption for m in scene.members if not m.told)
        others = [c for c in world.identities("test") if c != told[0].creature]
        swapped = tuple(m._replace(creature=others[0]) if m is told[0] else m for m in scene.members)
        assert np.array_equal(world.render(scene).composite, world.render(scene._replace(members=swapped)).composite)
        assert not np.array_equal(world.render(scene).target, world.render(scene._replace(members=swapped)).target)


def test_told_creatures_are_looked_for_wherever_they_are() -> None:
    scene = world.scene(0, "test", 0, "words")
    scene = scene._replace(members=tuple(m._replace(told=True) for m in scene.members))
    truth = world.render(scene).target
    assert all(j.exact for j in evaluate.judge_told(scene, truth))
    shifted = np.roll(truth, 0, 0)
    member = scene.members[0]
    moved = member._replace(box=(4, 60, 4 + 60, 60 + 56))
    alone = scene._replace(members=(moved,))
    shifted = world.render(alone).target
    assert evaluate.judge_told(scene._replace(members=(member,)), shifted)[0].exact
    wrong = moved._replace(
        creature=member.creature._replace(first=member.creature.second, second=member.creature.first)
    )
    found = evaluate.judge_told(
        scene._replace(members=(member,)), world.render(alone._replace(members=(wrong,))).target
    )
    assert not found[0].exact
