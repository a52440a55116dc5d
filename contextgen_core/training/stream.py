"""Training data in shards: WebDataset tar files and one index, read in an order that the batch's number alone decides.

A folder of shards holds `shards.json`,

    {"form": "imig", "shards": [{"name": "shard-000000.tar", "bytes": 123, "subjects": [3, 2, 4]}]}

with how many subjects each sample of a shard has, and the tar files themselves. The files of a sample lie behind each
other and share the part of their names before the first dot: `000012.json`, its record, and its pictures.

An epoch visits the shards in a random order, a few at a time; the samples of those few are mixed. Which samples a
batch has is a function of the run's seed and the batch's number in the run, so that a run goes on in the middle of a
shard with nothing remembered, and processes that count their batches together never read the same sample in an epoch.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import shorten

INDEX = "shards.json"
FORMS = ("imig", "sigma_set")
MOST_INDEX_BYTES = 1 << 28
_OPEN = 16  # shards whose tables of contents are held
_CYCLE = 1000  # batches in which the shares of several folders come out exactly


@dataclass(frozen=True)
class Packed:
    """A file inside a shard; it opens like a path does."""

    shard: Path
    name: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} of {self.shard}"

    def open(self, mode: str = "rb") -> BinaryIO:
        if mode != "rb":
            raise ValueError(f"a shard is read as 'rb', not as {mode!r}")
        with self.shard.open("rb") as file:
            file.seek(self.start)
            return io.BytesIO(file.read(self.size))


Source = Path | Packed


@dataclass(frozen=True)
class PackedSample:
    """record: what its JSON says. files: its pictures, by the part of their names behind the key. where: for errors."""

    record: Mapping[str, Any]
    files: Mapping[str, Packed]
    where: str


class ShardFolder:
    """The shards of one folder. subjects: for each shard how many subjects each sample has, int (samples,).

    Raises InputError, one sentence, for an index or a shard that is not as described."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder = folder
        index = _read_index(folder / INDEX)
        if index.get("form") != form:
            raise InputError(
                f"The shards in {str(folder)!r} are of the form {shorten(index.get('form'))}; set data.kind to it."
            )
        self.names: list[str] = []
        self.subjects: list[np.ndarray] = []
        for entry in index["shards"]:
            name, size, subjects = entry["name"], entry["bytes"], entry["subjects"]
            self._check(name, size)
            self.names.append(name)
            self.subjects.append(np.array(subjects, np.int64))
        if not sum(len(s) for s in self.subjects):
            raise InputError(f"The shards in {str(folder)!r} hold no samples; make some first.")
        self._tables: OrderedDict[int, list[tuple[str, dict[str, Packed]]]] = OrderedDict()

    def _check(self, name: str, size: int) -> None:
        path = self.folder / name
        if path.name != name or not path.is_file():
            raise InputError(f"The shard {shorten(name)} of {str(self.folder)!r} is not there; fetch the set again.")
        there = path.stat().st_size
        if there != size:
            raise InputError(
                f"The shard {name} of {str(self.folder)!r} has {there} bytes instead of {size}; fetch or make it again."
            )

    def sample(self, shard: int, place: int) -> PackedSample:
        """The sample at a place, from 0, of a shard."""
        where = f"{self.names[shard]}, sample {place + 1}"
        key, files = self._table(shard)[place]
        record = files.get("json")
        if record is None:
            raise InputError(f"{where} ({key}) has no JSON file; make the shard again.")
        value = parse(record.open().read(), where).value
        if not isinstance(value, Mapping):
            raise InputError(f"{where} holds {shorten(value)}; make the shard again.")
        return PackedSample(value, files, where)

    def _table(self, shard: int) -> list[tuple[str, dict[str, Packed]]]:
        if shard in self._tables:
            self._tables.move_to_end(shard)
            return self._tables[shard]
        path, samples = self.folder / self.names[shard], []
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    key, _, rest = member.name.partition(".")
                    if not samples or samples[-1][0] != key:
                        samples.append((key, {}))
                    samples[-1][1][rest] = Packed(path, member.name, member.offset_data, member.size)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise InputError(
                f"The shard {str(path)!r} is damaged ({shorten(str(error), 80)}); make it again."
            ) from None
        if len(samples) != len(self.subjects[shard]):
            raise InputError(
                f"The shard {str(path)!r} holds {len(samples)} samples, its index says {len(self.subjects[shard])};"
                " make it again."
            )
        self._tables[shard] = samples
        if len(self._tables) > _OPEN:
            self._tables.popitem(last=False)
        return samples


def _read_index(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_INDEX_BYTES + 1)
    except OSError as error:
        raise InputError(f"The index {str(path)!r} cannot be read ({error.strerror}); fetch the set again.") from None
    value = parse(text, str(path), MOST_INDEX_BYTES).value
    entries = value.get("shards") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(entries, Sequence) or not all(map(_is_entry, entries)):
        raise InputError(f"{str(path)!r} is no index of shards; make or fetch the set again.")
    return value


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, Mapping)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("subjects"), Sequence)
        and all(type(n) is int and 1 <= n <= 1000 for n in entry["subjects"])
    )


