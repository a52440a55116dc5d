"""Runs on Ray Data: nothing lost, nothing twice, the same bytes however the run went."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("ray")

from contextgen_core.bulk import output, run  # noqa: E402
from contextgen_core.bulk.records import JOURNAL, MANIFEST, Lock  # noqa: E402
from contextgen_core.errors import InputError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def table(folder: Path, rows: list[dict[str, Any]], name: str = "t.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stub(folder: Path, name: str = "marks") -> Any:
    from stub import Stub

    (folder / name).mkdir(exist_ok=True)
    return Stub(folder / name)


def manifest(out: Path) -> list[dict[str, Any]]:
    """Without what time and accidents decide."""
    from pyarrow.parquet import read_table

    return [
        {k: v for k, v in row.items() if k not in ("seconds", "attempts")}
        for row in read_table(out / MANIFEST).to_pylist()
    ]


def pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted((out / "pictures").rglob("*"))
            if path.is_file()}  # fmt: skip


ROWS = [{"id": f"r{n}", "colour": 100 + n, "kind": "x"} for n in range(10)]
BROKEN = [{"id": "r1"}, {"id": "no colour"}, {"id": "breaks", "colour": 1, "breaks": True}]


def test_a_run_with_broken_rows_ends_well_and_says_why(tmp_path: Path) -> None:
    told = []
    report = run.generate(
        table(tmp_path, ROWS + BROKEN), tmp_path / "out", stub(tmp_path), run.Options(workers=2),
        lambda p: told.append((p.done, p.failed)),
    )  # fmt: skip
    assert (report.rows, report.done, report.failed, report.kept) == (13, 10, 3, 0)
    assert told[-1] == (10, 3)
    rows = manifest(tmp_path / "out")
    assert [row["row"] for row in rows] == [f"r{n}" for n in range(10)] + ["#10", "no colour", "breaks"]
    assert {row["picture"] for row in rows[:10]} == set(pictures(tmp_path / "out"))
    failed = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert [entry["row"] for entry in failed] == ["#10", "no colour", "breaks"]
    assert "earlier row" in failed[0]["error"] and "no colour" in failed[1]["error"]
    assert "ZeroDivisionError: 'division by zero'" in failed[2]["error"]


def test_the_same_for_any_number_of_workers_after_any_accident(tmp_path: Path) -> None:
    """A worker that dies, a host that fails twice, a picture and a journal that were cut off."""
    accidents = [dict(row) for row in ROWS]
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    run.generate(table(tmp_path, ROWS), calm, stub(tmp_path), run.Options(workers=1))
    # the same rows to the manifest: what makes trouble is in the marks of the backend
    marks = stub(tmp_path, "rough marks")
    first = table(tmp_path / "first", accidents[:6])
    run.generate(first, rough, marks, run.Options(workers=2))
    with (rough / JOURNAL).open("ab") as journal:
        journal.write(b'{"number": 6, "row": "r6", "sta')
    next((rough / "pictures").rglob("000002*")).unlink()
    report = run.generate(table(tmp_path, ROWS), rough, marks, run.Options(workers=2))
    assert report.kept == 5
    assert pictures(rough) == pictures(calm)
    assert manifest(rough) == manifest(calm)
    assert (rough / MANIFEST).stat().st_size > 0
    done = [path.name.split(".")[0] for path in (tmp_path / "rough marks").iterdir()]
    assert sorted(done) == sorted([str(n) for n in range(10)] + ["2"])  # nothing twice but what was lost


def test_a_worker_that_dies_and_a_host_that_fails_cost_attempts_alone(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS[:6]]
    rows[1]["dies"] = 1
    rows[2]["dies"] = 9
    rows[3]["fails"] = 1
    rows[4]["fails"] = 9
    report = run.generate(table(tmp_path, rows), tmp_path / "out", stub(tmp_path), run.Options(workers=2, retries=1))
    assert (report.done, report.failed) == (4, 2)
    by_row = {row["row"]: row for row in manifest(tmp_path / "out")}
    assert "the stub host fails" in by_row["r4"]["error"] and "2 attempts" in by_row["r4"]["error"]
    assert "the worker ended while it made this row, 2 times" in by_row["r2"]["error"]
    assert by_row["r1"]["status"] == by_row["r3"]["status"] == "done"


def test_rows_that_failed_are_tried_again_and_changed_ones_made_anew(tmp_path: Path) -> None:
    out, marks = tmp_path / "out", stub(tmp_path)
    rows = [{"id": "a", "colour": 1}, {"id": "b"}, {"id": "c", "colour": 3}]
    run.generate(table(tmp_path, rows), out, marks, run.Options())
    rows[1]["colour"], rows[2]["colour"] = 2, 4
    report = run.generate(table(tmp_path, rows), out, marks, run.Options())
    assert (report.done, report.failed, report.kept) == (3, 0, 1)


def test_the_best_candidate_is_kept_and_the_choice_is_told(tmp_path: Path) -> None:
    from stub import Brightness

    options = run.Options(best_of=4, scorers=(("brightness", Brightness),))
    run.generate(table(tmp_path, [{"colour": 9, "seed": 3}]), tmp_path / "out", stub(tmp_path), options)
    (row,) = manifest(tmp_path / "out")
    import numpy as np

    means = {seed: np.random.default_rng(seed).integers(0, 60, (24, 24, 3)).astype(np.uint8) for seed in range(3, 7)}
    for pixels in means.values():
        pixels[8:16, 8:16] = 9
    best = max(means, key=lambda seed: means[seed].mean())
    assert row["seed"] == best and row["score"] == pytest.approx(means[best].mean())
    assert json.loads(row["scores"]) == {"brightness": row["score"]}


def test_a_full_disk_stops_the_run_and_the_same_call_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "out" / "pictures"
    blocked.parent.mkdir()
    blocked.write_text("a file where the folder of pictures has to be")
    path, marks = table(tmp_path, ROWS[:3]), stub(tmp_path)
    with pytest.raises(InputError, match="0 of 3 rows are done"):
        run.generate(path, tmp_path / "out", marks, run.Options())
    blocked.unlink()
    assert run.generate(path, tmp_path / "out", marks, run.Options()).done == 3


def test_an_interruption_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    rows = [{**row, "seconds": 0.2} for row in ROWS]
    path, out, marks = table(tmp_path, rows), tmp_path / "out", stub(tmp_path)

    def stop(progress: run.Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.generate(path, out, marks, run.Options(), stop)
    assert 2 <= len(manifest(out)) < 10
    report = run.generate(path, out, marks, run.Options())
    assert report.done == 10 and report.kept >= 2


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with Lock(out), pytest.raises(InputError, match="another run"):
        run.generate(table(tmp_path, ROWS), out, stub(tmp_path), run.Options())
    assert run.generate(table(tmp_path, ROWS[:1]), out, stub(tmp_path), run.Options()).done == 1


def test_of_many_that_start_at_once_one_gets_the_folder_and_a_killed_one_leaves_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom contextgen_core.bulk.records import Lock\n"
        "from contextgen_core.errors import InputError\n"
        "lock = Lock(pathlib.Path(sys.argv[1]))\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "try:\n  lock.__enter__()\nexcept InputError:\n  print('refused', flush=True)\nelse:\n"
        "  print('in', flush=True)\n  sys.stdin.readline()\n"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    try:
        for other in others:
            assert other.stdout is not None and other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
        said = [other.stdout.readline().strip() for other in others if other.stdout is not None]
        assert sorted(said) == ["in", "refused", "refused", "refused"]
        others[said.index("in")].kill()
        others[said.index("in")].wait(20)
        with Lock(tmp_path):
            pass
    finally:
        for other in others:
            other.kill()
            other.communicate()


def test_shards_and_the_contact_sheet_hold_every_picture_and_are_the_same_again(tmp_path: Path) -> None:
    import tarfile

    out = tmp_path / "out"
    rows = [*ROWS[:5], {"id": "<script>alert(1)</script>"}]
    run.generate(table(tmp_path, rows), out, stub(tmp_path), run.Options())
    shards = output.write_shards(out, 2)
    sizes = []
    for path in shards:
        with tarfile.open(path) as shard:
            sizes.append(len(shard.getnames()))
    assert sizes == [4, 4, 2]
    before = [path.read_bytes() for path in shards]
    assert [path.read_bytes() for path in output.write_shards(out, 2)] == before
    page = output.write_sheet(out).read_text()
    assert page.count("<figure") == 5 and "<script>alert" not in page and "http" not in page
