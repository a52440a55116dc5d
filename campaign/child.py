"""A program in a process of its own that answers one line of JSON with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comfy import Host
from .frame import ROOT

PATIENCE = 20  # seconds between the end of its input and its own end


class Child:
    """The Python file ``program`` with its arguments, in a ComfyUI's interpreter or, without one, in this one.

    It writes a first line when it is ready. What it prints as an error is told when it ends too early.
    """

    def __init__(
        self, program: Path, arguments: Sequence[str], host: Host | None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = program.name
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(host.python) if host else sys.executable, str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            text=True,
        )

    def line(self) -> str:
        """The next line of its answers. Raises RuntimeError with its last words where there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} ended: " + self.log.read().decode(errors="replace")[-2000:])
        return line

    def ask(self, words: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
