"""The editor's readers in Node, and changed workflows in a real ComfyUI's page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..frame import ROOT, Finding, Mend, NotHere, Part, Row, host_tools, keep_case

HERE = Path(__file__).resolve().parent
PAGE_SHARE = 0.5  # of the time, where there is a ComfyUI and a browser


def run(budget: float, seed: int) -> Sequence[Row]:
    if not shutil.which("node") or not (ROOT / "node_modules" / "fast-check").is_dir():
        raise NotHere("the editor's tools are not installed; run npm ci with Node 20.19 or newer")
    runner = host_tools()
    hosts, chromium = [host for host in runner.find_hosts() if host.python], runner.find_chromium()
    page = bool(hosts and chromium)
    rows = [_read(entry) for entry in _node("text.mjs", budget * (1 - PAGE_SHARE if page else 1), seed, {})]
    if not page:
        rows.append(Row("workflows", "changed workflows in the page", notes=["no ComfyUI or no Chromium found here"]))
        return rows
    for host in hosts[:1]:
        environment = {"COMFYUI_PATH": str(host.path), "CHROMIUM": str(chromium)}
        for entry in _node("workflows.mjs", budget * PAGE_SHARE, seed, environment):
            rows.append(_read(entry, f"workflows, ComfyUI {runner.host_version(host.path)}"))
    return rows


def _node(script: str, seconds: float, seed: int, environment: dict[str, str]) -> list[dict[str, object]]:
    """The JSON lines that a script prints."""
    command = ["node", str(HERE / script), str(max(1, int(seconds))), str(seed)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds + 900
    )
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}: {done.stderr[-600:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _read(entry: dict[str, object], name: str = "") -> Row:
    what = {
        "layout text": "layout text in the editor: read, written, read again",
        "request files": "request files pasted or dropped",
        "clicks": "clicks of the cut-out editor",
        "answers of a run": "what nodes and the server answer: notes, errors, refusals",
        "layered pictures": "damaged PSD files",
    }.get(
        str(entry["name"]), "changed workflow files opened in the page, which must stay alive without an error of ours"
    )
    row = Row(name or str(entry["name"]), what, int(str(entry["tried"])), float(str(entry["seconds"])))
    broken = entry["found"]
    for one in broken if isinstance(broken, list) else [broken] if isinstance(broken, dict) else []:
        data, sentence = bytes.fromhex(one["case"]), f"{row.name}: {one['sentence']}"
        row.found.append(keep_case("editor", data, ".bin", sentence) if data else Finding(sentence))
    return row


PART = Part(
    "editor",
    "hostile text, PSD files and workflows in the editor",
    1,
    run,
    (
        Mend(
            "request files",
            "numbers of a pasted request file that are objects or nested without end threw",
            "tests/web/requests.test.js::what is no number gives nothing, however it is nested",
        ),
        Mend(
            "answers of a run",
            "an output of another node with objects for text threw while a note was shown",
            "tests/web/notes.test.js::objects in place of text say nothing",
        ),
    ),
)
