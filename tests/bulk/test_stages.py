"""The stages one by one, without Ray: what stops a run, and what the manifest leaves out."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from contextgen_core.bulk.backend import Made, Task
from contextgen_core.bulk.records import DONE, Journal, Outcome, row_key, write_manifest
from contextgen_core.bulk.stages import UNDER_WAY, UNFINISHED, Item, Judge, Make, Write, pack, unpack
from contextgen_core.bulk.table import Row, take_in
from contextgen_core.errors import InputError

ITEM = Item(Outcome(0, "r", "k", DONE), Task(Row(0, "r", {}), None, 1), (Made(b"", 1, 0.0),))


class NoWorker:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def open(self) -> Any:
        raise self.error


ERRORS = [
    (InputError("the adapter does not fit."), "the adapter does not fit."),
    (OSError("no such\nfile"), 'unexpected OSError: "no such file"'),
]


@pytest.mark.parametrize(("error", "said"), ERRORS)
def test_a_backend_that_cannot_open_stops_the_run_with_a_sentence(tmp_path: Path, error: Exception, said: str) -> None:
    (tmp_path / UNDER_WAY).mkdir()
    [item] = unpack(next(iter(Make(NoWorker(error), 1, 2, 1, tmp_path)(pack([ITEM])))))  # type: ignore[arg-type]
    assert item.outcome.stop is not None and item.outcome.stop.replace("'", '"') == said


@pytest.mark.parametrize(("error", "said"), ERRORS)
def test_a_scorer_that_cannot_open_stops_the_run_with_a_sentence(tmp_path: Path, error: Exception, said: str) -> None:
    [item] = unpack(Judge([NoWorker(error).open], Write(tmp_path))(pack([ITEM])))
    assert item.outcome.stop is not None and item.outcome.stop.replace("'", '"') == said


def test_the_manifest_leaves_out_what_was_made_of_something_else(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "t.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n')
    rows = take_in(tmp_path / "t.jsonl", tmp_path / "work")
    journal = Journal(tmp_path, rows.count)
    keys = [row_key("now", rows.row(0)), row_key("before", rows.row(1)), "now-of a row that has changed"]
    for number, key in enumerate(keys):
        journal.add(Outcome(number, rows.row(number).id, key, DONE, picture="p.png", seed=1))
    assert write_manifest(tmp_path, journal, rows, "now", "host") == (1, 0)
    assert parquet.read_table(tmp_path / "manifest.parquet")["row"].to_pylist() == ["a"]
    journal.close()


def test_seeds_of_candidates_go_round_at_the_end_of_their_range(tmp_path: Path) -> None:
    (tmp_path / UNDER_WAY).mkdir()

    class Worker:
        def make(self, task: Task, seeds: list[int]) -> list[Made]:
            return [Made(b"", seed, 0.0) for seed in seeds]

    class Backend:
        def open(self) -> Worker:
            return Worker()

    task = Task(Row(0, "r", {}), None, 2**64 - 2)
    make = Make(Backend(), 4, 0, 1, tmp_path)  # type: ignore[arg-type]
    assert [made.seed for made in make.one(Item(ITEM.outcome, task)).made] == [2**64 - 2, 2**64 - 1, 0, 1]
    assert not list((tmp_path / UNDER_WAY).iterdir())


def test_a_journal_on_a_full_disk_is_whole_up_to_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a line still fits; what stood before it stays, and the row is written again later."""
    journal = Journal(tmp_path, 3)
    journal.add(Outcome(0, "a", "k", DONE, picture="p.png"))

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 20

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self.room = self.file.write(data[: self.room]), 0
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(journal, "_file", Full(journal._file))
    with pytest.raises(OSError, match="No space"):
        journal.add(Outcome(1, "b", "k", DONE, picture="q.png"))
    journal.close()
    again = Journal(tmp_path, 3)
    assert [entry.row for entry in again.entries()] == ["a"]
    again.add(Outcome(1, "b", "k", DONE, picture="q.png"))
    assert [entry.row for entry in again.entries()] == ["a", "b"]
    again.close()


def test_a_manifest_that_cannot_be_finished_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.jsonl").write_text('{"id": "a"}\n')
    rows = take_in(tmp_path / "t.jsonl", tmp_path / "work")
    journal = Journal(tmp_path, rows.count)
    journal.add(Outcome(0, "a", row_key("now", rows.row(0)), DONE, picture="p.png", seed=1))
    write_manifest(tmp_path, journal, rows, "now", "host")
    before = (tmp_path / "manifest.parquet").read_bytes()
    parquet = pytest.importorskip("pyarrow.parquet")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_manifest(tmp_path, journal, rows, "now", "host")
    journal.close()
    assert (tmp_path / "manifest.parquet").read_bytes() == before
    assert not list(tmp_path.glob(".manifest*")) and not list(tmp_path.glob(".failed*"))


def test_a_picture_that_cannot_be_written_stops_the_run_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".work" / UNFINISHED).mkdir(parents=True)

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    item = Write(tmp_path)(ITEM)
    assert item.outcome.stop == f"{tmp_path}: the disk is full; free some room."
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
