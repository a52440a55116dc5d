"""Which ComfyUIs the campaign takes, and the programs that it asks line by line."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from campaign import comfy
from campaign.child import Child
from campaign.frame import NotHere

PROGRAM = """
import json, os, sys
print("ready", flush=True)
for line in sys.stdin:
    words = json.loads(line)
    if "end" in words:
        sys.exit(words["end"])
    print(json.dumps({**words, "threads": os.environ["OMP_NUM_THREADS"], "more": sys.argv[1:]}), flush=True)
"""


def test_a_comfyui_without_its_interpreter_or_its_folder_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    for path in (whole, other):
        (path / "comfy").mkdir(parents=True)
    python = Path(sys.executable)
    found = [(whole, python), (other, None), (tmp_path / "nothing", python)]
    tools = SimpleNamespace(
        find_hosts=lambda: [SimpleNamespace(path=path, python=one) for path, one in found],
        host_version=lambda path: f"of {path.name}",
    )
    monkeypatch.setattr(comfy, "host_tools", lambda: tools)
    assert comfy.hosts() == [comfy.Host(whole, python, "of whole")]
    del found[0]
    with pytest.raises(NotHere, match="COMFYUI_PATH"):
        comfy.hosts()


def test_a_child_answers_line_by_line_and_its_last_words_are_told(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    child = Child(program, ["a", "b"], None)
    assert child.line() == "ready\n"
    assert child.ask({"x": 1}) == {"x": 1, "threads": "1", "more": ["a", "b"]}
    with pytest.raises(RuntimeError, match=r"program\.py ended: it is broken"):
        child.ask({"end": "it is broken"})
    child.end()
    assert child.process.returncode == 1
