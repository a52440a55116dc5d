"""Real ComfyUIs for the campaign: which there are, servers with the pack in them, and the small workflows."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from .frame import ROOT, NotHere, host_tools, load

API = ROOT / "workflows" / "api"
SAMPLES = ROOT / "assets" / "samples"
PATIENCE = 900  # seconds for a server's start: a campaign runs beside other work
Prompt = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """A ComfyUI on this machine and the interpreter that it runs in."""

    path: Path
    python: Path
    version: str


def hosts() -> list[Host]:
    """The ComfyUIs that the tests run in. Raises NotHere where there is none."""
    tools = host_tools()
    found = [one for one in tools.find_hosts() if one.python and (one.path / "comfy").is_dir()]
    if not found:
        raise NotHere("no ComfyUI; make host installs two, or name one in COMFYUI_PATH")
    return [Host(one.path, one.python, tools.host_version(one.path)) for one in found]


def live_server() -> ModuleType:
    """tests/host/live_server.py."""
    return load("tests/host/live_server.py")


@contextlib.contextmanager
def served(host: Host, **how: Any) -> Iterator[Any]:
    """A started server with the sample pictures among its inputs; ``how`` as live_server.running takes it."""
    with live_server().running(host.path, str(host.python), timeout=PATIENCE, **how) as server:
        for picture in SAMPLES.glob("*.png"):
            shutil.copy(picture, server.base / "input")
        yield server


@cache
def _read(name: str) -> Prompt:
    return json.loads((API / f"{name}.json").read_text("utf-8"))


def prompt(name: str) -> Prompt:
    """A copy of the API prompt workflows/api/NAME.json."""
    return copy.deepcopy(_read(name))


def small() -> list[str]:
    """The names of the workflows that need no download."""
    return sorted(path.stem for path in API.glob("tiny_*.json"))


def pixels(server: Any, entry: dict[str, Any], node: str = "42") -> list[np.ndarray]:
    """What a node of a finished run showed or saved, uint8 (height, width, channels) each."""
    encoded = server.images({"outputs": {node: entry["outputs"][node]}})
    return [np.asarray(Image.open(io.BytesIO(one))) for one in encoded]
