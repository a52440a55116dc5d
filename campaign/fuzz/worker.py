"""One target in one process: ``python -m campaign.fuzz.worker TARGET --seconds S --seed N --out FOLDER``.

The count of cases and the case at work stand in FOLDER/state, which the parent reads when this process dies.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .guard import Guard
from .state import State, atheris
from .targets import TARGETS

MOST = 25  # different findings of one target


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    target = TARGETS[options.target]
    guided = atheris() if target.guided and target.strategy is None else None
    state = State(options.out / "state")
    findings = (options.out / "findings.jsonl").open("a", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="contextgen-fuzz-") as temporary:
        folder = Path(temporary)
        with guided.instrument_imports(include=["contextgen_core"]) if guided else contextlib.nullcontext():
            attempt = target.attempt(folder)
        guard = Guard(folder)

        def one(case: Any, spelling: Callable[[Any], bytes]) -> None:
            state.begin(spelling(case))
            broke = guard.run(attempt, case)
            if broke and len(guard.known) <= MOST:
                findings.write(json.dumps([broke, spelling(case).hex()]) + "\n")
                findings.flush()

        strategy = target.strategy() if target.strategy else None
        seeds = target.seeds()
        for seed in seeds:
            one(seed, target.spelling)
        guard.limit_memory()
        end = time.monotonic() + options.seconds
        if strategy is not None:
            _structures(strategy, lambda case: one(case, target.spelling), options.seed, end)
        elif guided:
            _guided(guided, target.mutate, seeds, lambda case: one(case, bytes), options, folder)
        else:
            _mutated(target.mutate, seeds, lambda case: one(case, bytes), options.seed, end)


def _structures(strategy: Any, one: Callable[[Any], None], seed: int, end: float) -> None:
    import hypothesis

    for number in itertools.count():
        if time.monotonic() >= end:
            return

        @hypothesis.seed(seed * 1_000_003 + number)
        @hypothesis.settings(
            max_examples=500,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=[*hypothesis.HealthCheck],  # pyright: ignore[reportArgumentType]
        )
        @hypothesis.given(strategy)
        def some(case: Any) -> None:
            one(case)

        some()


def _mutated(
    mutate: Callable[[random.Random, bytes], bytes],
    seeds: list[bytes],
    one: Callable[[bytes], None],
    seed: int,
    end: float,
) -> None:
    for number in itertools.count():
        if time.monotonic() >= end:
            return
        rng = random.Random(f"{seed}/{number}")
        one(mutate(rng, rng.choice(seeds)))


def _guided(
    fuzzer: ModuleType,
    mutate: Callable[[random.Random, bytes], bytes],
    seeds: list[bytes],
    one: Callable[[bytes], None],
    options: argparse.Namespace,
    folder: Path,
) -> None:
    """Ends the process."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return fuzzer.Mutate(data, most)
        return mutate(rng, data)[:most]

    # -timeout ends the process where a case never comes back; the guard has its own, shorter one
    flags = [
        f"-max_total_time={max(1, int(options.seconds))}",
        f"-seed={options.seed}",
        "-max_len=65536",
        "-timeout=30",
    ]
    flags += ["-rss_limit_mb=4096", "-verbosity=0", f"-artifact_prefix={options.out}/", "-detect_leaks=0"]
    fuzzer.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=change)
    fuzzer.Fuzz()


if __name__ == "__main__":
    main()
