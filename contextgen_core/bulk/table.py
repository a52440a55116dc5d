"""Tables of rows: JSON lines, CSV and Parquet, read as a stream and kept in one form.

A table is read once, from its first row to its last, into a file of JSON lines in the run's folder. From then on a row
is known by its number, and any worker reads it there by its place in the file: neither the driver nor a worker ever
holds the table. A row that cannot be read stays in its place with a sentence that says why.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import has_control_characters, shorten

MAX_ROW_BYTES = 1 << 20
MAX_ROWS = 10_000_000
MAX_COLUMNS = 1000
MAX_ID = 200
FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet")
ROWS, PLACES = "rows.jsonl", "rows.npy"
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Row:
    """number: its place in the table, from 0. id: the column of that name, else the number. values: the other columns,
    without empty ones. problem: why it cannot be used, or an empty text. digest: of id and values."""

    number: int
    id: str
    values: Mapping[str, Any]
    problem: str = ""
    digest: str = ""


def read(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row's columns and its problem, in the table's order.

    Raises InputError where the table as a whole cannot be read.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"the table {shorten(path.name, 80)} is of no known kind; give {', '.join(FORMATS)}.")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"the table {shorten(str(path), 80)} cannot be read ({error.strerror}); check it.") from None
    if path.is_dir() or not size:
        raise InputError(f"the table {shorten(str(path), 80)} is {'a folder' if path.is_dir() else 'empty'}; check it.")
    return {".csv": _read_csv, ".parquet": _read_parquet}.get(kind, _read_json_lines)(path)


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Lines without their ends, and whether each is whole: of one that is too long only the start is ever held."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        whole = line.endswith(b"\n") or len(line) <= MAX_ROW_BYTES
        if not whole:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(_CHUNK)
        yield line.rstrip(b"\r\n"), whole


def _read_json_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    with path.open("rb") as file:
        for line, whole in _lines(file):
            if not whole:
                yield {}, _too_long()
            elif line.strip():
                yield _json_row(line)


def _json_row(line: bytes) -> tuple[dict[str, Any], str]:
    try:
        value, literals = parse(line, "the row", MAX_ROW_BYTES)
    except InputError as error:
        return {}, error.message
    if literals:
        return {}, f"the row contains {literals[0]}, which is not JSON; give finite numbers."
    if not isinstance(value, dict):
        return {}, f"the row is {shorten(value)}; give an object with a value for each column."
    return value, ""


def _read_csv(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The first line names the columns. A value that starts with { or [ is JSON."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with path.open("rb") as file:
        long = False

        def lines() -> Iterator[str]:
            nonlocal long
            for line, whole in _lines(file):
                long = long or not whole
                yield (line if whole else b"").decode("utf-8-sig", "replace") + "\n"

        reader = csv.reader(lines())
        try:
            names = next(reader, [])
        except csv.Error:
            names = []
        if long or not names or len(set(names)) != len(names) or len(names) > MAX_COLUMNS:
            raise InputError(
                f"the first line of {shorten(path.name, 80)} does not name the columns; name each of them once."
            )
        while True:
            long = False
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield {}, f"the row is not CSV ({error}); correct its quotes."
                continue
            if long:
                yield {}, _too_long()
            elif fields:
                yield _csv_row(names, fields)


def _csv_row(names: list[str], fields: list[str]) -> tuple[dict[str, Any], str]:
    if len(fields) != len(names):
        return {}, f"the row has {len(fields)} values for {len(names)} columns; correct it."
    values: dict[str, Any] = {}
    for name, text in zip(names, fields, strict=True):
        if text[:1] in "{[" and text:
            try:
                values[name] = parse(text, f"column {shorten(name)}", MAX_ROW_BYTES).value
            except InputError as error:
                return {}, error.message
        elif text != "":
            values[name] = text
    return values, ""


def _read_parquet(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if file.metadata.num_columns > MAX_COLUMNS:
                raise InputError(f"the table has {file.metadata.num_columns} columns, the limit is {MAX_COLUMNS}.")
            for batch in file.iter_batches(256):
                yield from _parquet_rows(batch)
    except (ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column's name
        reason = "a name is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).splitlines()[0]
        raise InputError(
            f"the table {shorten(path.name, 80)} is not a Parquet file ({shorten(reason, 100)})."
        ) from None


def _parquet_rows(batch: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Strings of a Parquet file are bytes that nobody has checked: a row with others than UTF-8 fails alone."""
    try:
        yield from [(values, "") for values in batch.to_pylist()]
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            yield {}, "the row has text that is not UTF-8; write it as UTF-8."
        else:
            for number in range(batch.num_rows):
                yield from _parquet_rows(batch.slice(number, 1))


