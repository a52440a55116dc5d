"""Finds a ComfyUI on this machine and runs a function of the pack inside it, in its own interpreter.

The core never imports ComfyUI. What has to happen in it (parity runs) happens in a process of its own, whose program
is nodes/boot.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..errors import InputError

BOOT = Path(__file__).resolve().parents[2] / "nodes" / "boot.py"


def find_comfy() -> Path | None:
    """The ComfyUI folder: the first of ``COMFYUI_PATH``, else comfy-cli's default workspace, else None."""
    named = os.environ.get("COMFYUI_PATH", "").split(os.pathsep)[0]
    path = Path(named).expanduser() if named else Path.home() / "comfy" / "ComfyUI"
    return path.resolve() if (path / "comfy").is_dir() else None


def comfy_python(path: Path) -> Path:
    """The interpreter of a ComfyUI: ``COMFYUI_PYTHON``, its own virtual environment, or the running one."""
    named = os.environ.get("COMFYUI_PYTHON", "").split(os.pathsep)[0]
    if named:
        return Path(named).expanduser()
    for folder in (".venv", "venv"):
        for name in ("bin/python", "Scripts/python.exe"):
            if (path / folder / name).exists():
                return path / folder / name
    return Path(sys.executable)


def call_in_comfy(target: str, argument: str) -> None:
    """Calls ``nodes.<target>(**json)`` inside a ComfyUI. Raises InputError with its last words if that fails."""
    path = find_comfy()
    if path is None:
        raise InputError("No ComfyUI was found; set COMFYUI_PATH to the folder that holds its main.py.")
    command = [str(comfy_python(path)), str(BOOT), str(path), target, argument]
    done = subprocess.run(command, capture_output=True, text=True, cwd=path, check=False)  # noqa: S603 - our own words
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise InputError(f"The run inside ComfyUI at {path} failed: {last}")
