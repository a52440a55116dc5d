"""The campaign's frame: a run leaves a record whatever happens, and the table says what the records say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from campaign import table
from campaign.frame import Finding, Mend, NotHere, Part, Row, broken, keep_case, parts, run_part

ROOT = Path(__file__).resolve().parents[2]


def of(run: object) -> Part:
    return Part("some", "what it is", 1, run)  # type: ignore[arg-type]


def rows(budget: float, seed: int) -> Sequence[Row]:
    found = [Finding("box 1 broke | it", "ab.json")]
    return [Row("boxes", "boxes of seed", int(budget), seed, found, {"slope, KiB": 1234.5}, ["a note"])]


def test_a_record_has_rows_findings_and_machine(tmp_path: Path) -> None:
    record = run_part(of(rows), 12, 3, tmp_path)
    assert record == json.loads((tmp_path / "some.json").read_text())
    assert broken(record) == 1 and record["rows"][0]["tried"] == 12 and record["seed"] == 3
    assert record["machine"]["commit"]


def test_a_part_that_cannot_run_or_fails_still_leaves_a_record(tmp_path: Path) -> None:
    def cannot(_budget: float, _seed: int) -> Sequence[Row]:
        raise NotHere("no ComfyUI found; set COMFYUI_PATH")

    def fails(_budget: float, _seed: int) -> Sequence[Row]:
        raise KeyError("x")

    assert run_part(of(cannot), 1, 1, tmp_path)["missing"].startswith("no ComfyUI")
    record = run_part(of(fails), 1, 1, tmp_path)
    assert record["failed"] == "KeyError: 'x'" and broken(record) == 1


def test_rows_before_an_error_stay_in_the_record(tmp_path: Path) -> None:
    def fails_later(budget: float, seed: int) -> Iterator[Row]:
        yield from rows(budget, seed)
        raise KeyError("x")

    record = run_part(of(fails_later), 12, 3, tmp_path)
    assert record["failed"] == "KeyError: 'x'" and [row["name"] for row in record["rows"]] == ["boxes"]
    assert broken(record) == 2


def test_a_case_is_kept_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaign.frame.CASES", tmp_path)
    found = keep_case("some", b"{}", ".json", "it hung")
    assert (tmp_path / "some" / found.case).read_bytes() == b"{}"
    assert (tmp_path / "some" / f"{found.case}.txt").read_text() == "it hung\n"
    assert keep_case("some", b"{}", ".json", "it hung") == found


def test_the_table_is_written_between_its_marks_from_the_kept_records(tmp_path: Path) -> None:
    run_part(of(rows), 12, 3, tmp_path)
    known = {"some": replace(of(rows), mended=(Mend("boxes", "it fell", "tests/x.py::test_x"),))}
    records, page = tmp_path / "records", tmp_path / "trust.md"
    assert table.keep(["some", "other"], tmp_path, records) == ["some"]
    page.write_text("head\n\n" + "\nold\n".join(table.MARKS) + "\n\ntail\n")
    table.write(known, page, records)
    text = page.read_text()
    assert text.startswith("head\n") and text.endswith("\n\ntail\n") and "old" not in text
    assert "| some: boxes | boxes of seed (slope, KiB 1,234) | 12 | 3 s | 1 | 1 |" in text
    assert "- some, boxes: box 1 broke | it" in text and "- some, boxes: it fell (`tests/x.py::test_x`)" in text
    assert "- some, boxes: a note" in text and "seed 3" in text
    before = text
    table.write(known, page, records)
    assert page.read_text() == before


def test_the_table_in_the_docs_is_that_of_the_committed_records() -> None:
    text = table.PAGE.read_text("utf-8")
    assert table.table(table.load(), parts()) in text, "run: python -m campaign --table"


def test_what_was_mended_is_held_by_tests_that_exist() -> None:
    for part in parts().values():
        for mend in part.mended:
            file, _, name = mend.test.partition("::")
            assert name.split("[")[0] in (ROOT / file).read_text("utf-8"), mend


def test_parts_register_themselves_by_their_own_name() -> None:
    for name, part in parts().items():
        assert part.name == name and part.share > 0 and part.what
