"""What a part of the campaign is, and the record that it leaves."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import pkgutil
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "output" / "campaign"
CASES = OUTPUT / "cases"


class NotHere(Exception):
    """A part, or a row of it, cannot run on this machine; the sentence says what is missing."""


@dataclass(frozen=True)
class Finding:
    """One case that broke the property. ``case``: its file's name under the part's folder of cases, or ""."""

    sentence: str
    case: str = ""


@dataclass
class Row:
    """One line of the table: one kind of input or one measurement.

    name: short, unique in its part. what: what was tried, one phrase. tried: cases. seconds: wall clock.
    found: what broke the property in this run and so is left. figures: measured numbers, by name with unit.
    notes: sentences that qualify the row, such as what could not run here and why.
    """

    name: str
    what: str
    tried: int = 0
    seconds: float = 0.0
    found: list[Finding] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Mend:
    """What a row has shown and was mended, one phrase, and the test that holds it: its file, ``::`` and its name."""

    row: str
    what: str
    test: str


@dataclass(frozen=True)
class Part:
    """One part of the campaign.

    share: its part of the time, relative to the other parts. run(budget, seed): tries until about ``budget`` seconds
    are over and gives its rows, at once or one by one; the cases, not their number, follow from ``seed`` alone. Raises
    NotHere where nothing of it can run. mended: what it has shown so far and is no more.
    """

    name: str
    what: str
    share: float
    run: Callable[[float, int], Iterable[Row]]
    mended: tuple[Mend, ...] = ()


def parts() -> dict[str, Part]:
    """All parts by name, in the order of their names: the modules of this folder that have a ``PART``."""
    import campaign

    found: dict[str, Part] = {}
    for info in pkgutil.iter_modules(campaign.__path__):
        part = getattr(importlib.import_module(f"campaign.{info.name}"), "PART", None)
        if isinstance(part, Part):
            found[part.name] = part
    return found


def keep_case(part: str, data: bytes, suffix: str, sentence: str) -> Finding:
    """Writes a case that broke the property, and why beside it, under output/campaign/cases/<part>/."""
    folder = CASES / part
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(data).hexdigest()[:16] + suffix
    (folder / name).write_bytes(data)
    (folder / f"{name}.txt").write_text(sentence + "\n", encoding="utf-8")
    return Finding(sentence, name)


@cache
def load(path: str) -> ModuleType:
    """A Python file of the repository that lies in no package, by its path below the root."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location("campaign_test_script" if name == "test" else name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def host_tools() -> ModuleType:
    """scripts/test.py, which knows where ComfyUIs and browsers are."""
    return load("scripts/test.py")


def machine() -> dict[str, Any]:
    """What the figures were measured on, and which commit."""
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "commit": asked.stdout.strip(),
    }


def run_part(part: Part, budget: float, seed: int, output: Path = OUTPUT) -> dict[str, Any]:
    """Runs a part and writes its record to <output>/<part>.json; the record.

    A part that raises has failed, which its record says, with the rows that it gave before: the next parts still run.
    """
    started, failed, missing = time.monotonic(), "", ""
    rows: list[Row] = []
    try:
        for row in part.run(budget, seed):
            rows.append(row)  # what came before an error stays
    except NotHere as reason:
        missing = str(reason)
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        failed = f"{type(error).__name__}: {error}"
    record = {
        "part": part.name,
        "what": part.what,
        "seed": seed,
        "budget": budget,
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
        "missing": missing,
        "failed": failed,
        "rows": [{**asdict(row), "seconds": round(row.seconds, 1)} for row in rows],
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{part.name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def broken(record: dict[str, Any]) -> int:
    """How many findings a record has; a part that failed counts as one."""
    return sum(len(row["found"]) for row in record["rows"]) + bool(record["failed"])