# ---- the order -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Which samples batch number g of a folder has.

    subjects: for each shard the number of subjects of each sample. window: shards whose samples are mixed. alike:
    whether the samples of a batch have equally many subjects.

    In an epoch a sample comes at most once; up to batch - 1 of each number of subjects are left out of it, others each
    time. Only where a number has fewer samples than a batch do they repeat, in a batch of their own."""

    subjects: Sequence[np.ndarray]
    seed: int
    batch: int
    window: int = 8
    alike: bool = False

    def batches(self, least: float = 1, most: float = math.inf) -> int:
        """Batches of an epoch with `least` to `most` subjects in a picture."""
        return sum(max(1, n // self.batch) for n in self._sizes(least, most).values())

    def _sizes(self, least: float, most: float) -> dict[int, int]:
        numbers = np.concatenate(self.subjects)
        numbers = numbers[(numbers >= least) & (numbers <= most)]
        if not self.alike:
            return {0: len(numbers)} if len(numbers) else {}
        return {int(n): int(c) for n, c in zip(*np.unique(numbers, return_counts=True), strict=True)}

    def epoch(self, number: int, least: float = 1, most: float = math.inf) -> np.ndarray:
        """All batches of an epoch, int (batches, batch, 2): shard and place in it."""
        rng = np.random.default_rng((self.seed, number, 5))
        shards = rng.permutation(len(self.subjects))
        parts = []
        for start in range(0, len(shards), self.window):
            few = [np.stack([np.full(len(self.subjects[s]), s), np.arange(len(self.subjects[s]))], 1)
                   for s in shards[start : start + self.window]]  # fmt: skip
            parts.append(rng.permutation(np.concatenate(few)))
        samples = np.concatenate(parts)
        starts = np.cumsum([0, *(len(s) for s in self.subjects)])
        counts = np.concatenate(self.subjects)[starts[samples[:, 0]] + samples[:, 1]]
        chosen = (counts >= least) & (counts <= most)
        kinds = counts if self.alike else np.zeros_like(counts)
        made, ends = [], []
        for kind in np.unique(kinds[chosen]):
            places = np.flatnonzero(chosen & (kinds == kind))
            if len(places) < self.batch:
                places = np.resize(places, self.batch)
            whole = places[: len(places) // self.batch * self.batch].reshape(-1, self.batch)
            made.append(whole)
            ends.append(whole.max(1))
        if not made:
            return np.zeros((0, self.batch, 2), np.int64)
        return samples[np.concatenate(made)[np.argsort(np.concatenate(ends), kind="stable")]]


class Stream:
    """Folders of shards as one stream of batches; each batch comes from one of them.

    folders: their shares. See `Order` for the rest."""

    def __init__(
        self, folders: Mapping[Path, float], form: str, seed: int, batch: int, window: int = 8, alike: bool = False
    ) -> None:
        if window < 1:
            raise InputError(f"data.window is {window} in the training config; give at least 1.")
        self.folders = [ShardFolder(path, form) for path in folders]
        self.orders = [Order(f.subjects, seed + 7919 * k, batch, window, alike) for k, f in enumerate(self.folders)]
        self.shares = np.array(list(folders.values()), float)
        self.seed = seed
        self._epochs: dict[int, tuple[tuple[int, float, float], np.ndarray]] = {}

    def __len__(self) -> int:
        return sum(len(s) for folder in self.folders for s in folder.subjects)

    def batch(self, number: int, least: float = 1, most: float = math.inf) -> list[PackedSample]:
        """Batch `number` of the run, from 0, with `least` to `most` subjects in each picture."""
        sizes = [order.batches(least, most) for order in self.orders]
        if not any(sizes):
            raise InputError(f"No picture has {least:g} to {most:g} subjects; correct data.curriculum.")
        k, place = self._turn(number, np.where(np.array(sizes) > 0, self.shares, 0))
        epoch, inside = divmod(place, sizes[k])
        key = (epoch, float(least), float(most))
        if k not in self._epochs or self._epochs[k][0] != key:
            self._epochs[k] = key, self.orders[k].epoch(epoch, least, most)
        return [self.folders[k].sample(int(s), int(p)) for s, p in self._epochs[k][1][inside]]

    def _turn(self, number: int, shares: np.ndarray) -> tuple[int, int]:
        """Whose turn it is, and which of its batches comes."""
        if len(shares) == 1:
            return 0, number
        exact = shares / shares.sum() * _CYCLE
        counts = np.floor(exact).astype(int)
        for k in np.argsort(counts - exact, kind="stable")[: _CYCLE - counts.sum()]:
            counts[k] += 1
        cycle, inside = divmod(number, _CYCLE)
        turns = np.random.default_rng((self.seed, cycle, 6)).permutation(np.repeat(np.arange(len(shares)), counts))
        k = int(turns[inside])
        return k, int(cycle * counts[k] + (turns[:inside] == k).sum())


def are_shards(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def opened(folders: Mapping[Path, float], form: str, seed: int, batch: int, window: int, alike: bool) -> Stream | None:
    """The folders as a stream; None where none of them has shards. Raises InputError where only some have."""
    packed = [are_shards(path) for path in folders]
    if not any(packed):
        return None
    if not all(packed):
        other = next(path for path, is_packed in zip(folders, packed, strict=True) if not is_packed)
        raise InputError(
            f"{str(other)!r} has no {INDEX}, other folders of data.folders do; give shards in all of them."
        )
    return Stream(folders, form, seed, batch, window, alike)


# ---- writing -------------------------------------------------------------------------------------


def entries(key: str, files: Mapping[str, bytes]) -> bytes:
    """A sample as it lies in a shard: the entries of its files, `<key>.<name>`. A shard is samples behind each other
    and `END`. The same files give the same bytes: no times, no owners."""
    out = io.BytesIO()
    for name, content in files.items():
        entry = tarfile.TarInfo(f"{key}.{name}")
        entry.size = len(content)
        out.write(entry.tobuf(tarfile.USTAR_FORMAT))
        out.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    return out.getvalue()


END = bytes(2 * tarfile.BLOCKSIZE)


def index_of(form: str, shards: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
    """The index of a folder. shards: name, bytes, and the subjects of each sample; more than that is left alone."""
    return json.dumps({"form": form, **more, "shards": list(shards)}, sort_keys=True).encode() + b"\n"
