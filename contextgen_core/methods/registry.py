"""The methods by name: the one place where hosts, commands and training look a method up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import cast

from ..errors import InputError
from .boundary import Method
from .golden import GoldenModule

MODULES = {  # where each lies
    "contextgen": ("contextgen.method", "CONTEXTGEN"),
    "lamic": ("lamic.method", "LAMIC"),
    "instance_assemble": ("instance_assemble.method", "INSTANCE_ASSEMBLE"),
    "sigma_gen": ("sigma_gen.method", "SIGMA_GEN"),
    "eligen": ("eligen.method", "ELIGEN"),
}

_registered: dict[str, Method] = {}


def method(name: str) -> Method:
    """The method of that name. Raises InputError, naming all, for an unknown one."""
    if name not in _registered:
        if name not in MODULES:
            raise InputError(f"The method {name[:40]!r} is unknown; choose one of {', '.join(MODULES)}.")
        module, attribute = MODULES[name]
        _registered[name] = getattr(import_module(f".{module}", __package__), attribute)
    return _registered[name]


def methods() -> tuple[Method, ...]:
    """All methods: those of the pack in their order, then those that are registered besides."""
    return (*(method(name) for name in MODULES), *(m for name, m in _registered.items() if name not in MODULES))


@contextmanager
def registered(own: Method) -> Iterator[None]:
    """Lets the hosts know a method from outside of the pack while the context lasts."""
    _registered[own.name] = own
    try:
        yield
    finally:
        del _registered[own.name]


def golden_module(name: str) -> GoldenModule:
    """The module that reads the golden cases of a method."""
    method(name)
    return cast("GoldenModule", import_module(f".{name}.parity", __package__))
