"""A run: the rows of a table through the stages on Ray Data, into a folder that the same call completes later."""

from __future__ import annotations

import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..input.checks import shorten
from . import __name__ as package
from .backend import Backend
from .records import BROKEN, DONE, Journal, Lock, Outcome, row_key, write_manifest
from .stages import UNDER_WAY, UNFINISHED, Judge, Make, Prepare, Write, cannot_write, describe, put, unpack
from .table import Table, take_in

MAX_CANDIDATES = 64
_BLOCKS = 2000  # tasks in a run; of fewer rows each is one
_STORE = 256 << 20  # bytes of Ray's object store where we start it


@dataclass(frozen=True)
class Options:
    """workers: backends at work at once. best_of: candidates of a row. scorers: names for the record, and what opens
    them. address: of a running Ray cluster; None starts one inside this process's machine."""

    workers: int = 1
    best_of: int = 1
    scorers: tuple[tuple[str, Callable[[], Any]], ...] = ()
    retries: int = 2
    threads: int = 1
    limit: int | None = None
    address: str | None = None
    gpus: float = 0.0


@dataclass
class Progress:
    """Counts while a run goes on; `told` is called after every batch of rows."""

    rows: int
    kept: int  # done by an earlier run
    done: int = 0
    failed: int = 0
    start: float = field(default_factory=time.monotonic)
    told: Callable[[Progress], object] = lambda _: None

    def count(self, outcome: Outcome) -> None:
        self.done += outcome.status == DONE
        self.failed += outcome.status == BROKEN

    @property
    def rate(self) -> float:
        return (self.done + self.failed) / max(time.monotonic() - self.start, 1e-6)

    @property
    def left(self) -> float:
        """Seconds to the end, at the rate until now."""
        return (self.rows - self.kept - self.done - self.failed) / max(self.rate, 1e-9)


@dataclass(frozen=True)
class Report:
    rows: int
    done: int
    failed: int
    kept: int
    seconds: float
    warnings: tuple[str, ...]


def generate(
    table: Path, out: Path, backend: Backend, options: Options, told: Callable[[Progress], object] = lambda _: None
) -> Report:
    """Makes a picture for each row of a table that `out` does not hold yet.

    Arguments:
      table    JSON lines, CSV or Parquet, see :mod:`table`; files of its rows lie under its folder
      out      the run's folder; what an earlier call has finished there with the same row, backend, candidates and
               scorers stays as it is, and everything else, failed rows too, is made again
      backend  what makes pictures, see :mod:`backend`
      options  see :class:`Options`
      told     called with the counts, now and then

    The pictures, and the manifest but for attempts and seconds, are the same for any number of workers and however
    often the run was cut off. Raises InputError where nothing can be made at all, or the run cannot go on; then too
    what was finished is kept.
    """
    ray = engine()
    start = time.monotonic()
    check_options(options)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {out} cannot be made ({error.strerror}); give another.") from None
    with Lock(out):
        try:
            work = _work_folder(out)
            rows = take_in(table, work, options.limit)
            warnings = backend.check()
            run_key = describe([backend.digest, options.best_of, [name for name, _ in options.scorers]])
            journal = Journal(out, rows.count)
            stop: str | None = None
            progress = Progress(rows.count, 0, told=told)
            try:
                pending = _pending(rows, journal, run_key)
                progress.kept = rows.count - len(pending)
                if len(pending):
                    put(work / "pending.npy", _npy(pending), work)
                    with connected(ray, options):
                        progress.start = time.monotonic()
                        prepare = Prepare(rows, work / "pending.npy", backend, table.resolve().parent, run_key)
                        for outcome in _outcomes(ray, len(pending), prepare, backend, options, out):
                            if outcome.stop is not None:
                                stop = outcome.stop
                                break
                            journal.add(outcome)
                            progress.count(outcome)
                            progress.told(progress)
            except ray.exceptions.RayError as error:
                stop = f"Ray gave up ({shorten(' '.join(str(error).split()), 200)})."
            finally:
                try:
                    done, failed = write_manifest(out, journal, rows, run_key, _host(backend))
                finally:
                    journal.close()
        except OSError as error:
            raise InputError(cannot_write(out, error)) from None
        if stop is not None:
            raise InputError(f"{stop} {done} of {rows.count} rows are done; mend it, and the same command goes on.")
    return Report(rows.count, done, failed, progress.kept, time.monotonic() - start, tuple(warnings))


