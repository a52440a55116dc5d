"""The stages one by one, without Ray: what stops a run, and what the manifest leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contextgen_core.bulk.backend import Made, Task
from contextgen_core.bulk.records import DONE, Journal, Outcome, row_key, write_manifest
from contextgen_core.bulk.stages import Item, Judge, Make, pack, unpack
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
def test_a_backend_that_cannot_open_stops_the_run_with_a_sentence(error: Exception, said: str) -> None:
    [item] = unpack(next(iter(Make(NoWorker(error), 1, 2, 1)(pack([ITEM])))))  # type: ignore[arg-type]
    assert item.outcome.stop is not None and item.outcome.stop.replace("'", '"') == said


@pytest.mark.parametrize(("error", "said"), ERRORS)
def test_a_scorer_that_cannot_open_stops_the_run_with_a_sentence(error: Exception, said: str) -> None:
    [item] = unpack(Judge([NoWorker(error).open])(pack([ITEM])))
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
