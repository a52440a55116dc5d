"""Bulk runs on this ComfyUI: through its address, and as one of the worker's own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contextgen_pack.contextgen_core.bulk.backend import HostError
from contextgen_pack.contextgen_core.bulk.comfy import Comfy, OwnComfy
from contextgen_pack.contextgen_core.bulk.graph import Graph
from contextgen_pack.contextgen_core.errors import InputError
from PIL import Image
from test_tiny_demo import interpreter
from workflow_files import ROOT

WORKFLOW = ROOT / "workflows" / "api" / "tiny_two_subjects.json"
SAMPLES = ROOT / "assets" / "samples"


def rows() -> list[dict[str, Any]]:
    files = {"disc": "contextgen_cat.png", "heart": "contextgen_cup.png"}
    return [
        {"id": "one", "references": files, "prompt": "the shore at night", "seed": 1, "KSampler.steps": 2},
        {"id": "two", "KSampler.steps": 2, "references": list(files.values())},
        {"id": "refused", "KSampler.steps": -1, "references": files},
        {
            "id": "raises",
            "KSampler.steps": 2,
            "Reference: heart.size": 16384,
            "layout": {"v": 1, "canvas": {"w": 128, "h": 128}, "boxes": "none"},
        },
    ]


def test_a_table_on_a_running_host(server: Any, tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    command = [str(interpreter()), "-m", "contextgen_core.bulk", "generate", str(table), "--workflow", str(WORKFLOW)]
    command += ["--comfy", server.url, "--out", str(tmp_path / "out"), "--allow", str(SAMPLES)]
    table.write_text(table.read_text().replace("contextgen_c", str(SAMPLES / "contextgen_c")))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    assert "2 of 4 rows done, 2 failed" in ended.stdout
    lines = (tmp_path / "out" / "failed.jsonl").read_text().splitlines()
    failed = {entry["row"]: entry["error"] for entry in map(json.loads, lines)}
    assert "KSampler" in failed["refused"] and "boxes" in failed["raises"]
    assert all("\n" not in error for error in failed.values())
    made = tmp_path / "out" / "pictures" / "0000" / "000000-one.png"
    with Image.open(made) as picture:
        assert json.loads(picture.info["prompt"])["40"]["inputs"]["seed"] == 1  # opens in the page as ever
        pixels = np.asarray(picture.convert("RGB"))
    # the same by hand
    graph = Graph.read(WORKFLOW).fill(rows()[0], "one", SAMPLES)
    again = Comfy(server.url).paint(graph, 1)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(again.picture)).convert("RGB")), pixels)
    assert not any("the shore at night" in json.dumps(entry) for entry in server.json("/history").values())


def test_a_host_of_the_worker_s_own_ends_with_it(host_path: Path) -> None:
    host = OwnComfy(host_path, sys.executable, arguments=("--cpu",))
    try:
        assert host.version() and not host.missing(Graph.read(WORKFLOW))
        filled = Graph.read(WORKFLOW).fill({**rows()[0], "KSampler.steps": 40}, "one", SAMPLES)
        threading.Timer(1.5, lambda: os.kill(host.process.pid, signal.SIGKILL)).start()
        with pytest.raises(HostError, match="does not answer"):
            host.paint(filled, 1)
        host.process.wait(30)  # its sockets are gone a moment before it is
        assert not host.alive()
    finally:
        host.close()
    assert not host.base.exists()


def test_a_host_of_the_worker_s_own_where_no_links_can_be_made(
    host_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refused)
    host = OwnComfy(host_path, sys.executable, arguments=("--cpu",))
    try:
        assert not any(path.is_symlink() for path in host.base.rglob("*"))
        assert not host.missing(Graph.read(WORKFLOW))
        assert str(host_path) in (host.base / "server.log").read_text()  # "Adding extra search path ..."
    finally:
        host.close()


def test_a_host_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ComfyUI in"):
        OwnComfy(tmp_path)
    with pytest.raises(HostError, match="does not answer"):
        Comfy("http://127.0.0.1:9", timeout=2).version()
    with pytest.raises(InputError, match="address"):
        Comfy("file:///etc/passwd")


def test_nodes_that_the_host_lacks_are_named(server: Any) -> None:
    graph = Graph({"1": {"class_type": "NoSuchNode", "inputs": {}}, "2": {"class_type": "KSampler", "inputs": {}}})
    assert Comfy(server.url).missing(graph) == ["NoSuchNode"]
