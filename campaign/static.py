"""What the sources that ship must not say: the promises of SECURITY.md that can be read from the text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .frame import ROOT

NEVER_CALLED = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
NEVER_IMPORTED = {
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "cloudpickle",
    "ftplib",
    "smtplib",
    "telnetlib",
    "xmlrpc",
    "pip",
}
NETWORK = {"requests", "urllib", "http", "socket", "aiohttp", "httpx", "websockets"}
# Commands that a user runs and tells of a ComfyUI: none of them is imported by a node.
TALKS = {"contextgen_core/bulk/comfy.py"}
STARTS = {
    "contextgen_core/hosts/comfy_process.py",
    "contextgen_core/bulk/comfy.py",
    "contextgen_core/commands/parity.py",
}
_WEB = {
    r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b": "text that becomes HTML",
    r"\beval\s*\(|\bnew Function\b|\bFunction\s*\(": "text that becomes code",
    r"\b(?:XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts)\b": "a connection of its own",
    r"""["'`]https?://(?!www\.w3\.org/)""": "another server",
}


def python_files() -> list[Path]:
    folders = (ROOT / "contextgen_core", ROOT / "nodes")
    return [ROOT / "__init__.py", *(path for folder in folders for path in sorted(folder.rglob("*.py")))]


def web_files() -> list[Path]:
    return sorted(path for path in (ROOT / "web").rglob("*") if path.suffix in (".js", ".mjs"))


def problems(path: Path) -> list[str]:
    """What a file says that the pack promises not to, with the line."""
    text, name = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
    if path.suffix != ".py":
        lines = enumerate(text.splitlines(), 1)
        return [f"{name}:{n}: {why}" for n, line in lines for form, why in _WEB.items() if re.search(form, line)]
    return [f"{name}:{node.lineno}: {why}" for node, why in _python(ast.parse(text), name)]


def _python(tree: ast.Module, name: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            level = isinstance(node, ast.ImportFrom) and node.level
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            tops = set() if level else {module.split(".")[0] for module in names}
            if tops & NEVER_IMPORTED or (tops & NETWORK and name not in TALKS):
                yield node, f"imports {', '.join(sorted(tops))}"
            if "subprocess" in tops and name not in STARTS:
                yield node, "starts programs"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            if called in NEVER_CALLED or re.fullmatch(r"os\.(system|popen|exec\w+|spawn\w+)|pickle\.\w+", called):
                yield node, f"calls {called}"
            if called == "torch.load" and given.get("weights_only") != "True":
                yield node, "torch.load without weights_only=True"
            if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
                yield node, "allow_pickle or shell"
            if called in ("yaml.load", "tempfile.mktemp"):
                yield node, f"calls {called}"
            if re.search(r"\.(add_routes|add_route|add_static)$|^routes\.(get|post)$", called):
                yield node, "adds a route"
