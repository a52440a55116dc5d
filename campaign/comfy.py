"""Real ComfyUIs for the campaign: which there are, servers with the pack in them, and the small workflows."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from contextgen_core.hosts.comfy_process import comfy_python

from .frame import ROOT, NotHere

API = ROOT / "workflows" / "api"
SAMPLES = ROOT / "assets" / "samples"
Prompt = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """A ComfyUI on this machine and the interpreter that it runs in."""

    path: Path
    python: Path
    version: str


def hosts() -> list[Host]:
    """The ComfyUIs of COMFYUI_PATH, else ~/comfy/ComfyUI and ~/comfy/ComfyUI-*. Raises NotHere where there is none."""
    named = [Path(entry).expanduser() for entry in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if entry]
    base = Path.home() / "comfy"
    paths = [path for path in named or [base / "ComfyUI", *sorted(base.glob("ComfyUI-*"))] if (path / "comfy").is_dir()]
    if not paths:
        raise NotHere("no ComfyUI; make host installs two, or name one in COMFYUI_PATH")
    return [Host(path, comfy_python(path), _version(path)) for path in paths]


def _version(path: Path) -> str:
    said = re.search(r'"(.+)"', (path / "comfyui_version.py").read_text("utf-8"))
    return said[1] if said else "unknown"


@cache
def live_server() -> ModuleType:
    """tests/host/live_server.py."""
    spec = importlib.util.spec_from_file_location("live_server", ROOT / "tests" / "host" / "live_server.py")
    if spec is None or spec.loader is None:
        raise ImportError("no module loader for tests/host/live_server.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["live_server"] = module
    spec.loader.exec_module(module)
    return module


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
