"""The table of a benchmark: ours beside what others have published, in the paper's form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..stages import put
from .eyes import ROLES
from .judging import Seen
from .measure import Benchmark, Measure, value_of
from .rows import Cut

TABLE, FIGURES = "table.md", "figures.json"

Rows = Mapping[str, tuple[dict[str, Any], Seen | None]]


def figures_of(bench: Benchmark, rows: Rows) -> dict[str, dict[str, float | None]]:
    """By group and title. A measure counts the pictures that have its two sums."""
    found: dict[str, dict[str, float | None]] = {}
    for group in bench.groups:
        pictures = [
            seen.sums
            for asked, seen in rows.values()
            if seen is not None and seen.sums is not None and group in bench.group_of(asked)
        ]
        found[group] = {m.title: value_of(m, bench.measures, pictures) for m in bench.measures}
    return found


def write_report(
    bench: Benchmark, rows: Rows, given: Mapping[str, str], out: Path, name: str, cut: Cut, whole: bool
) -> str:
    """Writes table.md and figures.json; returns the table alone.

    name: of our row. whole: whether all rows of the data set were asked for.
    """
    values = figures_of(bench, rows)
    judged = sum(seen is not None and seen.sums is not None for _, seen in rows.values())
    state = f"{judged} of {len(rows)} pictures judged" + ("" if whole else "; not the whole data set")
    lacking = _lacking(bench, values, given)
    shown = [m for m in bench.measures if any(values[group][m.title] is not None for group in bench.groups)]
    table = _table(bench, shown, values, f"**{name}**")
    parts = [f"# {bench.title}\n", f"{state}. A dash: not measured, or not published.\n", table, "## Figures\n"]
    parts.append("\n".join(f"- **{m.title}**: {m.says}." for m in shown) or "None.")
    parts.append(f"\nProtocol: {bench.source}.\n\n## Who judged\n")
    parts.append("| role | here | published |\n|---|---|---|")
    for role in {role: None for m in bench.measures for role in m.needs}:
        parts.append(f"| {role} | {_plain(given.get(role, '-'))} | {_plain(bench.models.get(role, '-'))} |")
    parts.append("\nFigures compare with published ones only where the models are the same.\n")
    if lacking:
        parts.append("## Not measured\n\n" + "\n".join(f"- {sentence}" for sentence in lacking) + "\n")
    if bench.published:
        parts.append("## Sources of the other rows\n")
        parts.append("\n".join(f"- {row.name}: {row.source}" for row in bench.published) + "\n")
    notes = [*bench.notes, *_cut_notes(cut)]
    parts.append(
        "## What the protocol leaves open, and what holds here\n\n" + "\n".join(f"- {n}" for n in notes) + "\n"
    )
    failed = [(row, seen.error) for row, (_, seen) in rows.items() if seen is not None and seen.error is not None]
    if failed:
        parts.append(
            "## Not judged\n\n" + "\n".join(f"- {_plain(row)}: {_plain(str(why))}" for row, why in failed) + "\n"
        )
    put(out / TABLE, ("\n".join(parts)).encode())
    document = {
        "benchmark": bench.name,
        "judged": judged,
        "rows": len(rows),
        "whole": whole,
        "models": dict(given),
        "figures": values,
        "definitions": {m.title: m.says for m in bench.measures},
        "source": bench.source,
        "not measured": lacking,
    }
    put(out / FIGURES, (json.dumps(document, indent=2) + "\n").encode())
    return f"{state}\n\n{table}" + "".join(f"{sentence}\n" for sentence in lacking)


def _table(
    bench: Benchmark, shown: Sequence[Measure], values: Mapping[str, Mapping[str, float | None]], name: str
) -> str:
    """Methods below each other; where a benchmark has groups, a table for each that anybody has a figure in."""
    tables = []
    for group in bench.groups:
        rows: list[tuple[str, Mapping[str, float | None]]] = []
        rows += [(row.name, row.values.get(group, {})) for row in bench.published]
        rows = [(label, cells) for label, cells in rows if any(m.title in cells for m in shown)]
        rows.append((name, values[group]))
        if all(value is None for value in values[group].values()):
            continue
        lines = ["| " + " | ".join(["method", *(m.title for m in shown)]) + " |", "|---" * (len(shown) + 1) + "|"]
        lines += [
            "| " + " | ".join([label, *(_cell(cells.get(m.title)) for m in shown)]) + " |" for label, cells in rows
        ]
        title = f"### {group}\n\n" if len(bench.groups) > 1 else ""
        tables.append(title + "\n".join(lines) + "\n")
    return "\n".join(tables)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _lacking(bench: Benchmark, values: Mapping[str, Mapping[str, float | None]], given: Mapping[str, str]) -> list[str]:
    """One sentence for each model that is not there: which figures need it, what it is, what to give."""
    roles: dict[str, list[str]] = {}
    for measure in bench.measures:
        if all(values[group][measure.title] is None for group in bench.groups):
            for role in measure.needs:
                if role not in given:
                    roles.setdefault(role, []).append(measure.title)
    return [
        f"{', '.join(titles)} need{'s' * (len(titles) == 1)} what {ROLES[role].does} (published with"
        f" {bench.models.get(role, 'no model named')}); give --with {role}=PLACE, the {ROLES[role].give}."
        for role, titles in roles.items()
    ]


def _cut_notes(cut: Cut) -> list[str]:
    notes = []
    if cut.labels:
        notes.append(f"{cut.labels} descriptions were cut to 200 characters.")
    if cut.boxes:
        notes.append(f"{cut.boxes} boxes beyond the 50 of a layout were not asked for; they are judged.")
    return notes
