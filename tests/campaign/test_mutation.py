"""Mutants are one change of what runs; every group names sources and tests that exist."""

from __future__ import annotations

from campaign import mutation
from campaign.frame import ROOT
from campaign.mutation.mutants import Mutant, _idle_lines

SOURCE = """from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import a | b
Index = int | str
def f(x: int | None = 1 | 2) -> int | str:
    return zip(x, strict=True)
""".replace("import a | b", "c = 1 | 2")


def test_what_decides_nothing_is_not_changed() -> None:
    idle = _idle_lines(SOURCE)
    lines = SOURCE.splitlines()

    def changed(line: int, text: str) -> bool:
        column = lines[line - 1].index(text)
        return not any(first <= (line, column) < last for first, last in idle)

    assert not changed(3, "|") and not changed(4, "|") and not changed(5, "int | None") and not changed(5, "int | str")
    assert not changed(6, "True")
    assert changed(5, "1 | 2") and changed(6, "x")


def test_a_mutant_is_told_by_the_line_that_it_changes() -> None:
    mutant = Mutant("a.py", "core/AddNot", 2, "x = 1\nif x:\n    y = 2\n", "x = 1\nif not x:\n    y = 2\n")
    assert mutant.lines == ("if x:", "if not x:")
    assert "+if not x:" in mutant.diff


def test_all_groups_have_sources_and_tests() -> None:
    for group in mutation.GROUPS:
        assert group.files and all((ROOT / test).exists() for test in group.tests)
        assert all(path.name not in group.leave_out for path in group.files)
