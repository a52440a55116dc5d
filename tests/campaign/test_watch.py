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
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.connect(("127.0.0.1", 9)); socket.getaddrinfo("127.9.9.9", 9)
"""
    assert asked(tmp_path, code) == ([], "")


def test_another_module_that_python_starts_with_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.started_with = True")
    code = "import sys; assert sys.started_with and sys._contextgen_watched"
    path = os.pathsep.join((str(ROOT / "campaign" / "watch"), str(tmp_path)))
    environment = {**os.environ, "CONTEXTGEN_WATCH": str(tmp_path / "log"), "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_ray_asks_no_cloud_whose_machine_this_is(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    code = """
import contextlib, os
from ray._common.usage.usage_lib import get_cloud_from_metadata_requests as ask
from contextgen_core.bulk.run import _this_machine_alone
before = dict(os.environ)
with {} as theirs:
    assert ask() == "unknown"
assert dict(os.environ) == before
"""
    assert asked(tmp_path, code.format("_this_machine_alone()")) == ([], "")
    assert asked(tmp_path, code.format("contextlib.nullcontext()"))[0]


def test_the_pack_itself_may_start_no_program(tmp_path: Path) -> None:
    code = """
import contextgen_core.layout.layout as layout
exec(compile("import subprocess; subprocess.run(['true'])", layout.__file__, "exec"))
"""
    whats, said = asked(tmp_path, code)
    assert len(whats) == 1 and whats[0].startswith("subprocess.Popen") and "PermissionError" in said
