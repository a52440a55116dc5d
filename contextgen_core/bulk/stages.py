"""The stages of a run, each a callable on batches for Ray Data; a row travels as one item.

prepare  reads the row, checks it and puts it into the backend's form
make     a worker of the backend in a process of its own; candidates, attempts
judge    scores the candidates, keeps the best and puts it into its place, whole or not at all

Whatever happens to a row ends in its outcome; nothing that a row does stops a run.
"""

from __future__ import annotations

import errno
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..input.checks import shorten
from .backend import Backend, HostError, Made, Task, Worker
from .graph import MAX_SEED
from .records import DONE, Outcome, picture_path, row_key
from .score import Scorer, total
from .table import Table

PAUSES = (1.0, 4.0, 15.0)  # seconds before the second attempt, the third, ...
MAX_OPENINGS = 3  # in a row, without one that worked
UNFINISHED, UNDER_WAY = "unfinished", "under_way"  # folders of a run: files being written, rows being made


@dataclass(frozen=True)
class Item:
    """A row on its way."""

    outcome: Outcome
    task: Task | None = None
    made: tuple[Made, ...] = ()

    @property
    def lives(self) -> bool:
        return self.outcome.status == DONE and self.outcome.stop is None


Batch = dict[str, np.ndarray]


def pack(items: Sequence[Any]) -> Batch:
    column = np.empty(len(items), object)
    column[:] = items
    return {"item": column}


def unpack(batch: Batch) -> list[Any]:
    return list(batch["item"])


def guarded(item: Item, attempts: int, work: Callable[[], Item]) -> Item:
    """The item after `work`, or as failed, with one sentence; only the host's own trouble goes on to the caller."""
    try:
        return work()
    except HostError:
        raise
    except Exception as error:  # noqa: BLE001  a row must not end the run
        return Item(item.outcome.failed(sentence(error), attempts))


