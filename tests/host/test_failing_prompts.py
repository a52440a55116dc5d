"""Prompts in which something fails, in a real server: each ends in the host's own way, and what was queued again gives
the picture that it always gave."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import failing
import live_server
import numpy as np
import pytest
from workflow_files import SAMPLES, load, pictures

OURS = {"ContextGenTinyModel", "ContextGenTextEncode", "LayoutComposer", "ReferenceBundle", "ContextGenConditioning"}


@pytest.fixture(scope="module")
def server(host_path: Path) -> Iterator[live_server.Server]:
    with live_server.running(host_path, fill=failing.fill) as started:
        for picture in SAMPLES.glob("*.png"):
            shutil.copy(picture, started.base / "input")
        yield started


@pytest.fixture(scope="module")
def prompt() -> dict[str, Any]:
    made = load("tiny_two_subjects")
    made["40"]["inputs"]["steps"] = 2
    return made


def painted(server: live_server.Server, entry: dict[str, Any]) -> np.ndarray:
    (picture,) = pictures(server, entry)
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def wanted(server: live_server.Server, prompt: dict[str, Any]) -> np.ndarray:
    return painted(server, server.run(prompt))


@pytest.mark.parametrize("kind", ["interrupt", "memory"])
def test_each_call_fails_once_and_the_picture_is_the_same(
    server: live_server.Server, prompt: dict[str, Any], wanted: np.ndarray, kind: str
) -> None:
    walked = failing.walk(server, prompt, kind)
    assert walked.strange == []
    assert {one.kind for one in walked.failures if one.place == "node"} >= OURS
    assert {one.place for one in walked.failures} == set(failing.PLACES)
    assert sum(one.place == "step" for one in walked.failures) == 2
    assert np.array_equal(painted(server, walked.entry), wanted)


def test_the_host_goes_on_with_tiles_where_its_vae_has_no_memory(
    server: live_server.Server, prompt: dict[str, Any], wanted: np.ndarray
) -> None:
    walked = failing.walk(server, prompt, "memory", ("encode", "decode"), gently=True)
    assert walked.strange == [] and walked.through == len(walked.failures) > 2
    assert {one.kind for one in walked.failures} == {"ContextGenConditioning", "VAEDecode"}
    assert np.array_equal(painted(server, walked.entry), wanted)


@pytest.mark.parametrize("share", [0, 0.5])
def test_the_picture_is_the_same_while_weights_stay_away(
    server: live_server.Server, prompt: dict[str, Any], wanted: np.ndarray, share: float
) -> None:
    failing.order(server, share=share)
    server.forget()
    before = len(server.log())
    assert np.abs(painted(server, server.run(prompt)) - wanted).max() <= 1
    assert "loaded partially" in server.log()[before:]
    failing.order(server)
    server.forget()
    assert np.array_equal(painted(server, server.run(prompt)), wanted)
