"""What is known of each row: a journal while the run goes on, a manifest when it ends.

One process, the driver, writes the journal, a line for each row that has ended; a line counts once its picture lies in
its place. A run that was cut off anywhere therefore goes on where it stood, and a last line cut in the middle is
written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .table import Row, Table

JOURNAL, MANIFEST, FAILED, LOCK = "run.jsonl", "manifest.parquet", "failed.jsonl", ".lock"
DONE, BROKEN = "done", "failed"


@dataclass(frozen=True)
class Outcome:
    """How a row ended. picture: its file under the run's folder. score: of the chosen candidate, None without scorers.
    seconds: making it, all candidates. stop: a sentence where the whole run cannot go on, not this row alone."""

    number: int
    row: str
    key: str
    status: str
    attempts: int = 0
    picture: str | None = None
    score: float | None = None
    seconds: float = 0.0
    error: str | None = None
    seed: int | None = None
    scores: dict[str, float | None] | None = None
    extra: dict[str, Any] | None = None
    stop: str | None = None

    def failed(self, error: str, attempts: int = 0) -> Outcome:
        return replace(self, status=BROKEN, error=error, attempts=attempts, picture=None)


def picture_path(number: int, id: str) -> str:
    """Where a row's picture lies: a thousand in a folder, the number first, so that no two rows share a name."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in id).strip("._")[:60]
    return f"pictures/{number // 1000:04d}/{number:06d}{'-' + safe if safe and safe != str(number) else ''}.png"


def row_key(run_key: str, row: Row) -> str:
    """What a row's picture must have been made with."""
    return f"{run_key}-{row.digest}"


class Journal:
    """The journal of a folder, and which of a table's rows are still to be made.

    keys: what each row must have been made with; an entry with another one is out of date. At most a few bytes for each
    row are held."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self._places = np.full(count, -1, np.int64)  # of each row's last entry in the file
        self.path = folder / JOURNAL
        self.path.touch()
        self._file = self.path.open("r+b", buffering=0)  # nothing waits for a later write, where a disk may be full
        self._reader: BinaryIO = self.path.open("rb")
        at = 0
        while line := self._reader.readline():
            entry = _entry(line)
            if entry is None:  # cut off while it was written: everything before it stands
                self._file.truncate(at)
                break
            if 0 <= entry.number < count:
                self._places[entry.number] = at
            at += len(line)
        self._end = at

    def entry(self, number: int) -> Outcome | None:
        if self._places[number] < 0:
            return None
        self._reader.seek(int(self._places[number]))
        return _entry(self._reader.readline())

    def finished(self, number: int, key: str) -> bool:
        entry = self.entry(number)
        return (
            entry is not None
            and (entry.key, entry.status) == (key, DONE)
            and entry.picture is not None
            and (self.folder / entry.picture).is_file()
        )

    def add(self, outcome: Outcome) -> None:
        line = json.dumps({k: v for k, v in asdict(outcome).items() if v is not None}, ensure_ascii=True) + "\n"
        self._file.seek(self._end)
        left = memoryview(line.encode())
        while left:  # on a disk with little room a part of it is written, and then none
            left = left[self._file.write(left) :]
        self._places[outcome.number] = self._end
        self._end += len(line)

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._reader.close()

    def entries(self) -> Iterator[Outcome]:
        """The last word on each row, in the table's order; rows without one are passed over."""
        for number in np.flatnonzero(self._places >= 0):
            entry = self.entry(int(number))
            if entry is not None:
                yield entry


def _entry(line: bytes) -> Outcome | None:
    try:
        return Outcome(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def write_manifest(folder: Path, journal: Journal, table: Table, run_key: str, host: str) -> tuple[int, int]:
    """Writes manifest.parquet and failed.jsonl, each at once; returns how many rows are done and how many failed.

    run_key: what the rows' keys begin with; what was made with another one, or of a row that has changed since, is left
    out.

    Columns: row, status, attempts, picture, score, seconds, error; then seed, scores and inputs (JSON) and host. All
    but attempts and seconds depend on the table, the workflow and the host alone.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema(
        [
            ("row", pa.string()), ("status", pa.string()), ("attempts", pa.int32()), ("picture", pa.string()),
            ("score", pa.float64()), ("seconds", pa.float64()), ("error", pa.string()), ("seed", pa.uint64()),
            ("scores", pa.string()), ("inputs", pa.string()), ("host", pa.string()),
        ]
    )  # fmt: skip
    counts = {DONE: 0, BROKEN: 0}
    waiting: list[dict[str, Any]] = []
    fresh = folder / f".{MANIFEST}"
    with (
        _or_none(fresh, folder / f".{FAILED}"), ParquetWriter(fresh, schema) as writer,
        (folder / f".{FAILED}").open("w", encoding="utf-8") as failed,
    ):  # fmt: skip
        for row in table:
            entry = journal.entry(row.number)
            if entry is None or entry.key != row_key(run_key, row):
                continue
            counts[entry.status] += 1
            if entry.status == BROKEN:
                failed.write(json.dumps({"row": entry.row, "number": entry.number, "error": entry.error}) + "\n")
            waiting.append(
                {
                    "row": entry.row, "status": entry.status, "attempts": entry.attempts, "picture": entry.picture,
                    "score": entry.score, "seconds": entry.seconds, "error": entry.error, "seed": entry.seed,
                    "scores": json.dumps(entry.scores) if entry.scores else None,
                    "inputs": json.dumps(row.values, sort_keys=True), "host": host,
                }
            )  # fmt: skip
            if len(waiting) == 1000:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema))
    os.replace(fresh, folder / MANIFEST)
    os.replace(folder / f".{FAILED}", folder / FAILED)
    return counts[DONE], counts[BROKEN]


@contextmanager
def _or_none(*files: Path) -> Iterator[None]:
    """Files that cannot be finished do not stay: where the disk is full they would be in the way."""
    try:
        yield
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        raise


class Lock:
    """Keeps a second run out of a folder. The system holds it: it ends with its process, however that ends."""

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock  # comes with Ray

        self.folder, self._lock = folder, FileLock(folder / LOCK)

    def __enter__(self) -> Lock:
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another run is writing into {self.folder}; wait for it or end it.") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
