"""Runs one function of the pack inside a ComfyUI: ``boot.py COMFYUI MODULE.FUNCTION JSON`` in its interpreter.

The core starts this file as a program (contextgen_core/hosts/comfy_process.py); ComfyUI itself never imports it. The
pack is a package under a neutral name here, as ComfyUI loads it, but without registering nodes.
"""

import sys

# Python puts this folder, whose modules have names like those of others, first on the path.
del sys.path[0]

import importlib  # noqa: E402
import json  # noqa: E402
import types  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NAME = "contextgen_pack"


def main(host: str, target: str, argument: str) -> None:
    """Calls ``nodes.<target>(**json)`` on the GPU where ComfyUI's torch sees one."""
    sys.path[:] = [host, *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    sys.argv[1:] = []  # ComfyUI reads them as its own

    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    for name, folder in ((NAME, ROOT), (f"{NAME}.nodes", ROOT / "nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    module, function = target.rsplit(".", 1)
    getattr(importlib.import_module(f"{NAME}.nodes.{module}"), function)(**json.loads(argument))


if __name__ == "__main__":
    main(*sys.argv[1:4])
