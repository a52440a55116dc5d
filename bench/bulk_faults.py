"""What a bulk run survives: its command line with the small model, disturbed and resumed, against an undisturbed one.

    python bench/bulk_faults.py --rows 200                           Linux; the full disk needs the right to mount
    python bench/bulk_faults.py --faults worker driver --rows 12     without that
    python bench/bulk_faults.py --faults host --comfy-path ~/comfy/ComfyUI --rows 10

worker  one of two workers is killed, then the command itself, in one run     (both SIGKILL)
driver  the same as "worker"; they are one run
disk    the run's folder is a tmpfs that holds half of the pictures, and later all
host    of two own ComfyUIs one is killed and one is stopped (SIGSTOP) while rows are made

Three rows of the table are broken. Afterwards pictures, failed.jsonl and the manifest, but for attempts and seconds,
must be those of one worker that nobody disturbed, no row may stand in the journal as done twice, and no process may be
left.
Prints what happened as JSON; ends with 1 where something differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from workload import ROOT, machine

SIDE = 64  # pixels of a picture
SAMPLES = ROOT / "assets" / "samples"
WORKFLOW = ROOT / "workflows" / "api" / "tiny_two_subjects.json"
FAULTS = ("worker", "driver", "disk", "host")
PATIENCE = 1800.0  # seconds for anything


def write_table(path: Path, rows: int, comfy: bool) -> Path:
    """Rows that differ in place, words and seed; three of them cannot be made."""
    lines: list[dict[str, Any]] = []
    for n in range(rows):
        box = {"id": "b1", "x": 2 + n % 20, "y": 4 + n % 9, "w": 36, "h": 40, "ref": "disc"}
        row: dict[str, Any] = {
            "id": f"row {n}", "prompt": f"a creature on meadow {n}",
            "references": {"disc": str(SAMPLES / "contextgen_creature_2.png")},
            "layout": {"v": 1, "canvas": {"w": SIDE, "h": SIDE}, "boxes": [box]},
        }  # fmt: skip
        if comfy:  # the workflow has two references
            row["references"]["heart"] = str(SAMPLES / "contextgen_creature_4.png")
            row["KSampler.steps"] = 80
        lines.append(row)
    if rows >= 6:
        lines[1]["layout"] = "{"
        lines[rows // 2]["references"] = {"disc": "not there.png"}
        lines[-1]["id"] = "row 0"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


class Command:
    """The command at work in a process of its own."""

    def __init__(self, table: Path, out: Path, workers: int, comfy: Path | None) -> None:
        with table.open("rb") as file:
            steps = max(2, 960 // sum(1 for _ in file))  # a short run lasts long enough to be hit, too
        line = [sys.executable, "-m", "contextgen_core.bulk", "generate", str(table), "--out", str(out)]
        line += ["--workers", str(workers), "--allow", str(SAMPLES)]
        if comfy is None:
            line += ["--diffusers", "tiny", "--steps", str(steps)]
        else:
            line += [
                "--workflow",
                str(WORKFLOW),
                "--timeout",
                "60",
                "--comfy-path",
                str(comfy),
                "--comfy-args",
                "--cpu",
            ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.journal, self.start = out / "run.jsonl", time.monotonic()
        self.process = psutil.Popen(
            line, cwd=table.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.seen: set[psutil.Process] = set()

    def family(self) -> set[psutil.Process]:
        """The processes that it has started, and those of these; remembered for the end."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen |= set(self.process.children(recursive=True))
        return self.seen

    def ended(self) -> int:
        """Rows that its journal tells of."""
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    def wait_for(self, what: Callable[[], Any]) -> Any:
        deadline, looked = time.monotonic() + PATIENCE, 0.0
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := what():
                return found
            if time.monotonic() > looked + 2:  # on a busy machine a look at the processes takes a while
                self.family()
                looked = time.monotonic()
            time.sleep(0.05)
        raise SystemExit(f"the run ended or hung too early: {self.process.poll()} {self.end()}")

    def members(self, word: str, ours: Callable[[psutil.Process], bool] = lambda _: True) -> list[psutil.Process]:
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(process.cmdline()) and ours(process):
                    found.append(process)
        return sorted(found, key=lambda p: p.pid)

    def end(self) -> dict[str, Any]:
        """Waits for it and for all that it has started."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self.family()
            with contextlib.suppress(psutil.TimeoutExpired):
                self.process.wait(1)
        said = " | ".join(part.strip() for part in self.process.communicate() if part.strip())
        _, left = psutil.wait_procs(self.seen, timeout=120)
        return {
            "exit": self.process.returncode, "seconds": round(time.monotonic() - self.start, 1),
            "said": said.replace(str(ROOT), ".")[-400:], "processes_left": len(left),
        }  # fmt: skip


def result(out: Path) -> tuple[dict[str, str], list[dict[str, Any]], str]:
    """Pictures, manifest without what time and accidents decide, failed rows."""
    from pyarrow.parquet import read_table

    pictures = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (out / "pictures").rglob("*")
        if path.is_file()
    }
    rows = [
        {k: v for k, v in row.items() if k not in ("attempts", "seconds")}
        for row in read_table(out / "manifest.parquet").to_pylist()
    ]
    return pictures, rows, (out / "failed.jsonl").read_text()


def compared(calm: Path, rough: Path) -> dict[str, Any]:
    mine, theirs = result(rough), result(calm)
    lines = [json.loads(line) for line in (rough / "run.jsonl").read_bytes().splitlines()]
    done = Counter(line["number"] for line in lines if line["status"] == "done")
    return {
        "rows": len(theirs[1]),
        "failed_rows": theirs[2].count("\n"),
        "lost": len(theirs[0].keys() - mine[0].keys()),
        "too_many": len(mine[0].keys() - theirs[0].keys()),
        "pictures_equal": mine[0] == theirs[0],
        "manifest_equal": mine[1] == theirs[1],
        "failed_equal": mine[2] == theirs[2],
        "done_twice": sum(count > 1 for count in done.values()),
    }


def is_well(record: dict[str, Any]) -> bool:
    end = record["compared"]
    return (
        end["pictures_equal"]
        and end["manifest_equal"]
        and end["failed_equal"]
        and not end["done_twice"]
        and not any(step["processes_left"] for step in record["steps"])
        and record["steps"][-1]["exit"] == 0
    )


def undisturbed(table: Path, out: Path, comfy: Path | None) -> dict[str, Any]:
    return {"what": "one worker, undisturbed", **Command(table, out, 1, comfy).end()}


def kill_worker_and_driver(table: Path, calm: Path, out: Path, rows: int) -> dict[str, Any]:
    command = Command(table, out, 2, None)
    command.wait_for(lambda: command.ended() >= rows // 4)
    worker = command.wait_for(lambda: command.members("(Make)"))[0]
    worker.kill()
    at = command.ended()
    command.wait_for(lambda: command.ended() >= max(at + 2, rows // 2))
    command.process.kill()
    steps = [
        {"what": f"a worker killed after {at} rows, the command after {command.ended()}", **command.end()},
        {"what": "the same command again", **Command(table, out, 2, None).end()},
    ]
    return {"fault": "worker, driver", "steps": steps, "compared": compared(calm, out)}


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A tmpfs of so many bytes; gives what changes its size."""

    def mount(*options: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", *options, str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(
                f"the fault 'disk' needs the right to mount ({done.stderr.strip()}); leave it out of --faults"
            )

    folder.mkdir()
    mount("-o", f"size={size}", "tmpfs")
    try:
        yield lambda size: mount("-o", f"remount,size={size}", "tmpfs")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def pages(folder: Path) -> int:
    """Bytes that a folder's files take on a disk."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def fill_disk(table: Path, calm: Path, disk: Path) -> dict[str, Any]:
    taken, pictures, work = (pages(folder) for folder in (calm, calm / "pictures", calm / ".work"))
    with small_disk(disk, pictures // 2 + work + (32 << 10)) as resize:
        first = {"what": "a disk with room for half of the pictures", **Command(table, disk / "run", 2, None).end()}
        held = len(list((disk / "run" / "pictures").rglob("*.png")))
        resize(4 * taken + (1 << 20))
        steps = [
            {**first, "pictures": held},
            {"what": "more room, the same command", **Command(table, disk / "run", 2, None).end()},
        ]
        return {"fault": "disk", "steps": steps, "compared": compared(calm, disk / "run")}


def stop_hosts(table: Path, calm: Path, out: Path, comfy: Path) -> dict[str, Any]:
    command = Command(table, out, 2, comfy)

    def hosts() -> list[psutil.Process]:  # Ray's own processes have its word in one long argument
        return command.members("main.py", lambda p: any(part.endswith("main.py") for part in p.cmdline()))

    command.wait_for(lambda: command.ended() >= 2 and len(hosts()) >= 2)
    first, second = hosts()[:2]
    at = command.ended()
    first.kill()
    second.send_signal(signal.SIGSTOP)
    steps = [{"what": f"one ComfyUI killed, one stopped, after {at} rows", **command.end()}]
    if steps[0]["exit"]:
        print(json.dumps(steps[0]), file=sys.stderr)
        steps.append({"what": "the same command again", **Command(table, out, 2, comfy).end()})
    return {"fault": "host", "steps": steps, "compared": compared(calm, out)}


def run(folder: Path, faults: Sequence[str], rows: int, comfy: Path | None) -> dict[str, Any]:
    """The record of all faults in `folder`."""
    record: dict[str, Any] = {"machine": machine(), "rows": rows, "faults": []}
    if set(faults) - {"host"}:
        table, calm = write_table(folder / "rows.jsonl", rows, False), folder / "calm"
        record["undisturbed"] = undisturbed(table, calm, None)
        if set(faults) & {"worker", "driver"}:
            record["faults"].append(kill_worker_and_driver(table, calm, folder / "rough", rows))
        if "disk" in faults:
            record["faults"].append(fill_disk(table, calm, folder / "disk"))
    if "host" in faults:
        if comfy is None:
            raise SystemExit("the fault 'host' needs --comfy-path")
        table, calm = write_table(folder / "comfy.jsonl", rows, True), folder / "comfy calm"
        record["undisturbed_comfy"] = undisturbed(table, calm, comfy)
        record["faults"].append(stop_hosts(table, calm, folder / "comfy rough", comfy))
    record["well"] = all(is_well(fault) for fault in record["faults"])
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS[:3]))
    parser.add_argument("--comfy-path", type=Path)
    parser.add_argument("--json", type=Path, help="also write the record there")
    options = parser.parse_args()
    comfy = options.comfy_path and options.comfy_path.expanduser().resolve()
    with tempfile.TemporaryDirectory(prefix="bulk-faults-") as folder:
        record = run(Path(folder), options.faults, options.rows, comfy)
    text = json.dumps(record, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 0 if record["well"] else 1


if __name__ == "__main__":
    sys.exit(main())
