"""The benchmarks by name."""

from __future__ import annotations

from importlib import import_module

from ...errors import InputError
from ...input.checks import shorten
from .measure import Benchmark

MODULES = {
    "dense-layout": "dense_layout", "coco-mig": "coco_mig", "layout-sam": "layout_sam", "lamicbench": "lamic",
    "lamic": "lamic",
}  # fmt: skip


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises InputError, naming all, for an unknown one."""
    if name not in MODULES:
        raise InputError(f"there is no benchmark {shorten(name)}; choose one of {', '.join(MODULES)}.")
    module = import_module(f".{MODULES[name]}", __package__)
    found: Benchmark = next(b for b in vars(module).values() if isinstance(b, Benchmark) and b.name == name)
    return found
