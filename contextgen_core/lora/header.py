"""Reads a safetensors file's header, bounded and checked, before any tensor of it is touched.

The file is taken as hostile. Everything wrong with it is an InputError of one sentence that names the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from ..errors import InputError

MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_TENSORS = 20_000
MAX_RANK = 8
MAX_JSON_MEMBERS = 2_000_000

# The bits of one element of each dtype that the format knows.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

# First bytes of what people load by mistake; a safetensors file has "{" at byte 8.
_MISTAKEN = (
    (b"PK", "a zip archive (a PyTorch pickle checkpoint is one)"),
    (b"\x80", "a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file that it points at"),
    (b"<", "a web page"),
)


class TensorInfo(NamedTuple):
    """One tensor in the header: its name, dtype (a key of DTYPE_BITS) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """The checked header: tensors in the file's order, and the file's metadata, sorted, strings to strings."""

    path: Path
    tensors: tuple[TensorInfo, ...]
    metadata: tuple[tuple[str, str], ...]

    def meta(self, key: str) -> str | None:
        """The metadata value of a key, or None."""
        return next((value for name, value in self.metadata if name == key), None)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads and checks the header of a safetensors file without reading its tensors.

    Bounds: the header at most MAX_HEADER_BYTES and inside the file, at most MAX_TENSORS tensors of at most MAX_RANK
    dimensions, byte ranges inside the file, disjoint, and as long as dtype and shape say. Raises InputError.
    """
    path = Path(path)
    name = path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(32)
            length = int.from_bytes(head[:8], "little")
            _check_kind(name, head, size, length)
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error}); choose a file that exists.") from None
    members = _parse(name, raw)
    metadata = _metadata(name, members.pop("__metadata__", {}))
    if len(members) > MAX_TENSORS:
        raise InputError(f"{name} lists {len(members)} tensors, more than the {MAX_TENSORS} that are read.")
    tensors = tuple(_tensor(name, key, value, size - 8 - length) for key, value in members.items())
    _check_disjoint(name, [value["data_offsets"] for value in members.values()])
    return Header(path, tensors, metadata)


def _check_kind(name: str, head: bytes, size: int, length: int) -> None:
    """Tells truncated files and files of another kind from safetensors by their first bytes."""
    if head[8:9] != b"{":
        for magic, kind in _MISTAKEN:
            if head.startswith(magic):
                raise InputError(f"{name} is {kind}, not a safetensors file; download the .safetensors file.")
        raise InputError(f"{name} is not a safetensors file, or it is cut off; download it again.")
    if length > MAX_HEADER_BYTES:
        raise InputError(f"{name} announces a header of {length} bytes, more than the {MAX_HEADER_BYTES} read.")
    if length > size - 8:
        raise InputError(f"{name} ends inside its header ({size} bytes); download it again.")


def _parse(name: str, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a name occurs twice")
        return result

    if raw.count(b'":') > MAX_JSON_MEMBERS:
        raise InputError(f"{name} has a header of more than {MAX_JSON_MEMBERS} entries; it is not an adapter.")
    try:
        members = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise InputError(f"{name} has a damaged header ({reason}); download it again.") from None
    if not isinstance(members, dict):
        raise InputError(f"{name} has a damaged header (no JSON object); download it again.")
    return members


def _metadata(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
        raise InputError(f"{name} has damaged metadata (it must map names to texts); download it again.")
    return tuple(sorted(value.items()))


def _tensor(name: str, key: str, value: Any, data_bytes: int) -> TensorInfo:
    """Checks one header entry; ``data_bytes`` is the size of the part behind the header."""

    def bad(reason: str) -> InputError:
        return InputError(f"{name} has a damaged entry for {key[:80]!r} ({reason}); download it again.")

    if not isinstance(value, dict):
        raise bad("no JSON object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise bad(f"unknown dtype {str(dtype)[:20]!r}")
    if not _naturals(shape) or len(shape) > MAX_RANK or any(side >= 2**31 for side in shape):
        raise bad("its shape is not sane")
    if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1]:
        raise bad("its byte range is not sane")
    if offsets[1] > data_bytes:
        raise bad(f"it ends at byte {offsets[1]} of {data_bytes}: the file is cut off")
    if (offsets[1] - offsets[0]) * 8 != prod(shape) * DTYPE_BITS[dtype]:
        raise bad("its byte range does not fit its shape")
    return TensorInfo(key, dtype, tuple(shape))


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_disjoint(name: str, ranges: Sequence[Sequence[int]]) -> None:
    end = 0
    for start, stop in sorted((r[0], r[1]) for r in ranges):
        if start < end:
            raise InputError(f"{name} has tensors that overlap in the file; download it again.")
        end = stop
