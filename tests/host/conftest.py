"""Fixtures for tests inside a ComfyUI: the host on CPU, the pack as the package ``contextgen_pack``.

Started through scripts/host_pytest.py in the host's own interpreter, with COMFYUI_PATH naming the host.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACK = "contextgen_pack"


def _prepare_host() -> Path:
    """Makes ComfyUI importable on CPU, writing into a temporary folder instead of the user's."""
    if not os.environ.get("COMFYUI_PATH"):
        raise pytest.UsageError("set COMFYUI_PATH to one ComfyUI folder to run the host tests")
    path = Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()
    if not (path / "comfy").is_dir():
        raise pytest.UsageError(f"COMFYUI_PATH={path} holds no ComfyUI")
    # The pack's root holds a folder called nodes, which would hide the host's module of that name.
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
    sys.path.insert(0, str(path))
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    import comfy.cli_args  # pyright: ignore[reportMissingImports]

    base = Path(tempfile.mkdtemp(prefix="contextgen-host-"))
    for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir()
    comfy.cli_args.args.cpu = True  # before comfy.model_management looks for a GPU
    comfy.cli_args.args.base_directory = str(base)
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="store the small workflows' pictures anew")


HOST = _prepare_host()


def _load_pack() -> ModuleType:
    """Imports the pack as ComfyUI does: by file, under a name of its own, with relative imports working."""
    if PACK in sys.modules:
        return sys.modules[PACK]
    entry = ROOT / "__init__.py"
    spec = importlib.util.spec_from_file_location(PACK, entry, submodule_search_locations=[str(ROOT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"no module loader for {entry}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[PACK]
        raise
    return module


_load_pack()  # at collection, so that test modules may import contextgen_pack.contextgen_core at their top


@pytest.fixture(scope="session")
def host_path() -> Path:
    """The ComfyUI under test."""
    return HOST


@pytest.fixture(scope="session")
def host_version() -> tuple[int, ...]:
    """The version of the ComfyUI under test, e.g. (0, 30, 0)."""
    import comfyui_version  # pyright: ignore[reportMissingImports]

    return tuple(int(part) for part in comfyui_version.__version__.split(".")[:3])


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The pack, imported as a package; ``pack.contextgen_core`` is its core."""
    return _load_pack()


@pytest.fixture(scope="session")
def pack_nodes(pack: ModuleType) -> dict[str, Any]:
    """The pack's V3 node classes by node id, through the entry point that the host calls."""

    async def collect() -> dict[str, Any]:
        extension = pack.comfy_entrypoint()
        if inspect.isawaitable(extension):
            extension = await extension
        return {node.GET_SCHEMA().node_id: node for node in await extension.get_node_list()}

    return asyncio.run(collect())


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A running ComfyUI server with the pack in its custom_nodes; see live_server.Server."""
    import live_server

    with live_server.running(HOST) as started:
        yield started


@pytest.fixture(scope="session")
def stocked(server: Any) -> Any:
    """The server with the sample pictures in its input folder."""
    for picture in (ROOT / "assets" / "samples").glob("*.png"):
        shutil.copy(picture, server.base / "input")
    return server
