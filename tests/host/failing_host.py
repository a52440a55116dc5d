"""In a server's process: calls of what nodes rely on fail, each once, as the orders say (see failing.py)."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.samplers
import comfy.sd
import comfy.taesd.taesd
import folder_paths  # pyright: ignore[reportMissingImports]
import server  # pyright: ignore[reportMissingImports]
import torch

import nodes  # pyright: ignore[reportMissingImports]

from . import offload

ORDERS, LOG = "failing.json", "failing.jsonl"
PLACES = {
    "node": (nodes, "before_node_execution"),
    "load": (management, "load_models_gpu"),
    "text": (comfy.sd.CLIP, "encode_from_tokens"),
    "encode": (comfy.taesd.taesd.TAESD, "encode"),
    "step": (comfy.samplers, "sampling_function"),
    "decode": (comfy.taesd.taesd.TAESD, "decode"),
}


class Failing:
    """Which calls have failed, by node, place and their number in the node's run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders: dict[str, Any] = {}
        self.read = 0
        self.prompt = ""
        self.node = ""
        self.calls: Counter[str] = Counter()
        self.failed: set[tuple[str, str, int]] = set()
        self.quiet = False

    def renew(self) -> None:
        """Looks for new orders, between prompts."""
        file = self.folder / ORDERS
        changed = file.stat().st_mtime_ns if file.exists() else 0
        if changed != self.read:
            self.orders, self.read = json.loads(file.read_text("utf-8")), changed
            self.failed.clear()
            offload.set_share(self.orders.get("share"))

    def reached(self, place: str) -> None:
        here = server.PromptServer.instance
        if here.last_prompt_id != self.prompt:
            self.prompt, self.node, self.quiet = here.last_prompt_id, "", False
            self.renew()
        if here.last_node_id != self.node:
            self.node = here.last_node_id
            self.calls.clear()
        call = self.calls[place]
        self.calls[place] += 1
        key = (self.node, place, call)
        if self.node is None or self.quiet or place not in self.orders.get("places", ()) or key in self.failed:
            return
        self.failed.add(key)
        self.quiet = self.orders["gently"]
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"node": self.node, "place": place, "call": call}) + "\n")
        if self.orders["kind"] == "interrupt":
            management.interrupt_current_processing(True)
            management.throw_exception_if_processing_interrupted()
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def wrap(self, place: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(*words: Any, **more: Any) -> Any:
            self.reached(place)
            return original(*words, **more)

        return wrapped


def install() -> None:
    failing = Failing(Path(folder_paths.base_path))
    for place, (owner, name) in PLACES.items():
        setattr(owner, name, failing.wrap(place, getattr(owner, name)))
    offload.install(setattr)
