"""Neighbours: the pack beside other packs, one at a time, each loaded before ours and after it.

    python -m campaign neighbours --packs DIR    a folder of packs, as they lie in custom_nodes
    python -m campaign.neighbours                writes the table of docs/neighbours.md from what the last run left

What packs import beyond the host's own can lie in DIR/.dependencies (pip install --target).
Names must not be taken twice; our picture must not change because the other pack is there; and where a patch of it
and ours are on one model, in either order, there is a picture or one sentence.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from .comfy import Host, hosts
from .frame import OUTPUT, ROOT, Finding, NotHere, Part, Row
from .table import put

STAGE = Path(__file__).with_name("neighbour_stage.py")
PACKS = "CAMPAIGN_PACKS"  # the environment variable that --packs sets
PAGE = ROOT / "docs" / "neighbours.md"
MARKS = ("<!-- neighbours: written by python -m campaign.neighbours -->", "<!-- end of neighbours -->")
READ = {".py", ".js", ".mjs", ".css"}


def our_names() -> set[str]:
    """Names of ours that live beside other packs' in one space: nodes, sockets, extensions, widgets, keys on models."""
    names = set(json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text("utf-8")))
    for folder, pattern in (("nodes", "*.py"), ("web", "*.js")):
        for file in (ROOT / folder).rglob(pattern):
            text = file.read_text("utf-8")
            names |= set(re.findall(r'"(contextgen[\w.-]*\w)"', text, re.IGNORECASE))
            names |= set(re.findall(r'io\.Custom\("(CONTEXTGEN\w+|INSTANCE\w+)"\)', text))
    return names


def used(folder: Path, names: set[str]) -> set[str]:
    """Which of these names stand as words in a pack's programs."""
    words: set[str] = set()
    for file in folder.rglob("*"):
        if file.suffix in READ and file.is_file() and "node_modules" not in file.parts:
            words |= set(re.findall(r"[\w.-]*\w", file.read_text("utf-8", errors="replace")))
    return names & words


def _theirs(outcome: dict[str, Any], where: str) -> bool:
    """Whether the other pack's patch fails on this model without ours too, or by the host's own check."""
    return bool(outcome["alone"]) or outcome[where].startswith("refused: ")


def _sentence(error: str) -> bool:
    """Whether an error is one of ours: a sentence that names the node, the input, the value and the remedy."""
    return "InputError" in error.split(":")[0] and "\n" not in error


def verdicts(seen: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """For each patch of a pack what came of it beside ours, and one sentence for each thing that broke the property."""
    said: dict[str, str] = {}
    wrong: list[str] = []
    for name, outcome in seen.get("patches", {}).items():
        if "late" in outcome:
            said[name] = "takes too long to compile or run here"
            continue
        if "died" in outcome:
            said[name] = "ended its process"
            wrong.append(f"{name}: {outcome['died']}")
            continue
        errors = {where: outcome[where] for where in ("before", "after") if outcome[where]}
        strange = [one for where, one in errors.items() if not _theirs(outcome, where) and not _sentence(one)]
        wrong += [f"{name}: {one}" for one in strange]
        if strange:
            said[name] = "an error"
        elif errors:
            said[name] = "does not run on this model" if outcome["alone"] else "refused in one sentence"
        elif outcome["flat"]:
            said[name] = "an empty picture"
            if not outcome["alone"]:
                wrong.append(f"{name}: the picture with both patches is of one colour")
        elif outcome["same in both orders"] and outcome["ours as without"]:
            said[name] = "our picture as without it"
        else:
            said[name] = "one picture in both orders" if outcome["same in both orders"] else "a picture in each order"
            if outcome.get("neutral"):
                wrong.append(f"{name}: it changes nothing alone and changes the picture with ours")
    return said, wrong


def complaints(seen: dict[str, Any]) -> list[str]:
    """One sentence for each thing that broke the property beside one pack in one order."""
    if "late" in seen:
        return []
    if "died" in seen:
        return [f"{seen['pack']}, {seen['order']}: {seen['died']}"]
    out = [f"{name} is taken by both" for name in (*seen["taken"], *seen["core taken"], *seen.get("used", ()))]
    if seen["ours failed"]:
        out.append(f"ours does not load: {seen['ours failed']}")
    if seen["picture"] is not True:
        out.append(f"our picture changes: {seen['picture'] or 'other pixels'}")
    return [f"{seen['pack']}, {seen['order']}: {one}" for one in (*out, *verdicts(seen)[1])]


def commit(folder: Path) -> str:
    if not (folder / ".git").exists():
        return ""
    asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip()[:10]


def _results(host: Host) -> Path:
    return OUTPUT / f"neighbours-{host.version}.jsonl"


def run_host(host: Host, packs: Path, budget: float) -> Row:
    started, results = time.monotonic(), _results(host)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(packs / ".dependencies"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(host.python), str(STAGE), str(host.path), str(packs), str(results), str(budget)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1])
    row = gathered(host, packs)
    row.seconds = time.monotonic() - started
    return row


