"""What the pack remembers for the life of a process has a bound: a server runs for months."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 65536


def caches(source: str) -> Iterator[tuple[int, int | None]]:
    """The line of each function that remembers its results, and for how many arguments; None: without end."""
    for node in ast.walk(ast.parse(source)):
        for mark in getattr(node, "decorator_list", ()):
            call = mark if isinstance(mark, ast.Call) else None
            name = ast.unparse(call.func if call else mark).rpartition(".")[2]
            if name not in ("cache", "lru_cache"):
                continue
            size = next((one.value for one in (call.keywords if call else ()) if one.arg == "maxsize"), None)
            value = size.value if isinstance(size, ast.Constant) else None
            yield mark.lineno, value if isinstance(value, int) else None


def test_an_endless_cache_is_seen() -> None:
    marks = "cache", "functools.cache", "lru_cache(maxsize=None)", "lru_cache", "lru_cache(maxsize=8)"
    found = [size for mark in marks for _, size in caches(f"@{mark}\ndef f(x): ...")]
    assert found == [None, None, None, None, 8]


def test_every_cache_has_a_bound() -> None:
    files = [path for folder in ("contextgen_core", "nodes") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {
        f"{path.relative_to(ROOT)}:{line}": size for path in files for line, size in caches(path.read_text("utf-8"))
    }
    assert len(found) > 8
    assert {place for place, size in found.items() if size is None or size > MOST} == set()
