"""Reads a safetensors file's header, bounded, before any tensor of it is touched.

The file is taken as hostile: the library checks the header, and everything wrong with it is an InputError of one
sentence that names the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError
from ..input.checkpoint_file import MAX_TENSORS, check_names
from ..input.checks import shorten

MAX_HEADER_BYTES = 64 * 1024 * 1024
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
INT_DTYPES = frozenset({"I64", "I32", "I16", "I8", "U8"})

# First bytes of what people load by mistake; a safetensors file has "{" at byte 8.
_MISTAKEN = (
    (b"PK", "a zip archive (a PyTorch pickle checkpoint is one)"),
    (b"\x80", "a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file that it points at"),
    (b"<", "a web page"),
)


class TensorInfo(NamedTuple):
    """One tensor in the header: its name, dtype (as the format writes it, "BF16") and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """The checked header: tensors in the order of their names, and the file's metadata, sorted, strings to strings."""

    path: Path
    tensors: tuple[TensorInfo, ...]
    metadata: tuple[tuple[str, str], ...]

    def meta(self, key: str) -> str | None:
        """The metadata value of a key, or None."""
        return next((value for name, value in self.metadata if name == key), None)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads and checks the header of a safetensors file without reading its tensors.

    Bounds: the header at most MAX_HEADER_BYTES and inside the file, at most MAX_TENSORS tensors, byte ranges inside the
    file, without overlap, and as long as dtype and shape say. Raises InputError.
    """
    path = Path(path)
    name = path.name
    try:
        with path.open("rb") as file:
            head = file.read(32)
        _check_kind(name, head, path.stat().st_size)
        with safe_open(str(path), framework="pt", device="cpu") as opened:
            names = sorted(opened.keys())
            if len(names) > MAX_TENSORS:
                raise InputError(f"{name} lists {len(names)} tensors, more than the {MAX_TENSORS} that are read.")
            check_names(name, names)
            parts = [(key, opened.get_slice(key)) for key in names]
            tensors = tuple(TensorInfo(key, part.get_dtype(), tuple(part.get_shape())) for key, part in parts)
            metadata = tuple(sorted((opened.metadata() or {}).items()))
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error}); choose a file that exists.") from None
    except SafetensorError as error:
        reason = " ".join(str(error).removeprefix("Error while deserializing header: ").split())
        reason = reason[:120] if reason.isprintable() else shorten(reason, 120)
        raise InputError(f"{name} is damaged or cut off ({reason}); download it again.") from None
    return Header(path, tensors, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on the CPU, and its metadata. Raises InputError as :func:`read_header`."""
    header = read_header(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {info.name: file.get_tensor(info.name) for info in header.tensors}, dict(header.metadata)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name} cannot be read ({str(error)[:120]}); download it again.") from None


def _check_kind(name: str, head: bytes, size: int) -> None:
    """Tells truncated files and files of another kind from safetensors by their first bytes."""
    if head[8:9] != b"{":
        for magic, kind in _MISTAKEN:
            if head.startswith(magic):
                raise InputError(f"{name} is {kind}, not a safetensors file; download the .safetensors file.")
        raise InputError(f"{name} is not a safetensors file, or it is cut off; download it again.")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise InputError(f"{name} announces a header of {length} bytes, more than the {MAX_HEADER_BYTES} read.")
    if length > size - 8:
        raise InputError(f"{name} ends inside its header ({size} bytes); download it again.")
