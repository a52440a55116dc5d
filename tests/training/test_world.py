"""The small world: the same scenes everywhere, held-out identities, hidden means hidden."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from contextgen_core.errors import InputError
from contextgen_core.training.small_world import evaluate, world


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
