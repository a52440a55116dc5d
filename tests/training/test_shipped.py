"""The shipped weights on a small fixed set: a change of meaning anywhere in the core shows here first.

The recorded numbers are this model's own, made by this file: `python tests/training/test_shipped.py` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from contextgen_core.lora.adapter import load_adapter
from contextgen_core.methods.contextgen.schedule import Rule
from contextgen_core.tiny import model as tiny
from contextgen_core.training import flow, report
from contextgen_core.training.model import FlowNetwork
from contextgen_core.training.small_world import autoencoder, evaluate, world

RECORD = Path(__file__).with_name("shipped_scores.json")
RULES = {"official": Rule.ICA, "paper": Rule.ICA_PAPER, "cla": Rule.CLA}


def small_set() -> report.TestSet:
    return report.test_set(tiny.tiny_autoencoder(), hidden=10, ordinary=2)


def velocity_errors(test: report.TestSet, rule: str, kernel: str) -> list[float]:
    """Error at t = 0.8 inside boxes of hidden creatures and elsewhere, over the scenes with a hidden one."""
    network = report.shipped_network("sft", RULES[rule])
    network = FlowNetwork(network.transformer, network.settings, kernel)
    indices = np.flatnonzero((test.data.hidden >= 0) & (test.data.count == 2))[:4]
    out = []
    for box, hidden in ((0.0, 1.0), (1.0, 0.0)):
        batch = test.data.batch(indices, True, box, hidden)
        noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(11))
        times = torch.full((len(indices),), 0.8)
        with torch.no_grad():
            velocity = network(batch, flow.mix(batch.target, noise, times), times)
        out.append(float(flow.errors(velocity, batch.target, noise, batch.weight).mean()))
    return out


@pytest.fixture(scope="module")
def test_set() -> report.TestSet:
    return small_set()


@pytest.mark.parametrize(
    ("rule", "kernel"),
    [("official", "grouped"), ("official", "batched"), ("paper", "grouped"), ("cla", "grouped")],
)
def test_velocity_errors_are_the_recorded_ones(test_set: report.TestSet, rule: str, kernel: str) -> None:
    recorded = json.loads(RECORD.read_text())[rule]
    assert velocity_errors(test_set, rule, kernel) == pytest.approx(recorded, rel=2e-3)


def test_references_lower_the_error_on_hidden_creatures_and_only_there() -> None:
    recorded = json.loads(RECORD.read_text())
    assert recorded["official"][0] < 0.7 * recorded["cla"][0]
    assert recorded["official"][1] == pytest.approx(recorded["cla"][1], rel=0.15)


def test_hidden_creatures_come_from_their_references(test_set: report.TestSet) -> None:
    """Ten hidden creatures: with references most beat three at random, without them few do."""
    network = report.shipped_network("sft")
    vae = tiny.tiny_autoencoder()
    scores = {}
    for mode in ("full", "cla"):
        scores[mode] = evaluate.score(report.run_mode(network, vae, test_set, mode, steps=6).judgements, True)
    assert scores["full"].count == 10
    assert scores["full"].random >= 0.8
    assert scores["full"].random - scores["cla"].random >= 0.4
    assert scores["full"].psnr > scores["cla"].psnr + 1


def test_the_autoencoder_keeps_what_it_measured() -> None:
    assert autoencoder.psnr(tiny.tiny_autoencoder(), count=12) > 30.3


def test_everything_together_is_small_and_trained() -> None:
    assert tiny.trained()
    adapters = map(tiny.adapter_path, (*tiny.ADAPTERS, *tiny.METHOD_ADAPTERS))
    files = {tiny.FOLDER / tiny.TRANSFORMER, tiny.FOLDER / tiny.AUTOENCODER, *adapters}
    assert files == set(tiny.FOLDER.iterdir())
    assert sum(f.stat().st_size for f in files) < 28e6


@pytest.mark.parametrize("name", sorted(tiny.ADAPTERS))
def test_the_adapters_are_in_the_official_format_on_all_official_modules(name: str) -> None:
    adapter = load_adapter(tiny.adapter_path(name))
    assert len(adapter.pairs) == 1 + 6 * (tiny.CONFIG.num_layers + tiny.CONFIG.num_single_layers)
    assert not adapter.ignored
    assert (adapter.rank, adapter.alpha) == (128, 128)


def test_the_world_still_draws_the_scenes_that_were_trained() -> None:
    picture = world.render(world.scene(0, "train", 0, "flexible"))
    recorded = json.loads(RECORD.read_text())["scene"]
    means = [float(a.mean()) for a in (picture.target, picture.composite, picture.references)]
    assert means == pytest.approx(recorded, abs=0.05)


if __name__ == "__main__":
    made = small_set()
    values: dict[str, list[float]] = {rule: velocity_errors(made, rule, "grouped") for rule in RULES}
    drawn = world.render(world.scene(0, "train", 0, "flexible"))
    values["scene"] = [float(a.mean()) for a in (drawn.target, drawn.composite, drawn.references)]
    RECORD.write_text(json.dumps(values, indent=1) + "\n")
