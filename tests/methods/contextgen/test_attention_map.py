"""The attention map against a dense softmax over everything a token may see."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import crowd, plans, sequence_of

from contextgen_core.errors import InputError
from contextgen_core.methods.contextgen.attention_map import (
    AttentionMaps,
    Recorder,
    describe,
    heat,
    reference_mass,
    scaled,
)
from contextgen_core.methods.contextgen.schedule import Rule, make_schedule
from contextgen_core.methods.contextgen.visibility import dense_mask, key_weights


def dense_mass(sequence, rule, q, k) -> torch.Tensor:
    """The definition: softmax over the visible keys with log strengths added, summed over each reference's keys."""
    logits = q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5 + torch.from_numpy(key_weights(sequence))
    visible = torch.from_numpy(dense_mask(sequence, rule))
    shares = logits.masked_fill(~visible, -torch.inf).softmax(-1).mean(dim=(0, 1))  # (S, S)
    mass = torch.zeros(len(sequence.plan.references), sequence.plan.noise_tokens, dtype=torch.float64)
    noise = slice(*sequence.noise_span)
    for number in sequence.active:
        mass[number] = shares[noise][:, torch.from_numpy(sequence.reference_keys(number))].sum(-1)
    return mass


def tensors(
    sequence, seed: int = 0, batch: int = 2, heads: int = 3, width: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads, sequence.length, width)
    return torch.randn(shape, generator=generator) * 2, torch.randn(shape, generator=generator) * 2


@settings(max_examples=80, deadline=None)
@given(
    plan=plans(strengths=(0.0, 0.25, 1.0, 4.0)),
    rule=st.sampled_from(list(Rule)),
    pruned=st.booleans(),
    text=st.integers(1, 9),
)
def test_mass_equals_the_dense_definition(plan, rule, pruned, text):
    sequence = sequence_of(plan, text, pruned)
    q, k = tensors(sequence)
    difference = (reference_mass(sequence, rule, q, k) - dense_mass(sequence, rule, q, k)).abs()
    assert not difference.numel() or difference.max() < 1e-5


@pytest.mark.parametrize("rule", [Rule.ICA, Rule.ICA_PAPER])
def test_thirty_two_overlapping_boxes(rule):
    sequence = sequence_of(crowd(32), 7)
    q, k = tensors(sequence)
    mass = reference_mass(sequence, rule, q, k)
    assert (mass - dense_mass(sequence, rule, q, k)).abs().max() < 1e-5
    assert mass.sum(dim=0).max() <= 1 + 1e-5 and mass.max() > 0.01


def test_a_token_outside_every_box_reads_nothing():
    sequence = sequence_of(crowd(3), 7)
    mass = reference_mass(sequence, Rule.ICA, *tensors(sequence))
    for number in range(3):
        outside = np.setdiff1d(np.arange(sequence.plan.noise_tokens), sequence.box_rows(number) - sequence.text)
        assert mass[number, outside].abs().max() == 0
        assert mass[number, sequence.box_rows(number) - sequence.text].min() > 0


def test_strength_moves_the_share_by_its_odds():
    """Alone in its box, a reference of strength s has odds s times those of strength 1."""
    plan = crowd(1)
    weak, strong = plan, type(plan)(plan.width, plan.height, (plan.references[0]._replace(strength=3.0),))
    q, k = tensors(sequence_of(weak), batch=1, heads=1)
    rows = sequence_of(weak).box_rows(0) - 3
    one = reference_mass(sequence_of(weak), Rule.ICA, q, k)[0, rows]
    three = reference_mass(sequence_of(strong), Rule.ICA, q, k)[0, rows]
    assert torch.allclose(three / (1 - three), 3 * one / (1 - one), rtol=1e-4)


def test_the_recorder_averages_identity_blocks_only():
    schedule = make_schedule(1, 2, ica_blocks=(1, 2))
    sequence = sequence_of(crowd(4), 5)
    forward = SimpleNamespace(private=(sequence, schedule))
    (q1, k1), (q2, k2) = tensors(sequence, 1), tensors(sequence, 2)
    recorder = Recorder()
    recorder(forward, 0, q1, k1)
    recorder(forward, 1, q1, k1)
    recorder(forward, 1, q2, k2)
    maps = recorder.result()
    mean = (reference_mass(sequence, Rule.ICA, q1, k1) + reference_mass(sequence, Rule.ICA, q2, k2)) / 2
    assert maps.calls == 2 and maps.mass.shape == (4, sequence.plan.height, sequence.plan.width)
    assert np.allclose(maps.mass.reshape(4, -1), mean.numpy())
    with pytest.raises(InputError, match="no reference was read"):
        Recorder().result()
    other = sequence_of(crowd(4, seed=1), 5)
    with pytest.raises(InputError, match="two layouts"):
        recorder(SimpleNamespace(private=(other, schedule)), 1, *tensors(other))


def test_no_tensor_of_sequence_by_sequence_exists(monkeypatch):
    """Every tensor made on the way stays far below S x S numbers."""
    sequence = sequence_of(crowd(2, width=40, height=40), 16)
    q, k = tensors(sequence, batch=1, heads=1, width=8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(one, torch.Tensor):
                    largest = max(largest, one.numel())
            return out

    with Watch():
        reference_mass(sequence, Rule.ICA, q, k)
    assert largest <= sequence.length * 8 < sequence.length**2 / 100


def test_heat_shows_where_and_leaves_the_rest():
    picture = np.full((32, 48, 3), 100, np.uint8)
    values = np.zeros((4, 6), np.float32)
    values[1, 1] = 1
    shown = heat(picture, values)
    assert shown.shape == picture.shape and (shown[24:, 32:] == 100).all()
    assert shown[12, 12, 0] > 180 > 100 > shown[12, 12, 2] - 20


def test_scales_and_words():
    mass = np.zeros((2, 2, 2), np.float32)
    mass[0, 0, 0], mass[1, 1, 1] = 0.5, 0.1
    maps = AttentionMaps(("Anna", "Ben"), mass, 3)
    assert scaled(maps, True).max(axis=(1, 2)).tolist() == pytest.approx([1.0, 0.2])
    assert scaled(maps, False).max(axis=(1, 2)).tolist() == [1.0, 1.0]
    empty = AttentionMaps(("Anna",), np.zeros((1, 2, 2), np.float32), 1)
    assert not scaled(empty, True).any()
    box = np.array([[True, True], [False, False]])
    text = describe(maps, [box, box])
    assert "Anna: 25.00 %" in text and "50.00 % at most" in text and "Ben: not read" in text
