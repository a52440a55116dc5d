"""The campaign's committed records, and the table of docs/trust.md that is written from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .frame import OUTPUT, ROOT, Part

RECORDS = ROOT / "campaign" / "records"
PAGE = ROOT / "docs" / "trust.md"
MARKS = ("<!-- campaign: written by python -m campaign --table -->", "<!-- end of campaign -->")


def keep(names: Sequence[str], output: Path = OUTPUT, records: Path = RECORDS) -> list[str]:
    """Takes the newest records of these parts into the committed folder; the names of those taken."""
    taken = [name for name in names if (output / f"{name}.json").is_file()]
    records.mkdir(exist_ok=True)
    for name in taken:
        shutil.copyfile(output / f"{name}.json", records / f"{name}.json")
    return taken


def load(records: Path = RECORDS) -> dict[str, Any]:
    """The committed records by the name of their part."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(records.glob("*.json"))}


def table(records: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """The Markdown between the marks: one line for each row, then what was mended, what is left, and the machines."""
    lines = ["| part | tried | cases | time | mended | left |", "|---|---|---|---|---|---|"]
    fixed: list[str] = []
    left: list[str] = []
    notes: list[str] = []
    for name, record in records.items():
        mends = parts[name].mended if name in parts else ()
        fixed += [f"- {name}, {mend.row}: {mend.what} (`{mend.test}`)" for mend in mends]
        if record["missing"] or record["failed"]:
            lines.append(f"| {name} | {_cell(record['what'])} | not run | | | |")
            notes.append(f"- {name}: {record['missing'] or record['failed']}")
        for row in record["rows"]:
            count = sum(mend.row == row["name"] for mend in mends)
            figures = "; ".join(f"{what} {_number(value)}" for what, value in row["figures"].items())
            what = f"{row['what']} ({figures})" if figures else row["what"]
            cells = (f"{name}: {row['name']}", what, f"{row['tried']:,}", _duration(row["seconds"]))
            lines.append("| " + " | ".join(map(_cell, (*cells, str(count), str(len(row["found"]))))) + " |")
            left += [f"- {name}, {row['name']}: {found['sentence']}" for found in row["found"]]
            notes += [f"- {name}, {row['name']}: {note}" for note in row["notes"]]
    measured = [_measured(name, record) for name, record in records.items()]
    lists = {
        "What was found and mended:": fixed,
        "What is left:": left,
        "To read with it:": notes,
        "Measured:": measured,
    }
    blocks = [title + "\n\n" + "\n".join(items) for title, items in lists.items() if items]
    return "\n\n".join(["\n".join(lines), *blocks])


def _measured(name: str, record: Mapping[str, Any]) -> str:
    where = record["machine"]
    place = f"{where['system']}, {where['cpus']} CPUs, Python {where['python']}, commit {where['commit']}"
    return f"- {name}: seed {record['seed']}, {_duration(record['seconds'])}; {place}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def put(text: str, page: Path, marks: tuple[str, str]) -> None:
    """Puts a text between a page's marks; the rest of the page is written by hand."""
    head, _, rest = page.read_text("utf-8").partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not end:
        raise ValueError(f"{page} lacks the marks {marks[0]} and {marks[1]}; put them where the table belongs.")
    page.write_text(f"{head}{marks[0]}\n\n{text}\n\n{marks[1]}{tail}", encoding="utf-8")


def write(parts: Mapping[str, Part], page: Path = PAGE, records: Path = RECORDS) -> None:
    """Writes the table of all records into its page."""
    put(table(load(records), parts), page, MARKS)
