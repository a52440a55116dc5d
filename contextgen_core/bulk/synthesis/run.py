"""The run of a synthesis: samples through the steps on Ray Data, into shards that the same call completes later.

A sample that has ended lies as one file in its set's `.work/samples` and has a line in its journal; once all samples of
a shard have ended, the driver puts those that were kept behind each other, writes the index, and removes the single
files. A shard holds what is left of a fixed range of numbers, so its bytes hang on nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...input.checks import shorten
from ...training import stream
from ..backend import HostError
from ..records import BROKEN, DONE, Journal, Lock, Outcome
from ..run import Options, Progress, check_options, connected, engine
from ..stages import MAX_OPENINGS, PAUSES, Batch, cannot_write, describe, pack, put, sentence, unpack
from .draft import DROPPED, FOLDERS, KINDS, MOST_SUBJECTS, SIGMA, Draft, Drop, Settings
from .models import ROLES, Model
from .steps import STEPS

REPORT, DROPS, FAILS = "report.json", "dropped.jsonl", "failed.jsonl"
MOST_SAMPLES, MOST_SHARD = 10_000_000, 100_000
_BLOCKS = 2000  # tasks in a run; of fewer samples each is one
_WORK = ".work"


@dataclass(frozen=True)
class Summary:
    """Of one set. dropped, subjects_dropped: by filter, whole samples and single subjects."""

    kind: str
    planned: int
    kept: int
    failed: int
    subjects: int
    dropped: Mapping[str, int]
    subjects_dropped: Mapping[str, int]


def synthesize(
    kinds: Sequence[str],
    count: int,
    out: Path,
    models: Mapping[str, Model],
    settings: Settings,
    options: Options,
    shard: int = 256,
    told: Callable[[Progress], object] = lambda _: None,
) -> list[Summary]:
    """Makes a set of each kind in a folder of its own below `out`: `count` samples less those that a filter drops.

    Arguments:
      kinds     of `draft.KINDS`
      models    one for each role, see :mod:`models`
      settings  see `draft.Settings`
      options   workers, retries, threads, gpus and address of a running Ray cluster
      shard     numbers whose samples share a shard

    Shards, index and reports are the same bytes for any number of workers and however often the run was cut off.
    Raises InputError where nothing can be made, or the run cannot go on; what was finished is kept.
    """
    ray = engine()
    check_options(options)
    _check(kinds, count, settings, shard)
    key = describe([asdict(settings), [models[role].digest for role in ROLES], shard])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {out} cannot be made ({error.strerror}); give another.") from None
    with Lock(out), ExitStack() as stack:
        sets = {kind: stack.enter_context(_Set(kind, out / FOLDERS[kind], count, shard, key)) for kind in kinds}
        pending = [(KINDS.index(kind), n) for kind, one in sets.items() for n in one.pending()]
        progress = Progress(count * len(sets), count * len(sets) - len(pending), told=told)
        try:
            if pending:
                place = out / _WORK / "pending.npy"
                place.parent.mkdir(exist_ok=True)
                np.save(place, np.array(pending, np.int64))
                with connected(ray, options):
                    progress.start = time.monotonic()
                    begin = Begin(place.resolve(), settings, key)
                    for outcome in _outcomes(ray, len(pending), begin, models, options, out.resolve()):
                        if outcome.stop is not None:
                            raise InputError(f"{outcome.stop} Mend it, and the same command goes on.")
                        progress.done += outcome.status != BROKEN
                        progress.failed += outcome.status == BROKEN
                        sets[outcome.row.partition("/")[0]].add(outcome)
                        progress.told(progress)
        except ray.exceptions.RayError as error:
            reason = shorten(" ".join(str(error).split()), 200)
            raise InputError(f"Ray gave up ({reason}). The same command goes on.") from None
        except OSError as error:
            raise InputError(f"{cannot_write(out, error)} Mend it, and the same command goes on.") from None
        finally:
            summaries = [one.report() for one in sets.values()]
        shutil.rmtree(out / _WORK, ignore_errors=True)
    return summaries


def _check(kinds: Sequence[str], count: int, settings: Settings, shard: int) -> None:
    low, high = settings.subjects
    for name, value, least, most in (
        ("count", count, 1, MOST_SAMPLES),
        ("shard", shard, 1, MOST_SHARD),
        ("size", settings.size, 64, 4096),
        ("view", settings.view, 64, 4096),
        ("seed", settings.seed, 0, 2**63),
    ):
        if not least <= value <= most:
            raise InputError(f"--{name} is {value}; give {least} to {most}.")
    if not 1 <= low <= high <= MOST_SUBJECTS:
        raise InputError(f"--subjects is {low}-{high}; give two numbers from 1 to {MOST_SUBJECTS}.")
    if settings.size % 32:
        raise InputError(f"--size is {settings.size}; give a multiple of 32.")
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise InputError(f"the kinds are {', '.join(kinds)}; use {', '.join(KINDS)}.")


# ---- stages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """pending: file of pairs, kind and number."""

    pending: Path
    settings: Settings
    key: str

    def __call__(self, batch: Batch) -> Batch:
        pairs = np.load(self.pending, mmap_mode="r")[batch["id"]]
        drafts = []
        for number, n in pairs.tolist():
            kind = KINDS[number]
            drafts.append(Draft(Outcome(n, f"{kind}/{n}", self.key, DONE), kind, n, self.settings))
        return pack(drafts)


class Stage:
    """One step with its model, which is opened when the first sample comes, and again when its host has died."""

    def __init__(self, place: int, model: Model, follows: bool, retries: int, threads: int) -> None:
        self.place, self.model, self.follows, self.retries = place, model, follows, retries
        self.threads = threads
        self.worker: Any = None
        self.failures = 0

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        for draft in unpack(batch):
            yield pack([self.one(draft) if draft.lives else draft])

    def one(self, draft: Draft) -> Draft:
        role, step = STEPS[self.place]
        more = (self.follows,) if role == "segmenter" else ()
        for attempt in range(1, self.retries + 2):
            try:
                if self.worker is None:
                    self.worker = self._open()
                return step(draft, self.worker, *more)
            except _Unopened as error:
                return replace(draft, outcome=replace(draft.outcome, stop=str(error)))
            except HostError as error:
                self._lose()
                if self.failures >= MAX_OPENINGS:
                    return replace(draft, outcome=replace(draft.outcome, stop=str(error)))
                if attempt > self.retries:
                    return replace(draft, outcome=draft.outcome.failed(f"{error} ({attempt} attempts)", attempt))
                time.sleep(PAUSES[min(attempt, len(PAUSES)) - 1])
            except InputError as error:  # the sample's own: it would be so again
                return draft.dropped([*draft.drops, Drop(step.__name__, str(error))])
            except Exception as error:  # noqa: BLE001  a sample must not end the run
                return replace(draft, outcome=draft.outcome.failed(sentence(error), attempt))
        raise AssertionError("unreachable")

    def _open(self) -> Any:
        try:
            worker = self.model.open()
        except HostError:
            self.failures += 1
            raise
        except Exception as error:  # noqa: BLE001  no sample fares better
            raise _Unopened(sentence(error)) from None
        self.failures = 0
        return worker

    def _lose(self) -> None:
        worker, self.worker = self.worker, None
        if hasattr(worker, "close"):
            worker.close()


class _Unopened(Exception):
    """A model that cannot be opened at all."""


@dataclass(frozen=True)
class Keep:
    """Writes what is left of a sample as one file; gives the outcomes alone."""

    out: Path

    def __call__(self, batch: Batch) -> Batch:
        return pack([self.one(draft) for draft in unpack(batch)])

    def one(self, draft: Draft) -> Outcome:
        if draft.lives:
            path = sample_path(self.out / FOLDERS[draft.kind], draft.number)
            try:
                put(path, stream.entries(f"{draft.number:08d}", draft.files or {}))
            except OSError as error:
                return replace(draft.outcome, stop=cannot_write(self.out, error))
        return draft.ended()


def sample_path(folder: Path, number: int) -> Path:
    """A thousand in a folder."""
    return folder / _WORK / "samples" / f"{number // 1000:05d}" / f"{number:08d}"


def _outcomes(
    ray: Any, count: int, begin: Begin, models: Mapping[str, Model], options: Options, out: Path
) -> Iterator[Outcome]:
    """Models of hosts live in actors of their own; those of the drawn world cost nothing to open and run as tasks,
    which Ray joins into one."""
    workers = min(options.workers, count)
    follows = models["painter"].follows
    tasks = ray.data.TaskPoolStrategy(size=workers)
    data = ray.data.range(count, override_num_blocks=min(count, _BLOCKS))
    data = data.map_batches(begin, batch_size=None, compute=tasks)
    for place, (role, _) in enumerate(STEPS):
        model = models[role]
        arguments = (place, model, follows, options.retries, options.threads)
        if model.small:
            data = data.map_batches(Stage(*arguments), batch_size=None, compute=tasks)
        else:
            data = data.map_batches(
                Stage, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers), fn_constructor_args=arguments,
                num_cpus=0.25, num_gpus=options.gpus,
            )  # fmt: skip
    data = data.map_batches(Keep(out), batch_size=None, compute=tasks)
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        yield from unpack(batch)


# ---- a set -----------------------------------------------------------------------------------------


class _Set:
    """The folder of one kind: its journal, the samples that wait, its shards and their index."""

    def __init__(self, kind: str, folder: Path, count: int, size: int, key: str) -> None:
        self.kind, self.folder, self.count, self.size, self.key = kind, folder, count, size, key
        self.form = "sigma_set" if kind == SIGMA else "imig"
        self.shards: dict[int, dict[str, Any]] = {}
        self.missing = [self._stop(k) - k * size for k in range(-(-count // size))]  # samples that have not ended

    def __enter__(self) -> _Set:
        (self.folder / _WORK).mkdir(parents=True, exist_ok=True)
        for number, entry in self._written().items():
            path = self.folder / entry["name"]
            whole = entry["stop"] == self._stop(number) and path.is_file() and path.stat().st_size == entry["bytes"]
            if number < len(self.missing) and whole:
                self.shards[number] = entry
                self.missing[number] = 0
        self.journal = Journal(self.folder, self.count)
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def _written(self) -> dict[int, dict[str, Any]]:
        """The index of an earlier call. Raises InputError for one that was made otherwise."""
        try:
            index = json.loads((self.folder / stream.INDEX).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            index = {}
        if index.get("key") != self.key:
            raise InputError(
                f"{self.folder} holds a set that was made with other settings, models or shards; give another --out,"
                " or the same settings."
            )
        return {entry["start"] // self.size: entry for entry in index["shards"]}

    def _stop(self, number: int) -> int:
        return min((number + 1) * self.size, self.count)

    def pending(self) -> list[int]:
        """Numbers that are still to be made; packs what a run that was killed had left whole."""
        left = []
        for number in range(len(self.missing)):
            for n in range(number * self.size, self._stop(number)) if self.missing[number] else ():
                if self._ended(n):
                    self.missing[number] -= 1
                else:
                    left.append(n)
            if not self.missing[number] and number not in self.shards:
                self._pack(number)
        return left

    def _ended(self, n: int) -> bool:
        entry = self.journal.entry(n)
        if entry is None or entry.key != self.key:
            return False
        return entry.status == DROPPED or (entry.status == DONE and sample_path(self.folder, n).is_file())

    def add(self, outcome: Outcome) -> None:
        self.journal.add(outcome)
        number = outcome.number // self.size
        self.missing[number] -= outcome.status != BROKEN  # what failed is tried again, so its shard waits
        if not self.missing[number]:
            self._pack(number)

    def _pack(self, number: int) -> None:
        start, stop = number * self.size, self._stop(number)
        kept = [entry for n in range(start, stop) if (entry := self._entry(n)) and entry.status == DONE]
        name = f"shard-{number:06d}.tar"
        fresh = self.folder / f".{name}"
        with fresh.open("wb") as file:
            for entry in kept:
                file.write(sample_path(self.folder, entry.number).read_bytes())
            file.write(stream.END)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(fresh, self.folder / name)
        subjects = [(entry.extra or {})["subjects"] for entry in kept]
        self.shards[number] = {"name": name, "bytes": size, "subjects": subjects, "start": start, "stop": stop}
        shards = [self.shards[k] for k in sorted(self.shards)]
        put(self.folder / stream.INDEX, stream.index_of(self.form, shards, key=self.key), self.folder / _WORK)
        for entry in kept:
            sample_path(self.folder, entry.number).unlink(missing_ok=True)

    def _entry(self, n: int) -> Outcome | None:
        entry = self.journal.entry(n)
        return entry if entry is not None and entry.key == self.key else None

    def report(self) -> Summary:
        """Writes what was dropped and failed, each at once, and the counts of both."""
        kept = failed = subjects = 0
        dropped, single = Counter[str](), Counter[str]()
        paths = [self.folder / name for name in (DROPS, FAILS)]
        fresh = [path.with_name(f".{path.name}") for path in paths]
        with fresh[0].open("w", encoding="utf-8") as drops, fresh[1].open("w", encoding="utf-8") as fails:
            for n in range(self.count):
                entry = self._entry(n)
                if entry is None:
                    continue
                extra = entry.extra or {}
                kept += entry.status == DONE
                subjects += extra.get("subjects", 0) if entry.status == DONE else 0
                for drop in extra.get("drops", ()):
                    (single if "subject" in drop else dropped)[drop["filter"]] += 1
                    drops.write(json.dumps({"sample": n, **drop}, sort_keys=True) + "\n")
                if entry.status == BROKEN:
                    failed += 1
                    fails.write(json.dumps({"sample": n, "error": entry.error}) + "\n")
        for path, new in zip(paths, fresh, strict=True):
            os.replace(new, path)
        summary = Summary(
            self.kind, self.count, kept, failed, subjects, dict(sorted(dropped.items())), dict(sorted(single.items()))
        )
        put(self.folder / REPORT, json.dumps(asdict(summary), indent=1).encode() + b"\n", self.folder / _WORK)
        if not any(self.missing):
            shutil.rmtree(self.folder / _WORK, ignore_errors=True)
        return summary
