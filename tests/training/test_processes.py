"""Several processes train one model: they share the work, agree on the weights, and resume as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from contextgen_core.tiny_vae import NARROW, Taesd
from contextgen_core.training import world
from contextgen_core.training.latents import encode_scenes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("scenes")
    chosen = [world.scene(0, "train", i, world.TIERS[i % 3]) for i in range(6)]
    encode_scenes(Taesd(NARROW), chosen, [world.render(s) for s in chosen]).save(folder)
    return folder


def train(folder: Path, scenes: Path, processes: int, *overrides: str) -> dict[str, torch.Tensor]:
    """Runs SFT in `folder` by the command line; the adapter that it leaves."""
    tree = {
        "stage": "sft",
        "output": str(folder),
        "steps": 4,
        "batch": 2,
        "ema": 0.5,
        "threads": 1,
        "model": {"weights": "shipped"},
        "lora": {"rank": 4},
        "optimizer": {"name": "muon", "rate": 0.05, "warmup": 0},
        "data": {"path": str(scenes)},
        "method": {"kernel": "batched"},
        "every": {"log": 1, "save": 2},
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    own = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *own, "-m", "contextgen_core.training", str(folder / "config.yaml"), *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(folder / "adapter.safetensors") if (folder / "adapter.safetensors").is_file() else {}


def test_two_processes_average_their_gradients_and_resume_to_the_same_adapter(tmp_path: Path, scenes: Path) -> None:
    whole = train(tmp_path / "whole", scenes, 2)
    alone = train(tmp_path / "alone", scenes, 1)
    assert max(float((whole[k] - alone[k]).abs().max()) for k in whole) > 1e-3  # the second process has a say
    assert (tmp_path / "whole" / "metrics.jsonl").read_text().count("\n") == 4  # one log, not two

    assert not train(tmp_path / "parts", scenes, 2, "minutes=0.00001")  # stops after a step
    resumed = train(tmp_path / "parts", scenes, 2)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)
