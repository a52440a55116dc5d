"""The headless workflows, and the pictures that a server made of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import live_server
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "workflows" / "api"
SAMPLES = ROOT / "assets" / "samples"


def load(name: str) -> dict[str, Any]:
    """The API prompt of workflows/api/NAME.json."""
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def pictures(server: live_server.Server, entry: dict[str, Any], node: str = "42") -> list[Image.Image]:
    """What a node of a finished run showed or saved, RGB."""
    found = server.images({"outputs": {node: entry["outputs"][node]}})
    return [Image.open(io.BytesIO(one)).convert("RGB") for one in found]
