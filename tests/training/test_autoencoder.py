"""The stage that trains the autoencoder: its error falls, and the file it leaves is what a host loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contextgen_core.tiny.autoencoder import FULL, VAE_SCALE, VAE_SHIFT, Taesd, compact
from contextgen_core.training import run
from contextgen_core.training.config import from_dict
from contextgen_core.training.small_world import autoencoder


def test_training_lowers_the_error_and_leaves_the_full_form_with_normalised_latents(tmp_path: Path) -> None:
    tree = {
        "stage": "autoencoder",
        "output": str(tmp_path),
        "steps": 40,
        "batch": 8,
        "optimizer": {"rate": 2e-3, "warmup": 2},
        "data": {"count": 4},
        "every": {"log": 10, "save": 0},
    }
    config = from_dict(tree)
    task = autoencoder.AutoencoderTask(config)
    run.Run(config, task).go()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["psnr"] > lines[0]["psnr"] + 1

    state = {k: v.float() for k, v in load_file(tmp_path / "autoencoder.safetensors").items()}
    assert (float(state.pop("vae_scale")), float(state.pop("vae_shift"))) == (
        pytest.approx(VAE_SCALE, abs=1e-3),
        pytest.approx(VAE_SHIFT, abs=1e-3),
    )
    hosts = Taesd(FULL)
    hosts.load_state_dict(state)  # every key and shape of TAESD
    trained = task.model.eval().net  # pyright: ignore[reportAttributeAccessIssue]
    pictures = autoencoder.crops(task.pictures, task.references, 8, np.random.default_rng(1))
    with torch.no_grad():
        latents = compact(state).encode(pictures)
        assert (latents - trained.norm(trained.net.encode(pictures))).abs().max() < 0.05  # stored in half precision
        assert (hosts.decode(latents) - trained.net.decode(latents)).abs().max() < 0.02
