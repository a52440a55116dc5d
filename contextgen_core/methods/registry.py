"""The methods by name: the one place where hosts, commands and training look a method up."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from ..errors import InputError
from .boundary import Method
from .golden import GoldenModule

MODULES = {"contextgen": ("contextgen.method", "CONTEXTGEN")}


@cache
def method(name: str) -> Method:
    """The method of that name. Raises InputError, naming all, for an unknown one."""
    if name not in MODULES:
        raise InputError(f"The method {name[:40]!r} is unknown; choose one of {', '.join(MODULES)}.")
    module, attribute = MODULES[name]
    return getattr(import_module(f".{module}", __package__), attribute)


def methods() -> tuple[Method, ...]:
    """All methods, in the order of the registry."""
    return tuple(method(name) for name in MODULES)


def golden_module(name: str) -> GoldenModule:
    """The module that reads the golden cases of a method."""
    method(name)
    return cast("GoldenModule", import_module(f".{name}.parity", __package__))
