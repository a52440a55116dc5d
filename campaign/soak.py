"""Soak: many mixed prompts through one server, and whether anything grows, slows or changes on the way.

Prompts are drawn from the small workflows with other seeds, steps, sizes and batches; some are interrupted while they
sample, some are wrong. A change of workflow changes model, method or adapter. Between blocks of prompts the host is
asked to free what it holds, a probe in the server counts what is left, and one fixed prompt is run and timed.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .comfy import Host, Prompt, hosts, live_server, pixels, prompt, served, small
from .frame import OUTPUT, Finding, Part, Row

GOAL = 2000  # prompts
BLOCK = 20  # prompts between two looks
FIXED = "tiny_two_subjects"
# Their masks or their photograph have a size that does not follow the layout's; another one is refused.
OWN_SIZE = {"tiny_sigma_insert_into_photo", "tiny_sigma_masks_depth", "tiny_sigma_repose", "tiny_insert_into_photo"}
SKIPPED = 2  # looks at the start in which the host itself still loads and compiles
# A node in a folder of its own beside the pack, so that it counts in the server's process.
PROBE = """
import ctypes, gc, json, sys, threading
import torch

class SoakProbe:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "campaign", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"default": 0, "min": 0, "max": 1 << 30})}}

    def look(self, number):
        for _ in range(2):
            gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is no leak
        except (AttributeError, OSError, TypeError):
            pass
        objects = gc.get_objects()
        tensors = [one for one in objects if type(one) in (torch.Tensor, torch.nn.Parameter)]
        ours = [one for one in objects if "contextgen" in str(type(one).__module__)]
        modules = [one for name, one in sys.modules.items() if "contextgen-layout" in name]
        values = [one for module in modules for one in vars(module).values()]
        cached = {id(one): one for one in values if callable(getattr(type(one), "cache_info", None))}
        seen = {
            "objects": len(objects),
            "tensors": len(tensors),
            "tensor MB": sum(one.nelement() * one.element_size() for one in tensors) / 1e6,
            "objects of ours": len(ours),
            "cached programs": sum(one.cache_info().currsize for one in cached.values()),
            "Python threads": threading.active_count(),
        }
        return {"ui": {"text": [json.dumps(seen)]}}