def _work_folder(out: Path) -> Path:
    """The run's folder for what only a run that goes on needs; what one that was killed had begun goes."""
    work = out / ".work"
    for name in (UNFINISHED, UNDER_WAY):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    return work


def _outcomes(
    ray: Any, count: int, prepare: Prepare, backend: Backend, options: Options, out: Path
) -> Iterator[Outcome]:
    """The stages as Ray Data carries them out: each with its own resources, behind each other, bounded by what the
    object store holds."""
    workers = min(options.workers, backend.workers or options.workers, count)
    data = ray.data.range(count, override_num_blocks=min(count, _BLOCKS))
    few = ray.data.TaskPoolStrategy(size=1 + workers // 4)  # each is a process that imports what it needs
    data = data.map_batches(prepare, batch_size=None, compute=few, num_cpus=0.25)
    data = data.map_batches(
        Make,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        fn_constructor_args=(backend, options.best_of, options.retries, options.threads, out.resolve() / ".work"),
        num_cpus=0.5,
        num_gpus=options.gpus,
    )
    scorers = [make for _, make in options.scorers]
    data = data.map_batches(
        Judge,
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=1),
        fn_constructor_args=(scorers, Write(out.resolve())),
        num_cpus=0.25,
    )
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        for item in unpack(batch):
            yield item.outcome


def _pending(rows: Table, journal: Journal, run_key: str) -> np.ndarray:
    left = (row.number for row in rows if not journal.finished(row.number, row_key(run_key, row)))
    return np.fromiter(left, np.int64)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def check_options(options: Options) -> None:
    """Raises InputError, naming the option, for a number out of range."""
    for name, value, low, high in (
        ("workers", options.workers, 1, 4096),
        ("best-of", options.best_of, 1, MAX_CANDIDATES),
        ("retries", options.retries, 0, 20),
        ("threads", options.threads, 1, 1024),
    ):
        if not low <= value <= high:
            raise InputError(f"--{name} is {value}; give {low} to {high}.")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit is {options.limit}; give 1 or more.")
    if options.best_of > 1 and not options.scorers:
        raise InputError("--best-of needs a way to choose; give --score as well.")


def _host(backend: Backend) -> str:
    return f"{type(backend).__name__} {backend.digest}"


def engine() -> Any:
    """Ray, silent towards the outside. Raises InputError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters of it comes back as an exception
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("bulk runs need Ray Data; install the extra: pip install 'contextgen-layout[bulk]'.") from None
    return ray


@contextmanager
def connected(ray: Any, options: Options) -> Iterator[None]:
    """One Ray for all that happens inside; one that runs already stays."""
    ours = not ray.is_initialized()
    try:
        if ours:
            _connect(ray, options)
        _quiet(ray)
        yield
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, options: Options) -> None:
    if options.address is not None:
        try:
            ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            reason = shorten(" ".join(str(error).split()), 160)
            raise InputError(f"no Ray answers at --address {shorten(options.address, 80)} ({reason}).") from None
    else:
        root = str(Path(__file__).resolve().parents[package.count(".") + 1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # of processes that no stage would use
        os.environ.setdefault("RAY_worker_niceness", "0")  # the command's own: `nice` before it decides
        with _this_machine_alone() as before:
            _start(
                ray, address="local", num_cpus=max(options.workers, 1) + 2, include_dashboard=False,
                log_to_driver=False, logging_level=logging.ERROR, object_store_memory=_STORE,
                _node_ip_address="127.0.0.1", runtime_env={"env_vars": {"PYTHONPATH": path, **before}},
            )  # fmt: skip


@contextmanager
def _this_machine_alone() -> Iterator[dict[str, str]]:
    """Processes that start inside ask nobody but this machine over HTTP; what their own workers are to have instead.

    Even with its statistics and its dashboard off, Ray asks the addresses of three clouds whose machine this is.
    """
    closed = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    before = {name: os.environ.get(name) for name in closed}
    os.environ.update(closed)
    try:
        yield {name: value or "" for name, value in before.items()}
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(ray: Any, **arguments: Any) -> None:
    """Ray gives its own start half a minute, which a busy machine may need more than once."""
    for attempt in (1, 2, 3):
        try:
            ray.init(**arguments)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == 3:
                reason = shorten(" ".join(str(error).split()), 160)
                raise InputError(f"Ray did not start ({reason}); try again when the machine is less busy.") from None


def _quiet(ray: Any) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
