"""Faults in the middle of a run: each ends in the host's own way, and the next picture is the one that it always was.

In process, tests/host/test_faults.py: interrupts and missing memory in any block of any step, at any operation and in
what the pack allocates, models unloaded between steps, weights that stay offloaded, errors of other packs. Beside it,
servers: in one each node's start, each loading of a model, each call of the text encoder and the VAE and each step is
interrupted once and runs out of memory once (tests/host/failing.py), and weights stay away from the device
(tests/host/offload.py); in others interrupts at any moment of a prompt, two prompts at once, a full disk, a process
that is killed and started again.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .comfy import Host, Prompt, hosts, live_server, pixels, prompt, served, small
from .frame import ROOT, Finding, Mend, Part, Row, load

Pictures = list[np.ndarray]
HOST_TESTS = ROOT / "tests" / "host"
SAMPLER, SAVED = "40", "42"  # nodes of the workflow
DROPPED = ("7", "8", "50", "51", "52")  # its second picture


def run(budget: float, seed: int) -> Sequence[Row]:
    here = hosts()
    inside = Row("in process", "interrupts, no memory, models unloaded or offloaded, others' errors in small runs")
    walks = Row("each call", "prompts in which each node, loading, encoding, step and decoding fails once")
    away = Row("offload", "prompts while weights stay away from the device and are brought for each call of a module")
    asked = Row("server", "interrupts at any moment of a prompt, two prompts at once, a full disk, a killed process")
    deadline = time.monotonic() + budget
    for host in here:
        started = time.monotonic()
        _in_process(host, inside)
        inside.seconds += time.monotonic() - started
    for number, host in enumerate(here):
        started = time.monotonic()
        left = max(0.0, deadline - started) / (len(here) - number)
        _failing_server(host, walks, away, started + 0.6 * left, random.Random(seed))
        started, left = time.monotonic(), left - (time.monotonic() - started)
        _server(host, asked, left, seed)
        asked.seconds += time.monotonic() - started
    away.notes.append(
        "--novram and --lowvram with asynchronous offload, by the host's own code on the CPU: weights left out hold no"
        " numbers, two streams do in turn what CUDA's would beside each other, a buffer that was given back is NaN."
        " Not run, for want of a CUDA device: true streams, pinned memory, 0.30.0's dynamic VRAM"
    )
    return [inside, walks, away, asked]


def _in_process(host: Host, row: Row) -> None:
    """tests/host/test_faults.py in a ComfyUI."""
    tests = [str(ROOT / "scripts" / "host_pytest.py"), str(HOST_TESTS / "test_faults.py"), "-q", "-rf"]
    environment = {**os.environ, "COMFYUI_PATH": str(host.path)}
    done = subprocess.run([str(host.python), *tests], capture_output=True, text=True, env=environment)
    counted = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    row.tried += sum(counted.values())
    failed = re.findall(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
    row.found += [Finding(f"{test} fails in {host.version}") for test in failed]
    if done.returncode and not failed:
        row.found.append(Finding(f"{host.version}: {(done.stdout + done.stderr).strip().splitlines()[-1][:300]}"))
    row.notes.append(f"{counted.get('passed', 0)} tests in ComfyUI {host.version}")


# --- a server in which calls fail -----------------------------------------------------------------------------------

WAYS = {"tried another way in": ("memory", ("encode", "decode"), True)}  # by the host itself, with tiles
WAYS |= {"interrupted in": ("interrupt", (), False), "short of memory in": ("memory", (), False)}


def _order(rng: random.Random) -> list[str]:
    """The small workflows, the first of them such that all our nodes come early."""
    ours = set(json.loads((HOST_TESTS / "object_info.json").read_text("utf-8")))
    left = {name: ours & {node["class_type"] for node in prompt(name).values()} for name in small()}
    seen: set[str] = set()
    order = []
    while left:
        most = max(len(kinds - seen) for kinds in left.values())
        name = rng.choice([name for name, kinds in left.items() if len(kinds - seen) == most])
        seen |= left.pop(name)
        order.append(name)
    return order


def _failing_server(host: Host, walks: Row, away: Row, deadline: float, rng: random.Random) -> None:
    """Small workflows one after another until time is over, at least one."""
    live_server()
    failing = load("tests/host/failing.py")
    places, kinds = Counter[str](), set[str]()
    with served(host, fill=failing.fill) as server:
        for number, name in enumerate(_order(rng)):
            if number and time.monotonic() > deadline:
                break
            made = prompt(name)
            for node in made.values():
                node["inputs"].update({"steps": 2} if "steps" in node["inputs"] else {})
            started = time.monotonic()
            wanted = _picture(server, made)
            for what, (kind, where, gently) in WAYS.items():
                done = failing.walk(server, made, kind, where or failing.PLACES, gently)
                walks.tried += len(done.failures)
                walks.found += [Finding(f"{name} in {host.version}: {strange}") for strange in done.strange]
                places.update(f"{failure.place}" for failure in done.failures)
                kinds |= {failure.kind for failure in done.failures if failure.place == "node"}
                if done.entry:
                    when = f"of {name} in {host.version}, {what} each of its calls,"
                    _same(walks, when, pixels(server, done.entry, SAVED), wanted)
                if gently and not done.through:
                    walks.found.append(Finding(f"{name} in {host.version}: no prompt came through with tiles"))
            walks.seconds += time.monotonic() - started
            started = time.monotonic()
            for share in (0, 0.5):
                failing.order(server, share=share)
                away.tried += 1
                _same(
                    away, f"of {name} in {host.version} with {share} of its weights", _picture(server, made), wanted, 1
                )
            failing.order(server)
            away.seconds += time.monotonic() - started
    ours = kinds & set(json.loads((HOST_TESTS / "object_info.json").read_text("utf-8")))
    counted = ", ".join(f"{place} ({count})" for place, count in places.most_common())
    walks.notes.append(f"ComfyUI {host.version}: {len(ours)} of our nodes; failed: {counted}")


# --- a server -------------------------------------------------------------------------------------------------------


def _prompt(seed: int, steps: int = 4) -> Prompt:
    """Four creatures by the small model."""
    made = {number: node for number, node in prompt("tiny_demo").items() if number not in DROPPED}
    made[SAMPLER]["inputs"].update(seed=seed, steps=steps)
    return made


def _server(host: Host, row: Row, budget: float, seed: int) -> None:
    live, started = live_server(), time.monotonic()
    with served(host) as server:
        begun = time.monotonic()
        wanted = {number: _picture(server, _prompt(number)) for number in (1, 2)}
        one = (time.monotonic() - begun) / 2
        _two_at_once(live, server, row, wanted)
        _full_disk(live, server, row, wanted[1])
        _interrupts(live, server, row, wanted[1], one, started + 0.7 * budget, random.Random(seed))
        server.submit(_prompt(3, steps=400))
        server.until(lambda: server.json("/queue")["queue_running"])
        time.sleep(one / 2)
        server.process.kill()
        server.process.wait()
    with served(host) as server:
        row.tried += 1
        _same(row, "after the server was killed and started again", _picture(server, _prompt(1)), wanted[1])


def _picture(server: Any, made: Prompt) -> Pictures:
    server.forget()
    return pixels(server, server.run(made), SAVED)


def _same(row: Row, when: str, picture: Pictures, wanted: Pictures, step: int = 0) -> None:
    """step: of 255, by which numbers that other kernels have added may differ."""
    equal = [
        one.shape == other.shape and np.abs(one - other.astype(int)).max() <= step
        for one, other in zip(picture, wanted, strict=False)
    ]
    if len(picture) != len(wanted) or not all(equal):
        row.found.append(Finding(f"the picture {when} is another one"))


def _two_at_once(live: ModuleType, server: Any, row: Row, wanted: dict[int, Pictures]) -> None:
    server.forget()
    waiting = {number: server.submit(_prompt(number)) for number in wanted}
    for number, queued in waiting.items():
        row.tried += 1
        _same(row, "of a prompt queued beside another", pixels(server, server.wait(queued), SAVED), wanted[number])


def _interrupts(
    live: ModuleType, server: Any, row: Row, wanted: Pictures, one: float, deadline: float, rng: random.Random
) -> None:
    """At moments spread over a prompt, the caches being empty; at least three."""
    where: Counter[str] = Counter()
    tries = 0
    while tries < 3 or time.monotonic() < deadline:
        tries += 1
        server.forget()
        queued = server.submit(_prompt(1, steps=8))
        time.sleep(rng.uniform(0, 1.3 * one))
        server.interrupt()
        try:
            server.wait(queued)
            where["too late"] += 1
        except live.PromptError as stopped:
            told = {kind: words for kind, words in stopped.details}
            if "execution_interrupted" not in told:
                row.found.append(Finding(f"an interrupt ended a prompt as an error: {str(stopped)[:200]}"))
            else:
                where[told["execution_interrupted"]["node_type"]] += 1
        row.tried += 1
        if tries % 5 == 1:
            _same(row, "after an interrupt", _picture(server, _prompt(1)), wanted)
    _same(row, "after all interrupts", _picture(server, _prompt(1)), wanted)
    row.notes.append("interrupts came in " + ", ".join(f"{node} ({count})" for node, count in where.most_common()))


def _full_disk(live: ModuleType, server: Any, row: Row, wanted: Pictures) -> None:
    """The output folder lies on a file system that holds 16 KiB, all of them taken."""
    folder = server.base / "output"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        row.notes.append("the full disk was left out: no right to mount a small file system")
        return
    try:
        with (folder / "filler").open("wb") as file:
            try:
                file.write(bytes(32 * 1024))
                file.flush()
            except OSError:
                pass
        row.tried += 1
        server.forget()
        try:
            server.run(_prompt(1))
            row.found.append(Finding("a picture was saved on a full disk"))
        except live.PromptError as failed:
            told = next((words for kind, words in failed.details if kind == "execution_error"), {})
            if "No space left" not in told.get("exception_message", ""):
                row.found.append(Finding(f"a full disk ends in {str(failed)[:200]}"))
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    _same(row, "after a full disk", _picture(server, _prompt(1)), wanted)


PART = Part(
    "faults",
    "interrupts, missing memory, unloading, full disks and killed servers: the next picture is the same",
    1,
    run,
    (
        Mend(
            "in process",
            "memory that ran out while an attention operator was tried switched it off for the rest of the process",
            "tests/host/test_faults.py::test_no_memory_while_an_operator_is_tried_says_nothing_about_it",
        ),
    ),
)
