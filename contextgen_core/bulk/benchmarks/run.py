"""A benchmark from the download to the table: rows, pictures, judgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ...errors import InputError
from .. import run
from ..backend import Backend
from ..hosts import ComfyBackend
from ..records import Lock
from .judging import judge_pictures
from .registry import benchmark
from .report import write_report
from .rows import TABLE, Rows


@dataclass(frozen=True)
class Judging:
    """given: models by role (:func:`.eyes.read_eyes`). judges: processes that judge at once. name: of our row."""

    given: dict[str, str]
    judges: int = 1
    gpus: float = 0.0
    name: str = "ours"


def run_benchmark(
    name: str,
    data: Path,
    out: Path,
    backend: Backend,
    options: run.Options,
    judging: Judging,
    size: int | None = None,
    seeds: Sequence[int] = (),
    told: Callable[[run.Progress], object] = lambda _: None,
    looked: Callable[[int, int], object] = lambda done, of: None,
) -> tuple[run.Report, str]:
    """Makes what is missing of a benchmark's pictures in `out`, judges what no earlier call has judged, and writes
    table.md and figures.json. options.limit counts rows, from the data set's first.

    Returns the report of the pictures and the table. Raises InputError, one sentence, where the download, the backend
    or a model cannot be used; what was finished is kept.
    """
    bench = benchmark(name)
    if not data.is_dir():
        raise InputError(f"--data {data} is no folder; it holds {bench.origin}.")
    if size is not None and not 64 <= size <= 4096:
        raise InputError(f"--size is {size}; give 64 to 4096 pixels.")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit is {options.limit}; give 1 or more.")
    if judging.judges < 1:
        raise InputError(f"--judges is {judging.judges}; give 1 or more.")
    ray = run.engine()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {out} cannot be made ({error.strerror}); give another.") from None
    rows = Rows(out, backend.graph if isinstance(backend, ComfyBackend) else None)
    cases = bench.cases(data, size, seeds)
    with Lock(out):
        count = rows.write(islice(cases, options.limit))
    if not count:
        raise InputError(f"{data} holds no picture to make; it needs {bench.origin}.")
    whole = next(cases, None) is None
    with run.connected(ray, options):
        report = run.generate(out / TABLE, out, backend, replace(options, limit=None), told)
        with Lock(out):
            judged = judge_pictures(
                ray, bench, data, out, judging.given, judging.judges, options.threads, judging.gpus, looked
            )
            return report, write_report(bench, judged, judging.given, out, judging.name, rows.cut, whole)
