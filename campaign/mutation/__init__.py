"""Whether the tests see a fault: small changes of the engine, the methods and the host, one at a time.

cosmic-ray says what can be changed. A mutant lives when all tests of its package pass; tests/ then lacks one, or the
change has no meaning, which survivors.json says in a sentence. A sample of all mutants follows from the seed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..child import Child
from ..comfy import Host, hosts
from ..frame import ROOT, Finding, NotHere, Part, Row, keep_case

NAME = "mutation"
HERE = Path(__file__).parent
EXPLAINED = HERE / "survivors.json"
SLACK = 3.0  # a mutant's tests may take so many times the CPU time of the tests as they are
FEW = 0.1  # share of hypothesis' examples that are tried first
CORE, METHODS = "contextgen_core", "contextgen_core/methods"


@dataclass(frozen=True)
class Group:
    """A package and the quick tests that belong to it; ``host``: they run in a ComfyUI."""

    folder: str
    tests: tuple[str, ...]
    host: bool = False
    leave_out: tuple[str, ...] = field(default=("__init__.py", "parity.py", "golden.py"))  # parity tests run commands

    @property
    def files(self) -> list[Path]:
        return [path for path in sorted((ROOT / self.folder).glob("*.py")) if path.name not in self.leave_out]


GROUPS = (
    Group(f"{CORE}/attention", ("tests/attention",)),
    Group(f"{METHODS}/contextgen", ("tests/methods/contextgen", "tests/attention/test_contextgen_groups.py")),
    Group(f"{METHODS}/lamic", ("tests/methods/lamic/test_lamic.py",)),
    Group(f"{METHODS}/eligen", ("tests/methods/eligen/test_rule.py", "tests/hosts/test_joining.py")),
    Group(f"{METHODS}/sigma_gen", ("tests/methods/sigma_gen", "tests/hosts/test_remembered.py")),
    Group(
        f"{METHODS}/instance_assemble",
        tuple(f"tests/methods/instance_assemble/test_{name}.py" for name in ("boxes", "step", "files")),
    ),
    Group(
        "nodes/host",
        tuple(f"tests/host/test_{name}.py" for name in ("patch", "memory", "joining")),
        host=True,
        leave_out=("__init__.py", "models.py"),  # builds the small models of these very tests
    ),
)  # fmt: skip


def run(budget: float, seed: int) -> Sequence[Row]:
    """The groups in turn, a mutant each, until the time is over."""
    if importlib.util.find_spec("cosmic_ray") is None:
        raise NotHere("cosmic-ray is not installed; run .venv/bin/python -m pip install -e '.[campaign]'")
    if not hasattr(os, "fork"):
        raise NotHere("mutants run in forked processes, which this system has not")
    try:
        host, missing = hosts()[0], ""
    except NotHere as reason:
        host, missing = None, str(reason)
    started = time.monotonic()
    rows, turns = [], []
    workers: dict[Host | None, Child] = {}  # by the ComfyUI in which they run, None: in none
    try:
        for group in GROUPS:
            row = Row(group.folder, f"mutants of {group.folder} against its quick tests")
            rows.append(row)
            if group.host and missing:
                row.notes.append(f"not run: {missing}")
                continue
            turns.append(_turns(group, row, seed, workers, host if group.host else None))
        while turns and time.monotonic() - started < budget:
            for turn in tuple(turns):
                if time.monotonic() - started >= budget:
                    break
                if next(turn, None) is None:
                    turns.remove(turn)
    finally:
        for worker in workers.values():
            worker.end()
    return rows


def _turns(group: Group, row: Row, seed: int, workers: dict[Host | None, Child], host: Host | None) -> Iterator[bool]:
    """Tries one mutant at each step. The tests pass as they are, or the group has failed."""
    from .mutants import sampled

    begun = time.monotonic()
    worker = workers[host] = workers.get(host) or _worker(host)
    plain = worker.ask({"file": "", "source": None, "tests": _paths(group), "seconds": 600, "examples": FEW})
    if plain["code"]:
        row.found.append(Finding(f"the tests of {group.folder} fail as they are"))
        return
    most = SLACK * plain["cpu"] + 5
    explained = {(one["file"], one["before"], one["after"]): one["why"] for one in json.loads(EXPLAINED.read_text())}
    row.figures = {"killed": 0, "killed by time": 0, "alive, explained": 0}
    row.seconds += time.monotonic() - begun
    yield True
    for mutant in sampled(group.files, seed):
        begun = time.monotonic()
        words = {"file": mutant.file, "source": mutant.after, "tests": _paths(group)}
        ended = worker.ask({**words, "seconds": most, "examples": FEW})
        if not ended["code"] and (mutant.file, *mutant.lines) not in explained:
            ended = worker.ask({**words, "seconds": most / FEW, "examples": 1.0})
        row.tried += 1
        if ended["code"] < 0:
            row.figures["killed by time"] += 1
        if ended["code"]:
            row.figures["killed"] += 1
        elif (mutant.file, *mutant.lines) in explained:
            row.figures["alive, explained"] += 1
        else:
            before, after = mutant.lines
            sentence = f"{mutant.file}:{mutant.number}: {before} -> {after}"
            row.found.append(keep_case(NAME, mutant.diff.encode(), ".diff", sentence))
        row.seconds += time.monotonic() - begun
        yield True


def _paths(group: Group) -> list[str]:
    return [str(ROOT / test) for test in group.tests]


def _worker(host: Host | None) -> Child:
    """worker.py in the interpreter that the tests need."""
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    if host is not None:
        environment |= {"COMFYUI_PATH": str(host.path), "COMFYUI_PYTHON": str(host.python)}
    child = Child(HERE / "worker.py", [str(ROOT), "host" if host else "core"], host, environment)
    child.line()
    return child


PART = Part(NAME, "small faults put into the engine, the methods and the host: does a test see them", 2, run)
