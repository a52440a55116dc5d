"""Security: the suites while files, programs and connections are watched, the sources read, the licences listed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Any

from . import static
from .frame import ROOT, Finding, Mend, Part, Row, host_tools

WATCH = ROOT / "campaign" / "watch"
# Of what is installed for development and the extras; nothing of it ships, the pack itself requires nothing.
FREE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software|MPL|Mozilla|Zlib|0BSD|Unlicense|CC0|HPND|CMU|BlueOak|Boost|LGPL|LLVM|"
    r"Public Domain|PIL|CC-BY-[34]",
    re.IGNORECASE,
)

STATED = {"segment-anything": "Apache-2.0"}  # what its package says nothing of


def run(budget: float, seed: int) -> Sequence[Row]:
    rows = [_sources(), _licences(), _npm()]
    runners = _runners()
    started, weights = time.monotonic(), sum(runner.weight for runner in runners)
    for runner in runners:
        left = budget - (time.monotonic() - started)
        rows.append(_suite(runner, max(left * runner.weight / weights, 20.0), seed))
        weights -= runner.weight
    return rows


@dataclass(frozen=True)
class _Runner:
    """A suite: its command line and environment, and its part of the time, relative to the others."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    weight: int = 2


def _runners() -> Sequence[_Runner]:
    """The unit suite, the host suite in each ComfyUI that is found, and bulk runs, which mostly wait for Ray."""
    runner = host_tools()
    unit = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    suites = [_Runner("unit suite", [*unit, "tests", "--ignore=tests/bulk"])]
    for host in runner.find_hosts():
        if host.python is not None and runner.prepare_host_tools([host]):
            command = [str(host.python), str(ROOT / "scripts" / "host_pytest.py")]
            suites.append(_Runner(f"host suite {runner.host_version(host.path)}", command, runner.host_env(host)))
    return [*suites, _Runner("bulk suite", [*unit, "tests/bulk"], weight=1)]


def _suite(runner: _Runner, budget: float, seed: int) -> Row:
    row = Row(
        runner.name,
        "tests with connections beyond this machine, programs and writes outside temporary folders forbidden",
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="contextgen-watch-") as folder:
        log = Path(folder) / "asked.jsonl"
        log.touch()
        watched = {
            **os.environ,
            **runner.environment,
            "CONTEXTGEN_WATCH": str(log),
            "CONTEXTGEN_WATCH_SEED": str(seed),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(WATCH), os.environ.get("PYTHONPATH", "")))),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [*runner.command, "-p", "contextgen_watch", "-q"],
            cwd=ROOT,
            env=watched,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(budget)
        except subprocess.TimeoutExpired:
            row.notes.append(
                f"its time, {budget:.0f} s, ended before the suite did; the files of tests come in chance order"
            )
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        entries = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.endswith("}")]
    tests = [entry for entry in entries if "test" in entry]
    row.tried = len(tests)
    row.seconds = time.monotonic() - started
    row.found = [Finding(f"{what} by {by or 'a library or a test'}") for what, by in _asked(entries, excused=False)]
    failed = [entry for entry in tests if entry["test"] == "failed"]
    row.found += [Finding(f"the watched test failed: {entry['name']}: {_line(entry['why'])}") for entry in failed]
    row.figures["skipped"] = sum(entry["test"] == "skipped" for entry in tests)
    by = Counter(f"{asker.split(':')[0]} ({what.split(' ')[0]})" for what, asker in _asked(entries, excused=True))
    if by:
        row.notes.append(f"asked, and may, for a user runs them as commands: {', '.join(sorted(by))}")
    if not tests:
        row.found.append(Finding("no test ran"))
    return row


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def _asked(entries: Sequence[Mapping[str, object]], excused: bool) -> list[tuple[str, str]]:
    """What was asked and by which line of the pack, once each."""
    asked = {(str(e["what"]), str(e["by"])) for e in entries if "what" in e and bool(e["excused"]) == excused}
    return sorted(asked)


def _sources() -> Row:
    started = time.monotonic()
    files = [*static.python_files(), *static.web_files()]
    found = [Finding(problem) for path in files for problem in static.problems(path)]
    what = "files that ship, read for pickle, eval, network, routes, programs and HTML from text"
    return Row("sources", what, len(files), time.monotonic() - started, found)


def _licences() -> Row:
    """Of everything that the extras draw in and that is installed here."""
    started = time.monotonic()
    row = Row("licences", "distributions of the extras, with their own requirements")
    unknown, missing, stated = [], [], []
    for name, found in sorted(_closure("contextgen-layout").items()):
        if found is None:
            missing.append(name)
            continue
        row.tried += 1
        told: dict[str, Any] = found.metadata.json
        classes = [line for line in told.get("classifier", []) if line.startswith("License")]
        if not FREE.search(" ".join([told.get("license_expression", ""), told.get("license", "")[:200], *classes])):
            (stated if name in STATED else unknown).append(name)
    row.found = [Finding(f"{name} states no licence that is known as free") for name in unknown]
    row.notes += [f"{name} states its licence in its repository alone: {STATED[name]}" for name in stated]
    if missing:
        row.notes.append(f"not installed here, and so not read: {', '.join(missing)}")
    row.notes.append("the pack itself requires nothing beyond what ComfyUI ships")
    row.seconds = time.monotonic() - started
    return row


def _closure(name: str) -> dict[str, Distribution | None]:
    """A distribution's extras with all that they require: by name, None where it is not installed."""
    seen: dict[str, Distribution | None] = {}
    waiting = [re.split(r"[\s;<>=!~\[(]", line)[0] for line in requires(name) or []]
    while waiting:
        one = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if one in seen:
            continue
        try:
            seen[one] = distribution(one)
        except PackageNotFoundError:
            seen[one] = None
            continue
        lines = [line for line in seen[one].requires or [] if "extra ==" not in line and "sys_platform" not in line]  # type: ignore[union-attr]
        waiting += [re.split(r"[\s;<>=!~\[(]", line)[0] for line in lines]
    return seen


def _npm() -> Row:
    """Development tools of the editor; none of them reaches the browser."""
    started = time.monotonic()
    row = Row("npm licences", "development packages of the editor")
    for name, licence in _packages():
        row.tried += 1
        if not FREE.search(licence):
            row.found.append(Finding(f"{name} has the licence {licence or '(none)'}"))
    if not row.tried:
        row.notes.append("node_modules is not there")
    row.seconds = time.monotonic() - started
    return row


def _packages() -> Iterator[tuple[str, str]]:
    lock = json.loads((ROOT / "package-lock.json").read_text("utf-8"))
    for path, entry in lock["packages"].items():
        if path:
            yield path.removeprefix("node_modules/"), str(entry.get("license", ""))


PART = Part(
    "security",
    "no network, no programs, no files outside, no code from files; licences",
    2,
    run,
    (
        Mend(
            "bulk suite",
            "with its statistics and its dashboard off, Ray still asked three clouds whose machine this is",
            "tests/campaign/test_watch.py::test_ray_asks_no_cloud_whose_machine_this_is",
        ),
    ),
)
