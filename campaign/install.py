"""Install and update: the archive and the clone in empty ComfyUIs, what they cost and what they leave behind.

The archive lies in a folder whose path has spaces and letters beyond ASCII, write-protected, under a user who may not
override that where the system can withhold the right. The host's own folder is never written to.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from .comfy import API, Host, hosts, live_server, prompt, served, small
from .frame import ROOT, Finding, Mend, Part, Row, load

PREFIX = "contextgen näyte 利用者 "  # of the base folder: as a user's name may be
SECONDS, MEGABYTES = 0.3, 30.0  # of processor time and resident memory at the host's start
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ALLOWED = {"segment-anything", "segment_anything"}  # what requirements.txt may bring
WEIGHTS = {"value_not_in_list"}  # the only complaint about a workflow whose files are not there
REPEATS = 2


def _stored() -> ModuleType:
    live_server()
    return load("tests/host/stored_pictures.py")


def unpack(target: Path) -> None:
    """Writes what the registry hands out to a folder, as unpacking its archive would."""
    for path in load("scripts/release.py").archive():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, file)


def clone(target: Path) -> None:
    """Clones the repository's newest commit, as a manager of packs does."""
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(target)], check=True)


def protect(folder: Path) -> None:
    """Takes the right to write from everything in a folder."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def release_folder(folder: Path) -> None:
    """Gives the owner the right to write back, so that it can be removed."""
    for path in (folder, *(one for one in folder.rglob("*") if one.is_dir())):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def held_back() -> tuple[str, ...]:
    """A command that starts another without the right to override file permissions; empty where there is none."""
    if os.name != "posix" or os.geteuid():
        return ()
    command = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")
    if not shutil.which(command[0]) or subprocess.run([*command, "true"], capture_output=True).returncode:
        return ()
    return command


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a folder by its path, with size and time of its last change."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def leftovers(base: Path) -> list[str]:
    """Files of the base folder that would stay after the pack's folder is removed and are neither the host's nor a
    result."""
    results = ("output/", "temp/", "input/", "custom_nodes/")
    ours = [path for path in tree(base) if not path.startswith(results)]
    return sorted(path for path in ours if "contextgen" in path.lower() or path.startswith("models/"))


def trial(row: Row, host: Host, names: list[str], deadline: float, put: Any, shield: bool) -> None:
    """Puts the pack into an empty base with ``put``, runs workflows until the deadline, and looks at what is left."""

    def fill(packs: Path) -> None:
        put(packs / live_server().PACK_FOLDER)
        if shield:
            protect(packs / live_server().PACK_FOLDER)

    starter = held_back() if shield else ()
    if shield and not starter and os.name == "posix" and not os.geteuid():
        row.notes.append("the server could override the write protection here; what was written was compared only")
    with served(host, fill=fill, prefix=PREFIX, before=starter) as server:
        folder = server.base / "custom_nodes" / live_server().PACK_FOLDER
        try:
            before = tree(folder)
            log = server.log()
            row.tried += 1
            if "IMPORT FAILED" in log or live_server().PACK_FOLDER not in log:
                row.found.append(Finding(f"{host.version}: the pack does not load:\n{log[-2000:]}"))
                return
            for name in names:
                if time.monotonic() > deadline and row.tried > 1:
                    break
                row.tried += 1
                row.found += [Finding(f"{host.version}, {name}: {one}") for one in opened(server, host, name)]
            row.found += [Finding(f"{host.version}: {path} stays behind") for path in leftovers(server.base)]
            written = {path for path, seen in tree(folder).items() if before.get(path) != seen}
            if not shield:  # Python keeps compiled files beside the sources wherever it may write
                written = {path for path in written if "__pycache__" not in path}
            row.found += [Finding(f"{host.version}: {path} is written in the pack's folder") for path in written]
        finally:
            release_folder(folder)


def opened(server: Any, host: Host, name: str) -> Iterator[str]:
    """What is wrong with a workflow: the pictures of a small one, of another what it lacks besides its weights."""
    failure = live_server().PromptError
    made = prompt(name)
    try:
        if name in small():
            stored = _stored()
            server.forget()
            pictures = stored.made(server, name, server.run(made))
            yield from stored.complaints(stored.load(), made, pictures, "", host.version)
        else:
            server.submit(made)
    except failure as refused:
        errors = (refused.details or {}).get("node_errors", {}) if isinstance(refused.details, dict) else None
        if errors is None or name in small():
            yield str(refused)[:500]
            return
        for node in errors.values():
            yield from (str(error) for error in node["errors"] if error["type"] not in WEIGHTS)


def requirements(host: Host) -> tuple[set[str], str]:
    """What pip would install into the host for our requirements.txt, and why that is not known, or ""."""
    command = [str(host.python), "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-"]
    asked = subprocess.run([*command, "-r", str(ROOT / "requirements.txt")], capture_output=True, text=True)
    if asked.returncode:
        return set(), (asked.stderr.strip().splitlines() or ["pip does not run"])[-1]
    return {one["metadata"]["name"] for one in json.loads(asked.stdout).get("install", [])}, ""


def import_cost(host: Host, folder: Path) -> Row:
    row = Row(f"import {host.version}", "the pack's import when the host starts, the least of several")
    started, measured = time.monotonic(), []
    program = Path(__file__).with_name("import_cost.py")
    storing = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(REPEATS + 1):  # the first one compiles
        command = [str(host.python), str(program), str(host.path), str(folder)]
        ended = subprocess.run(command, capture_output=True, text=True, env={**storing, "OMP_NUM_THREADS": "1"})
        if ended.returncode:
            raise RuntimeError(ended.stderr.strip().splitlines()[-1])
        measured.append(json.loads(ended.stdout.strip().splitlines()[-1]))
    row.tried = REPEATS
    least = {key: min(one[key] for one in measured[1:]) for key in ("processor seconds", "wall seconds", "MB")}
    least["processor seconds at the first start"] = measured[0]["processor seconds"]
    row.figures = {key: round(value, 3) for key, value in least.items()}
    if least["processor seconds"] > SECONDS or least["MB"] > MEGABYTES:
        row.found.append(Finding(f"the import takes {least['processor seconds']:.2f} s and {least['MB']:.0f} MB"))
    if packages := measured[-1]["packages"]:
        row.notes.append(f"it is the first to import {', '.join(packages)}")
    row.seconds = time.monotonic() - started
    return row


def pythons() -> dict[str, str]:
    """Interpreters of the supported versions on this machine."""
    found = {}
    for version in PYTHONS:
        named = [
            shutil.which(f"python{version}") or "",
            *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
        ]
        for one in filter(None, named):
            asked = subprocess.run([one, "-c", "import sys; print(sys.version[:4])"], capture_output=True, text=True)
            if asked.stdout.strip() == version:
                found[version] = one
                break
    return found


COMPILE = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
files = [*folder.glob("*.py"), *(one for part in ("nodes", "contextgen_core") for one in (folder / part).rglob("*.py"))]
for file in files:
    compile(file.read_text("utf-8"), str(file), "exec", dont_inherit=True)
print(len(files))
"""


