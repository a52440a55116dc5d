"""What the engine of bulk runs costs for each picture, from ten rows to ten thousand, beside a direct loop in one run.

    python bench/bulk.py --sizes 10 100 1000 10000 --json bulk.json

The backend is a stub: it sleeps for --seconds and paints noise of 64 x 64 pixels, so that what is left is reading rows,
Ray, the picture's file and the journal. Times go from the first tenth of the rows to the last row, without Ray's start
and the workers' imports, which do not depend on the number of rows. "cpu_ms" adds up all processes of the run: it means
something where the machine is busy with other work, too. "direct" is the same in a plain loop. Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from workload import machine

from contextgen_core.bulk import run
from contextgen_core.bulk.backend import Made, Task
from contextgen_core.bulk.graph import seed_of
from contextgen_core.bulk.records import DONE, Journal, Outcome, picture_path
from contextgen_core.bulk.stages import put
from contextgen_core.bulk.table import Row, take_in


@dataclass(frozen=True)
class Noise:
    """Backend and worker in one."""

    seconds: float
    workers: int | None = None
    digest: str = "noise"

    def check(self) -> list[str]:
        return []

    def prepare(self, row: Row, base: Path) -> Task:
        return Task(row, row.values["prompt"], seed_of(row.id))

    def open(self) -> Noise:
        return self

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        out = []
        for seed in seeds:
            time.sleep(self.seconds)
            pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            out.append(Made(buffer.getvalue(), seed, 0.0))
        return out

    def close(self) -> None:
        pass


def write_table(path: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            file.write(json.dumps({"id": f"row {n}", "prompt": f"a creature on meadow {n}"}) + "\n")
    return path


def direct(table: Path, out: Path, backend: Noise) -> dict[str, Any]:
    """The same in a loop."""
    (out / "unfinished").mkdir(parents=True)
    rows = take_in(table, out)
    journal = Journal(out, rows.count)
    clock, cpu = time.monotonic(), time.process_time()
    for row in rows:
        made = backend.make(task := backend.prepare(row, out), [seed_of(row.id)])[0]
        name = picture_path(row.number, row.id)
        put(out / name, made.picture, out / "unfinished")
        journal.add(Outcome(row.number, row.id, row.digest, DONE, 1, name, seed=task.seed))
    journal.close()
    count = rows.count
    return {
        "ms": round(1e3 * (time.monotonic() - clock) / count, 3),
        "cpu_ms": round(1e3 * (time.process_time() - cpu) / count, 3),
    }


def cpu_of(family: psutil.Process) -> float:
    """CPU seconds until now of a process and all that it has started."""
    total = 0.0
    for process in [family, *family.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def engine(table: Path, out: Path, backend: Noise, workers: int, rows: int) -> dict[str, Any]:
    me = psutil.Process()
    marks: list[tuple[int, float, float, int]] = []  # rows, clock, CPU, bytes

    def told(progress: run.Progress) -> None:
        ended = progress.done + progress.failed
        if ended in (max(rows // 10, 1), rows):
            marks.append((ended, time.monotonic(), cpu_of(me), me.memory_info().rss))

    start = time.monotonic()
    if run.generate(table, out, backend, run.Options(workers=workers), told).done != rows:
        raise SystemExit(f"not all of {rows} rows were done: {out}")
    (first, clock, cpu, memory), (last, clock_end, cpu_end, memory_end) = marks[0], marks[-1]
    count = max(last - first, 1)
    return {
        "rows": rows,
        "seconds": round(time.monotonic() - start, 1),
        "ms": round(1e3 * (clock_end - clock) / count, 2),
        "cpu_ms": round(1e3 * (cpu_end - cpu) / count, 2),
        "driver_mib": round(memory_end / 2**20, 1),
        "driver_grew_mib": round((memory_end - memory) / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0, help="that a picture takes")
    parser.add_argument("--json", type=Path, help="also write the record there")
    options = parser.parse_args()
    backend = Noise(options.seconds)
    ray = run.engine()
    run._connect(ray, run.Options(workers=options.workers))
    record: dict[str, Any] = {
        "machine": machine(),
        "load": os.getloadavg()[0],
        "workers": options.workers,
        "picture_seconds": options.seconds,
    }
    with tempfile.TemporaryDirectory(prefix="bulk-bench-") as name:
        folder = Path(name)
        table = write_table(folder / "direct.jsonl", 300)
        record["direct"] = direct(table, folder / "direct", backend)
        record["engine"] = []
        for rows in options.sizes:
            table = write_table(folder / f"{rows}.jsonl", rows)
            record["engine"].append(engine(table, folder / str(rows), backend, options.workers, rows))
            print(json.dumps(record["engine"][-1]), file=sys.stderr, flush=True)
    ray.shutdown()
    text = json.dumps(record, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
