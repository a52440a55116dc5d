"""Tables: whatever a file holds, each row comes out once, in its place, as values or with one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextgen_core.bulk import table
from contextgen_core.bulk.table import Table, take_in
from contextgen_core.errors import InputError

SCALAR = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)


def taken(tmp_path: Path, name: str, content: bytes | str, limit: int | None = None) -> list[table.Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(take_in(path, tmp_path / "work", limit))


@settings(max_examples=60)
@given(rows=st.lists(st.dictionaries(NAMES.filter(lambda n: n != "id"), SCALAR, max_size=4), min_size=1, max_size=8))
def test_rows_of_json_lines_come_back_as_they_are(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("table")
    read = taken(folder, "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [row.values for row in read] == [{k: v for k, v in row.items() if v is not None} for row in rows]
    assert [row.id for row in read] == [str(n) for n in range(len(rows))]
    assert [Table(folder / "work").row(n) for n in range(len(rows))] == read


@settings(max_examples=150)
@given(content=st.binary(min_size=1, max_size=300))
def test_any_bytes_are_rows_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        try:
            rows = taken(folder, name, content)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert all(bool(row.problem) <= (not row.values) and "\n" not in row.problem for row in rows)


def test_the_three_kinds_say_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [
        {"id": "a", "prompt": 'one, "two"\nthree', "layout": '{"v": 1}'},
        {"id": "b", "prompt": "x", "layout": "{}"},
    ]
    lines = taken(tmp_path, "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    columns = [list(take_in(tmp_path / "t.parquet", tmp_path / "other"))]
    text = 'id,prompt,layout\na,"one, ""two""\nthree","{""v"": 1}"\nb,x,{}\n'
    columns.append(taken(tmp_path, "t.csv", text))
    for other in columns:
        assert [(row.id, row.values["prompt"]) for row in other] == [(row.id, row.values["prompt"]) for row in lines]
    assert columns[1][0].values["layout"] == {"v": 1}


def test_a_line_without_end_is_one_broken_row_and_is_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MAX_ROW_BYTES", 1000)
    good = json.dumps({"a": 1})
    for name, long in (("t.jsonl", '{"a": "' + "x" * 300_000 + '"}'), ("t.csv", "x" * 300_000)):
        head = "" if name == "t.jsonl" else "a\n"
        rows = taken(tmp_path, name, f"{head}{long}\n{good if not head else 1}\n")
        assert "longer than 1000 bytes" in rows[0].problem and not rows[1].problem


def test_a_long_row_of_parquet_is_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    monkeypatch.setattr(table, "MAX_ROW_BYTES", 1000)
    write_table(pa.table({"a": ["x" * 7000, "y"]}), tmp_path / "t.parquet")
    long, good = take_in(tmp_path / "t.parquet", tmp_path / "work")
    assert "longer than 1000 bytes" in long.problem and long.id == "#0" and good.values == {"a": "y"}


def test_text_of_parquet_that_is_not_utf_8_is_a_broken_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    said = pa.array([b"good", b"\xec\x81", b"too"], pa.binary()).view(pa.string())
    write_table(pa.table({"id": ["a", "b", "c"], "prompt": said}), tmp_path / "t.parquet")
    rows = list(take_in(tmp_path / "t.parquet", tmp_path / "work"))
    assert [row.values.get("prompt") for row in rows] == ["good", None, "too"]
    assert "not UTF-8" in rows[1].problem and not rows[0].problem + rows[2].problem
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole.replace(b"prompt", b"\xecrompt"))
    with pytest.raises(InputError, match="is not a Parquet file .*a name is not UTF-8"):
        list(take_in(tmp_path / "t.parquet", tmp_path / "third"))


def test_ids_of_many_rows_are_not_held_in_memory(tmp_path: Path) -> None:
    """20 000 ids of 200 characters are 5 MB as a set; duplicates far apart are seen all the same."""
    import tracemalloc

    lines = [json.dumps({"id": f"{n:0200}"}) for n in range(20_000)]
    lines.append(lines[7])
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    del lines
    tracemalloc.start()
    rows = take_in(tmp_path / "t.jsonl", tmp_path / "work")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "earlier row" in rows.row(20_000).problem and not rows.row(7).problem
    assert peak < 1_500_000
    assert not (tmp_path / "work" / ".ids").exists()


@pytest.mark.parametrize(
    ("line", "word"),
    [("{", "not JSON"), ("[1]", "a list of 1"), ('{"a": NaN}', "NaN"), ('{"id": 1.5}', "id"), ('{"id": ""}', "id"),
     ('{"id": "#1"}', "id"), ('{"id": "x"}', "earlier"), ('{"id": "a\\u0000"}', "id"), ("\xff", "UTF-8")],
)  # fmt: skip
def test_a_broken_row_says_why_and_the_others_stay(tmp_path: Path, line: str, word: str) -> None:
    rows = taken(tmp_path, "t.jsonl", ('{"id": "x", "v": 1}\n' + line + '\n{"id": "y", "v": 2}\n').encode("latin-1"))
    assert word in rows[1].problem and rows[1].id == "#1"
    assert [rows[0].values, rows[2].values] == [{"v": 1}, {"v": 2}]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [("t.xlsx", "x", "kind"), ("t.jsonl", "", "empty"), ("t.jsonl", "\n\n", "no rows"),
     ("t.csv", "a,a\n1,2\n", "columns"), ("t.parquet", "PAR1", "not a Parquet")],
)  # fmt: skip
def test_a_table_that_is_none_is_one_sentence(tmp_path: Path, name: str, content: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        taken(tmp_path, name, content)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        take_in(tmp_path / "none.jsonl", tmp_path / "work")


def test_a_row_that_changes_has_another_digest_and_the_rest_do_not(tmp_path: Path) -> None:
    one = taken(tmp_path, "t.jsonl", '{"id":"a","v":1}\n{"id":"b","v":1}\n')
    two = taken(tmp_path, "t.jsonl", '{"id":"a","v":1}\n{"id":"b","v":2}\n')
    assert one[0].digest == two[0].digest and one[1].digest != two[1].digest
