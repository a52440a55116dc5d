"""Runs every test that this machine can run; the last line is ``contextgen: N passed, N failed, N skipped``.

Suites: lint (formatting, rules, types), unit, web (the box editor), host (in each ComfyUI found, in its own
Python) and browser (the editor in a real server). A suite that cannot run counts as one skipped and says why.
Exit status 0 when nothing failed. One suite more than there are cores runs at a time, at most three (``--jobs``), since
those of the hosts and browsers wait much; what a suite prints comes when it has ended.

    COMFYUI_PATH     ComfyUI folders, separated as in PATH; otherwise ~/comfy/ComfyUI and ~/comfy/ComfyUI-*
    COMFYUI_PYTHON   their interpreters in the same order; otherwise each folder's .venv or venv
    CHROMIUM         the browser; otherwise chromium, google-chrome or chrome on the PATH
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
HOST_TOOLS = VENV / "host-tools"
REPORTS = VENV / "reports"
SUITES = ("lint", "unit", "web", "host", "browser")
SUITE_TIMEOUT = 40 * 60  # seconds; only a hang comes near it


class Result(NamedTuple):
    """One row of the summary: counts, seconds, and why it did not run or what went wrong."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""


class Job:
    """Something that runs beside others and ends in a row of the summary."""

    def __init__(self, name: str, work: Callable[..., Result], *arguments: object) -> None:
        self.name, self.work, self.arguments = name, work, arguments

    def __call__(self) -> Result:
        return self.work(self.name, *self.arguments)


class Host(NamedTuple):
    """A ComfyUI folder and the interpreter that has its requirements (None: not found)."""

    path: Path
    python: Path | None


_printing = threading.Lock()
_running: set[subprocess.Popen[str]] = set()


