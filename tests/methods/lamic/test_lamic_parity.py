"""LAMIC on its hosts against the authors' program: one velocity in each stage, and a run of four steps."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch
from golden import CONTEXTGEN, LAMIC_CASE

from contextgen_core.backbones.flux import pack
from contextgen_core.commands import parity
from contextgen_core.hosts.comfy_process import find_comfy
from contextgen_core.hosts.diffusers import FlowPosition, FluxHost, load_transformer
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.lamic import parity as lamic_parity
from contextgen_core.methods.lamic import visibility
from contextgen_core.methods.lamic.method import LAMIC, LamicSettings

WEIGHTS, CONFIG = CONTEXTGEN / "transformer.safetensors", CONTEXTGEN / "config.json"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    files = [str(LAMIC_CASE), "--weights", str(WEIGHTS), "--config", str(CONFIG), "--method", "lamic"]
    status = parity.main([*files, *words])
    result = json.loads(capsys.readouterr().out)
    assert (status == 0) is result["ok"]
    return result


@pytest.mark.parametrize("attention", ["auto", "grouped", "merge", "dense"])
@pytest.mark.parametrize("stage", ["1", "2", "full"])
def test_diffusers(stage: str, attention: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--host", "diffusers", "--stage", stage, "--attention", attention)
    assert result["ok"] and result["masks_equal"] and result["ids_max_abs_diff"] == 0, result


def test_kept_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--host", "diffusers", "--stage", "1", "--overlap", "kept")["ok"]


@pytest.mark.skipif(find_comfy() is None, reason="no ComfyUI found")
@pytest.mark.parametrize("stage", ["1", "2"])
def test_comfy(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--host", "comfy", "--stage", stage)["ok"]


def test_a_wrong_rule_is_noticed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(visibility.TABLE, "P", "111011")  # only the dense form knows the table
    assert not run(capsys, "--host", "diffusers")["masks_equal"]


def test_the_stages_of_a_run_are_the_authors() -> None:
    """Four steps, a first ratio of 0.25: the first step in the first stage, three in the second."""
    with np.load(LAMIC_CASE) as file:
        arrays = dict(file)
    words = argparse.Namespace(stage="2", overlap="removed", attention="auto")
    case = lamic_parity.golden(arrays, words)
    bound = Bound(LAMIC, case.bound.plan, LamicSettings(first_ratio=0.25))
    sigmas = [float(sigma) for sigma in arrays["trajectory_sigmas"]]
    x = pack(case.noise)
    transformer = load_transformer(*parity.transformer(CONFIG, WEIGHTS, case.config))
    stages = []
    with torch.no_grad(), FluxHost(transformer) as host:
        for step, wanted in enumerate(arrays["trajectory"]):
            position = FlowPosition(sigmas[step], sigmas, x.shape[1])
            stages.append(1 if LAMIC.moment(bound.plan, bound.settings, position)[0] else 2)  # type: ignore[index]
            velocity = host.velocity(
                bound,
                x,
                torch.cat([pack(latent) for latent in case.pictures], dim=1),
                text=case.text,
                pooled=case.pooled,
                timestep=torch.tensor([sigmas[step]]),
                guidance=case.guidance,
                position=position,
            )
            x = x + (sigmas[step + 1] - sigmas[step]) * velocity
            assert float((x[0] - torch.from_numpy(wanted)).abs().max()) < 2e-5, step
    assert stages == arrays["trajectory_stages"].tolist()
