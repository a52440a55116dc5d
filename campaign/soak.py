"""Soak: many mixed prompts through one server, and whether anything grows, slows or changes on the way.

Prompts are drawn from the small workflows with other seeds, steps, sizes and batches; some are interrupted while they
sample, some are wrong. A change of workflow changes model, method or adapter. Between blocks of prompts the host is
asked to free what it holds, a probe in the server counts what is left, and one fixed prompt is run and timed.

Beside it a second server without the pack gets as many prompts of the host's own nodes, with the same sizes, batches,
steps, interrupts and errors: what grows there as well is not ours. Caches fill while a server is young (the kernels
that oneDNN compiles for each shape, the C library's free lists), a leak goes on: the second half is judged.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .comfy import Host, Prompt, hosts, live_server, pixels, prompt, served, small
from .frame import OUTPUT, ROOT, Finding, Part, Row

GOAL = 2000  # prompts
BLOCK = 25  # prompts between two looks
FIXED = "tiny_two_subjects"
PACK = ROOT / "campaign" / "soak_pack"
# Their masks or their photograph have a size that does not follow the layout's; another one is refused.
OWN_SIZE = {"tiny_sigma_insert_into_photo", "tiny_sigma_masks_depth", "tiny_sigma_repose", "tiny_insert_into_photo"}
LEAST = 5  # looks by which growth is judged
SIDES = (96, 112, 128, 144)
# What may grow over the judged looks before it is called a leak: a share of its level, and an amount below which the
# allocator's and the host's rounding lie. A leak of one step's tensors or one plan per prompt is far above.
ALLOWED = {
    "resident MB": (0.02, 8.0),
    "allocated MB": (0.02, 4.0),
    "open files": (0.0, 2.0),
    "threads": (0.0, 2.0),
    "objects": (0.01, 500.0),
    "tensors": (0.01, 8.0),
    "tensor MB": (0.01, 1.0),
    "objects of ours": (0.02, 20.0),
    "cached by us": (0.0, 32.0),
    "plans of ours": (0.0, 1.0),
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


def growth(looked: Looked, name: str) -> tuple[float, float, float]:
    """How much a number grows for each prompt in the second half, by how much in all, and its noise about that."""
    first = min(len(looked.after) // 2, max(len(looked.after) - LEAST, 1))  # the first look is before all prompts
    xs, ys = [float(x) for x in looked.after[first:]], looked.numbers[name][first:]
    rise, noise = slope(xs, ys)
    return rise, rise * (xs[-1] - xs[0]), noise


def grown(name: str, ours: Looked, alone: Looked) -> tuple[str, str]:
    """The sentence of a finding where a number grows by more than noise and more than in the host alone, else ""; and a
    note where it grows there as well."""
    rise, total, noise = growth(ours, name)
    share, amount = ALLOWED[name]
    most = max(share * float(np.median(ours.numbers[name])), amount, 3 * noise)
    if total <= most:
        return "", ""
    _, theirs, _ = growth(alone, name)
    said = f"{name}: {100 * rise:+.3g} in 100 prompts, {total:+.3g} in the second half, {theirs:+.3g} in the host alone"
    return ("", said) if total <= most + max(theirs, 0.0) else (f"{said}, noise {noise:.3g}", "")


def _kind(chance: random.Random) -> str:
    return chance.choices(["plain", "interrupted", "wrong"], [0.86, 0.07, 0.07])[0]


def _batch(chance: random.Random) -> int:
    return chance.choices([1, 2, 3], [6, 2, 1])[0]


def _steps(chance: random.Random, kind: str) -> int:
    return 60 if kind == "interrupted" else chance.randint(1, 3)


def vary(chance: random.Random, name: str) -> tuple[Prompt, str]:
    """A small workflow with other numbers, and what it was made to be: plain, interrupted or wrong."""
    made, kind = prompt(name), _kind(chance)
    for node in made.values():
        values = node["inputs"]
        if "steps" in values:
            values["seed"] = chance.randrange(1 << 32)
            values["steps"] = _steps(chance, kind)
        if isinstance(values.get("batch_size"), int):
            values["batch_size"] = _batch(chance)
        if node["class_type"] == "LayoutComposer":
            if name not in OWN_SIZE:
                values["width"], values["height"] = (chance.choice(SIDES) for _ in range(2))
            if kind == "wrong":
                values["layout"] = chance.choice(['{"v": 1', '{"boxes": 7}', '{"v": 99, "boxes": []}', "[1, 2"])
        elif kind == "wrong" and "steps" in values:
            values["sampler_name"] = "no such sampler"
    return made, kind


def without_us(chance: random.Random) -> tuple[Prompt, str]:
    """A prompt of the host's own nodes like one of ours: references of other sizes, a batch, an interrupt, an error."""
    kind, (width, height) = _kind(chance), (chance.choice(SIDES) for _ in range(2))
    sizes = [(width, height), *((chance.randrange(32, 97, 16), chance.randrange(32, 97, 16)) for _ in range(4))]
    made = stock(width, height, sizes[: chance.randint(0, 5)], _batch(chance), chance.randrange(1 << 32))
    made["40"]["inputs"]["steps"] = _steps(chance, kind)
    made["1"]["inputs"]["words"] = chance.randint(4, 32)
    if kind == "wrong":
        wrong = chance.choice([("40", "sampler_name", "no such sampler"), ("1", "words", -1)])
        made[wrong[0]]["inputs"][wrong[1]] = wrong[2]
    return made, kind