# ---- the table of a run --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """The rows of a run in its folder; each can be read alone. count: how many rows there are."""

    folder: Path

    @property
    def count(self) -> int:
        return len(np.load(self.folder / PLACES, mmap_mode="r"))

    def row(self, number: int) -> Row:
        places = np.load(self.folder / PLACES, mmap_mode="r")
        with (self.folder / ROWS).open("rb") as file:
            file.seek(int(places[number]))
            return _row(number, file.readline())

    def __iter__(self) -> Iterator[Row]:
        with (self.folder / ROWS).open("rb") as file:
            for number, line in enumerate(file):
                yield _row(number, line)


def _row(number: int, line: bytes) -> Row:
    entry = json.loads(line)
    return Row(number, entry["id"], entry["values"], entry["problem"], hashlib.sha256(line).hexdigest()[:32])


def take_in(path: Path, folder: Path, limit: int | None = None) -> Table:
    """Reads a table into `folder`, where an earlier reading of it is replaced. limit: rows to take, from the first.

    Raises InputError where the table cannot be read, has no rows or too many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places, at = array("q"), 0
    fresh = folder / f".{ROWS}"
    with fresh.open("wb") as file, _Seen(folder / ".ids") as seen:
        for number, (values, problem) in enumerate(read(path)):
            if number == limit:
                break
            if number >= MAX_ROWS:
                raise InputError(f"the table has more than {MAX_ROWS} rows; divide it.")
            line = _entry(number, values, problem, seen)
            places.append(at)
            at += file.write(line)
    if not places:
        raise InputError(f"the table {shorten(path.name, 80)} has no rows; add some.")
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(places, np.int64))
    fresh_places = folder / f".{PLACES}"
    fresh_places.write_bytes(buffer.getvalue())
    os.replace(fresh_places, folder / PLACES)
    os.replace(fresh, folder / ROWS)
    return Table(folder)


class _Seen:
    """The ids of earlier rows, in a file for as long as a table is read: ten million do not fit everybody's memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Seen:
        self.path.unlink(missing_ok=True)
        self._rows = sqlite3.connect(self.path, isolation_level=None)
        for line in (
            "PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -16384",
            "CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID", "BEGIN",
        ):  # fmt: skip
            self._rows.execute(line)
        return self

    def add(self, id: str) -> bool:
        """Whether it is new."""
        key = hashlib.blake2b(id.encode(), digest_size=16).digest()
        try:
            return self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC if "full" in str(error) else errno.EIO, str(error), str(self.path)) from None

    def __exit__(self, *_: object) -> None:
        self._rows.close()
        self.path.unlink(missing_ok=True)


def _entry(number: int, values: Mapping[str, Any], problem: str, seen: _Seen) -> bytes:
    given = values.get("id")
    if given is not None and not problem and (isinstance(given, (bool, dict, list, float)) or _bad_id(str(given))):
        problem = f"the row's id is {shorten(given)}; give a text of 1 to {MAX_ID} characters or a whole number."
    id = str(number) if problem or given is None else str(given)
    if not problem and not seen.add(id):
        problem = f"the id {shorten(id)} is an earlier row's, too; give every row its own."
    if problem:  # what stands for a row that cannot be named must not take another row's name
        id = f"#{number}"
    kept = {} if problem else {str(k): v for k, v in values.items() if k != "id" and v is not None}
    try:
        line = json.dumps({"id": id, "values": kept, "problem": problem}, allow_nan=False, ensure_ascii=True)
        refused = _too_long() if len(line) > 6 * MAX_ROW_BYTES else ""  # of Parquet; an escape is six characters
    except (TypeError, ValueError):
        line, refused = "", "the row holds a value that JSON cannot carry (NaN, bytes or a date); write it as text."
    if refused:
        line = json.dumps({"id": f"#{number}", "values": {}, "problem": refused})
    return line.encode() + b"\n"


def _too_long() -> str:
    return f"the row is longer than {MAX_ROW_BYTES} bytes; keep pictures in files."


def _bad_id(id: str) -> bool:
    return not 1 <= len(id) <= MAX_ID or has_control_characters(id) or id.startswith("#")