def gathered(host: Host, packs: Path) -> Row:
    """The row of what the stage left for this host; adds each pack's commit and what it uses of our names."""
    row = Row(host.version, f"beside other packs in ComfyUI {host.version}, both orders")
    results, names = _results(host), our_names()
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    for seen in lines:
        seen["commit"] = commit(packs / seen["pack"])
        seen["used"] = sorted(used(packs / seen["pack"], names))
        row.tried += 1 + 2 * len(seen.get("patches", {}))
        row.found += [Finding(one) for one in complaints(seen)]
    results.write_text("".join(json.dumps(seen) + "\n" for seen in lines), encoding="utf-8")
    tried = {seen["pack"] for seen in lines}
    row.figures = {
        "packs": len(tried),
        "of them load": len({seen["pack"] for seen in lines if seen.get("failed") == ""}),
        "patches placed": sum(len(seen.get("patches", {})) for seen in lines),
    }
    if left := sorted({one.name for one in _folders(packs)} - tried):
        row.notes.append(f"not tried: {', '.join(left)}")
    return row


def _folders(packs: Path) -> list[Path]:
    return sorted(one for one in packs.iterdir() if one.is_dir() and not one.name.startswith("."))


def run(budget: float, seed: int) -> list[Row]:
    packs = Path(os.environ.get(PACKS, ""))
    if not os.environ.get(PACKS) or not _folders(packs):
        raise NotHere("no other packs; name a folder of them with --packs")
    here = hosts()
    return [run_host(host, packs.resolve(), budget / len(here)) for host in here]


def page() -> str:
    """The table of docs/neighbours.md: one line for each pack and ComfyUI, from what the last run left."""
    lines = [
        "| pack | commit | ComfyUI | nodes | loaded beside ours | its patches with ours |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for file in sorted(OUTPUT.glob("neighbours-*.jsonl")):
        version = file.stem.removeprefix("neighbours-")
        packs: dict[str, list[dict[str, Any]]] = {}
        for line in file.read_text("utf-8").splitlines():
            seen = json.loads(line)
            packs.setdefault(seen["pack"], []).append(seen)
        rows += [(name.lower(), version, _line(name, version, both)) for name, both in packs.items()]
    return "\n".join(lines + [line for *_, line in sorted(rows)])


def _line(name: str, version: str, both: list[dict[str, Any]]) -> str:
    wrong = [one.split(": ", 1)[1] for seen in both for one in complaints(seen)]
    reason = next((seen["failed"] for seen in both if seen.get("failed")), "")
    state = "names apart, our picture the same, both orders" if len(both) == 2 else "names apart, our picture the same"
    if reason:
        reason = re.sub(r"(/[\w.+-]+)+/", "", reason)  # folders of this machine
        state += f"; it does not load here ({reason})"
    counted: dict[str, int] = {}
    for seen in both:
        for said in verdicts(seen)[0].values():
            counted[said] = counted.get(said, 0) + 1
    patches = "; ".join(f"{count} {said}" for said, count in sorted(counted.items())) or "none that can be placed"
    cells = (
        name,
        both[0].get("commit", ""),
        version,
        str(both[0].get("nodes", "")),
        "; ".join(wrong) or state,
        patches,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


PART = Part("neighbours", "beside other packs: names, pictures, and their patches on one model with ours", 2.0, run)

if __name__ == "__main__":
    put(page(), PAGE, MARKS)
