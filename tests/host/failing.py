"""Makes a ComfyUI fail: each call of what nodes rely on fails once, in a server that a test has started.

A pack beside ours does so in the server's process (failing_host.py); it reads orders from a file of the server's
folder and writes what has failed into another one. :func:`walk` queues a prompt again and again until all of it has
failed once and it has come through. Standard library alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import live_server

HERE = Path(__file__).resolve().parent
ORDERS, LOG = "failing.json", "failing.jsonl"
PLACES = ("node", "load", "text", "encode", "step", "decode")
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


@dataclass(frozen=True)
class Failure:
    """What has failed: in which node, of which class, where, at which of its calls in that node."""

    node: str
    kind: str
    place: str
    call: int


@dataclass
class Walk:
    """failures: in the order in which they came. through: how often the prompt came through although something in
    it had failed. strange: ends of a prompt that are not those of its failure. entry: of the last, whole run."""

    failures: list[Failure] = field(default_factory=list)
    through: int = 0
    strange: list[str] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)


def fill(packs: Path) -> None:
    """Puts this repository and the pack that fails into a server's custom_nodes."""
    live_server.link_pack(packs)
    folder = packs / "failing_pack"
    folder.mkdir()
    for name in ("failing_host.py", "offload.py"):
        shutil.copy(HERE / name, folder)
    (folder / "__init__.py").write_text(
        "from . import failing_host\n\nfailing_host.install()\nNODE_CLASS_MAPPINGS = {}\n", encoding="utf-8"
    )


def order(server: live_server.Server, **orders: Any) -> None:
    """kind: "interrupt" or "memory"; places: of PLACES. gently: one failure in a prompt, not more.
    share: of each model's weights that may be loaded, the rest stays elsewhere (:mod:`offload`)."""
    (server.base / LOG).unlink(missing_ok=True)
    temporary = server.base / f"{ORDERS}.new"
    temporary.write_text(json.dumps(orders), encoding="utf-8")
    temporary.replace(server.base / ORDERS)


def _failed(server: live_server.Server, prompt: dict[str, Any]) -> Iterator[Failure]:
    log = server.base / LOG
    for line in log.read_text("utf-8").splitlines() if log.exists() else []:
        entry = json.loads(line)
        yield Failure(entry["node"], prompt[entry["node"]]["class_type"], entry["place"], entry["call"])


def walk(
    server: live_server.Server,
    prompt: dict[str, Any],
    kind: str,
    places: Collection[str] = PLACES,
    gently: bool = False,
    limit: int = 400,
) -> Walk:
    """Queues a prompt until each call of these places has failed once and a run has met no failure any more.

    The host keeps what the nodes before the failure have given, so each run goes on where the last one ended, as a
    user's would. gently: after a failure the rest of the prompt goes on, as where the host tries another way; not for
    the place "node".
    """
    done = Walk()
    server.forget()
    order(server, kind=kind, places=sorted(places), gently=gently)
    for _ in range(limit):
        before = len(done.failures)
        try:
            entry, words = server.run(prompt), {}
        except live_server.PromptError as failed:
            entry, words = None, dict(failed.details)
        done.failures = list(_failed(server, prompt))
        new = done.failures[before:]
        if entry is not None:
            if not new:
                order(server)
                done.entry = entry
                return done
            done.through += 1
            server.forget()  # else the next run would have nothing to do
            continue
        ended = words.get("execution_interrupted" if kind == "interrupt" else "execution_error")
        told = "" if ended is None else str(ended.get("exception_message", NO_MEMORY))
        if not new or ended is None or ended["node_id"] != new[-1].node or NO_MEMORY not in told:
            done.strange.append(f"{new[-1] if new else 'nothing'} failed, the prompt ended in {str(words)[:300]}")
            break
    order(server)
    if not done.strange:
        done.strange.append(f"no whole run within {limit} prompts")
    return done
