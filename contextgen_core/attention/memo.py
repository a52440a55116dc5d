"""A memory of compiled things that is bounded by the bytes of the tensors it holds, and by their count.

A host plans the device's memory and does not see tensors that lie in a cache; so what lies there is little, and goes
when the host says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import MethodType
from typing import Generic, TypeVar

from torch import Tensor

from .program import Program

LIMIT = 64 * 2**20
MOST = 256  # values: one without tensors has a size, too, in its key and its objects

T = TypeVar("T")


class SameTensors:
    """Tensors as a key: equal to others that are the same memory, not written to since. What they are is never read,
    which would wait for the device; and it holds them, so that their memory becomes nobody else's."""

    def __init__(self, *tensors: Tensor | None) -> None:
        self._tensors = tensors
        self._marks = tuple(map(_mark, tensors))

    def __hash__(self) -> int:
        return hash(self._marks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameTensors) and self._marks == other._marks


def _mark(tensor: Tensor | None) -> tuple[object, ...]:
    if tensor is None:
        return ()
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride(), version


class Memo(Generic[T]):
    """Values by key, the least recently used given up first. Nothing with a dense mask is ever kept.

    limit  bytes that the tensors of all values may hold together; there are MOST values at most
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.held = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of ``key``; ``make`` builds it where it is not remembered."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = make()
        size = held_bytes(value)
        if size is not None and size <= self.limit:
            self._values[key] = (value, size)
            self.held += size
            while self.held > self.limit or len(self._values) > MOST:
                self.held -= self._values.popitem(last=False)[1][1]
        return value

    def clear(self) -> None:
        self._values.clear()
        self.held = 0


def held_bytes(value: object) -> int | None:
    """Bytes of all tensors in a value (dataclasses, tuples, lists, mappings, and the objects of bound methods), each
    once; None with a dense mask."""
    tensors: dict[int, Tensor] = {}
    for item in _walk(value, set()):
        if isinstance(item, Program) and item.dense is not None:
            return None
        if isinstance(item, Tensor):
            tensors[id(item)] = item
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _walk(value: object, visited: set[int]) -> Iterator[object]:
    if id(value) in visited:
        return
    visited.add(id(value))
    yield value
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, (tuple, list)):
        inside = list(value)
    elif is_dataclass(value) and not isinstance(value, type):
        inside = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, MethodType):  # a step after a block, whose index sets may be all that a pass holds
        inside = list(getattr(value.__self__, "__dict__", {}).values())
    else:
        return
    for item in inside:
        yield from _walk(item, visited)
