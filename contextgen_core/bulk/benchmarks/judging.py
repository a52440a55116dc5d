"""The pictures of a run, judged by a benchmark's protocol: on Ray Data, into a file that the next call goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...input.picture_file import open_picture
from ..backend import Task
from ..output import rows as manifest_rows
from ..records import DONE
from ..stages import Batch, describe, sentence
from ..table import Row
from .eyes import open_eyes
from .measure import Benchmark

JUDGED = "judged.jsonl"


@dataclass(frozen=True)
class Seen:
    """A picture's numbers, or why there are none. key: of the picture, what it was asked for and who judged."""

    row: str
    key: str
    sums: Mapping[str, float | None] | None = None
    error: str | None = None
    stop: str | None = None


@dataclass(frozen=True)
class Shown:
    """A picture that waits for its judge."""

    row: str
    key: str
    picture: Path
    values: Mapping[str, Any]


class Examine:
    """An actor: opens the models when the first picture comes, and judges one after the other."""

    def __init__(self, name: str, given: dict[str, str], data: Path, threads: int) -> None:
        self.name, self.given, self.data, self.threads = name, given, data, threads
        self.scorer: Any = None

    def __call__(self, batch: Batch) -> Batch:
        seen = np.empty(len(batch["item"]), object)
        seen[:] = [self.one(shown) for shown in batch["item"]]
        return {"item": seen}

    def one(self, shown: Shown) -> Seen:
        if self.scorer is None:
            from .registry import benchmark

            try:
                _threads(self.threads)
                bench = benchmark(self.name)
                self.scorer = bench.scorer(open_eyes(self.given, bench.thresholds, bench.bgr), self.data)
            except Exception as error:  # noqa: BLE001  no picture fares better
                return Seen(shown.row, shown.key, stop=sentence(error))
        try:
            picture = np.asarray(open_picture(shown.picture).convert("RGB"))
            (sums,) = self.scorer([picture], Task(Row(0, shown.row, shown.values), None, 0))
        except Exception as error:  # noqa: BLE001  a picture must not end the run
            return Seen(shown.row, shown.key, error=sentence(error))
        return Seen(shown.row, shown.key, sums)


def _threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)


class Judged:
    """The file of results: a line for each picture that was judged, the last one counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JUDGED
        self.known: dict[str, Seen] = {}
        whole = self.path.read_bytes() if self.path.is_file() else b""
        end = whole.rfind(b"\n") + 1
        for line in whole[:end].splitlines():
            try:
                seen = Seen(**json.loads(line))
            except (ValueError, TypeError):
                raise InputError(f"{self.path} holds no results of this command; remove it.") from None
            self.known[seen.row] = seen
        self._file = self.path.open("ab")
        self._file.truncate(end)  # a line that was cut off

    def add(self, seen: Seen) -> None:
        entry = {"row": seen.row, "key": seen.key, "sums": seen.sums, "error": seen.error}
        self._file.write(json.dumps({k: v for k, v in entry.items() if v is not None}).encode() + b"\n")
        self._file.flush()
        self.known[seen.row] = seen

    def close(self) -> None:
        self._file.close()


def judge_pictures(
    ray: Any,
    bench: Benchmark,
    data: Path,
    out: Path,
    given: dict[str, str],
    judges: int = 1,
    threads: int = 1,
    gpus: float = 0.0,
    told: Callable[[int, int], object] = lambda done, of: None,
) -> dict[str, tuple[dict[str, Any], Seen | None]]:
    """Judges the finished pictures of the run in `out` that no earlier call has judged with the same models.

    Returns by row what it was asked for and its numbers, None for a row without a picture. Raises InputError where the
    models cannot be opened.
    """
    settings = describe([bench.name, sorted(given.items())])
    log = Judged(out)
    try:
        rows: dict[str, tuple[dict[str, Any], Seen | None]] = {}
        waiting: list[Shown] = []
        for entry in manifest_rows(out):
            values = json.loads(entry["inputs"])
            rows[entry["row"]] = values.get("asked", {}), None
            if entry["status"] != DONE:
                continue
            picture = (out / entry["picture"]).resolve()
            content = hashlib.sha256(picture.read_bytes()).hexdigest()[:24]
            key = f"{settings}-{content}-{describe([values.get('asked'), values.get('prompt')])}"
            seen = log.known.get(entry["row"])
            if seen is not None and seen.key == key and seen.error is None:
                rows[entry["row"]] = rows[entry["row"]][0], seen
            else:
                asked = {name: values.get(name) for name in ("asked", "prompt")}
                waiting.append(Shown(entry["row"], key, picture, asked))
        told(0, len(waiting))
        if waiting:
            examine = (bench.name, given, data.resolve(), threads)
            for number, seen in enumerate(_examined(ray, waiting, examine, min(judges, len(waiting)), gpus), 1):
                if seen.stop is not None:
                    raise InputError(seen.stop)
                log.add(seen)
                rows[seen.row] = rows[seen.row][0], seen
                told(number, len(waiting))
        return rows
    finally:
        log.close()


def _examined(ray: Any, waiting: list[Shown], arguments: tuple[Any, ...], judges: int, gpus: float) -> Iterator[Seen]:
    data = ray.data.from_items([{"item": shown} for shown in waiting], override_num_blocks=min(len(waiting), 2000))
    data = data.map_batches(
        Examine, batch_size=1, compute=ray.data.ActorPoolStrategy(size=judges), fn_constructor_args=arguments,
        num_cpus=0.5, num_gpus=gpus,
    )  # fmt: skip
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        yield from batch["item"]
