"""Random layouts through every way in which the pack computes them: whoever carries a layout out, the answer is one.

Attention: the groups of each block against the rule written out (tables.py), and each kernel against plain
softmax attention in float64. Pictures: whole sampling runs of a small model on diffusers by the dense mask, against the
other kernels, each picture of a batch alone, and every ComfyUI that is here, which is asked in its own interpreter.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..frame import Finding, Mend, Part, Row, keep_case

NAME = "differential"
ATTENTION, PICTURES = 2e-5, 5e-5  # absolute, of values of about 1; pictures: relative to the largest value above 1
KERNELS = ("grouped", "merge", "dense")
MOST_FOUND = 20


def run(budget: float, seed: int) -> Sequence[Row]:
    """A third of the time for attention, the rest for pictures."""
    import torch

    torch.set_num_threads(1)
    return [attention(budget / 3, seed), *pictures(budget * 2 / 3, seed)]


def seeds(seed: int) -> Iterator[int]:
    """Of the cases of a run."""
    number = seed * 10_000_000
    while True:
        yield number
        number += 1


def report(
    row: Row, case: dict[str, Any], sentence: str, fails: Callable[[dict[str, Any]], str], tries: int = 200
) -> None:
    """Notes a case that differs, made as small as is easy."""
    from . import cases

    small = cases.shrunk(case, lambda made: bool(fails(made)), tries)
    again = fails(small) or sentence
    data = json.dumps(small, indent=1).encode()
    row.found.append(keep_case(NAME, data, ".json", again) if len(row.found) < MOST_FOUND else Finding(again))


# --- attention ------------------------------------------------------------------------------------------------------


def attention(budget: float, seed: int) -> Row:
    from contextgen_core.errors import InputError

    from . import cases

    row = Row("attention", "groups of random layouts against the rule written out; kernels against float64 softmax")
    started, refused, blocks, worst = time.monotonic(), 0, 0, 0.0
    for number in seeds(seed):
        if time.monotonic() - started > budget:
            break
        case = cases.draw(number)
        try:
            sentence, count, off = attention_of(case)
        except InputError:
            refused += 1
            continue
        row.tried += 1
        blocks, worst = blocks + count, max(worst, off)
        if sentence:
            report(row, case, sentence, differs_in_attention)
    row.seconds = time.monotonic() - started
    row.figures = {"blocks compared": blocks, "largest difference": worst}
    row.notes.append(f"{refused:,} further layouts were refused in a sentence before any attention")
    return row


def differs_in_attention(case: dict[str, Any]) -> str:
    """What differs in a case, "" where nothing does."""
    from contextgen_core.errors import InputError

    try:
        return attention_of(case)[0]
    except InputError:
        return ""


def attention_of(case: dict[str, Any]) -> tuple[str, int, float]:
    """What differs in a case, "" where nothing does; how many blocks were compared; the largest difference.

    Raises InputError where the layout is refused.
    """
    from contextgen_core.errors import InputError

    from . import cases

    try:
        return _compare_attention(case, cases.build(case))
    except InputError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}", 0, 0.0


def _compare_attention(case: dict[str, Any], built: Any) -> tuple[str, int, float]:
    import numpy as np
    import torch

    from contextgen_core.attention import compile_block
    from contextgen_core.attention import run as run_program
    from contextgen_core.attention.groups import log_weights
    from contextgen_core.hosts.joining import join_forwards
    from contextgen_core.hosts.passes import active
    from contextgen_core.methods.boundary import BlockCounts, ForwardCall

    from . import tables

    counts = BlockCounts(4, 0) if case["model"] != "flux" else BlockCounts(3, 6)
    compared, worst = 0, 0.0
    # By steps of the run, as long as they differ.
    known: set[Any] = set()
    for sigma in case["sigmas"][:-1]:
        bounds, moments = active(built.bounds, Position(sigma, case["sigmas"], case["model"]))
        if (bounds, moments) in known:
            continue
        known.add((bounds, moments))
        call = ForwardCall((), case["text"], counts, (built.rows, built.columns))
        calls = [replace(call, moment=moment) for moment in moments]
        forwards = [b.method.forward(b.plan, b.settings, one) for b, one in zip(bounds, calls, strict=True)]
        sentence, off = _compare_instances(built, forwards)
        compared, worst = compared + 1, max(worst, off)
        if sentence:
            return sentence, compared, worst
        owners = [number for number, bound in enumerate(bounds) if bound.method.arranges]
        if not owners:
            continue
        theirs = [forwards[number] for number in owners]
        noise = (built.rows, built.columns)
        whole = join_forwards([bounds[number].method for number in owners], theirs, case["text"], noise)
        lengths = whole.lengths(case["text"], noise)
        seen: set[tuple[int, int]] = set()
        for at, (block, length) in enumerate(zip(whole.blocks, lengths, strict=True)):
            if (id(block.groups), length) in seen:
                continue
            seen.add((id(block.groups), length))
            parts = [tables.table_of(bounds[n], forwards[n], calls[n], at) for n in owners]
            table = tables.joined(parts, theirs, case["text"], noise[0] * noise[1])
            if len(table) != length:
                return f"block {at} has {length} tokens, its rule {len(table)}", compared, worst
            got = log_weights(block.groups, length)
            computed = np.asarray(np.isfinite(got).any(axis=1))
            if not np.allclose(got[computed], table[computed], atol=1e-6):
                return f"block {at}: the groups are not the rule", compared, worst
            first = whole.phrases + case["text"]
            needed = np.zeros(length, bool)
            needed[first : first + noise[0] * noise[1]] = True  # the noise, always
            idle = np.asarray(~computed & np.isfinite(table).any(axis=1))
            goes_on = length if block.leave is None else block.leave
            last = at == len(whole.blocks) - 1
            if (idle & needed).any() or (not last and idle[first:goes_on].any()):
                return f"block {at}: rows are left out that are read later", compared, worst
            q, k, v = (torch.randn(1, 2, length, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
            wanted = tables.softmax_attention(
                np.where(computed[:, None], table, -np.inf), *(x[0].double().numpy() for x in (q, k, v))
            )
            for kernel in KERNELS:
                program = compile_block(block.groups, length, kernel, torch.device("cpu"), torch.float32)
                off = float(np.abs(run_program(program, q, k, v)[0].double().numpy() - wanted).max())
                worst = max(worst, off)
                if not off <= ATTENTION:
                    return f"block {at}: the kernel {kernel} is off by {off:.2g}", compared, worst
            compared += 1
    return "", compared, worst


def _compare_instances(built: Any, forwards: Sequence[Any]) -> tuple[str, float]:
    """InstanceAssemble's short attentions, all at once, against one instance after the other."""
    import torch

    from contextgen_core.methods.instance_assemble.step import LayoutStep, attend_instances

    step = next(
        (getattr(block.after, "__self__", None) for forward in forwards for block in forward.blocks if block.after),
        None,
    )
    if not isinstance(step, LayoutStep) or step.cover is None:
        return "", 0.0
    cover = step.cover
    count = int(cover.gather.max()) + 1 if len(cover.gather) else 0
    total = max(count, len(cover.ids) + len(cover.read))
    q, k, v = (torch.randn(2, 2, total, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
    mean, layout, shown = attend_instances(cover, q, k, v)
    wanted_mean, wanted_layout, wanted_shown = _one_at_a_time(built, cover, len(cover.ids), q, k, v)
    pairs = [(mean, wanted_mean), (layout, wanted_layout)]
    pairs += [(shown, wanted_shown)] if shown is not None else []
    off = max(float((a.double() - b).abs().max()) for a, b in pairs)
    return ("" if off <= ATTENTION else f"the instances' attention is off by {off:.2g}"), off


def _one_at_a_time(built: Any, cover: Any, heads: int, q: Any, k: Any, v: Any) -> tuple[Any, Any, Any]:
    """Mean over the boxes for each covered token, each layout token's, and the pictures', in float64."""
    import torch

    from contextgen_core.methods.instance_assemble.cover import box_tokens

    bound = next(b for b in built.bounds if b.method.name == "instance_assemble")
    boxes = bound.plan.boxes
    tokens = box_tokens(bound.plan, cover.numbers, bound.settings.front)
    covered = {token: place for place, token in enumerate(cover.tokens.tolist())}
    words = [n for n in cover.numbers if boxes[n].phrase]
    shown = [n for n in cover.numbers if boxes[n].picture is not None]
    own = {("w", n): at for at, n in enumerate(words)} | {("p", n): len(words) + at for at, n in enumerate(shown)}
    q, k, v = (x.double() for x in (q, k, v))
    mean, weight = torch.zeros(2, 2, len(covered), 16).double(), torch.zeros(len(covered)).double()
    layout = torch.zeros(2, 2, heads, 16).double()
    pictures = []
    at = heads + len(covered)
    for n in cover.numbers:
        place = boxes[n].picture
        size = place.size if place is not None else 0
        mine = [own[key] for key in (("w", n), ("p", n)) if key in own]
        inside = [heads + covered[token] for token in tokens[n].tolist()]
        rows = [*mine, *inside, *range(at, at + size)]
        at += size
        added = torch.zeros(len(rows)).double()
        if place is not None:
            added[len(mine) + len(inside) :] = math.log(place.strength) if place.strength else -math.inf
        logits = q[:, :, rows] @ k[:, :, rows].transpose(-1, -2) / 4 + added
        out = logits.softmax(-1) @ v[:, :, rows]
        layout[:, :, mine] = out[:, :, : len(mine)]
        places = [covered[token] for token in tokens[n].tolist()]
        square = boxes[n].strength ** 2
        mean[:, :, places] += square * out[:, :, len(mine) : len(mine) + len(inside)]
        weight[places] += square
        pictures.append(out[:, :, len(mine) + len(inside) :])
    mean = mean / weight.clamp_min(1e-300)[:, None]
    flat = [x.transpose(1, 2).flatten(2) for x in (mean, layout, torch.cat(pictures, dim=2))]
    return flat[0], flat[1], flat[2]


class Position:
    """A step of a run, told by ComfyUI's rules for the shares of a run, written again."""

    def __init__(self, sigma: float, sigmas: Sequence[float], model: str) -> None:
        self.sigma, self.sigmas, self.model = sigma, sigmas, model

    def within(self, start: float, end: float) -> bool:
        return self._at(end) <= self.sigma <= self._at(start)

    def before_step(self, ratio: float) -> bool:
        step = int(ratio * (len(self.sigmas) - 1))
        return step > 0 and self.sigma > self.sigmas[step]

    def _at(self, share: float) -> float:
        if share <= 0 or share >= 1:
            return 1.0 if share <= 0 else 0.0
        left = 1 - share
        if self.model == "sd3":
            return 3 * left / (1 + 2 * left)
        return math.exp(1.15) / (math.exp(1.15) + 1 / left - 1)


# --- pictures -------------------------------------------------------------------------------------------------------


def pictures(budget: float, seed: int) -> list[Row]:
    """Sampling runs. The first row is diffusers', then one for each ComfyUI."""
    try:
        from .runs import Runs
    except ImportError as missing:
        row = Row("diffusers", "sampling runs of small models")
        row.notes.append(f"not run: {missing.name} is not installed")
        return [row]
    from contextgen_core.errors import InputError

    from . import cases

    with Runs() as runs:
        started = time.monotonic()  # the ComfyUIs are up
        own = Row("diffusers", "sampling runs of small models by the dense mask: other kernels, rows of a batch alone")
        rows = {
            name: Row(name, f"the same runs in {name} through its sampler, against diffusers") for name in runs.hosts
        }
        worst = dict.fromkeys((own.name, *rows), 0.0)
        refused = 0
        for number in seeds(seed):
            if time.monotonic() - started > budget:
                break
            case = cases.draw(number)
            try:
                wanted = specified(runs, case)
            except InputError:
                refused += 1
                continue
            except Exception as error:
                own.found.append(Finding(f"the case of seed {number} fails: {type(error).__name__}: {error}"))
                continue
            for row in (own, *rows.values()):
                begun = time.monotonic()
                host = None if row is own else row.name
                sentence, off = difference(runs, case, host, wanted)
                row.tried += 1
                worst[row.name] = max(worst[row.name], off)
                if sentence:
                    report(row, case, sentence, partial(_differs, runs, host), tries=40)
                row.seconds += time.monotonic() - begun
    for row in (own, *rows.values()):
        row.figures = {"largest difference": worst[row.name]}
    own.notes.append(f"{refused:,} further layouts were refused in a sentence")
    if not rows:
        own.notes.append("no ComfyUI was found; COMFYUI_PATH names one")
    return [own, *rows.values()]


def _differs(runs: Any, host: str | None, case: dict[str, Any]) -> str:
    from . import cases

    return "" if cases.refuses(case) else difference(runs, case, host, specified(runs, case))[0]


def specified(runs: Any, case: dict[str, Any]) -> Any:
    """The picture by diffusers and the dense mask with every token in it, or the sentence that refuses to sample it.

    Raises InputError where already the layout is refused.
    """
    from contextgen_core.errors import InputError

    from . import cases

    built = cases.build(case, "dense", prune=False)
    try:
        return runs.sample(case, built, range(case["batch"]))
    except InputError as error:
        return str(error)


def difference(runs: Any, case: dict[str, Any], host: str | None, wanted: Any) -> tuple[str, float]:
    """What differs between a case as it is specified and another way, "" where nothing does; and how far, relative to
    the largest value above 1. ``host``: a ComfyUI; None: diffusers' other ways."""
    from contextgen_core.errors import InputError

    from . import cases

    every = range(case["batch"])
    scale = 1.0 if isinstance(wanted, str) else max(1.0, float(wanted.abs().max()))

    def compare(name: str, got: Any, rows: Sequence[int]) -> tuple[str, float]:
        if isinstance(got, str) or isinstance(wanted, str):
            said = [one if isinstance(one, str) else "nothing" for one in (got, wanted)]
            return ("" if said[0] == said[1] else f"{name} says {said[0]}, diffusers {said[1]}"), 0.0
        off = float((got - wanted[list(rows)]).abs().max()) / scale
        return ("" if off <= PICTURES else f"{name} is off by {off:.2g}"), off

    def sampled(kernel: str, rows: Sequence[int]) -> Any:
        try:
            return runs.sample(case, cases.build(case, kernel), rows, remembered=kernel == "auto")
        except InputError as error:
            return str(error)

    try:
        if host is not None:
            kernel = ("auto", *KERNELS)[case["seed"] % 4]
            return compare(f"{host} by {kernel}", runs.ask(host, case, cases.build(case, kernel), kernel), every)
        ways = [compare(kernel, sampled(kernel, every), every) for kernel in ("auto", "grouped")]
        if case["batch"] > 1:
            row = [case["seed"] % case["batch"]]
            ways.append(compare("a row alone", sampled("merge", row), row))
        return next((sentence for sentence, _ in ways if sentence), ""), max(off for _, off in ways)
    except Exception as error:
        return f"{host or 'diffusers'} fails: {type(error).__name__}: {error}", 0.0


PART = Part(
    NAME,
    "random layouts through every kernel and host: one answer",
    2,
    run,
    (
        Mend(
            "attention",
            "EliGen refused a layout in which a box with words alone was hidden",
            "tests/methods/eligen/test_rule.py::test_a_hidden_box_is_passed_over_whatever_it_holds",
        ),
        Mend(
            "attention",
            "a small subject at its picture's border was cut out smaller than a token; LAMIC divided by zero",
            "tests/composite/test_crop.py::test_a_cut_out_has_at_least_sixteen_pixels_wherever_the_subject_is",
        ),
    ),
)
