"""The command line of bulk runs, killed and resumed: the short form of bench/bulk_faults.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("psutil")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's processes")
def test_a_worker_and_the_command_are_killed_and_nothing_is_lost_or_twice(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    command = [sys.executable, str(ROOT / "bench" / "bulk_faults.py"), "--rows", "12", "--faults", "worker"]
    ended = subprocess.run([*command, "--json", str(record)], capture_output=True, text=True)
    assert record.exists(), ended.stderr
    [fault] = json.loads(record.read_text())["faults"]
    assert fault["compared"] == {
        "rows": 12, "failed_rows": 3, "lost": 0, "too_many": 0, "pictures_equal": True, "manifest_equal": True,
        "failed_equal": True, "done_twice": 0,
    }, fault  # fmt: skip
    assert [step["processes_left"] for step in fault["steps"]] == [0, 0]
    assert fault["steps"][0]["exit"] == -9 and fault["steps"][1]["exit"] == 0
    assert ended.returncode == 0
