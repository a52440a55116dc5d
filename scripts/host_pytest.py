"""Runs pytest inside a ComfyUI's own interpreter without installing anything there.

    COMFYUI_PATH=~/comfy/ComfyUI ~/comfy/ComfyUI/.venv/bin/python scripts/host_pytest.py [PYTEST ARGUMENTS]

pytest, hypothesis and segment-anything come from .venv/host-tools (scripts/test.py puts them there), behind
the host's own packages. The repository root stays off ``sys.path``: its ``nodes`` would hide ComfyUI's module
of that name.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST_TESTS = ROOT / "tests" / "host"


def main(arguments: list[str]) -> int:
    unwanted = {ROOT, ROOT / "scripts"}
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() not in unwanted]
    sys.path.append(str(ROOT / ".venv" / "host-tools"))
    import pytest

    options = [f"--rootdir={HOST_TESTS}", f"-c={HOST_TESTS / 'pytest.ini'}", "-p", "no:cacheprovider"]
    targets = [] if any(not a.startswith("-") and Path(a).exists() for a in arguments) else [str(HOST_TESTS)]
    return pytest.main([*options, *arguments, *targets])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
