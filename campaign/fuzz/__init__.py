"""Hostile input: text, plans, adapter files, pictures, layered pictures and workflows, changed from real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..frame import ROOT, Mend, Part, Row, keep_case
from .state import State, atheris
from .targets import TARGETS, Target

GRACE = 90.0  # seconds beyond its time after which a worker is ended
TRIES = 5  # times that a target is started again after a case ended its process


def run(budget: float, seed: int) -> Sequence[Row]:
    total = sum(target.share for target in TARGETS.values())
    return [_target(target, budget * target.share / total, seed) for target in TARGETS.values()]


def _target(target: Target, budget: float, seed: int) -> Row:
    """Tries one target in processes of its own."""
    started, name, suffix = time.monotonic(), target.name, target.suffix
    row = Row(name, target.what)
    known: set[str] = set()
    for attempt in range(TRIES):
        left = budget - (time.monotonic() - started)
        if attempt and left < 2:
            break
        with tempfile.TemporaryDirectory(prefix="contextgen-fuzz-") as folder:
            out = Path(folder)
            status, log = _worker(name, max(left, 1.0), seed + attempt, out)
            count, last = State.read(out / "state") if (out / "state").exists() else (0, b"")
            row.tried += count
            lines = out / "findings.jsonl"
            for line in lines.read_text("utf-8").splitlines() if lines.exists() else ():
                sentence, case = json.loads(line)
                if sentence not in known:
                    known.add(sentence)
                    row.found.append(keep_case("fuzz", bytes.fromhex(case), suffix, f"{name}: {sentence}"))
            if status == 0:
                break
            if not count:
                raise RuntimeError(f"the worker of {name} ended with {status}: {log[-800:]}")
            sentence = "it never came back" if status is None else f"the process ended with {status}: {log[-160:]}"
            row.found.append(keep_case("fuzz", last, suffix, f"{name}: {' '.join(sentence.split())}"))
    row.seconds = time.monotonic() - started
    if atheris() is None:
        row.notes.append("by our own mutations alone: atheris is not installed (the extra campaign)")
    return row


def _worker(name: str, seconds: float, seed: int, out: Path) -> tuple[int | None, str]:
    """Exit status (None: it had to be ended) and the end of what it printed."""
    command = [sys.executable, "-m", "campaign.fuzz.worker", name, "--seconds", str(seconds), "--seed", str(seed)]
    log = out / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--out", str(out)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": ""},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            status: int | None = process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
    return status, log.read_bytes()[-2000:].decode("utf-8", "replace")


FILES, PLANS = "tests/test_untrusted_files.py", "tests/methods/test_plans.py"
PART = Part(
    "fuzz",
    "hostile text, files, pictures and workflows: a value or one sentence",
    3,
    run,
    (
        Mend(
            "plans",
            "numbers, bits and boxes of a plan of any of the methods that another node had changed ended in errors of"
            " Python, or decided how much was allocated",
            f"{PLANS}::test_a_hostile_value_is_refused_wherever_it_stands",
        ),
        Mend(
            "plans",
            "a box of InstanceAssemble with neither a phrase nor a picture",
            f"{PLANS}::test_a_box_with_neither_phrase_nor_picture_is_refused",
        ),
        Mend(
            "pictures",
            "a picture file of a bulk run that was EPS by its bytes made Pillow look for Ghostscript",
            f"{FILES}::test_a_form_that_starts_another_program_is_not_opened",
        ),
        Mend(
            "pictures",
            "a PNG of 1 KB that says it is 16384 x 16384 ended in an error of Pillow, one of 13000 x 13000 took 700 MB",
            f"{FILES}::test_a_picture_is_refused_by_its_size_before_it_is_decoded",
        ),
        Mend(
            "layout weights",
            "a view of 2^34 numbers on one, packed records and sparse tensors were read, or ended in errors of torch",
            f"{FILES}::test_what_is_no_plain_tensor_is_refused",
        ),
        Mend(
            "layout weights",
            "damaged pickles ended in errors of Python",
            f"{FILES}::test_a_damaged_checkpoint_is_one_sentence",
        ),
        Mend(
            "SAM files",
            "the sentence about a checkpoint with code held the control characters of torch's own message",
            f"{FILES}::test_what_is_no_plain_tensor_is_refused",
        ),
        Mend(
            "box objects",
            "an array in place of a box was shown with its line breaks",
            "tests/layout/test_layout.py::test_an_array_in_place_of_a_box_is_shown_in_one_line",
        ),
        Mend(
            "adapters",
            "names of tensors with signs that turn the direction of writing stood in sentences as they were",
            "tests/lora/test_safetensors_header.py::test_a_name_that_no_line_can_show_is_refused",
        ),
        Mend(
            "graphs",
            "a workflow whose canvas was a list or infinite ended in an error of Python",
            "tests/bulk/test_graph.py::test_an_input_of_another_shape_than_its_node_has",
        ),
        Mend(
            "tables",
            "a Parquet file with text or names of columns that are not UTF-8 ended in an error of Python (left by the"
            " record here, mended after it)",
            "tests/bulk/test_table.py::test_text_of_parquet_that_is_not_utf_8_is_a_broken_row",
        ),
        Mend(
            "results",
            "a line that is not UTF-8 gave the decoder's words",
            "tests/score/test_score.py::test_a_line_that_is_not_utf_8_is_named",
        ),
    ),
)
