"""Scores a whole run from a file of results (:mod:`contextgen_core.score.results_file`).

python -m contextgen_core.score RESULTS.jsonl [--requests segment_info.json] [--threshold 0.5] [--one-to-one]
    [--json SUMMARY.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..layout.request_file import read_requests
from ..score.figures import by_level, summarise
from ..score.results_file import read_results
from ..score.table import as_json, table


def _progress() -> Callable[[float], None]:
    shown = -1

    def show(share: float) -> None:
        nonlocal shown
        percent = int(100 * share)
        if percent >= shown + 5 or (percent == 100 and shown < 100):
            shown = percent
            sys.stderr.write(f"\rscoring {percent:3d} %" + ("\n" if percent == 100 else ""))
            sys.stderr.flush()

    return show


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m contextgen_core.score", description="Score a run from a file of results."
    )
    parser.add_argument("results", type=Path, help="JSON Lines, see contextgen_core/score/results_file.py")
    parser.add_argument(
        "--requests", type=Path, metavar="FILE", help="what was asked for, in the authors' form; request n for line n"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="IoU from which an instance counts as located (0.5)"
    )
    parser.add_argument("--one-to-one", action="store_true", help="each detection serves one instance")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the summary as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> int:
    """The command. Returns its exit status: 0, or 2 after one sentence about what is wrong with the input."""
    options = _arguments(arguments)
    try:
        progress = None if options.quiet else _progress()
        requests = None if options.requests is None else read_requests(options.requests)
        scores = list(read_results(options.results, options.threshold, options.one_to_one, progress, requests))
        if not scores:
            raise InputError(f"{options.results.name} holds no results; write one JSON object a line.")
    except (InputError, OSError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    total, levels = summarise(scores), by_level(scores)
    rows = [("all", total)] + ([(f"L{level}", part) for level, part in levels] if len(levels) > 1 else [])
    write(table(rows) + "\n")
    if options.json:
        document = {"all": as_json(total), **{f"L{level}": as_json(part) for level, part in levels}}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0
