"""One pass for each phrase: what it is compared with must be what the host does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training.batch import Batch
from contextgen_core.training.latents import encode_scenes
from contextgen_core.training.passes import PassNetwork, covered
from contextgen_core.training.small_world import world

CORNERS = st.tuples(*[st.integers(0, 128)] * 4).map(lambda c: (min(c[::2]), min(c[1::2]), max(c[::2]), max(c[1::2])))


class Words:
    """A network whose velocity is the mean of the words it is given."""

    transformer = None

    def __call__(self, batch: Batch, noisy: Tensor, times: Tensor, position: Any = None) -> Tensor:
        return batch.text.mean((1, 2))[:, None, None].expand_as(noisy)


@given(CORNERS)
def test_a_box_covers_its_area_and_nothing_beyond(corners: tuple[int, int, int, int]) -> None:
    shares = covered(corners, 8)
    x1, y1, x2, y2 = corners
    assert np.isclose(shares.sum() * 16 * 16, (x2 - x1) * (y2 - y1))
    assert shares.min() >= 0 and shares.max() <= 1
    assert not shares[y2 // 16 + 1 :].any() and not shares[:, x2 // 16 + 1 :].any()


def test_velocities_are_averaged_by_their_masks() -> None:
    torch.manual_seed(0)
    scenes = [world.scene(0, "train", i, "flexible") for i in range(6)]
    data = encode_scenes(Taesd(NARROW), scenes, [world.render(s) for s in scenes])
    network = PassNetwork(Words())  # type: ignore[arg-type]
    for group in network.reader.buckets(data):
        batch = network.reader.collate(data, group, True)
        velocity = network(batch, torch.zeros_like(batch.target), torch.ones(len(group)))[:, :, 0]
        for row, plan in enumerate(batch.plans):
            said = [plan_words.mean() for plan_words in plan.words]
            expected = batch.text[row].mean() + sum(a * v for a, v in zip(plan.areas, said, strict=True))
            assert torch.allclose(velocity[row], expected / (1 + plan.areas.sum(0)), atol=1e-6)
            assert plan.areas.shape == (data.members(int(group[row])), data.grid**2)
