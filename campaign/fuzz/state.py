"""What a worker tells its parent while it runs, and which fuzzer there is."""

from __future__ import annotations

import contextlib
import mmap
import struct
from pathlib import Path
from types import ModuleType

STATE_BYTES = 1 << 22


class State:
    """Count of cases, and the one at work, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(STATE_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), STATE_BYTES)
        self.count = 0

    def begin(self, case: bytes) -> None:
        self.count += 1
        piece = case[: STATE_BYTES - 16]
        self._map[: 16 + len(piece)] = struct.pack("<QQ", self.count, len(piece)) + piece

    @staticmethod
    def read(path: Path) -> tuple[int, bytes]:
        data = path.read_bytes()
        count, length = struct.unpack("<QQ", data[:16])
        return count, data[16 : 16 + length]


def atheris() -> ModuleType | None:
    """The coverage-guided fuzzer of bytes, where it is installed (the extra "campaign")."""
    with contextlib.suppress(ImportError):
        import atheris  # pyright: ignore[reportMissingImports]

        return atheris
    return None
