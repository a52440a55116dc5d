"""Runs in a ComfyUI's own interpreter: what importing the pack costs at the host's start.

    <interpreter> campaign/import_cost.py <ComfyUI> <pack's folder>

Prints processor seconds, wall seconds and megabytes of resident memory that the import took, after the host's own nodes
were loaded, as JSON; and the packages outside the pack that it was the first to import.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def resident() -> float:
    """Megabytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure(pack: str) -> dict[str, object]:
    import server  # pyright: ignore[reportMissingImports]

    nodes: Any = importlib.import_module("nodes")  # the host's
    server.PromptServer(asyncio.get_running_loop())
    await nodes.init_builtin_extra_nodes()
    gc.collect()
    known, memory = set(sys.modules), resident()
    wall, processor = time.perf_counter(), time.process_time()
    loaded = await nodes.load_custom_node(pack, ignore=set(), module_parent="custom_nodes")
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    new = {name.split(".")[0] for name in set(sys.modules) - known if not name.startswith(pack.replace(".", "_x_"))}
    taken = {"processor seconds": processor, "wall seconds": wall, "MB": resident() - memory}
    return {"loaded": loaded, **taken, "packages": sorted(new)}


def main(host: Path, pack: Path) -> None:
    base = Path(tempfile.mkdtemp(prefix="contextgen-import-"))
    (base / "custom_nodes").mkdir()
    sys.path[0] = str(host)
    sys.argv = [str(host / "main.py")]
    import comfy.options  # pyright: ignore[reportMissingImports]

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args  # pyright: ignore[reportMissingImports]

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.base_directory = str(base)
    import utils.install_util  # noqa: F401  # pyright: ignore  before a module of the same name

    try:
        measured = asyncio.run(measure(str(pack)))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    sys.stdout.write("\n" + json.dumps(measured) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).absolute())
