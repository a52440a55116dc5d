"""A short training run from the shipped base whose only question is: are the references read?

Two scenes share composite, words and boxes; they differ in the hidden creature, which only its reference shows. So
the error inside the hidden box can fall below that of the swapped reference in one way only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contextgen_core.tiny import model as tiny
from contextgen_core.training import flow
from contextgen_core.training.config import from_dict
from contextgen_core.training.latents import LatentSet, encode_scenes
from contextgen_core.training.run import Run
from contextgen_core.training.small_world import world
from contextgen_core.training.tasks import TransformerTask


@pytest.fixture(scope="module")
def twins() -> LatentSet:
    scene = next(s for i in range(20) if len((s := world.scene(0, "train", i, "flexible")).members) == 2)
    small = scene.members[0]
    disc = [world.Creature(0, 3, a, b) for a, b in ((0, 5), (2, 1))]  # rimmed discs: red and white, green and yellow
    scenes = [scene._replace(members=(small._replace(creature=c), scene.members[1])) for c in disc]
    pictures = [world.render(s) for s in scenes]
    assert np.array_equal(pictures[0].composite, pictures[1].composite)
    return encode_scenes(tiny.tiny_autoencoder(), scenes, pictures)


def errors(task: TransformerTask, data: LatentSet) -> torch.Tensor:
    """Error inside the hidden box from pure noise, which shows nothing of the twins, (2,): one per twin."""
    batch = data.batch(np.array([0, 1]), True, box=0.0, hidden=1.0)
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(3))
    times = torch.ones(2)
    with torch.no_grad():
        velocity = task.network(batch, flow.mix(batch.target, noise, times), times)
    return flow.errors(velocity, batch.target, noise, batch.weight)


def test_a_minute_of_training_lowers_the_loss_and_reads_the_references(twins: LatentSet, tmp_path: Path) -> None:
    config = from_dict(
        {
            "stage": "sft",
            "output": str(tmp_path),
            "steps": 80,
            "batch": 8,
            "seed": 1,
            "model": {"weights": "shipped"},
            "lora": {"rank": 128, "folded": True, "one_sided": True},
            "optimizer": {"name": "muon", "rate": 0.1, "warmup": 2, "tail": 0.3},
            "flow": {"mean": 6.0, "box": 0.5, "hidden": 20.0},
            "method": {"kernel": "batched"},
            "every": {"log": 5, "save": 0},
        }
    )
    task = TransformerTask(config, twins)
    swapped = replace(twins, references=twins.references[::-1].copy())
    before = errors(task, twins).mean()
    assert errors(task, swapped).mean() == pytest.approx(
        float(before), rel=0.02
    )  # the base makes nothing of a reference
    Run(config, task).go()
    right, wrong = errors(task, twins), errors(task, swapped)
    assert right.mean() < 0.7 * before
    assert (right < 0.7 * wrong).all()