def compiled(folder: Path) -> Row:
    row = Row("Python", "files compiled by each supported Python")
    started, here = time.monotonic(), pythons()
    for version, one in here.items():
        ended = subprocess.run([one, "-W", "error", "-c", COMPILE, str(folder)], capture_output=True, text=True)
        if ended.returncode:
            row.found.append(Finding(f"Python {version}: {ended.stderr.strip().splitlines()[-1]}"))
        else:
            row.tried += int(ended.stdout)
    row.notes.append(f"compiled by Python {', '.join(here)}; what older ones lack in their library, pyright looks for")
    row.seconds = time.monotonic() - started
    return row


def run(budget: float, seed: int) -> list[Row]:
    here, rows = hosts(), []
    names = sorted(path.stem for path in API.glob("*.json"))
    random.Random(seed).shuffle(names)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="contextgen-archive-") as temporary:
        folder = Path(temporary) / live_server().PACK_FOLDER
        unpack(folder)
        rows.append(compiled(folder))
        rows += [import_cost(host, folder) for host in here]
    for host in here:
        started = time.monotonic()
        row = Row(
            f"archive {host.version}",
            "workflows from the registry's archive, write-protected, spaces and ä利 in its path",
        )
        trial(row, host, names, started + 0.7 * budget / len(here), unpack, True)
        row.seconds = time.monotonic() - started
        rows.append(row)
        started = time.monotonic()
        row = Row(f"clone {host.version}", "workflows from a clone, and what its requirements bring")
        trial(row, host, names[::-1], started + 0.3 * budget / len(here), clone, False)
        brought, unknown = requirements(host)
        row.found += [Finding(f"requirements.txt brings {one}") for one in sorted(brought - ALLOWED)]
        row.notes.append(
            f"pip was not asked: {unknown}" if unknown else f"pip would install {', '.join(brought) or 'nothing'}"
        )
        row.seconds = time.monotonic() - started
        rows.append(row)
    return rows


MENDED = (
    Mend(
        "archive 0.30.0",
        "the registry's archive lacked the help pages of all nodes: .comfyignore named docs/ at any depth",
        "tests/test_release.py::test_the_archive_holds_what_users_need_and_nothing_else",
    ),
    Mend(
        "archive 0.30.0",
        "the icon that the registry shows was not in the repository",
        "tests/test_release.py::test_what_the_registry_shows_is_there",
    ),
)
PART = Part(
    "install", "the archive and the clone in empty ComfyUIs: workflows, cost, what is left behind", 2.0, run, MENDED
)