def sentence(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"unexpected {type(error).__name__}: {shorten(' '.join(str(error).split()), 160)}"


@dataclass(frozen=True)
class Prepare:
    """pending: file of row numbers. base: the folder of the rows' files. key: of the run, beside the row's digest."""

    table: Table
    pending: Path
    backend: Backend
    base: Path
    run_key: str

    def __call__(self, batch: Batch) -> Batch:
        numbers = np.load(self.pending, mmap_mode="r")[batch["id"]]
        return pack([self.one(int(number)) for number in numbers])

    def one(self, number: int) -> Item:
        row = self.table.row(number)
        item = Item(Outcome(row.number, row.id, row_key(self.run_key, row), DONE))
        if row.problem:
            return Item(item.outcome.failed(row.problem))

        def work() -> Item:
            task = self.backend.prepare(row, self.base)
            return Item(replace(item.outcome, extra=task.extra or None), task)

        return guarded(item, 0, work)


class Make:
    """An actor: one worker of the backend, opened when the first row comes and again when it has died.

    A row leaves a mark in `work` while it is made, so that one that takes the whole process down each time ends as
    failed, like any other that cannot be made."""

    def __init__(self, backend: Backend, candidates: int, retries: int, threads: int, work: Path) -> None:
        self.backend, self.candidates, self.retries, self.work = backend, candidates, retries, work
        self.worker: Worker | None = None
        self.failures = 0
        os.environ["OMP_NUM_THREADS"] = str(threads)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        for item in unpack(batch):
            yield pack([self.one(item) if item.lives else item])

    def one(self, item: Item) -> Item:
        mark = self.work / UNDER_WAY / str(item.outcome.number)
        try:
            with mark.open("ab") as file:
                deaths = file.tell()
                file.write(b".")
        except OSError as error:
            return Item(replace(item.outcome, stop=cannot_write(mark, error)))
        try:
            if deaths > self.retries:
                return Item(item.outcome.failed(f"the worker ended while it made this row, {deaths} times.", deaths))
            return self._made_at_last(item, deaths)
        finally:
            mark.unlink(missing_ok=True)

    def _made_at_last(self, item: Item, deaths: int) -> Item:
        task, start = item.task, time.monotonic()
        assert task is not None  # noqa: S101  a living item has one
        for attempt in range(deaths + 1, self.retries + 2):
            try:
                if self.worker is None:
                    try:
                        self.worker = self._open()
                    except HostError:
                        raise
                    except Exception as error:  # noqa: BLE001  no row fares better
                        return Item(replace(item.outcome, stop=sentence(error)))
                seeds = [(task.seed + k) % (MAX_SEED + 1) for k in range(self.candidates)]
                done = guarded(item, attempt, lambda: self._made(item, seeds, attempt, start))  # noqa: B023
            except HostError as error:
                self._lose()
                if self.failures >= MAX_OPENINGS:
                    return Item(replace(item.outcome, stop=str(error)))
                if attempt > self.retries:
                    return Item(item.outcome.failed(f"{error} ({attempt} attempts)", attempt))
                time.sleep(PAUSES[min(attempt, len(PAUSES)) - 1])
            else:
                return done
        raise AssertionError("unreachable")

    def _made(self, item: Item, seeds: list[int], attempt: int, start: float) -> Item:
        assert self.worker is not None and item.task is not None  # noqa: S101
        made = self.worker.make(item.task, seeds)
        outcome = replace(item.outcome, attempts=attempt, seconds=round(time.monotonic() - start, 3))
        return Item(outcome, item.task, tuple(made))

    def _open(self) -> Worker:
        try:
            worker = self.backend.open()
        except HostError:
            self.failures += 1
            raise
        self.failures = 0
        return worker

    def _lose(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.close()


class Judge:
    """An actor: scores each row's candidates, keeps the one with the best total, the first of equals, and hands it to
    `write`; gives the outcomes alone, as small as they are."""

    def __init__(self, scorers: Sequence[Callable[[], Scorer]], write: Callable[[Item], Item]) -> None:
        self.makers, self.write = scorers, write
        self.scorers: list[Scorer] | None = None

    def __call__(self, batch: Batch) -> Batch:
        if self.scorers is None:
            try:
                self.scorers = [make() for make in self.makers]
            except Exception as error:  # noqa: BLE001  no row fares better
                return pack([Item(replace(i.outcome, stop=sentence(error))) if i.lives else i for i in unpack(batch)])
        return pack([self._kept(item) for item in unpack(batch)])

    def _kept(self, item: Item) -> Item:
        if item.lives:
            item = guarded(item, item.outcome.attempts, lambda: self.one(item))
        return Item((self.write(item) if item.lives else item).outcome)

    def one(self, item: Item) -> Item:
        from PIL import Image

        assert item.task is not None  # noqa: S101
        scores: list[dict[str, float | None]] = [{} for _ in item.made]
        if self.makers:
            pictures = []
            for made in item.made:
                with Image.open(io.BytesIO(made.picture)) as picture:
                    pictures.append(np.asarray(picture.convert("RGB")))
            for scorer in self.scorers or ():
                for mine, found in zip(scores, scorer(pictures, item.task), strict=True):
                    mine |= found
        sums = [total(one) for one in scores]
        best = max(range(len(sums)), key=lambda k: (-np.inf if sums[k] is None else sums[k], -k))
        outcome = replace(item.outcome, score=sums[best], scores=scores[best] or None, seed=item.made[best].seed)
        return Item(outcome, None, (item.made[best],))


@dataclass(frozen=True)
class Write:
    """Writes the chosen picture."""

    folder: Path

    def __call__(self, item: Item) -> Item:
        name = picture_path(item.outcome.number, item.outcome.row)
        try:
            put(self.folder / name, item.made[0].picture, self.folder / ".work" / UNFINISHED)
        except OSError as error:
            return Item(replace(item.outcome, stop=cannot_write(self.folder, error)))
        return Item(replace(item.outcome, picture=name))


def cannot_write(path: Path, error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    why = "the disk is full; free some room" if full else f"it cannot be written ({error.strerror or error})"
    return f"{path}: {why}."


def put(path: Path, content: bytes, beside: Path | None = None) -> None:
    """Writes a file at once: it is there whole, or not at all. beside: a folder on its disk (else its own) for what
    is not finished, which a process that is killed leaves there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = (beside or path.parent) / f".{uuid.uuid4().hex}"
    try:
        fresh.write_bytes(content)
        os.replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def describe(options: Any) -> str:
    """A short text that differs where the options do."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
