"""The command line of a synthesis."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...input.checks import shorten
from ..run import Options, Progress
from .draft import CONTEXTGEN, KINDS, Limits, Settings
from .models import ROLES, SMALL, Hosting, named
from .run import synthesize

ALL = "contextgen"
_SIZES = {True: (128, 64), False: (1024, 512)}  # picture and view: of the drawn world, of others


def add(commands: Any) -> None:
    """The command `synthesize`, beside the others."""
    one = commands.add_parser("synthesize", help="a training set in shards")
    which = f"{', '.join(KINDS)}; {ALL} is the first {len(CONTEXTGEN)}"
    one.add_argument("kinds", nargs="+", metavar="KIND", choices=(ALL, *KINDS), help=which)
    one.add_argument("--out", type=Path, required=True, help="a folder; each kind has one below it")
    one.add_argument("--count", type=int, default=1000, help="samples of each kind, before filters")
    one.add_argument("--shard", type=int, default=256, help="numbers that share a shard")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--size", type=int, help="side of the pictures in pixels (small world 128, else 1024)")
    one.add_argument("--view", type=int, help="side of a subject's own picture (small world 64, else 512)")
    one.add_argument("--subjects", default="2-4", metavar="A-B", help="in a picture; at most 10")
    limits = f"limits: {', '.join(field.name for field in fields(Limits))}"
    one.add_argument("--least", nargs="+", default=[], metavar="NAME=NUMBER", help=limits)
    for role in ROLES:
        one.add_argument(f"--{role}", default=SMALL, metavar="MODEL", help=f"the {role} (default: {SMALL})")
    host = one.add_mutually_exclusive_group()
    host.add_argument("--comfy", nargs="+", default=[], metavar="URL", help="running ComfyUIs")
    host.add_argument("--comfy-path", type=Path, metavar="DIR", help="an installation; each worker starts its own")
    one.add_argument("--comfy-python", default="", help="Python of that installation (default: its .venv)")
    one.add_argument("--comfy-args", nargs=argparse.REMAINDER, default=[], help="last: more for its main.py, as --cpu")
    one.add_argument("--steps", type=int, default=28, help="of diffusers' pipelines")
    one.add_argument("--device", default="cpu", help="of diffusers and transformers: cpu or cuda")
    one.add_argument("--timeout", type=float, default=600.0, help="seconds for one picture on ComfyUI")
    one.add_argument("--workers", type=int, default=1, help="of each step at once")
    one.add_argument("--threads", type=int, default=1, help="of each worker; the pictures' last bits may hang on it")
    one.add_argument("--gpus", type=float, default=0.0, help="of each worker with a model")
    one.add_argument("--retries", type=int, default=2, help="further attempts where a host fails")
    one.add_argument("--address", help="a running Ray cluster (default: one of our own on this machine)")


def main(options: argparse.Namespace, told: Callable[[Progress], object]) -> str:
    """Runs the command; returns what to say at the end. Raises InputError."""
    kinds = dict.fromkeys(k for kind in options.kinds for k in (CONTEXTGEN if kind == ALL else (kind,)))
    span = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", options.subjects)
    if span is None:
        raise InputError(f"--subjects is {shorten(options.subjects)}; write one number, or two like 2-4.")
    hosting = Hosting(
        tuple(options.comfy), options.comfy_path, options.comfy_python, tuple(options.comfy_args), options.timeout,
        options.threads, options.device, options.steps,
    )  # fmt: skip
    models = {role: named(role, getattr(options, role), hosting) for role in ROLES}
    size, view = _SIZES[models["painter"].small]
    settings = Settings(
        options.seed, options.size or size, options.view or view, (int(span[1]), int(span[2] or span[1])),
        Limits.parse(options.least),
    )  # fmt: skip
    how = Options(
        options.workers, retries=options.retries, threads=options.threads, address=options.address, gpus=options.gpus
    )
    done = synthesize(list(kinds), options.count, options.out, models, settings, how, options.shard, told)
    lines = []
    for one in done:
        counts = [f"samples by {name} {n}" for name, n in one.dropped.items()]
        counts += [f"single subjects by {name} {n}" for name, n in one.subjects_dropped.items()]
        lines.append(
            f"{one.kind}: {one.kept} of {one.planned} samples with {one.subjects} subjects, {one.failed} failed;"
            f" dropped: {', '.join(counts) or 'none'}"
        )
    return "\n".join(lines)