def stock(width: int, height: int, references: list[tuple[int, int]], batch: int, seed: int) -> Prompt:
    """References by the host's own nodes into a picture by a small model that is not ours (soak_pack)."""
    made: Prompt = {
        "1": _node("SoakModel", words=12),
        "6": _node("ModelSamplingFlux", model=["1", 0], max_shift=1.15, base_shift=0.5, width=width, height=height),
        "32": _node("EmptySD3LatentImage", width=width, height=height, batch_size=batch),
        "34": _node("ConditioningZeroOut", conditioning=["1", 2]),
        "41": _node("VAEDecode", samples=["40", 0], vae=["1", 1]),
        "42": _node("SaveImage", images=["41", 0], filename_prefix="soak"),
    }
    positive = ["1", 2]
    for number, (wide, high) in enumerate(references, 1):
        load, scale, encode, refer = (f"{number}{kind}0" for kind in (1, 2, 3, 4))
        made[load] = _node("LoadImage", image=f"contextgen_creature_{1 + number % 4}.png")
        made[scale] = _node(
            "ImageScale", image=[load, 0], upscale_method="area", width=wide, height=high, crop="disabled"
        )
        made[encode] = _node("VAEEncode", pixels=[scale, 0], vae=["1", 1])
        made[refer] = _node("ReferenceLatent", conditioning=positive, latent=[encode, 0])
        positive = [refer, 0]
    run = {"seed": seed, "steps": 10, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    made["40"] = _node("KSampler", model=["6", 0], positive=positive, negative=["34", 0], latent_image=["32", 0], **run)
    return made


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


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


class Stream:
    """One server with its prompts and what was seen of them. ``draw`` gives a prompt, its kind and its name."""

    def __init__(self, server: Any, draw: Callable[[random.Random], tuple[Prompt, str, str]], fixed: Prompt) -> None:
        self.server, self.draw, self.fixed = server, draw, fixed
        self.looked, self.came = Looked(), Counter[str]()
        self.failed: list[str] = []
        self.pictures: list[list[np.ndarray]] = []  # of the fixed prompt, the first and the last
        self.tried = 0

    def block(self, chance: random.Random) -> None:
        for _ in range(BLOCK):
            made, kind, name = self.draw(chance)
            outcome = run_prompt(self.server, made, kind)
            self.tried += 1
            self.came[outcome.split(" ")[0] if kind == "wrong" else outcome[:80]] += 1
            if outcome.startswith(("error", "refused")) and kind != "wrong":
                self.failed.append(f"{name} failed: {outcome}")

    def look(self) -> None:
        """Times the fixed prompt from empty caches, frees everything, and counts what is left."""
        server, pid = self.server, self.server.process.pid
        server.forget()
        start = _processor(pid)
        self.pictures[1:] = [pixels(server, server.run(self.fixed))]
        spent = _processor(pid) - start
        server.forget()
        server.post("/history", {"clear": True})  # the host keeps ten thousand prompts with their outputs
        entry = server.run({"1": _node("SoakProbe", number=self.tried)})
        counted = json.loads(entry["outputs"]["1"]["text"][0])
        numbers = {**_process(pid), **counted, "processor seconds of the fixed prompt": spent}
        self.looked.add(self.tried, numbers)

    @property
    def same(self) -> bool:
        first, last = self.pictures[0], self.pictures[-1]
        return len(first) == len(last) and all(map(np.array_equal, first, last))

    @property
    def note(self) -> str:
        came = "; ".join(f"{count} {what}" for what, count in sorted(self.came.items()))
        resident = self.looked.numbers["resident MB"][-1]
        return f"{came}; {len(self.looked.after)} looks, resident {resident:.0f} MB at the end"


def _ours(chance: random.Random) -> tuple[Prompt, str, str]:
    name = chance.choice(small())
    return *vary(chance, name), name


def _stock(chance: random.Random) -> tuple[Prompt, str, str]:
    return *without_us(chance), "a prompt of the host's own nodes"


def _alone(packs: Path) -> None:
    shutil.copytree(PACK, packs / PACK.name, ignore=shutil.ignore_patterns("__pycache__"))


def _beside(packs: Path) -> None:
    live_server().link_pack(packs)
    _alone(packs)


def run_host(host: Host, budget: float, seed: int) -> list[Row]:
    started = time.monotonic()
    with served(host, fill=_beside) as ours, served(host, fill=_alone) as theirs:
        fixed = stock(128, 128, [(128, 128), (64, 64), (64, 64)], 1, 7)
        streams = Stream(ours, _ours, prompt(FIXED)), Stream(theirs, _stock, fixed)
        chances = [random.Random(seed) for _ in streams]  # noqa: S311
        for one in streams:
            one.look()
        while streams[0].tried < GOAL and (streams[0].tried < 4 * BLOCK or time.monotonic() - started < budget):
            for one, chance in zip(streams, chances, strict=True):
                one.block(chance)
                one.look()
            _write(host, streams)
    seconds = time.monotonic() - started
    return [_row(host, streams, 0, seconds), _row(host, streams, 1, seconds)]


def _write(host: Host, streams: tuple[Stream, Stream]) -> None:
    """Every look, for whoever wants to see the curves."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name, one in zip(("ours", "alone"), streams, strict=True):
        series = {"prompts": one.looked.after, **one.looked.numbers}
        (OUTPUT / f"soak-{host.version}-{name}.json").write_text(json.dumps(series) + "\n", encoding="utf-8")


def _row(host: Host, streams: tuple[Stream, Stream], which: int, seconds: float) -> Row:
    one, alone = streams[which], streams[1]
    what = (
        f"mixed prompts through one server of ComfyUI {host.version}, of {GOAL:,} at length; growth in the second half",
        f"as many like them by the nodes of ComfyUI {host.version} itself, without the pack",
    )[which]
    row = Row(host.version if one is not alone else f"{host.version} alone", what, one.tried, seconds)
    row.notes.append(one.note)
    for name in one.looked.numbers:
        row.figures[f"{name}, in 100 prompts"] = round(100 * growth(one.looked, name)[0], 3)
        if one is not alone:
            sentence, note = grown(name, one.looked, alone.looked)
            row.found += [Finding(sentence)] if sentence else []
            row.notes += [note] if note else []
    if one is not alone:
        row.found += [Finding(sentence) for sentence in one.failed]
        row.found += [] if one.same else [Finding("the fixed prompt's last picture is not its first")]
    else:
        row.notes += one.failed + ([] if one.same else ["the fixed prompt's last picture is not its first"])
    return row


def run(budget: float, seed: int) -> Iterator[Row]:
    here = hosts()
    for host in here:
        yield from run_host(host, budget / len(here), seed)


PART = Part("soak", "many mixed prompts through one server: nothing grows, slows or changes", 4.0, run)
