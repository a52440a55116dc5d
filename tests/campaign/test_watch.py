"""The watch over the suites sees what is forbidden, also in processes that a test starts, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def asked(tmp_path: Path, code: str) -> tuple[list[str], str]:
    """What a watched process asked for, and what it said in the end."""
    log = tmp_path / "log"
    environment = {**os.environ, "CONTEXTGEN_WATCH": str(log), "PYTHONPATH": str(ROOT / "campaign" / "watch")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line)["what"] for line in lines], done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 9), 1)",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "open('README.md', 'a')",
        "import os; os.rename('no such file', 'README.md')",
        "import os; os.mkdir('no such folder/new')",
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'open(\"README.md\", \"a\")']))",
    ],
)
def test_what_is_forbidden_is_refused_and_listed(code: str, tmp_path: Path) -> None:
    whats, said = asked(tmp_path, code)
    assert len(whats) == 1 and "PermissionError: the pack promises never to do this" in said


def test_what_tests_need_is_let_through(tmp_path: Path) -> None:
    code = f"""
import os, shutil, socket, subprocess, sys, tempfile
open({str(tmp_path / "x")!r}, "w").close()
os.remove({str(tmp_path / "x")!r})
with tempfile.TemporaryDirectory() as folder:
    os.makedirs(folder + "/a/b"); open(folder + "/a/b/c", "w").close()
server = socket.create_server(("127.0.0.1", 0)); socket.create_connection(server.getsockname())
subprocess.run([sys.executable, "-c", "pass"], check=True); open("README.md").close()
"""
    assert asked(tmp_path, code) == ([], "")


def test_the_pack_itself_may_start_no_program(tmp_path: Path) -> None:
    code = """
import contextgen_core.layout.layout as layout
exec(compile("import subprocess; subprocess.run(['true'])", layout.__file__, "exec"))
"""
    whats, said = asked(tmp_path, code)
    assert len(whats) == 1 and whats[0].startswith("subprocess.Popen") and "PermissionError" in said