NODE_CLASS_MAPPINGS = {"CampaignSoakProbe": SoakProbe}
"""
# What may grow over the whole run before it is called a leak: a share of its level, and an amount below which the
# allocator's and the host's rounding lie. A leak of one step's tensors or one plan per prompt is far above.
ALLOWED = {
    "resident MB": (0.02, 8.0),
    "open files": (0.0, 2.0),
    "threads": (0.0, 2.0),
    "objects": (0.01, 500.0),
    "tensors": (0.01, 8.0),
    "tensor MB": (0.01, 1.0),
    "objects of ours": (0.02, 20.0),
    "cached programs": (0.0, 64.0),
    "Python threads": (0.0, 2.0),
    "processor seconds of the fixed prompt": (0.10, 0.2),
}


@dataclass
class Looked:
    """The numbers of each look, by name, and after how many prompts it was."""

    after: list[int] = field(default_factory=list)
    numbers: dict[str, list[float]] = field(default_factory=dict)

    def add(self, after: int, numbers: dict[str, float]) -> None:
        self.after.append(after)
        for name, value in numbers.items():
            self.numbers.setdefault(name, []).append(value)


def slope(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """The median of the slopes between all pairs of points, and the median distance of the points from that line."""
    pairs = [(ys[j] - ys[i]) / (xs[j] - xs[i]) for i in range(len(xs)) for j in range(i + 1, len(xs)) if xs[j] > xs[i]]
    rise = float(np.median(pairs)) if pairs else 0.0
    rest = np.asarray(ys) - rise * np.asarray(xs)
    return rise, float(np.median(np.abs(rest - np.median(rest))))


def grown(name: str, after: list[int], values: list[float]) -> tuple[float, str]:
    """How much a number grows in 100 prompts, and the sentence of a finding where that is more than noise."""
    xs, ys = [float(x) for x in after[SKIPPED:]], values[SKIPPED:]
    if len(xs) < 3:
        return 0.0, ""
    rise, noise = slope(xs, ys)
    total, (share, amount) = rise * (xs[-1] - xs[0]), ALLOWED[name]
    if total <= max(share * float(np.median(ys)), amount, 3 * noise):
        return 100 * rise, ""
    return 100 * rise, f"{name}: {100 * rise:+.3g} in 100 prompts, {total:+.3g} in all, noise {noise:.3g}"


def vary(chance: random.Random, name: str) -> tuple[Prompt, str]:
    """A small workflow with other numbers, and what it was made to be: plain, interrupted or wrong."""
    made = prompt(name)
    kind = chance.choices(["plain", "interrupted", "wrong"], [0.86, 0.07, 0.07])[0]
    for node in made.values():
        values = node["inputs"]
        if "steps" in values:
            values["seed"] = chance.randrange(1 << 32)
            values["steps"] = 60 if kind == "interrupted" else chance.randint(1, 3)
        if isinstance(values.get("batch_size"), int):
            values["batch_size"] = chance.choices([1, 2, 3], [6, 2, 1])[0]
        if node["class_type"] == "LayoutComposer":
            if name not in OWN_SIZE:
                values["width"], values["height"] = (chance.choice([96, 112, 128, 144]) for _ in range(2))
            if kind == "wrong":
                values["layout"] = chance.choice(['{"v": 1', '{"boxes": 7}', '{"v": 99, "boxes": []}', "[1, 2"])
        elif kind == "wrong" and "steps" in values:
            values["sampler_name"] = "no such sampler"
    return made, kind


def run_prompt(server: Any, made: Prompt, kind: str) -> str:
    """Runs one prompt; what came of it: a picture, an interrupt, refused (before it ran), or an error of a node."""
    refused = live_server().PromptError
    try:
        number = server.submit(made)
    except refused:
        return "refused"
    if kind == "interrupted":
        server.until(lambda: server.json("/queue")["queue_running"] or server.json(f"/history/{number}"))
        time.sleep(0.5)
        server.interrupt()
    try:
        server.wait(number)
    except refused as failed:
        return "interrupt" if "execution_interrupted" in json.dumps(failed.details) else f"error {_said(failed)}"
    return "picture"


def _said(failed: Any) -> str:
    messages = [part for _, part in failed.details or [] if "exception_message" in part]
    return " ".join(str(part["exception_message"]).strip() for part in messages)


def _process(pid: int) -> dict[str, float]:
    """Resident memory, open files, threads and processor time of a process (Linux)."""
    folder = Path("/proc") / str(pid)
    status = (folder / "status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "resident MB": int(fields["VmRSS"].split()[0]) / 1024,
        "open files": len(list((folder / "fd").iterdir())),
        "threads": int(fields["Threads"]),
    }


def _processor(pid: int) -> float:
    parts = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(parts[11]) + int(parts[12])) / 100


def look(server: Any, after: int) -> tuple[dict[str, float], list[np.ndarray]]:
    """Times the fixed prompt from empty caches, frees everything, and counts what is left; its picture."""
    server.forget()
    start = _processor(server.process.pid)
    picture = pixels(server, server.run(prompt(FIXED)))
    spent = _processor(server.process.pid) - start
    server.forget()
    server.post("/history", {"clear": True})  # the host keeps ten thousand prompts with their outputs
    entry = server.run({"1": {"class_type": "CampaignSoakProbe", "inputs": {"number": after}}})
    counted = json.loads(entry["outputs"]["1"]["text"][0])
    return {**_process(server.process.pid), **counted, "processor seconds of the fixed prompt": spent}, picture


def _fill(packs: Path) -> None:
    live_server().link_pack(packs)
    probe = packs / "campaign_soak_probe"
    probe.mkdir()
    (probe / "__init__.py").write_text(PROBE, encoding="utf-8")


def run_host(host: Host, budget: float, seed: int) -> Row:
    row = Row(host.version, f"mixed prompts through one server of ComfyUI {host.version}, of {GOAL:,} at length")
    started, chance, looked, came = time.monotonic(), random.Random(seed), Looked(), Counter[str]()  # noqa: S311
    names = small()
    with served(host, fill=_fill) as server:
        numbers, first = look(server, 0)
        looked.add(0, numbers)
        last = first
        while row.tried < GOAL and (row.tried < 3 * BLOCK or time.monotonic() - started < budget):
            for _ in range(BLOCK):
                name = chance.choice(names)
                made, kind = vary(chance, name)
                outcome = run_prompt(server, made, kind)
                row.tried += 1
                came[outcome.split(" ")[0] if kind == "wrong" else outcome[:80]] += 1
                if outcome.startswith(("error", "refused")) and kind != "wrong":
                    row.found.append(Finding(f"{name} failed: {outcome}"))
            numbers, last = look(server, row.tried)
            looked.add(row.tried, numbers)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    series = {"prompts": looked.after, **looked.numbers}
    (OUTPUT / f"soak-{host.version}.looks.json").write_text(json.dumps(series) + "\n", encoding="utf-8")
    for name, values in looked.numbers.items():
        rise, sentence = grown(name, looked.after, values)
        row.figures[f"{name}, in 100 prompts"] = round(rise, 3)
        if sentence:
            row.found.append(Finding(sentence))
    if len(first) != len(last) or not all(map(np.array_equal, first, last)):
        row.found.append(Finding("the fixed prompt's last picture is not its first"))
    row.seconds = time.monotonic() - started
    row.notes.append(
        "; ".join(f"{count} {what}" for what, count in sorted(came.items()))
        + f"; {len(looked.after)} looks, resident {looked.numbers['resident MB'][-1]:.0f} MB at the end"
    )
    return row


def run(budget: float, seed: int) -> list[Row]:
    here = hosts()
    return [run_host(host, budget / len(here), seed) for host in here]


PART = Part("soak", "many mixed prompts through one server: nothing grows, slows or changes", 4.0, run)
