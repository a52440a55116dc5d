"""The workflow tiny_demo makes the demonstration's pictures: what `make demo` paints with diffusers, this host paints
from the same seed, to one step of 255. Both hosts equal to it are equal to each other."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import live_server
import numpy as np
import pytest
from PIL import Image
from workflow_files import ROOT, load, pictures

SAVED = {"42": "result", "52": "cla_only"}  # SaveImage nodes, and the demonstration's names of what they save
SEEN = {"30": "composite"}


def interpreter() -> Path:
    """The repository's own Python, which has diffusers; the host's has not."""
    names = (ROOT / ".venv" / "bin" / "python", ROOT / ".venv" / "Scripts" / "python.exe")
    found = next((name for name in names if name.exists()), None)
    if found is None:
        pytest.skip("no .venv: make setup")
    return found


@pytest.fixture(scope="module")
def entry(stocked: live_server.Server) -> dict[str, Any]:
    return stocked.run(load("tiny_demo"))


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demonstration's pictures, made by diffusers."""
    out = tmp_path_factory.mktemp("demo")
    command = [str(interpreter()), "-m", "contextgen_core.demo", "--case", "creatures", "--out", str(out)]
    # The variables of the host's interpreter would send the other one to the wrong packages.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300)
    return out


def pixels(server: live_server.Server, entry: dict[str, Any], node: str) -> np.ndarray:
    (picture,) = pictures(server, entry, node)
    return np.asarray(picture, np.int16)


@pytest.mark.parametrize(("node", "name"), [*SEEN.items(), *SAVED.items()])
def test_the_host_makes_the_demonstration_s_picture(
    server: live_server.Server, entry: dict[str, Any], demonstration: Path, node: str, name: str
) -> None:
    expected = np.asarray(Image.open(demonstration / f"creatures_{name}.png"), np.int16)
    made = pixels(server, entry, node)
    difference = np.abs(made - expected)
    assert made.shape == expected.shape
    assert difference.max() <= (0 if name == "composite" else 1)
    assert difference.mean() < 0.05  # a pixel in twenty rounds the other way, not every second one


def test_the_two_branches_differ_by_the_references_alone(server: live_server.Server, entry: dict[str, Any]) -> None:
    """From the same noise: equal but for what the references say."""
    full, cla = (pixels(server, entry, node) for node in SAVED)
    assert np.abs(full - cla).max() > 16
    samplers = [node["inputs"] for node in load("tiny_demo").values() if node["class_type"] == "KSampler"]
    assert len(samplers) == 2
    assert {key for key in samplers[0] if samplers[0][key] != samplers[1][key]} == {"model"}


def test_the_host_s_own_lora_loader_paints_the_same_with_the_trainer_s_file(
    stocked: live_server.Server, entry: dict[str, Any]
) -> None:
    """The adapter as the trainer writes it, without any node of ours between it and the host."""
    folder = stocked.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "contextgen_core" / "tiny" / "weights" / "tiny_contextgen_sft.safetensors", folder)
    prompt = load("tiny_demo")
    inputs = {"model": ["1", 0], "lora_name": "tiny_contextgen_sft.safetensors", "strength_model": 1.0}
    prompt["4"] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    other = stocked.run(prompt)
    assert np.abs(pixels(stocked, other, "42") - pixels(stocked, entry, "42")).max() <= 1
    bare = {**prompt, "5": {**prompt["5"], "inputs": {**prompt["5"]["inputs"], "model": ["1", 0]}}}
    without = stocked.run(bare)
    assert np.abs(pixels(stocked, without, "42") - pixels(stocked, entry, "42")).max() > 16
