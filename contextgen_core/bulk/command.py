"""The command line of bulk runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import run
from .backend import Backend
from .benchmarks.eyes import ROLES, read_eyes
from .benchmarks.eyes import SMALL as EMBEDDED
from .benchmarks.registry import MODULES
from .benchmarks.run import Judging, run_benchmark
from .graph import Graph
from .hosts import SMALL, ComfyBackend, DiffusersBackend
from .output import write_shards, write_sheet
from .score import SCORERS, scorer
from .stages import cannot_write
from .synthesis import command as synthesis


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m contextgen_core.bulk", description="Many pictures from a table of layouts, on Ray Data."
    )
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("generate", help="a picture for each row of a table")
    one.add_argument("table", type=Path, metavar="TABLE", help="JSON lines, CSV or Parquet")
    _picture_options(one)
    one.add_argument("--best-of", type=int, default=1, metavar="N", help="candidates of a row; the best one is kept")
    one.add_argument("--score", nargs="+", default=[], metavar="NAME", help=f"scorers: {', '.join(SCORERS)}")
    one.add_argument("--allow", type=Path, nargs="+", default=[], metavar="DIR", help="further folders of rows' files")
    one.add_argument("--shards", type=int, metavar="ROWS", help="also write WebDataset shards of so many rows")
    _benchmark_options(commands.add_parser("benchmark", help="a published benchmark, from its download to its table"))
    synthesis.add(commands)
    return top


def _benchmark_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("name", choices=sorted(MODULES), metavar="NAME", help=", ".join(MODULES))
    one.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set, as downloaded")
    _picture_options(one)
    one.add_argument(
        "--with", nargs="+", default=[], dest="eyes", metavar="ROLE=PLACE",
        help=f"models that judge: {', '.join(ROLES)}; or {EMBEDDED} alone, the embedded stand-ins",
    )  # fmt: skip
    one.add_argument("--judges", type=int, default=1, help="processes that judge at once")
    one.add_argument("--judge-gpus", type=float, default=0.0, help="of each of them")
    one.add_argument("--size", type=int, metavar="PIXELS", help="longer side of the pictures (default: the protocol's)")
    one.add_argument("--seeds", type=int, nargs="+", default=[], help="a picture for each (default: the protocol's)")
    one.add_argument("--title", default="ours", help="the name of our row in the table")


def _picture_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--out", type=Path, required=True, help="the run's folder; the same command completes it")
    one.add_argument("--workflow", type=Path, metavar="API.json", help="the graph in API form, for ComfyUI")
    host = one.add_mutually_exclusive_group(required=True)
    host.add_argument("--comfy", nargs="+", metavar="URL", help="running ComfyUIs, one worker each")
    host.add_argument("--comfy-path", type=Path, metavar="DIR", help="an installation; each worker starts its own")
    host.add_argument("--diffusers", metavar="DIR", help=f"a FLUX pipeline's folder, or {SMALL} for the small model")
    one.add_argument("--comfy-python", default="", help="Python of that installation (default: its .venv)")
    one.add_argument("--comfy-args", nargs=argparse.REMAINDER, default=[], help="last: more for its main.py, as --cpu")
    one.add_argument("--adapter", type=Path, help="with --diffusers: an adapter's file")
    one.add_argument("--method", default="contextgen", help="with --diffusers")
    one.add_argument("--steps", type=int, default=28, help="with --diffusers")
    one.add_argument("--guidance", type=float, default=2.5, help="with --diffusers")
    one.add_argument("--device", default="cpu", help="with --diffusers: cpu or cuda")
    one.add_argument("--workers", type=int, help="backends at work at once (default: 1, with --comfy one for each URL)")
    one.add_argument("--threads", type=int, default=1, help="of each worker; the pictures' last bits may hang on it")
    one.add_argument("--gpus", type=float, default=0.0, help="of each worker")
    one.add_argument("--retries", type=int, default=2, help="further attempts where the host fails")
    one.add_argument("--timeout", type=float, default=600.0, help="seconds for one picture on ComfyUI")
    one.add_argument("--limit", type=int, help="the first rows alone")
    one.add_argument("--address", help="a running Ray cluster (default: one of our own on this machine)")


def backend_of(options: argparse.Namespace) -> Backend:
    allowed = tuple(getattr(options, "allow", ()))
    if options.diffusers is not None:
        return DiffusersBackend(
            options.diffusers, options.adapter, options.method, options.steps, options.guidance, options.device,
            options.threads, allowed,
        )  # fmt: skip
    if options.workflow is None:
        raise InputError("a run on ComfyUI needs its graph; give --workflow API.json.")
    return ComfyBackend(
        Graph.read(options.workflow), tuple(options.comfy or ()), options.comfy_path, options.comfy_python,
        tuple(options.comfy_args), options.timeout, options.threads, allowed,
    )  # fmt: skip


class _Bar:
    """One line that is written over; a line now and then where nobody sits before it."""

    def __init__(self) -> None:
        self.live, self.last = sys.stderr.isatty(), 0.0

    def __call__(self, progress: run.Progress) -> None:
        now = progress.start if not progress.done + progress.failed else run.time.monotonic()
        over = progress.kept + progress.done + progress.failed == progress.rows
        if now - self.last < (0.2 if self.live else 10) and not over:
            return
        self.last = now
        minutes, seconds = divmod(round(progress.left), 60)
        line = (
            f"{progress.kept + progress.done} of {progress.rows} done, {progress.failed} failed,"
            f" {progress.rate:.2f}/s, {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
        )
        self._write(line)

    def judged(self, done: int, of: int) -> None:
        now = run.time.monotonic()
        if of and (done == of or now - self.last >= (0.2 if self.live else 10)):
            self.last = now
            self._write(f"{done} of {of} pictures judged")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line:<70}" if self.live else line + "\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    bar = _Bar()
    try:
        if options.command == "synthesize":
            sys.stdout.write(synthesis.main(options, bar) + "\n")
            return 0
        report, said = (_benchmark if options.command == "benchmark" else _generate)(options, bar)
        write_sheet(options.out)
    except (InputError, OSError) as error:
        said = cannot_write(options.out, error) if isinstance(error, OSError) else str(error)
        sys.stderr.write(f"\n{said}\n" if bar.live else f"{said}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        return 130
    if bar.live:
        sys.stderr.write("\n")
    for warning in report.warnings:
        sys.stderr.write(f"{warning}\n")
    sys.stdout.write(
        f"{report.done} of {report.rows} rows done, {report.failed} failed, {report.kept} from before,"
        f" {report.seconds:.1f} s: {options.out}\n{said}"
    )
    return 0


def _generate(options: argparse.Namespace, bar: _Bar) -> tuple[run.Report, str]:
    scorers = tuple((name, scorer(name)) for name in options.score)
    backend = backend_of(options)
    report = run.generate(options.table, options.out, backend, _how(options, backend, options.best_of, scorers), bar)
    if options.shards is not None:
        write_shards(options.out, options.shards)
    return report, ""


def _benchmark(options: argparse.Namespace, bar: _Bar) -> tuple[run.Report, str]:
    judging = Judging(read_eyes(options.eyes), options.judges, options.judge_gpus, options.title)
    backend = backend_of(options)
    return run_benchmark(
        options.name, options.data, options.out, backend, _how(options, backend), judging, options.size, options.seeds,
        bar, bar.judged,
    )  # fmt: skip


def _how(
    options: argparse.Namespace, backend: Backend, best_of: int = 1, scorers: tuple[tuple[str, Any], ...] = ()
) -> run.Options:
    workers = (backend.workers or 1) if options.workers is None else options.workers
    return run.Options(
        workers, best_of, scorers, options.retries, options.threads, options.limit, options.address, options.gpus
    )
