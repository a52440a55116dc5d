"""Mutants of the pack's sources: one small change each, by cosmic-ray's operators. No file is written."""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from ..frame import ROOT

LEFT_OUT = ("VariableInserter", "VariableReplacer")  # they need to be told the variables


@dataclass(frozen=True)
class Mutant:
    """file: below the root. before, after: its text. lines: the changed line, stripped, before and after."""

    file: str
    operator: str
    number: int
    before: str
    after: str

    @property
    def lines(self) -> tuple[str, str]:
        changed = [line for line in self.diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        gone, new = ([line[1:].strip() for line in changed if line[0] == sign] for sign in "-+")
        return " / ".join(gone), " / ".join(new)

    @property
    def diff(self) -> str:
        lines = unified_diff(self.before.splitlines(), self.after.splitlines(), self.file, self.file, lineterm="", n=2)
        return "\n".join(lines)


def sampled(files: Sequence[Path], seed: int) -> Iterator[Mutant]:
    """Mutants of these files in an order that follows from the seed; each place comes once, with one of its changes."""
    from cosmic_ray.mutating import MutationVisitor  # pyright: ignore[reportMissingImports]

    rng = random.Random(seed)
    sources = {path: path.read_text("utf-8") for path in files}
    places = [(path, place, changes) for path, source in sources.items() for place, changes in _places(source).items()]
    rng.shuffle(places)
    for path, (line, _, _), changes in places:
        name, occurrence, operator = rng.choice(changes)
        after = MutationVisitor.mutate_code(sources[path], operator, occurrence)
        if after is not None and after != sources[path]:
            yield Mutant(path.relative_to(ROOT).as_posix(), name, line, sources[path], after)


def _places(source: str) -> dict[tuple[int, int, str], list[tuple[str, int, Any]]]:
    """Line, column and kind of change -> the changes (name, occurrence, operator) that are possible there."""
    from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports]
    from cosmic_ray.plugins import get_operator, operator_names  # pyright: ignore[reportMissingImports]

    idle = _idle_lines(source)
    nodes = list(ast_nodes(get_ast(source)))
    found: dict[tuple[int, int, str], list[tuple[str, int, Any]]] = defaultdict(list)
    for name in sorted(operator_names()):
        kind = name.split("/")[1].split("_")[0]
        if kind in LEFT_OUT:
            continue
        operator, occurrence = get_operator(name)(), 0
        for node in nodes:
            for (start, column), _ in operator.mutation_positions(node):
                if not any(first <= (start, column) < last for first, last in idle):
                    found[start, column, kind].append((name, occurrence, operator))
                occurrence += 1
    return dict(sorted(found.items()))


def _idle_lines(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans that decide nothing: annotations, aliases of types, what is imported for types alone, ``strict`` of zip."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        idle: list[ast.AST | None] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            idle = [node.returns]
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            idle = [node.annotation]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            idle = [node]
        elif isinstance(node, ast.keyword) and node.arg == "strict":  # a guard: what holds is that it never speaks
            idle = [node.value]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            idle = [node.value] if isinstance(node.value.op, ast.BitOr) and node.col_offset == 0 else []
        for part in idle:
            if part is not None:
                spans.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))  # type: ignore[attr-defined]
    return spans
