"""The ablations: each variant changes what it says, and the document keeps what is not the command's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import randomise

from contextgen_core.errors import InputError
from contextgen_core.pictures import GAP
from contextgen_core.tiny import model as tiny
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training import ablate, report
from contextgen_core.training.ablate import Outcome
from contextgen_core.training.latents import LatentSet, encode_scenes
from contextgen_core.training.small_world import world
from contextgen_core.training.small_world.evaluate import Judgement
from contextgen_core.training.tasks import TransformerTask


@pytest.fixture(scope="module")
def data() -> LatentSet:
    torch.manual_seed(0)
    chosen = [world.scene(0, "train", i, "flexible") for i in range(3)]
    return encode_scenes(Taesd(NARROW), chosen, [world.render(s) for s in chosen])


def velocity(name: str, data: LatentSet) -> torch.Tensor:
    variant = next(v for v in ablate.VARIANTS if v.name == name)
    task = TransformerTask(ablate.config_of(variant, 0, 1, 2, "unused", Path("unused")), data)
    randomise(task.network.transformer)
    with torch.no_grad():
        batch, times, noise = task.inputs(1, 0)
        return task.network(batch, noise, times)


def test_every_variant_computes_something_else(data: LatentSet) -> None:
    made = {v.name: velocity(v.name, data) for v in ablate.VARIANTS}
    names = list(made)
    for i, first in enumerate(names):
        assert torch.isfinite(made[first]).all()
        for second in names[:i]:
            assert not torch.allclose(made[first], made[second], atol=1e-4), (first, second)


def test_variants_that_only_the_batched_kernel_knows_are_refused_elsewhere(data: LatentSet) -> None:
    from contextgen_core.training.config import from_dict

    tree = {"stage": "sft", "output": "unused", "lora": {"rank": 2}, "method": {"kernel": "grouped", "masks": False}}
    with pytest.raises(InputError, match="set method.kernel to batched"):
        TransformerTask(from_dict(tree), data)


def test_the_document_keeps_its_own_text() -> None:
    document = f"# Evidence\n\nfirst\n\n{ablate.START}\nold\n{ablate.END}\n\nlast\n"
    made = ablate.insert(document, "new")
    assert "first" in made and "last" in made and "new" in made and "old" not in made
    assert ablate.insert(made, "new") == made
    assert ablate.insert("# Evidence\n", "new").count(ablate.START) == 1


def outcome(share: float, likeness: float = 0.4) -> Outcome:
    hidden = [Judgement(k, 0, True, (k < share * 40,) * 5, 10.0, float("nan")) for k in range(40)]
    visible = [Judgement(k, 1, False, (True,) * 5, 15.0, float("nan")) for k in range(10)]
    return Outcome(hidden + visible, [likeness] * 10)


def test_the_table_gives_spread_and_paired_difference() -> None:
    text = ablate.table({"official": [outcome(0.8), outcome(0.7)], "cla": [outcome(0.2), outcome(0.3)]})
    assert "0.75 ± 0.07" in text and "0.25 ± 0.07" in text
    row = next(line for line in text.splitlines() if line.startswith("| nowhere"))
    assert "-0.50 [" in row
    assert np.all(["nan" not in line.split("|")[3] for line in text.splitlines()[2:]])


def test_the_dpo_table_sets_every_beta_against_the_adapter_it_started_from() -> None:
    text = ablate.dpo_table({5.0: [outcome(0.8, 0.35), outcome(0.6, 0.37)]}, outcome(0.8, 0.40))
    start, row = text.splitlines()[2:]
    assert start.startswith("| SFT | 1 | 0.400 |") and row.startswith("| DPO, beta 5 | 2 | 0.360 ± 0.014 |")
    assert row.split("|")[-2].strip().startswith("-0.040 [-0.0")


def test_outcomes_survive_the_disk(tmp_path: Path) -> None:
    made = outcome(0.5)
    made.save(tmp_path / "outcome.json")
    again = Outcome.load(tmp_path / "outcome.json")
    assert again.likeness == made.likeness and [j.nearer for j in again.judgements] == [
        j.nearer for j in made.judgements
    ]


def test_dpo_starts_from_the_shipped_adapter_with_its_own_beta(data: LatentSet) -> None:
    config = ablate.dpo_config_of(7.0, 1, 3, "unused", Path("unused"))
    assert config.stage == "dpo" and config.dpo.beta == 7.0 and config.model.adapter == str(tiny.adapter_path("sft"))
    TransformerTask(config, data)  # the adapter's shapes fit


def test_a_run_is_judged_once_and_painted_with_its_own_adapter(data: LatentSet, tmp_path: Path) -> None:
    data.save(tmp_path / "scenes")
    held = ablate.Held(1, 0)
    configs = {}
    for name in ("official", "cla"):
        variant = next(v for v in ablate.VARIANTS if v.name == name)
        configs[name] = ablate.config_of(variant, 0, 1, 2, str(tmp_path / "scenes"), tmp_path)
    first = ablate.run_one(configs["official"], held)
    assert any(j.hidden for j in first.judgements)
    assert ablate.run_one(configs["official"], held).judgements[0].nearer == first.judgements[0].nearer  # from the disk
    shutil.copytree(tmp_path / "official_0", tmp_path / "cla_0")
    painted = ablate.sheet(configs, count=1)
    columns = np.split(painted[-world.SIZE :], [(world.SIZE + GAP) * k for k in range(1, 5)], axis=1)
    own = [c[:, : world.SIZE].astype(int) for c in columns]
    assert len(own) == 5 and all(c.shape == (world.SIZE, world.SIZE, 3) for c in own)
    assert np.array_equal(own[4], world.render(report.test_set(tiny.tiny_autoencoder(), 1, 0, 3).scenes[0]).target)
    assert np.abs(own[2] - own[3]).max() > 0  # same adapter, other rule
