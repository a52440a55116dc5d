"""The production path against golden outputs of the authors' code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import CONTEXTGEN, CONTEXTGEN_ADAPTER, CONTEXTGEN_CASES, SIGMA_ADAPTER, SIGMA_CASE

from contextgen_core.commands import parity
from contextgen_core.hosts.comfy_process import find_comfy
from contextgen_core.methods.contextgen import parity as contextgen_parity
from contextgen_core.methods.contextgen.schedule import Rule

FILES = ["--weights", str(CONTEXTGEN / "transformer.safetensors"), "--config", str(CONTEXTGEN / "config.json")]


def run(case: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    status = parity.main([str(case), *FILES, *words])
    result = json.loads(capsys.readouterr().out)
    assert (status == 0) is result["ok"]
    return result


@pytest.mark.parametrize("case", CONTEXTGEN_CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("attention", ["auto", "grouped", "merge", "dense"])
@pytest.mark.parametrize("prune", ["on", "off"])
@pytest.mark.parametrize("rule", ["official", "paper", "cla"])
def test_diffusers(case: Path, attention: str, prune: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(case, capsys, "--host", "diffusers", "--attention", attention, "--prune", prune, "--rule", rule)
    assert result["ok"], result


@pytest.mark.parametrize("case", CONTEXTGEN_CASES, ids=lambda p: p.stem)
def test_rounded_ids(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(case, capsys, "--host", "diffusers", "--ids", "bfloat16")["ok"]


@pytest.mark.skipif(find_comfy() is None, reason="no ComfyUI found")
@pytest.mark.parametrize("attention", ["grouped", "dense"])
def test_comfy(attention: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(CONTEXTGEN_CASES[0], capsys, "--host", "comfy", "--attention", attention)["ok"]


def test_a_wrong_rule_is_noticed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contextgen_parity.RULES, "official", Rule.CLA)
    result = run(CONTEXTGEN_CASES[-1], capsys, "--host", "diffusers")
    assert not result["ok"] and result["velocity_max_abs_diff"] > 1e-2  # type: ignore[operator]


def test_an_adapter_of_the_official_format_changes_the_velocity(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(CONTEXTGEN_CASES[-1], capsys, "--host", "diffusers", "--adapter", str(CONTEXTGEN_ADAPTER))
    assert not result["ok"] and result["velocity_max_abs_diff"] > 1  # type: ignore[operator]


@pytest.mark.skipif(find_comfy() is None, reason="no ComfyUI found")
def test_an_adapter_gives_the_same_velocity_on_both_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host fuses query, key and value and patches weights; diffusers adds the same change to its own layers."""
    kept: dict[str, torch.Tensor] = {}
    for host, name in (("diffusers", "diffusers_velocity"), ("comfy", "comfy_velocity")):
        real = getattr(parity, name)

        def keep(*given: object, real: Any = real, host: str = host) -> torch.Tensor:
            kept[host] = real(*given)
            return kept[host]

        monkeypatch.setattr(parity, name, keep)
        parity.main([str(CONTEXTGEN_CASES[0]), *FILES, "--host", host, "--adapter", str(CONTEXTGEN_ADAPTER)])
    assert float((kept["diffusers"] - kept["comfy"]).abs().max()) < 2e-5


def test_packing_is_channel_major_inside_a_token() -> None:
    latent = torch.arange(16 * 4 * 6).reshape(1, 16, 4, 6)
    tokens = parity.pack(latent)
    assert tokens.shape == (1, 6, 64)
    for c, dy, dx in ((0, 0, 0), (3, 1, 0), (15, 1, 1)):
        assert tokens[0, 4, c * 4 + dy * 2 + dx] == latent[0, c, 2 * 1 + dy, 2 * 1 + dx]


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / "none.npz"), "--weights", "w", "--config", "c", "--host", "diffusers"]
    assert parity.main(words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_case_is_planned_from_pixels_alone(tmp_path: Path) -> None:
    mask = np.zeros((32, 48), np.uint8)
    mask[:16, 16:48] = 255
    np.savez(tmp_path / "case.npz", target_wh=[64, 32], boxes_px=[[10, 0, 33, 90]], ref0_mask=mask)
    with np.load(tmp_path / "case.npz") as arrays:
        plan = contextgen_parity.plan_of(arrays)
    (reference,) = plan.references
    assert (plan.width, plan.height) == (4, 2)
    assert tuple(reference.box) == (0, 0, 3, 2)
    assert (reference.width, reference.height) == (3, 2) and any(reference.valid)


@pytest.mark.parametrize("timestep", ["current", "zero"])
@pytest.mark.parametrize("scope", ["all", "conditions"])
@pytest.mark.parametrize("cross", ["on", "off"])
def test_sigma_gen(timestep: str, scope: str, cross: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--timestep", timestep, "--scope", scope, "--cross", cross, "--adapter", str(SIGMA_ADAPTER)]
    result = run(SIGMA_CASE, capsys, "--host", "diffusers", "--method", "sigma_gen", *words)
    assert result["ok"], result


@pytest.mark.parametrize(
    "words",
    [
        [
            "--timestep",
            "zero",
            "--scope",
            "conditions",
            "--condition-guidance",
            "user",
            "--adapter",
            str(SIGMA_ADAPTER),
        ],
        ["--condition-guidance", "one", "--adapter", str(SIGMA_ADAPTER)],
        ["--timestep", "zero"],
        [],
    ],
)
def test_guidance_of_sigma_gen_s_conditions_and_no_adapter(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(SIGMA_CASE, capsys, "--host", "diffusers", "--method", "sigma_gen", *words)["ok"]


def test_an_answer_that_no_case_holds_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(SIGMA_CASE), *FILES, "--host", "diffusers", "--method", "sigma_gen", "--cross", "off"]
    assert parity.main(words) == 2
    assert "velocity__tcur__loranone__nocross" in capsys.readouterr().err
