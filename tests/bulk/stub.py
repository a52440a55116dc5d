"""A backend that paints a square in the row's colour, and does what a row asks for: fails, dies, takes its time."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from contextgen_core.bulk.backend import HostError, Made, Task
from contextgen_core.bulk.graph import seed_of
from contextgen_core.bulk.table import Row
from contextgen_core.errors import InputError


@dataclass(frozen=True)
class Stub:
    """marks: a folder in which rows leave a file for each attempt."""

    marks: Path
    workers: int | None = None
    digest: str = "stub 1"

    def check(self) -> list[str]:
        return []

    def prepare(self, row: Row, base: Path) -> Task:
        if "colour" not in row.values:
            raise InputError("the row has no colour; add the column.")
        return Task(row, row.values, seed_of(row.id, row.values.get("seed")), extra={"kind": row.values.get("kind")})

    def open(self) -> StubWorker:
        return StubWorker(self)


class StubWorker:
    def __init__(self, backend: Stub) -> None:
        self.backend = backend

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        values = task.work
        attempt = len(list(self.backend.marks.glob(f"{task.row.number}.*"))) + 1
        (self.backend.marks / f"{task.row.number}.{attempt}.{os.getpid()}").touch()
        time.sleep(values.get("seconds", 0))
        if attempt <= values.get("dies", 0):
            os._exit(1)
        if attempt <= values.get("fails", 0):
            raise HostError("the stub host fails.")
        if values.get("breaks"):
            raise ZeroDivisionError("division\nby zero")
        out = []
        for seed in seeds:
            pixels = np.random.default_rng(seed).integers(0, 60, (24, 24, 3)).astype(np.uint8)
            pixels[8:16, 8:16] = values["colour"]
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            out.append(Made(buffer.getvalue(), seed, 0.0))
        return out

    def close(self) -> None:
        pass


class Brightness:
    """A scorer: the mean of a picture."""

    def __call__(self, pictures: list[np.ndarray], task: Task) -> list[dict[str, float | None]]:
        return [{"brightness": float(p.mean())} for p in pictures]
