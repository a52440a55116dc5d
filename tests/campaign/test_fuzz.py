"""The fuzzer sees what it is there for, and its cases follow from the seed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from campaign.fuzz import mutate
from campaign.fuzz.targets import TARGETS
from campaign.fuzz.text import layout_seeds

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: the guard bounds the memory of its process, and its hook stays.
WATCHED = """
import sys
from pathlib import Path
from campaign.fuzz.guard import Guard
from contextgen_core.errors import InputError
guard = Guard(Path(sys.argv[1]))
guard.limit_memory()
def refuse(text):
    def attempt(case):
        raise InputError(text)
    return attempt
def spin(case):
    while True:
        pass
def swallow(case):
    try:
        open("/etc/hostname").close()
    except OSError:
        pass
cases = {
    "value": lambda case: 3,
    "sentence": refuse("a box is off; move it."),
    "lines": refuse("a\\nb."),
    "rest": refuse("a"),
    "exception": lambda case: {}["x"],
    "slow": spin,
    "memory": lambda case: bytearray(1 << 29),
    "file": swallow,
    "own file": lambda case: open(Path(sys.argv[1]) / "x", "w").close(),
    "program": lambda case: __import__("os").system("true"),
}
for name, attempt in cases.items():
    print(name, "|", guard.run(attempt, b""))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_each_way_to_break_the_property_is_seen(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WATCHED, str(tmp_path)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    broke: dict[str, str] = {}
    for line in printed.splitlines():
        name, _, what = line.partition(" |")
        broke[name] = what.strip()
    assert not (broke["value"] or broke["sentence"] or broke["own file"])
    assert "control characters" in broke["lines"] and "no whole sentence" in broke["rest"]
    assert "KeyError" in broke["exception"] and "CPU time" in broke["slow"] and "256 MiB" in broke["memory"]
    assert "/etc/hostname" in broke["file"] and "os.system" in broke["program"]


def test_cases_follow_from_the_seed_and_differ() -> None:
    for name, target in TARGETS.items():
        if target.strategy is None and name not in ("SAM files", "layout weights"):
            seed = max(target.seeds(), key=len)
            made = [[target.mutate(random.Random(f"{n}"), seed) for n in range(50)] for _ in range(2)]
            assert made[0] == made[1] and len(set(made[0])) > 30, name


def test_most_changes_to_a_layout_are_json_still() -> None:
    def reads(case: bytes) -> bool:
        try:
            json.loads(case)
        except ValueError:
            return False
        return True

    seed = max(layout_seeds(), key=len)
    assert sum(reads(mutate.json_bytes(random.Random(n), seed)) for n in range(400)) > 250


@pytest.mark.parametrize("name", ["layouts", "plans"])
def test_a_worker_runs_and_counts(name: str, tmp_path: Path) -> None:
    from campaign.fuzz.state import State

    command = [
        sys.executable,
        "-m",
        "campaign.fuzz.worker",
        name,
        "--seconds",
        "1",
        "--seed",
        "3",
        "--out",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    count, last = State.read(tmp_path / "state")
    assert count > len(TARGETS[name].seeds()) and last
    assert (tmp_path / "findings.jsonl").read_text() == ""
