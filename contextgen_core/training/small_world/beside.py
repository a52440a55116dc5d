"""What a method reads of encoded scenes besides them: drawn again from the scenes' keys, encoded once, and kept in a
folder of its own within theirs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...errors import InputError
from ..batch import Batch
from ..config import Config
from ..latents import LatentSet, Reader
from ..parts import autoencoder

logger = logging.getLogger("contextgen")
Arrays = dict[str, np.ndarray]
_PORTION = 250  # scenes that a worker draws at a time
_AnySet = TypeVar("_AnySet", bound="SetBeside")


@dataclass(frozen=True, eq=False, kw_only=True)
class SetBeside(LatentSet):
    """Encoded scenes with further fields, which a method's reader makes its batches of."""

    @classmethod
    def of(cls: type[_AnySet], scenes: LatentSet, kept: Arrays) -> _AnySet:
        """Scenes with the further fields, by their names."""
        return cls(**{field.name: getattr(scenes, field.name) for field in fields(LatentSet)}, **kept)

    @classmethod
    def read(cls: type[_AnySet], folder: Path, name: str, kept: Iterable[str], stage: str) -> _AnySet:
        """A set with the fields that ``stage`` kept in the folder ``name`` of it, memory-mapped.

        Raises InputError where they are not there, or are those of other scenes."""
        scenes, beside = LatentSet.load(folder), folder / name
        files = {field: beside / f"{field}.npy" for field in kept}
        if not all(file.is_file() for file in files.values()):
            raise InputError(f"{str(beside)!r} is not there or not whole; run the stage {stage!r} first.")
        arrays = {field: np.load(file, mmap_mode="r") for field, file in files.items()}
        if any(len(array) != len(scenes) for array in arrays.values()):
            raise InputError(f"{str(beside)!r} belongs to other scenes; run the stage {stage!r} again.")
        return cls.of(scenes, arrays)

    def draw(
        self,
        rng: np.random.Generator,
        config: Config,
        done: float = 0.0,
        reader: Reader | None = None,
        number: int = 0,
    ) -> Batch:
        """A random batch; what the reader takes of the further fields is drawn, too."""
        if reader is None:
            raise TypeError("scenes with further fields are drawn by the reader of their method")
        return super().draw(rng, config, done, reader._replace(collate=partial(reader.collate, rng=rng)))


def make_beside(
    config: Config,
    name: str,
    fields: Mapping[str, tuple[int, int] | None],
    portion: Callable[[Config, np.ndarray], Arrays],
) -> int:
    """Makes the fields of all scenes in data.path (or the folders in it that data.folders names), on all cores, and
    keeps them in the folder ``name`` of each set; returns of how many scenes.

    fields   each with the axis that counts members and what fills it up, None where there is no such axis
    portion  of a config and scenes' keys (N, 3), see :class:`..latents.LatentSet`
    """
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder of the encoded scenes.")
    folders = [Path(config.data.path) / inner for inner in config.data.folders] or [Path(config.data.path)]
    autoencoder(config)  # a missing file is told before anything starts
    return sum(_make(config, folder, name, fields, portion) for folder in folders)


def _make(
    config: Config,
    folder: Path,
    name: str,
    fields: Mapping[str, tuple[int, int] | None],
    portion: Callable[[Config, np.ndarray], Arrays],
) -> int:
    keys = np.asarray(LatentSet.load(folder).keys)
    starts = range(0, len(keys), _PORTION)
    work = [config] * len(starts), [keys[start : start + _PORTION] for start in starts]
    workers = min(config.threads or os.cpu_count() or 1, len(starts))
    parts: list[Arrays] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext() as pool:
        for part in (pool.map if pool else map)(portion, *work):
            parts.append(part)
            done = sum(len(next(iter(p.values()))) for p in parts)
            logger.info("%s: %d of %d scenes", folder.name, done, len(keys))
    (folder / name).mkdir(exist_ok=True)
    for field, ragged in fields.items():
        np.save(folder / name / f"{field}.npy", np.concatenate(_alike([part[field] for part in parts], ragged)))
    return len(keys)


def _alike(parts: list[np.ndarray], ragged: tuple[int, int] | None) -> list[np.ndarray]:
    """The parts with as many members each."""
    if ragged is None:
        return parts
    axis, fill = ragged
    most = max(part.shape[axis] for part in parts)
    pads = [[(0, most - part.shape[a] if a == axis else 0) for a in range(part.ndim)] for part in parts]
    return [np.pad(part, pad, constant_values=fill) for part, pad in zip(parts, pads, strict=True)]
