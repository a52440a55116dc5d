"""Layout Grounding Score of a folder of pictures (:mod:`contextgen_core.score.grounding`).

    python -m contextgen_core.commands.layout_score PICTURES RECORDS
        --detector grounding-dino=MODEL|small-world --judge vision=MODEL|small-world
        [--results FILE.jsonl] [--json FILE] [--limit N]

RECORDS are DenseLayout's (JSON, JSON Lines or Parquet); the picture of a record is PICTURES/ID.png (or jpg, webp).
MODEL is the folder of a model of transformers; ``small-world`` is the small world's own finder and judge. Each result
is added to --results at once (PICTURES/layout_score.jsonl), and a run that was broken off goes on there. Exit status 0,
or 2 after one sentence about what is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..input.picture_file import open_picture
from ..score.grounding import Detector, Judge, Record, ResultsLog, figures, ground, read_records, table

FORMS = (".png", ".jpg", ".jpeg", ".webp")
SMALL = "small-world"


def detector(text: str) -> Detector:
    """The detector that the command's word names. Raises InputError for an unknown one."""
    kind, _, model = text.partition("=")
    if kind == SMALL:
        from ..training.small_world import eyes

        return eyes.detect
    if kind == "grounding-dino" and model:
        from ..hosts.eyes import GroundingDino

        return GroundingDino(model)
    raise InputError(f"the detector is {text[:60]!r}; give grounding-dino=MODEL or {SMALL}.")


def judge(text: str) -> Judge:
    """The judge that the command's word names. Raises InputError for an unknown one."""
    kind, _, model = text.partition("=")
    if kind == SMALL:
        from ..training.small_world import eyes

        return eyes.judge
    if kind == "vision" and model:
        from ..hosts.eyes import VisionJudge

        return VisionJudge(model)
    raise InputError(f"the judge is {text[:60]!r}; give vision=MODEL or {SMALL}.")


def picture_of(folder: Path, record: Record) -> Path | None:
    """Where a record's picture lies, None where there is none."""
    if Path(record.id).name != record.id:
        return None
    return next((path for form in FORMS if (path := folder / f"{record.id}{form}").is_file()), None)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m contextgen_core.commands.layout_score", description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder of pictures, each with the name of its record's id")
    parser.add_argument("records", type=Path, help="DenseLayout's records")
    parser.add_argument("--detector", required=True, help=f"grounding-dino=MODEL or {SMALL}")
    parser.add_argument("--judge", required=True, help=f"vision=MODEL or {SMALL}")
    parser.add_argument("--results", type=Path, metavar="FILE", help="each picture's result, JSON Lines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N records alone")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> int:
    """The command. Returns its exit status."""
    options = _arguments(arguments)
    try:
        if options.limit is not None and options.limit < 1:
            raise InputError(f"--limit is {options.limit}; give 1 or more, or leave it out for all records.")
        records = read_records(options.records)[: options.limit]
        placed = [(record, picture_of(options.pictures, record)) for record in records]
        there = [(record, path) for record, path in placed if path is not None]
        if not there:
            raise InputError(f"{options.pictures.name} holds no picture of the records; name each by its record's id.")
        log = ResultsLog(
            options.results or options.pictures / "layout_score.jsonl",
            {"detector": options.detector, "judge": options.judge},
        )
        known = log.read()
        wanted = [(record, path) for record, path in there if record.id not in known]
        if wanted:
            detect, answer = detector(options.detector), judge(options.judge)
            for number, (record, path) in enumerate(wanted, 1):
                known[record.id] = ground(_read(path), record, detect, answer)
                log.add(record.id, known[record.id])
                if not options.quiet:
                    sys.stderr.write(f"\rscored {len(there) - len(wanted) + number} of {len(there)} pictures")
                    sys.stderr.flush()
            if not options.quiet:
                sys.stderr.write("\n")
        value = figures(known[record.id] for record, _ in there)
        if options.json:
            options.json.write_text(json.dumps(asdict(value), indent=2) + "\n", encoding="utf-8")
    except (InputError, OSError) as error:
        sys.stderr.write(f"layout_score: {error}\n")
        return 2
    write(table(value) + "\n")
    if len(there) < len(records):
        write(f"{len(records) - len(there)} of {len(records)} records have no picture and do not count\n")
    return 0


def _read(path: Path) -> np.ndarray:
    return np.array(open_picture(path).convert("RGB"))


if __name__ == "__main__":
    raise SystemExit(main())
