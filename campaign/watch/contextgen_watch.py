"""A pytest plugin that forbids what the pack promises never to do, and lists who asked: ``-p contextgen_watch``.

Forbidden are connections beyond this machine, names looked up, programs started by the pack, and files written, moved
or removed outside of temporary and output folders. CONTEXTGEN_WATCH names the file of what was asked, one JSON object a
line; with this folder on PYTHONPATH, Python processes that a test starts are watched, too (sitecustomize.py).
CONTEXTGEN_WATCH_SEED orders the tests, so that a run that is cut short still takes from all of them.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOG = os.environ.get("CONTEXTGEN_WATCH", "")
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")  # noqa: S104  names that stay on this machine
# Where the pack may start programs: commands that a user runs, not nodes.
STARTS = ("contextgen_core/bulk/", "contextgen_core/hosts/comfy_process.py", "contextgen_core/commands/")
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile")
CHANGES = {
    "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
    "os.chmod": 1, "shutil.rmtree": 1, "shutil.move": 2, "shutil.copyfile": 2,
}  # fmt: skip
RELATIVE = CHANGES.keys() - {"os.truncate", "shutil.move", "shutil.copyfile"}  # the last argument is an open folder
_PACK = tuple(str(ROOT / name) + os.sep for name in ("contextgen_core", "nodes"))
_state = threading.local()


def _folders(*kept: str | Path) -> tuple[str, ...]:
    return tuple({os.path.join(os.path.realpath(folder), "") for folder in kept})


# In the repository these alone, wherever it lies.
OUR_FOLDERS = _folders(*(ROOT / n for n in ("output", ".hypothesis", ".pytest_cache", ".ruff_cache", ".venv/reports")))
FOLDERS = _folders(tempfile.gettempdir(), os.path.join(os.sep, "tmp"), "/dev", "/proc/self", "/proc/thread-self")
OURS = os.path.join(os.path.realpath(ROOT), "")


def _asker() -> str:
    """The innermost line of the pack on the stack, or "" where there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACK):
            return f"{os.path.relpath(name, ROOT)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def _outside(path: object, folder: object = -1) -> str:
    """The path where it lies outside of the folders that may be written, else "".

    folder: the open one that the path is relative to, -1 for the current one
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    base = os.getcwd()
    if isinstance(folder, int) and folder >= 0:
        try:
            base = os.readlink(f"/proc/self/fd/{folder}")
        except OSError:
            return ""
    # A link's own place counts, not what it points at: folders of links to read-only files are usual.
    whole = os.path.normpath(os.path.join(base, os.fsdecode(path)))
    place = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
    kept = os.path.join(place, "").startswith(OUR_FOLDERS if place.startswith(OURS) else FOLDERS)
    if kept or "__pycache__" in place or place.endswith((".pyc", ".lock")):
        return ""
    return place


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine's: a socket can be bound to it. Names are not looked up."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError):
        return False
    return True


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments[1:3], None, None)[:2]
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _broken(event: str, arguments: tuple[Any, ...]) -> tuple[str, bool]:
    """What an event asks for that is not promised, "" for all else; and whether it matters only where the pack asks."""
    if event == "open":
        return (f"writes {where}", False) if _writes(arguments) and (where := _outside(arguments[0])) else ("", False)
    if event in CHANGES:
        relative = event in RELATIVE and len(arguments) > CHANGES[event]
        where = _outside(arguments[CHANGES[event] - 1], arguments[-1] if relative else -1)
        return (f"{event} {where}", False) if where else ("", False)
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        target = arguments[1] if event == "socket.connect" else arguments[0]
        host = target[0] if isinstance(target, tuple) else target
        host = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        local = host is None or not isinstance(host, str) or host == "" or host.startswith((*LOOPBACK, "/"))
        local = local or _is_here(str(host))
        unix = event == "socket.connect" and not isinstance(target, tuple)
        return ("", False) if local or unix else (f"{event} {str(target)[:80]}", False)
    if event.startswith(PROGRAMS):
        return f"{event} {str(arguments[:2])[:120]}", True
    if event == "pickle.find_class" and str(arguments[0]) not in ("builtins", "collections"):
        return f"{event} {arguments[0]}.{arguments[1]}", True
    return "", False


def _asked(event: str, arguments: tuple[Any, ...]) -> None:
    if getattr(_state, "busy", False):
        return
    _state.busy = True
    try:
        what, only_pack = _broken(event, arguments)
        asker = _asker() if what else ""
        if not what or (only_pack and not asker):
            return
        # torch unpickles its own modules' code where it compiles and copies; a file's pickle is read by its own reader
        excused = only_pack and (asker.startswith(STARTS) or event == "pickle.find_class" and not _reads_a_file())
        _note({"what": what, "by": asker, "excused": excused})
    finally:
        _state.busy = False
    if not excused:
        raise PermissionError(f"the pack promises never to do this: {what}")


def _reads_a_file() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name in ("load", "_load", "_legacy_load") and "serialization" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


_file: int | None = None


def _note(entry: dict[str, Any]) -> None:
    global _file
    if _file is None and LOG:
        _file = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    if _file is not None:
        os.write(_file, (json.dumps(entry) + "\n").encode())


def start() -> None:
    """Watches this process from here on."""
    if not getattr(sys, "_contextgen_watched", False):
        sys._contextgen_watched = True  # type: ignore[attr-defined]
        sys.addaudithook(_asked)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Files in an order that follows from the seed; what shares a file stays together."""
    seed = os.environ.get("CONTEXTGEN_WATCH_SEED", "")
    files = sorted({str(item.path) for item in items})
    random.Random(seed).shuffle(files)
    place = {file: number for number, file in enumerate(files)}
    items.sort(key=lambda item: place[str(item.path)])
    start()


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.failed or (report.when == "setup" and report.skipped):
        _state.busy = True
        why = str(getattr(report.longrepr, "reprcrash", report.longrepr or ""))[-300:] if report.failed else ""
        _note({"test": report.outcome, "name": report.nodeid, "why": why})
        _state.busy = False