def say(text: str = "") -> None:
    with _printing:
        print(text, flush=True)


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Runs a command from the root; returns its exit status and its output. 124: it ran for SUITE_TIMEOUT."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=os.name == "posix",
    )
    _running.add(process)
    try:
        output, _ = process.communicate(timeout=SUITE_TIMEOUT)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        stop(process)
        output, _ = process.communicate()
        return 124, f"{output}stopped after {SUITE_TIMEOUT} s"
    finally:
        _running.discard(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a command with everything that it started."""
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def tell(command: Sequence[str | Path], output: str) -> None:
    """Prints a command with what it printed."""
    say("$ " + " ".join(str(part) for part in command).replace(str(ROOT) + os.sep, "") + f"\n{output}".rstrip())


def unable(name: str, reason: str) -> Result:
    """A suite that cannot run here."""
    return Result(name, skipped=1, note=reason)


def lacking(name: str, reason: str) -> Result:
    """A suite that should run here and cannot."""
    return Result(name, failed=1, note=reason)


def check(name: str, command: Sequence[str | Path]) -> Result:
    """A check that passes or fails as a whole."""
    start = time.monotonic()
    status, output = run(command)
    tell(command, output if status else "")
    return Result(name, int(status == 0), int(status != 0), seconds=time.monotonic() - start)


def finish(name: str, counts: tuple[int, int, int], status: int, start: float) -> Result:
    """Turns counts into a row; a runner that failed without a failed test counts as one failure."""
    passed, failed, skipped = counts
    note = ""
    if status and not failed:
        failed, note = 1, f"the runner ended with {status}"
    elif not status and not passed + failed + skipped:
        failed, note = 1, "no test ran"
    return Result(name, passed, failed, skipped, time.monotonic() - start, note)


def pytest_counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped in a JUnit report; zeros when pytest died before it wrote one."""
    if not report.exists():
        return 0, 0, 0
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314  written by pytest just now
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return max(total - failed - skipped, 0), failed, skipped


def run_pytest(name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Result:
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / (re.sub(r"\W+", "-", name) + ".xml")
    report.unlink(missing_ok=True)
    start = time.monotonic()
    command = [*command, "-q", "-ra", "--durations=10", f"--junitxml={report}"]
    status, output = run(command, env)
    tell(command, output)
    return finish(name, pytest_counts(report), status, start)


def lint() -> list[Job]:
    tool = VENV / "bin"
    return [
        Job("lint: ruff format", check, [tool / "ruff", "format", "--check", "."]),
        Job("lint: ruff check", check, [tool / "ruff", "check", "."]),
        Job("lint: pyright", check, [tool / "pyright", "--pythonpath", tool / "python"]),
        with_node(Job("lint: eslint", check, ["npm", "run", "--silent", "lint"])),
        with_node(Job("lint: tsc", check, ["npm", "run", "--silent", "types"])),
    ]


def with_node(job: Job) -> Job:
    """The job, or what tells why Node's tools are missing."""
    reason = prepare_node()
    return Job(job.name, unable, reason) if reason else job


@functools.cache
def prepare_node() -> str:
    """Installs the editor's development tools when they are missing or old; returns why it cannot, or ''."""
    if not (ROOT / "package.json").exists():
        return "no package.json"
    if not shutil.which("node") or not shutil.which("npm"):
        return "Node is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < (20, 19):
        return f"Node {version} is older than 20.19"
    lock, installed = ROOT / "package-lock.json", ROOT / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        status, output = run(command)
        if status:
            tell(command, output)
            return "npm ci failed"
        installed.touch()
    return ""


def unit() -> list[Job]:
    pytest, one_core = [VENV / "bin" / "python", "-m", "pytest"], {"OMP_NUM_THREADS": "1"}
    return [
        Job("unit", run_pytest, [*pytest, "tests", "--ignore=tests/bulk"], one_core),
        Job("unit: bulk", run_pytest, [*pytest, "tests/bulk"], one_core),  # Ray's start and end: mostly waiting
    ]


def web() -> list[Job]:
    return [with_node(Job("web", run_vitest))]


def run_vitest(name: str) -> Result:
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / "vitest.json"
    report.unlink(missing_ok=True)
    start = time.monotonic()
    reporters = ["--reporter=default", "--reporter=json", f"--outputFile.json={report}"]
    command = ["npm", "run", "--silent", "test", "--", *reporters]
    status, output = run(command)
    tell(command, output)
    data = json.loads(report.read_text()) if report.exists() else {}
    skipped = data.get("numPendingTests", 0) + data.get("numTodoTests", 0)
    return finish(name, (data.get("numPassedTests", 0), data.get("numFailedTests", 0), skipped), status, start)


@functools.cache
def find_hosts() -> list[Host]:
    named = [entry for entry in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if entry]
    pythons = [entry for entry in os.environ.get("COMFYUI_PYTHON", "").split(os.pathsep) if entry]
    base = Path.home() / "comfy"
    paths = [Path(p).expanduser().resolve() for p in named]
    if not named:
        paths = [p for p in [base / "ComfyUI", *sorted(base.glob("ComfyUI-*"))] if (p / "main.py").exists()]
    return [Host(path, _interpreter(path, pythons[i : i + 1])) for i, path in enumerate(paths)]


def _interpreter(path: Path, named: Sequence[str]) -> Path | None:
    folders = [path / name / sub for name in (".venv", "venv") for sub in ("bin/python", "Scripts/python.exe")]
    # resolve() would follow a virtual environment's link to the bare interpreter behind it
    for candidate in [*(Path(p).expanduser().absolute() for p in named), *folders, Path(sys.executable)]:
        probe = [str(candidate), "-c", "import torch, aiohttp, torchsde, safetensors"]
        if candidate.exists() and not subprocess.run(probe, capture_output=True, check=False).returncode:
            return candidate
    return None


def host_version(path: Path) -> str:
    file = path / "comfyui_version.py"
    found = re.search(r'"([\d.]+)"', file.read_text()) if file.exists() else None
    return found.group(1) if found else path.name


def prepare_host_tools(hosts: Sequence[Host]) -> bool:
    """Puts what the tests need beside our environment, for the hosts' interpreters; False on failure."""
    python = next(host.python for host in hosts if host.python)
    tools = ("pytest", "hypothesis", "segment-anything")
    if all((HOST_TOOLS / tool.replace("-", "_")).is_dir() for tool in tools):
        return True
    pip = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python]
    command = [*pip, "install", "--target", HOST_TOOLS, *tools]
    status, output = run(command)
    if status:
        tell(command, output)
    return status == 0


def host_env(host: Host) -> dict[str, str]:
    return {"COMFYUI_PATH": str(host.path), "COMFYUI_PYTHON": str(host.python)}


def host_suite() -> list[Job]:
    hosts = find_hosts()
    if not hosts:
        return [Job("host", unable, "no ComfyUI found; set COMFYUI_PATH")]
    ready = prepare_host_tools(hosts) if any(host.python for host in hosts) else False
    jobs = []
    for host in hosts:
        name = f"host {host_version(host.path)}"
        if host.python is None:
            jobs.append(Job(name, unable, "no interpreter with its requirements; set COMFYUI_PYTHON"))
        elif not ready:
            jobs.append(Job(name, lacking, "pytest could not be installed for it"))
        else:
            jobs.append(Job(name, run_pytest, [host.python, ROOT / "scripts" / "host_pytest.py"], host_env(host)))
    return jobs


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def browser() -> list[Job]:
    hosts = [host for host in find_hosts() if host.python]
    chromium = find_chromium()
    reason = "" if hosts else "no ComfyUI found; set COMFYUI_PATH"
    reason = reason or ("" if chromium else "no Chromium found; set CHROMIUM") or prepare_node()
    if not reason and not any((ROOT / "tests" / "browser").glob("*.test.*js")):
        reason = "no browser test in tests/browser"
    if reason:
        return [Job("browser", unable, reason)]
    return [
        Job(f"browser {host_version(host.path)}", run_browser, {**host_env(host), "CHROMIUM": str(chromium)})
        for host in hosts
    ]


def run_browser(name: str, env: Mapping[str, str]) -> Result:
    start = time.monotonic()
    command = ["npm", "run", "--silent", "test:browser"]
    status, output = run(command, env)
    tell(command, output)
    return finish(name, node_counts(output), status, start)


def node_counts(output: str) -> tuple[int, int, int]:
    """Passed, failed and skipped in the closing lines of Node's test runner."""
    counts = {name: int(n) for name, n in re.findall(r"^(?:#|\u2139) (\w+) (\d+)\s*$", output, re.MULTILINE)}
    failed = counts.get("fail", 0) + counts.get("cancelled", 0)
    return counts.get("pass", 0), failed, counts.get("skipped", 0) + counts.get("todo", 0)


def summary(results: Sequence[Result], complete: bool) -> int:
    """Prints the counts and returns the exit status; with ``complete`` a suite that could not run is a failure."""
    width = max(len(result.name) for result in results)
    say(f"\n{'suite':<{width}}  passed  failed  skipped  seconds")
    for result in results:
        row = f"{result.passed:>6}  {result.failed:>6}  {result.skipped:>7}  {result.seconds:>7.0f}"
        say(f"{result.name:<{width}}  {row}  {result.note}".rstrip())
    for result in results:
        if result.skipped and result.note:
            say(f"not run: {result.name}: {result.note}")
    passed, failed, skipped = (sum(column) for column in list(zip(*results, strict=True))[1:4])
    say(f"contextgen: {passed} passed, {failed} failed, {skipped} skipped")
    missing = any(result.skipped and result.note for result in results)
    return int(failed > 0 or (complete and missing))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run lint and every test this machine can run.")
    parser.add_argument("--only", choices=SUITES, action="append", help="one suite; may be repeated")
    parser.add_argument("--complete", action="store_true", help="fail where a suite cannot run")
    parser.add_argument("--jobs", type=int, default=min(3, (os.cpu_count() or 1) + 1), help="how many at a time")
    arguments = parser.parse_args()
    chosen = arguments.only or SUITES
    suites = {"lint": lint, "unit": unit, "web": web, "host": host_suite, "browser": browser}
    jobs = [job for name in SUITES if name in chosen for job in suites[name]()]
    return summary(run_all(jobs, max(1, arguments.jobs)), arguments.complete)


def run_all(jobs: Sequence[Job], count: int) -> list[Result]:
    """The rows of all jobs, in their order; `count` run at a time, the long ones first."""
    long = ("browser", "unit", "host")
    by_length = sorted(jobs, key=lambda job: next((n for n, kind in enumerate(long) if kind in job.name), len(long)))
    with ThreadPoolExecutor(count) as pool:
        try:
            futures = {job: pool.submit(job) for job in by_length}
            while wait(futures.values(), timeout=60).not_done:
                say("still running: " + ", ".join(job.name for job, each in futures.items() if each.running()))
            return [futures[job].result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                stop(process)
            raise


if __name__ == "__main__":
    sys.exit(main())
